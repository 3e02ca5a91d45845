"""The WASM executor: tasks are modules in the WASM host, a process beside the agent that outlives it.

The host alone imports wasmtime (`wasm_host/engine.py`). There are two places for a host: a task that does not end
after its kill makes its host take no new ones, then the next host comes up in the other place, and the first leaves
when its other tasks are released.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import struct
import sys
import time
from importlib.util import find_spec
from pathlib import Path

from edgerm.core.errors import Conflict, EdgermError, Unavailable
from edgerm.core.ids import TaskKey
from edgerm.plugin.executor import Handle, Inspection, LaunchFailed, LaunchSpec, Limits, Tell, unheard
from edgerm_agent.cgroups import Cgroups, ThreadGroup
from edgerm_agent.executors.holder import Connection, HolderProcess
from edgerm_agent.executors.kept import KeptExecutor
from edgerm_agent.keeper.protocol import Body, Refused

PLACES = ("wasm-host", "wasm-host-2")
ANSWER_S = 20.0
RETRY_S = 0.05
THREAD_EXIT_S = 5.0

NEEDS_64_BIT = "the wasm executor is off: the engine, wasmtime, runs on 64-bit systems only"
NEEDS_WASMTIME = "the wasm executor is off: the package wasmtime is missing: pip install 'edgerm[wasm]'"


def host_command(cgroups: Cgroups) -> tuple[str, ...]:
    """How a WASM host is started: our Python, isolated from the environment and the current directory."""
    joins = [word for path in cgroups.host_paths for word in ("--join", path)]
    return (sys.executable, "-I", "-m", "edgerm_agent.executors.wasm_host", *joins)


def find_problem() -> str | None:
    """Why no module can run on this box, with the remedy; None: they can."""
    if struct.calcsize("P") < 8:
        return NEEDS_64_BIT
    return None if find_spec("wasmtime") else NEEDS_WASMTIME


class WasmExecutor(KeptExecutor):
    """Runs WASM modules (WASI preview 1). The engine limits a task's memory, a group of its thread its CPU."""

    def __init__(self, data_dir: Path, cgroups: Cgroups, *, lifeline: int | None = None) -> None:
        command = host_command(cgroups)
        self._holders = tuple(HolderProcess(data_dir, name, command, lifeline) for name in PLACES)
        super().__init__("wasm", self._holders[0])
        self._cgroups = cgroups
        self._groups: dict[TaskKey, ThreadGroup | None] = {}
        self._able = False  # looked, and found that modules can run: it takes a dozen calls of the kernel

    async def prepare(self, spec: LaunchSpec) -> Body:
        """Look for what can be known before, and make the thread's group."""
        if not self._able and (problem := find_problem()) is not None:
            raise LaunchFailed(problem)
        self._able = True
        module = _module_of(spec)
        group = self._groups[spec.key] = await self._make_group(spec)
        return {
            "module": str(module.absolute()),
            "argv": spec.argv,
            "env": spec.env,
            "sandbox": str(spec.sandbox.absolute()),
            "mounts": [(mount.source, mount.container_path, mount.read_only) for mount in spec.mounts],
            "chips": [chip.path for chip in spec.chips],
            "stdin": None if spec.stdin is None else str(spec.stdin.absolute()),
            "stdin_open": spec.stdin_open,
            "messages": None if spec.messages is None else str(spec.messages.absolute()),
            "entry_point": spec.entry_point,
            "memory_bytes": spec.limits.memory_bytes,
            "threads": group.paths if group else (),
            "cpus": spec.cpus,
        }

    async def _make_group(self, spec: LaunchSpec) -> ThreadGroup | None:
        if spec.cpus:
            await asyncio.to_thread(self._cgroups.enable_cpusets)  # later it might take the thread's CPUs from it
        if spec.limits.cpus_milli is None:
            return None
        try:
            return await asyncio.to_thread(self._cgroups.thread_group, spec.key, spec.limits)
        except Unavailable:
            raise
        except EdgermError as error:
            raise LaunchFailed(str(error)) from error

    async def start(self, spec: LaunchSpec, tell: Tell = unheard) -> Handle:
        """As promised, in a host that takes new tasks. Raises `Unavailable` if neither place has one."""
        elsewhere = await self._find_elsewhere(spec.key)
        if elsewhere is not None:
            return elsewhere
        tried = self.holder
        try:
            return await super().start(spec, tell)
        except Unavailable as error:
            if not isinstance(error.__cause__, Refused):
                raise
        if self.holder is tried:  # of many that are refused at once, one moves on
            self.holder = self._other()
        return await super().start(spec, tell)

    def _file(self, holder: HolderProcess, suffix: str) -> Path:
        return holder.data_dir / f"{PLACES[self._holders.index(holder)]}.{suffix}"

    def _other(self) -> HolderProcess:
        first, second = self._holders
        return second if self.holder is first else first

    async def _find_elsewhere(self, key: TaskKey) -> Handle | None:
        """The task's handle if the host in the other place has it: an earlier start's reply may have been lost."""
        other = self._other()
        if not self._file(other, "sock").exists():  # the usual case, at the price of a stat
            return None
        connection = await other.connect()
        if connection is None:
            return None
        try:
            reply, _ = await connection.call("describe", key=key)
        except Refused:
            return None
        return None if reply.get("state") == "starting" else Handle(key, self.name, connection.instance)

    async def _reach(self, handle: Handle) -> Connection | None:
        until = asyncio.get_running_loop().time() + ANSWER_S
        while True:
            silent = []
            for holder in sorted(self._holders, key=lambda holder: holder is not self.holder):
                connection = await holder.connect()
                if connection is not None and connection.instance == handle.instance:
                    return connection
                lock = self._file(holder, "lock")
                if connection is None and _held(lock):
                    silent.append(lock)
            if not silent:
                return None
            if asyncio.get_running_loop().time() > until:
                raise Unavailable(f"a WASM host is there ({silent[0]}) but does not answer")
            await asyncio.sleep(RETRY_S)  # it starts, or it ends

    async def bury(self, key: TaskKey) -> None:
        """Nothing: its lock is free, so all threads of the host are gone."""

    async def clean(self, key: TaskKey) -> None:
        """Remove the thread's group, made by us or by an agent before us."""
        known = key in self._groups
        group = self._groups.pop(key, None)
        if not known:
            group = await asyncio.to_thread(self._cgroups.thread_group, key, Limits())
        if group is not None:
            await asyncio.to_thread(remove_group, group)

    async def living(self) -> list[Connection]:
        connections = [await holder.connect() for holder in self._holders]
        return [connection for connection in connections if connection is not None]

    async def inspect(self) -> Inspection:
        problem = find_problem()
        cpus = self._cgroups.enforced().get("cpus", "none")
        enforced = {"cpus": cpus, "cpuset": "affinity", "mem": "wasm", "disk": "polled"}
        return Inspection(enforced, (problem,) if problem else (), await self.held())

    async def awake(self) -> bool:
        """Whether a host that takes new tasks is there, or about to be; none is started."""
        return await self.holder.connect() is not None or _held(self._file(self.holder, "lock"))

    async def sleep(self) -> str:
        """End the hosts that hold nothing; the instance that takes new tasks then, empty: the next task starts one."""
        await self._other().retire()
        return await self.holder.retire()

    async def shutdown(self, *, force: bool) -> None:
        """End the hosts, with `force` their tasks first. Raises `Refused` if one holds tasks."""
        for holder in self._holders:
            await holder.shutdown(force=force)

    async def end_tasks(self) -> None:
        await self.shutdown(force=True)

    async def close(self) -> None:
        await super().close()
        await self._other().close()


def remove_group(group: ThreadGroup) -> None:
    """Remove a thread's group; the kernel counts the thread as in it for a moment after its end. Raises `Conflict`."""
    until = time.monotonic() + THREAD_EXIT_S
    while True:
        try:
            return group.remove()
        except Conflict:
            if time.monotonic() > until:
                raise
        time.sleep(THREAD_EXIT_S / 500)


def _held(lock: Path) -> bool:
    """Whether a process holds this lock; the kernel frees it when the last of its threads is gone."""
    try:
        fd = os.open(lock, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def _module_of(spec: LaunchSpec) -> Path:
    """What is to be run; raises `LaunchFailed` if that, or anything else that the task needs, is not there."""
    if spec.module is None:
        raise LaunchFailed(f"task {spec.key.task_id} names no WASM module")
    if not spec.module.is_file():
        raise LaunchFailed(f"there is no WASM module {spec.module}")
    if spec.stdin is not None and not spec.stdin.is_file():  # a FIFO would hold the thread up for ever
        raise LaunchFailed(f"stdin {spec.stdin} is no file")
    for mount in spec.mounts:
        if not Path(mount.source).is_dir():
            raise LaunchFailed(f"a module can be given directories only, and {mount.source} is none")
    return spec.module
