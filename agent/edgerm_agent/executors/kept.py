"""What executors share whose tasks are held by a process of ours: waiting, stopping, adopting, output, release.

Not here: what `start` must say to the process; `process.py` and `wasm.py` know.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from contextlib import suppress

from edgerm.core.errors import NotFound, Unavailable
from edgerm.core.ids import FrameworkId, LaunchId, TaskId, TaskKey
from edgerm.plugin.executor import (
    Chunk,
    Exit,
    ExitReason,
    Handle,
    Intake,
    LaunchFailed,
    LaunchSpec,
    Stream,
    Tell,
    Usage,
    unheard,
)
from edgerm_agent.executors.holder import Connection, ConnectionLost, HolderProcess
from edgerm_agent.executors.quota import Quotas
from edgerm_agent.keeper import protocol
from edgerm_agent.keeper.protocol import Body, Refused

END_GRACE_S = 3.0
OUTPUT_WAIT_S = 30.0  # one request; the server allows 60
NEWER = {  # of a start request: what an older holder would overlook, and from which version on it does not
    "stdin_open": protocol.VERSION_INPUT,
    "mounts": protocol.VERSION_INPUT,
    "messages": protocol.VERSION_INPUT,
    "cpus": protocol.VERSION_PLACE,
    "network": protocol.VERSION_PLACE,
    "chips": protocol.VERSION_PLACE,
}
TOO_OLD = (
    "what holds the tasks of this agent was started by an older edgerm, which does not know {} of a task: end its "
    "tasks and start the agent anew"
)


class KeptExecutor(ABC):
    """An executor on a `HolderProcess`; see `edgerm.plugin.executor.Executor` for what each verb promises."""

    def __init__(self, name: str, holder: HolderProcess) -> None:
        self.name = name
        self.holder = holder
        self._quotas = Quotas(self._over_quota)

    @abstractmethod
    async def prepare(self, spec: LaunchSpec) -> Body:
        """What the `start` request says beside key and note. Raises `LaunchFailed`."""

    @abstractmethod
    async def bury(self, key: TaskKey) -> None:
        """The task's holder is gone: return when nothing of the task is left."""

    async def refine(self, handle: Handle, exit_: Exit) -> Exit:
        """What the agent knows better about an exit than the holder."""
        return exit_

    @abstractmethod
    async def clean(self, key: TaskKey) -> None:
        """The task was released or never started: remove what `prepare` made."""

    async def start(self, spec: LaunchSpec, tell: Tell = unheard) -> Handle:
        body = await self.prepare(spec)
        connection = await self.holder.ensure()
        unknown = [name for name, version in NEWER.items() if body.get(name) and connection.version < version]
        if unknown:
            await self.clean(spec.key)
            raise LaunchFailed(TOO_OLD.format(" and ".join(unknown)))
        note: Body = {"sandbox": str(spec.sandbox), "disk_bytes": spec.limits.disk_bytes}
        try:
            reply, _ = await connection.ask("start", {"key": spec.key, "note": note, **body})
        except Refused as error:
            if error.code in (protocol.BUSY, protocol.INTERNAL):
                raise Unavailable(str(error)) from error
            await self.clean(spec.key)
            raise LaunchFailed(str(error)) from error
        self._watch_quota(spec.key, note)
        pid = reply.get("pid")
        return Handle(spec.key, self.name, connection.instance, pid if isinstance(pid, int) else None)

    async def abandon(self, key: TaskKey) -> None:  # noqa: B027 - that it does nothing is what all of these need
        """Nothing: a start takes no time here."""

    async def wait(self, handle: Handle) -> Exit:
        while (connection := await self._reach(handle)) is not None:
            try:
                reply, _ = await connection.call("wait", key=handle.key)
            except ConnectionLost:
                continue
            except Refused as error:
                raise NotFound(str(error)) from error
            self._quotas.forget(handle.key)
            return await self.refine(handle, exit_from(reply["exit"]))
        self._quotas.forget(handle.key)
        await self.bury(handle.key)
        return Exit(ExitReason.EXECUTOR_DIED, message=f"the process that held the task ({self.name}) died")

    async def stop(self, handle: Handle, grace_s: float) -> None:
        connection = await self._reach(handle)
        if connection is not None:
            with suppress(Refused):  # not held: there is nothing to stop
                await connection.call("stop", key=handle.key, grace_s=grace_s)

    async def adopt(self, handle: Handle) -> bool:
        """As promised; when the answer is False, nothing of the task is left."""
        connection = await self._reach(handle)
        if connection is not None:
            try:
                reply, _ = await connection.call("describe", key=handle.key)
            except Refused:
                return False
            note = reply.get("note")
            if isinstance(note, dict) and reply.get("state") != "ended":
                self._watch_quota(handle.key, note)
            return True
        await self.bury(handle.key)
        return False

    async def release(self, handle: Handle) -> None:
        connection = await self._reach(handle)
        if connection is not None:
            try:
                await connection.call("release", key=handle.key)
            except Refused as error:
                raise Unavailable(str(error)) from error
        self._quotas.forget(handle.key)
        await self.clean(handle.key)

    async def output(self, handle: Handle, stream: Stream, offset: int, max_bytes: int, wait_s: float) -> Chunk:
        connection = await self._reach(handle)
        if connection is None:
            raise NotFound(f"the output of task {handle.key} went with the process that held it")
        limit = min(max_bytes, protocol.PAYLOAD_BYTES_MAX)
        until = asyncio.get_running_loop().time() + wait_s
        while True:
            left_s = max(0.0, until - asyncio.get_running_loop().time())
            try:
                reply, data = await connection.call(
                    "output", key=handle.key, stream=stream, offset=offset, max=limit, wait_s=min(left_s, OUTPUT_WAIT_S)
                )
            except Refused as error:
                raise NotFound(str(error)) from error
            ended, at = bool(reply.get("ended")), reply.get("offset")
            if data or ended or left_s <= OUTPUT_WAIT_S:
                return Chunk(at if isinstance(at, int) else 0, data, ended)

    async def put_input(self, handle: Handle, offset: int, data: bytes, end: bool, wait_s: float) -> Intake:
        connection = await self._reach(handle)
        if connection is None:
            raise NotFound(f"the process that held task {handle.key} is gone")
        try:
            wait_s = min(wait_s, OUTPUT_WAIT_S)
            reply, _ = await connection.ask(
                "input", {"key": handle.key, "offset": offset, "end": end, "wait_s": wait_s}, data
            )
        except Refused as error:
            raise NotFound(str(error)) from error
        at = reply.get("offset")
        return Intake(at if isinstance(at, int) else 0, bool(reply.get("closed")))

    async def usage(self, handle: Handle) -> Usage | None:
        connection = await self._reach(handle)
        if connection is None:
            return None
        try:
            reply, _ = await connection.call("usage", key=handle.key)
        except Refused:
            return None
        cpu_s, memory_bytes = reply.get("cpu_s"), reply.get("memory_bytes")
        if not isinstance(cpu_s, (int, float)) or not isinstance(memory_bytes, int):
            return None
        return Usage(float(cpu_s), memory_bytes)

    async def instance(self) -> str:
        """See `base.OwnExecutor`."""
        return (await self.holder.ensure()).instance

    async def lost(self, instance: str) -> None:
        """See `base.OwnExecutor`."""
        connection = await self.holder.ensure()
        if connection.instance == instance:
            await connection.lost.wait()

    async def end_tasks(self) -> None:
        """See `base.OwnExecutor`."""
        await self.holder.shutdown(force=True, grace_s=END_GRACE_S)

    async def held(self) -> tuple[Handle, ...]:
        """All that living holders hold."""
        return tuple([handle for connection in await self.living() for handle in await self._held_by(connection)])

    async def _held_by(self, connection: Connection) -> list[Handle]:
        handles: list[Handle] = []
        more = True
        while more:
            reply, _ = await connection.call("list", after=handles[-1].key if handles else None)
            tasks = reply["tasks"]
            assert isinstance(tasks, list)
            handles += [Handle(_key(task["key"]), self.name, connection.instance, task["pid"]) for task in tasks]
            more = bool(reply.get("more")) and bool(tasks)
        return handles

    async def living(self) -> list[Connection]:
        """Connections to the processes that may hold tasks; an executor may have more than one."""
        connection = await self.holder.connect()
        return [] if connection is None else [connection]

    async def close(self) -> None:
        """Disconnect; the tasks go on."""
        await self._quotas.close()
        await self.holder.close()

    async def _reach(self, handle: Handle) -> Connection | None:
        """A connection to the very process that has the task; None: that process is gone."""
        connection = await self.holder.ensure()
        return connection if connection.instance == handle.instance else None

    def _watch_quota(self, key: TaskKey, note: Body) -> None:
        sandbox, disk_bytes = note.get("sandbox"), note.get("disk_bytes")
        if isinstance(sandbox, str) and isinstance(disk_bytes, int):
            self._quotas.watch(key, sandbox, disk_bytes)

    async def _over_quota(self, key: TaskKey, message: str) -> None:
        for connection in await self.living():
            with suppress(Refused, Unavailable):
                await connection.call("stop", key=key, grace_s=0, reason=ExitReason.DISK.value, message=message)


def _key(parts: list[str]) -> TaskKey:
    framework_id, task_id, launch_id = parts
    return TaskKey(FrameworkId(framework_id), TaskId(task_id), LaunchId(launch_id))


def exit_from(body: object) -> Exit:
    """An exit as the protocol tells it; a reason that a newer holder invented counts as a plain end."""
    assert isinstance(body, dict)
    try:
        reason = ExitReason(body.get("reason"))
    except ValueError:
        reason = ExitReason.ENDED
    code, signal, trap = body.get("code"), body.get("signal"), body.get("trap")
    return Exit(
        reason,
        code if isinstance(code, int) else None,
        signal if isinstance(signal, int) else None,
        trap if isinstance(trap, str) else None,
        str(body.get("message", "")),
        str(body.get("tail", "")),
    )
