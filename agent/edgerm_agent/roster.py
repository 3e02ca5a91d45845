"""Which executors this agent has, what they hold from before, and which process is behind each.

What does not live here: what is done with a task (`tasks.py`), how an executor works (`executors/`).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from edgerm import logs
from edgerm.core.errors import EdgermError, Unavailable
from edgerm.core.ids import AgentId, TaskKey
from edgerm.plugin.executor import Handle
from edgerm_agent.cgroups import Cgroups, open_cgroups
from edgerm_agent.config import Process
from edgerm_agent.executors.process import NEEDS_USER, ProcessExecutor
from edgerm_agent.executors.wasm import WasmExecutor

RETRY_FIRST_S = 1.0
RETRY_MAX_S = 60.0
END_GRACE_S = 3.0
END_S = 20.0
SCOPE_CHARACTERS = 8

Kept: TypeAlias = ProcessExecutor | WasmExecutor
log = logs.get("agent.roster")


@dataclass(frozen=True, slots=True)
class Findings:
    """What was found at the start."""

    enforced: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # by executor that takes tasks
    instances: Mapping[str, str] = field(default_factory=dict)  # likewise
    held: Mapping[TaskKey, Handle] = field(default_factory=dict)  # by any executor, also one that is off now


class Roster:
    """The executors of one agent. One that is off takes no new tasks; those that it still holds are looked after."""

    def __init__(self, data_dir: Path, agent_id: AgentId, process: Process, lifeline: int | None = None) -> None:
        self._cgroups = open_cgroups(agent_id[:SCOPE_CHARACTERS])
        self._off = {} if process.enabled else {"process": "executors.process.enabled is false"}
        user = process.user or None
        kinds: list[Kept] = [
            ProcessExecutor(data_dir, self._cgroups, user=user, lifeline=lifeline),
            WasmExecutor(data_dir, self._cgroups, lifeline=lifeline),
        ]
        self.executors: dict[str, Kept] = {executor.name: executor for executor in kinds}
        self._instances: dict[str, str] = {}
        self._changed: Callable[[str, str], None] = lambda name, instance: None
        self._watches: dict[str, asyncio.Task[None]] = {}

    async def find(self) -> Findings:
        """Ask every executor what it can do and holds, and bring up the processes of those that take tasks.

        Raises `Unavailable` if a process that may hold tasks does not answer: without it nobody knows what runs.
        """
        enforced: dict[str, Mapping[str, str]] = {}
        held: dict[TaskKey, Handle] = {}
        for name, executor in self.executors.items():
            inspection = await executor.inspect()
            held |= {handle.key: handle for handle in inspection.held}
            problems = (self._off[name],) if name in self._off else inspection.problems
            if problems:
                log.info("an executor is off", executor=name, why="; ".join(problems))
                continue
            self._instances[name] = (await executor.holder.ensure()).instance
            enforced[name] = inspection.enforced
        return Findings(enforced, dict(self._instances), held)

    def clear_orphans(self, known: Collection[TaskKey]) -> None:
        """Kill and remove what is in groups of tasks that nobody knows; blocks."""
        for group in self._cgroups.orphans(known):
            log.info("the group of a task that nobody knows is removed", group=str(group))
            with suppress(EdgermError, OSError):
                group.kill()
                group.remove()
        for threads in self._cgroups.orphan_threads(known):
            with suppress(EdgermError, OSError):
                threads.remove()

    async def instance(self, name: str) -> str:
        """The process behind an executor now, started if there is none. Raises `Unavailable`."""
        return (await self.executors[name].holder.ensure()).instance

    def watch(self, changed: Callable[[str, str], None]) -> None:
        """From now on `changed(executor, instance)` tells of every new instance; one that dies is started anew."""
        self._changed = changed
        for name in self._instances:
            self._watches[name] = asyncio.create_task(self._watch(name), name=f"watch {name}")

    def seen(self, handle: Handle) -> None:
        """A task was started by this instance: an executor may have moved on to a second process."""
        if handle.executor in self._watches and self._instances[handle.executor] != handle.instance:
            self._watches[handle.executor].cancel()
            self._tell(handle.executor, handle.instance)
            self._watches[handle.executor] = asyncio.create_task(self._watch(handle.executor))

    async def end_tasks(self) -> None:
        """End all tasks and the processes that hold them; no group of ours is left."""
        for task in self._watches.values():
            task.cancel()
        kinds = self.executors.values()
        results = await asyncio.gather(*(_end(executor) for executor in kinds), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                log.warning("tasks could not be ended", error=str(result))
        await asyncio.to_thread(self._clear_groups)

    async def close(self) -> None:
        """Leave the executors; their tasks go on."""
        for task in self._watches.values():
            task.cancel()
        await asyncio.gather(*self._watches.values(), return_exceptions=True)
        for executor in self.executors.values():
            await executor.close()

    def _clear_groups(self) -> None:
        self.clear_orphans(())
        self._cgroups.discard()

    async def _watch(self, name: str) -> None:
        wait_s = RETRY_FIRST_S
        while True:
            try:
                connection = await self.executors[name].holder.ensure()
            except Unavailable as error:
                log.warning("an executor does not start", executor=name, error=str(error))
                await asyncio.sleep(wait_s)
                wait_s = min(2 * wait_s, RETRY_MAX_S)
                continue
            if connection.instance != self._instances[name]:
                self._tell(name, connection.instance)
            began = asyncio.get_running_loop().time()
            await connection.lost.wait()
            if asyncio.get_running_loop().time() - began < RETRY_MAX_S:  # it dies again and again: not at full speed
                await asyncio.sleep(wait_s)
                wait_s = min(2 * wait_s, RETRY_MAX_S)
            else:
                wait_s = RETRY_FIRST_S

    def _tell(self, name: str, instance: str) -> None:
        log.warning("an executor has a new process", executor=name)
        self._instances[name] = instance
        self._changed(name, instance)


async def _end(executor: Kept) -> None:
    async with asyncio.timeout(END_S):
        if isinstance(executor, WasmExecutor):
            await executor.shutdown(force=True)
        else:
            await executor.holder.shutdown(force=True, grace_s=END_GRACE_S)


def limits_here() -> Cgroups:
    """This box's groups for a look only."""
    return open_cgroups("doctor")


def process_problem(process: Process) -> str | None:
    """Why process tasks are off, as far as the settings tell; None: they are on."""
    if not process.enabled:
        return "executors.process.enabled is false"
    return NEEDS_USER if os.geteuid() == 0 and not process.user else None
