"""The docker executor: what each verb of `edgerm.plugin.executor.Executor` means to a Docker engine."""

from __future__ import annotations

import asyncio
from typing import Any

from edgerm import logs
from edgerm.core.errors import NotFound, Unavailable
from edgerm.core.ids import AgentId, TaskKey
from edgerm.plugin.executor import (
    Chunk,
    Exit,
    Handle,
    Inspection,
    Intake,
    LaunchSpec,
    Stream,
    Tell,
    Usage,
    unheard,
)
from edgerm_agent.cgroups import containers
from edgerm_agent.executors.docker import container
from edgerm_agent.executors.docker.ends import Ends
from edgerm_agent.executors.docker.engine import Engine, EngineError
from edgerm_agent.executors.docker.held import Held, ask, is_set, is_task
from edgerm_agent.executors.docker.input import Input
from edgerm_agent.executors.docker.logs import READ_BYTES_MAX, Logs, Place
from edgerm_agent.executors.docker.networks import Networks
from edgerm_agent.executors.docker.pulls import Pulls
from edgerm_agent.executors.docker.starts import Starts
from edgerm_agent.executors.docker.watch import Watch
from edgerm_agent.executors.quota import Quotas

ALIVE = ("running", "paused", "restarting")
END_OF_LOG_S = 5.0  # the engine tells the end of a log before that of its container

Json = dict[str, Any]
log = logs.get("agent.docker")


class DockerExecutor:
    """Runs containers on the engine at `url`; they and their exits stay with it until they are released.

    `privileged`: parameters that give a container rights over the box are allowed. While the engine is away every verb
    raises `Unavailable`, which says so; but `start` tells it and waits, and `wait` waits.
    """

    name = "docker"

    def __init__(
        self,
        agent_id: AgentId,
        url: str,
        *,
        privileged: bool = False,
        pull_stall_s: float = 60.0,
        log_bytes: int = 10 << 20,
    ) -> None:
        self._agent_id = agent_id
        self._privileged = privileged
        self._log_bytes = log_bytes
        self._label = f"{container.AGENT}={agent_id}"
        self._engine = Engine(url)
        self._watch = Watch(self._engine, self._label, self._happened, self._look)
        self._pulls = Pulls(self._engine, pull_stall_s)
        self._logs = Logs(self._engine)
        self._quotas = Quotas(self._over_quota)
        self._held: dict[TaskKey, Held] = {}
        self._starts = Starts(agent_id, self._engine, self._watch, self._pulls, self._held, self._body)
        self._ends = Ends(self._engine, self._watch)
        self._networks = Networks(agent_id, self._engine, self._watch)

    # --- which engine ---

    async def instance(self) -> str:
        """The engine's ID, which it keeps over restarts. Raises `Unavailable`."""
        return str((await self._watch.ensure())["ID"])

    async def lost(self, instance: str) -> None:
        """Return when this engine is away, or is another one now."""
        if await self.instance() == instance:
            await self._watch.went()

    async def inspect(self) -> Inspection:
        """As promised; containers that were made and never started are removed, they will be made again."""
        info = await self._watch.ensure()
        instance, held = str(info["ID"]), []
        for found in await self._find():
            key = container.key_of(found.get("Labels"))
            if key is None or key in self._starts:
                continue
            if found["State"] == "created":
                await self._remove_unstarted(found["Id"])
            elif found["State"] != "removing":
                held.append(Handle(key, self.name, instance))
        version = f"cgroup-v{info.get('CgroupVersion') or 1}"
        enforced = {
            "cpus": version if info.get("CpuCfsQuota") else "none",
            "cpuset": version if info.get("CPUSet") else "none",
            "mem": version if info.get("MemoryLimit") else "none",
            "disk": "polled",
        }
        return Inspection(enforced, (), tuple(held))

    async def _find(self) -> list[Json]:
        try:
            return await self._engine.find(self._label)
        except EngineError as error:
            raise Unavailable(f"the Docker engine does not list its containers: {error}") from error

    async def _remove_unstarted(self, name: str) -> None:
        try:
            await self._engine.remove(name)
        except EngineError as error:
            log.info("a container that was never started stays", container=name, error=str(error))

    # --- start ---

    async def start(self, spec: LaunchSpec, tell: Tell = unheard) -> Handle:
        if spec.key in self._held and spec.key not in self._starts:
            return Handle(spec.key, self.name, await self.instance())
        handle = await self._starts.start(spec, tell)
        if spec.limits.disk_bytes is not None:
            self._quotas.watch(spec.key, str(spec.sandbox), spec.limits.disk_bytes)
        return handle

    async def abandon(self, key: TaskKey) -> None:
        self._starts.abandon(key)

    async def network(self, key: TaskKey) -> str:
        """As `Networks`. Raises `Conflict` for an engine that is not on this box."""
        return await self._networks.make(key)

    async def drop_network(self, key: TaskKey) -> None:
        """As `Networks`."""
        await self._networks.drop(key)

    def _body(self, spec: LaunchSpec, info: Json) -> Json:
        return container.body_of(
            self._agent_id,
            spec,
            privileged=self._privileged,
            log_bytes=self._log_bytes,
            cpus=int(info.get("NCPU") or 1),
        )

    # --- how it ends ---

    async def wait(self, handle: Handle) -> Exit:
        held = await self._take(handle)
        if held is None:
            raise NotFound(f"the Docker engine holds no container of task {handle.key}")
        await held.ended.wait()
        if held.exit is None:
            held.exit = asyncio.create_task(self._ends.read(held))
            self._quotas.forget(handle.key)
        return await asyncio.shield(held.exit)

    def _happened(self, event: Json) -> None:
        """One event of the engine (Engine API, SystemEvents)."""
        actor = event.get("Actor") or {}
        key = container.key_of(actor.get("Attributes"))
        held = self._held.get(key) if key is not None else None
        if held is None:
            return
        if event.get("Action") == "oom":
            held.oom.set()
        elif not held.ended.is_set():  # it died, or was removed
            held.ended.set()

    async def _look(self) -> None:
        """Catch up after a (re)connection."""
        known = [(key, held) for key, held in self._held.items() if not held.starting]  # what starts meanwhile is newer
        found = {container.key_of(entry.get("Labels")): entry["State"] for entry in await self._find()}
        for key, held in known:
            if found.get(key) not in ALIVE:
                held.ended.set()

    async def stop(self, handle: Handle, grace_s: float) -> None:
        held = await self._take(handle)
        if held is not None:
            await self._ends.stop(held, grace_s)

    async def _over_quota(self, key: TaskKey, message: str) -> None:
        held = self._held.get(key)
        if held is not None and not held.ended.is_set():
            held.over_quota = message
            await self._ends.kill(held, 0)

    # --- what is held ---

    async def adopt(self, handle: Handle) -> bool:
        return await self._take(handle) is not None

    async def _take(self, handle: Handle) -> Held | None:
        """The container of a handle, found anew if an earlier agent started it; None if it is not there."""
        if handle.instance != await self.instance():
            return None
        held = self._held.get(handle.key)
        if held is not None:
            return held
        name = container.name_of(self._agent_id, handle.key)
        found = await ask(self._engine.inspect(name))
        if found is None or not is_task(found, self._agent_id, handle.key) or found["State"]["Status"] == "created":
            return None
        held = self._held.setdefault(handle.key, Held(name, found["Id"]))
        if not found["State"]["Running"]:
            held.ended.set()
        labels = found["Config"]["Labels"]
        if container.DISK in labels and not held.ended.is_set():
            self._quotas.watch(handle.key, labels[container.SANDBOX], int(labels[container.DISK]))
        return held

    async def release(self, handle: Handle) -> None:
        """As promised; raises `Unavailable` while the container runs."""
        held = await self._take(handle)
        if held is None:
            return
        if not held.ended.is_set():
            raise Unavailable(f"the container of task {handle.key} has not ended")
        await ask(self._engine.remove(held.name, force=True))  # somebody may have started it again
        self._forget(handle.key)

    def _forget(self, key: TaskKey) -> None:
        self._quotas.forget(key)
        self._logs.forget(key)
        held = self._held.pop(key, None)
        if held is not None and held.killer is not None:
            held.killer.cancel()
        if held is not None and held.input is not None:
            held.input.close()

    async def output(self, handle: Handle, stream: Stream, offset: int, max_bytes: int, wait_s: float) -> Chunk:
        """As promised, of what the engine has kept; see `logs` for what follows when it has dropped some."""
        held = await self._take(handle)
        if held is None:
            raise NotFound(f"the Docker engine holds no container of task {handle.key}, nor its output")
        if stream in held.silent:
            return Chunk(0, b"", True)
        ended = held.ended.is_set()
        if offset < 0:
            total, data = await ask(self._engine.tail(held.name, stream, min(-offset, READ_BYTES_MAX), "all"))
            if -offset <= READ_BYTES_MAX and data:
                return Chunk(total - len(data), data[:max_bytes], ended and len(data) <= max_bytes)
            offset = max(total + offset, 0)
        place = Place(handle.key, stream, not ended and wait_s > 0, offset)
        at, data, over = await ask(self._logs.read(held.name, place, max_bytes, wait_s))
        if over and place.follow:
            ended = await is_set(held.ended, min(wait_s, END_OF_LOG_S))
        return Chunk(at, data, over and ended)

    async def put_input(self, handle: Handle, offset: int, data: bytes, end: bool, wait_s: float) -> Intake:
        """As promised, while this agent runs: the engine closes the input of a container whose agent goes."""
        held = await self._take(handle)
        if held is None or held.ended.is_set():
            raise NotFound(f"the container of task {handle.key} has ended: nobody reads its input")
        if held.input is None:
            held.input = await self._attach(held)
        return await held.input.put(offset, data, end, wait_s)

    async def _attach(self, held: Held) -> Input:
        found = await ask(self._engine.inspect(held.name))
        if found is None or not found["Config"].get("OpenStdin"):
            raise NotFound("the task was not started with an open standard input")
        connection = Input(await ask(self._engine.attach_input(held.name)))
        if not held.ours:
            connection.close()
            raise NotFound("the container's input was closed when its agent was started anew")
        if held.input is not None:  # somebody else was faster
            connection.close()
            return held.input
        return connection

    async def usage(self, handle: Handle) -> Usage | None:
        held = await self._take(handle)
        if held is None or held.ended.is_set():
            return None
        if held.group is None:
            held.group = containers.find_group(held.id)
        if held.group is not None:
            return containers.read_group(held.group)
        stats = await ask(self._engine.stats(held.name))  # an engine elsewhere, or in a hierarchy of its own
        return container.usage_of(stats) if stats else None

    # --- the end ---

    async def end_tasks(self) -> None:
        """Remove all containers of this agent. Raises `Unavailable`."""
        await self._starts.cancel()
        await self._watch.ensure()
        names = [entry["Id"] for entry in await self._find()]
        await asyncio.gather(*(ask(self._engine.remove(name, force=True)) for name in names))

    async def remove_images(self) -> None:
        """Remove the images that were made here and that no container uses. Raises `Unavailable`."""
        await self._networks.remove_images()

    async def close(self) -> None:
        """Disconnect; the containers go on."""
        await self._starts.cancel()
        tasks: list[asyncio.Task[Any]] = []
        for held in self._held.values():
            tasks += [task for task in (held.killer, held.exit) if task is not None]
            if held.input is not None:
                held.input.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._quotas.close()
        self._logs.close()
        await self._watch.close()
        self._engine.close()
