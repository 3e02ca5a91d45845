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
from typing import TYPE_CHECKING

from edgerm import logs
from edgerm.core.errors import EdgermError, Unavailable
from edgerm.core.ids import AgentId, TaskKey
from edgerm.plugin.executor import Handle
from edgerm_agent import engines
from edgerm_agent.cgroups import Cgroups, open_cgroups
from edgerm_agent.config import Docker, Process, Wasm
from edgerm_agent.core.effects import Sleep
from edgerm_agent.executors.base import OwnExecutor
from edgerm_agent.executors.process import NEEDS_USER, ProcessExecutor
from edgerm_agent.executors.wasm import WasmExecutor

if TYPE_CHECKING:
    from edgerm_agent.executors.docker.executor import DockerExecutor

RETRY_FIRST_S = 1.0
RETRY_MAX_S = 60.0
LOOK_S = 30.0  # an engine that is not there is looked for again so often
ENGINE_S = 10.0  # so long the agent's start waits for an engine
END_S = 20.0
SCOPE_CHARACTERS = 8
DOCKER = "docker"
NO_PACKAGE = "the docker package is missing: pip install 'edgerm[docker]'"

log = logs.get("agent.roster")


@dataclass(frozen=True, slots=True)
class Findings:
    """What was found at the start."""

    enforced: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # by executor that takes tasks
    instances: Mapping[str, str] = field(default_factory=dict)  # likewise; empty: it sleeps
    held: Mapping[TaskKey, Handle] = field(default_factory=dict)  # by any executor, also one that is off now
    awaited: Mapping[str, str] = field(default_factory=dict)  # executors that may hold tasks but do not answer → why


class Roster:
    """The executors of one agent. One that is off takes no new tasks; those that it still holds are looked after.

    `docker`: None for an agent without containers, whatever is on the box. `needed`: executors that the journal's
    tasks are on; they are asked even if there seems to be nothing. `wasm`: whether its host may sleep.
    """

    def __init__(
        self,
        data_dir: Path,
        agent_id: AgentId,
        process: Process,
        lifeline: int | None = None,
        *,
        docker: Docker | None = None,
        wasm: Wasm = Wasm(),  # noqa: B008 - frozen
        needed: Collection[str] = (),
    ) -> None:
        self._agent_id = agent_id
        self._cgroups = open_cgroups(agent_id[:SCOPE_CHARACTERS])
        self._off = {} if process.enabled else {"process": "executors.process.enabled is false"}
        self._docker = docker
        self._needed = needed
        self._why: dict[str, str] = {}  # what was said of executors that are off
        user = process.user or None
        self._wasm = WasmExecutor(data_dir, self._cgroups, lifeline=lifeline)
        self._sleepy = wasm.idle_s > 0
        self._process = self._keeper(data_dir, user, lifeline)
        kinds: list[OwnExecutor] = [self._process, self._wasm]
        self.executors: dict[str, OwnExecutor] = {executor.name: executor for executor in kinds}
        self._instances: dict[str, str] = {}
        self._changed: Callable[[str, str], None] = lambda name, instance: None
        self._watches: dict[str, asyncio.Task[None]] = {}
        self._search: asyncio.Task[None] | None = None
        self._falling: asyncio.Task[None] | None = None  # asleep

    def _keeper(self, data_dir: Path, user: str | None, lifeline: int | None) -> ProcessExecutor:
        """The executor with the keeper, which at the end of the lifeline removes the containers too."""
        address = self._docker.address if self._docker is not None else ""
        self._farewell = lifeline is not None and address.startswith(engines.UNIX)
        label = f"edgerm.agent={self._agent_id}"
        options = ("--engine", address.removeprefix(engines.UNIX), "--label", label) if self._farewell else ()
        return ProcessExecutor(data_dir, self._cgroups, user=user, lifeline=lifeline, farewell=options)

    async def find(self) -> Findings:
        """Ask every executor what it can do and holds, and bring up the processes of those that take tasks.

        A WASM host that may sleep is not brought up: what holds tasks is there already.

        Raises `Unavailable` if a process of ours that may hold tasks does not answer: without it nobody knows what
        runs. An engine that does not answer is awaited.
        """
        found = Findings({}, {}, {}, {})
        for name in tuple(self.executors):
            found = _joined(found, await self._ask(name))
        if self._docker is not None and (self._docker.enabled or DOCKER in self._needed):
            found = _joined(found, await self._ask_engine(self._docker))
        return found

    async def _ask(self, name: str) -> Findings:
        executor = self.executors[name]
        inspection = await executor.inspect()
        held = {handle.key: handle for handle in inspection.held}
        problems = (self._off[name],) if name in self._off else inspection.problems
        if problems:
            self._say_off(name, "; ".join(problems))
            return Findings(held=held)
        asleep = executor is self._wasm and self._sleepy and not await self._wasm.awake()
        self._instances[name] = "" if asleep else await executor.instance()
        return Findings({name: inspection.enforced}, {name: self._instances[name]}, held)

    def _say_off(self, name: str, why: str) -> None:
        if self._why.get(name) != why:
            self._why[name] = why
            log.info("an executor takes no tasks", executor=name, reason=why)

    # --- the engine ---

    async def _ask_engine(self, settings: Docker) -> Findings:
        """What is found now; nothing if there is no engine that could hold tasks."""
        if DOCKER not in self.executors and not await self._make_docker(settings):
            return Findings()
        if not settings.enabled:
            self._off[DOCKER] = "executors.docker.enabled is false"
        try:
            async with asyncio.timeout(ENGINE_S):
                return await self._ask(DOCKER)
        except (EdgermError, TimeoutError) as error:
            why = str(error) or f"waits for the Docker engine at {settings.address}: it does not answer"
            self._say_off(DOCKER, why)
            return Findings(awaited={DOCKER: why})

    async def _make_docker(self, settings: Docker) -> bool:
        """Whether there may be an engine; then its executor is made. Raises `Unavailable` if it cannot but must."""
        if DOCKER not in self._needed:
            if not engines.is_there(settings.address):
                return False
            if (problem := engines.problem(settings.address)) is not None:
                self._say_off(DOCKER, problem)
                return False
        try:
            kind = await asyncio.to_thread(_docker_executor)
        except ImportError as error:
            if DOCKER in self._needed:
                raise Unavailable(f"the journal has containers, and {NO_PACKAGE}") from error
            self._say_off(DOCKER, NO_PACKAGE)
            return False
        if self._farewell:  # somebody must be there when the lifeline ends, also for an agent without processes
            await self.executors["process"].instance()
        self.executors[DOCKER] = kind(
            self._agent_id,
            settings.address,
            privileged=settings.privileged,
            pull_stall_s=settings.pull_stall_s,
            log_bytes=settings.log_bytes,
        )
        return True

    async def _search_engine(self, settings: Docker, found: Callable[[str, Findings], None], awaited: bool) -> None:
        """Look again and again, until there is an engine that answers."""
        wait_s = RETRY_FIRST_S if awaited else LOOK_S
        while True:
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, LOOK_S)
            findings = await self._ask_engine(settings)
            if DOCKER in self.executors and DOCKER not in findings.awaited:
                break
        log.info("an executor is there now", executor=DOCKER, takes_tasks=DOCKER in findings.instances)
        found(DOCKER, findings)
        if DOCKER in self._instances:
            self._watches[DOCKER] = asyncio.create_task(self._watch(DOCKER), name=f"watch {DOCKER}")

    # --- groups ---

    def clear_orphans(self, known: Collection[TaskKey]) -> None:
        """Kill and remove what is in groups of tasks that nobody knows, and their networks; blocks."""
        self._kill_orphans(known)
        self._process.clear_networks(known)

    def _kill_orphans(self, known: Collection[TaskKey]) -> None:
        for group in self._cgroups.orphans(known):
            log.info("the group of a task that nobody knows is removed", group=str(group))
            with suppress(EdgermError, OSError):
                group.kill()
                group.remove()
        for threads in self._cgroups.orphan_threads(known):
            with suppress(EdgermError, OSError):
                threads.remove()

    async def instance(self, name: str) -> str:
        """What is behind an executor now, started if there is none and it is ours. Raises `Unavailable`.

        `changed` is told of a new one before this returns.
        """
        instance = await self.executors[name].instance()
        self._note(name, instance)
        return instance

    def watch(self, changed: Callable[[str, str], None], found: Callable[[str, Findings], None]) -> None:
        """From now on `changed(executor, instance)` tells of every new instance; one that dies is started anew.

        `found(executor, findings)` tells, once, of an engine that was awaited or not there, and answers now.
        """
        self._changed = changed
        for name, instance in self._instances.items():
            if instance:
                self._watches[name] = asyncio.create_task(self._watch(name), name=f"watch {name}")
        settings = self._docker
        if settings is not None and DOCKER not in self._instances and (settings.enabled or DOCKER in self.executors):
            search = self._search_engine(settings, found, awaited=DOCKER in self.executors)
            self._search = asyncio.create_task(search, name="search engine")
            self._search.add_done_callback(_searched)

    def seen(self, handle: Handle) -> None:
        """A task was started by this instance: an executor may have moved on to a second process."""
        self._note(handle.executor, handle.instance)

    def sleep(self, effect: Sleep) -> None:
        """End the WASM host, unless it holds something; `changed` tells if it is still there, or woken later."""
        assert self.executors[effect.executor] is self._wasm
        if (watch := self._watches.pop(effect.executor, None)) is not None:
            watch.cancel()
        self._instances[effect.executor] = ""
        self._falling = asyncio.create_task(self._fall_asleep(effect.executor), name="fall asleep")

    async def _fall_asleep(self, name: str) -> None:
        try:
            instance = await self._wasm.sleep()
        except Unavailable as error:  # the next task's start will tell more
            log.warning("an executor does not answer", executor=name, error=str(error))
            return
        if instance:
            self._note(name, instance)
        else:
            log.info("an executor sleeps: it has no task", executor=name)

    async def end_tasks(self) -> None:
        """End all tasks and the processes that hold them. Networks stay until `clear_groups`: devices may be in one."""
        for task in self._tasks():
            task.cancel()
        kinds = self.executors.values()
        results = await asyncio.gather(*(_end(executor) for executor in kinds), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                log.warning("tasks could not be ended", error=str(result))
        await asyncio.to_thread(self._kill_orphans, ())

    async def close(self) -> None:
        """Leave the executors; their tasks go on."""
        for task in self._tasks():
            task.cancel()
        await asyncio.gather(*self._tasks(), return_exceptions=True)
        for executor in self.executors.values():
            await executor.close()

    def _tasks(self) -> list[asyncio.Task[None]]:
        return [*self._watches.values(), *(task for task in (self._search, self._falling) if task is not None)]

    def clear_groups(self) -> list[str]:
        """Kill and remove every group and network of this agent; those that stay, a line each. Blocks."""
        self.clear_orphans(())
        self._cgroups.discard()
        groups = (*self._cgroups.orphans(()), *self._cgroups.orphan_threads(()))
        left = [f"the group {group}" for group in groups]
        return [*left, *self._process.clear_networks(())]

    async def _watch(self, name: str) -> None:
        wait_s = RETRY_FIRST_S
        while True:
            try:
                instance = await self.executors[name].instance()
            except Unavailable as error:
                log.warning("an executor does not answer", executor=name, error=str(error))
                await asyncio.sleep(wait_s)
                wait_s = min(2 * wait_s, RETRY_MAX_S)
                continue
            if instance != self._instances[name]:
                self._tell(name, instance)
            began = asyncio.get_running_loop().time()
            with suppress(Unavailable):
                await self.executors[name].lost(instance)
            if asyncio.get_running_loop().time() - began < RETRY_MAX_S:  # it dies again and again: not at full speed
                await asyncio.sleep(wait_s)
                wait_s = min(2 * wait_s, RETRY_MAX_S)
            else:
                wait_s = RETRY_FIRST_S

    def _note(self, name: str, instance: str) -> None:
        """Tell of a new instance, and watch that from now on."""
        if self._instances.get(name, instance) == instance:
            return
        if (watch := self._watches.pop(name, None)) is not None:
            watch.cancel()
        self._tell(name, instance)
        self._watches[name] = asyncio.create_task(self._watch(name), name=f"watch {name}")

    def _tell(self, name: str, instance: str) -> None:
        if self._instances[name]:
            log.warning("an executor has a new instance", executor=name)
        else:
            log.info("an executor is awake", executor=name)
        self._instances[name] = instance
        self._changed(name, instance)


def _searched(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("the search for an engine ended by a fault of ours", exc_info=error)


async def _end(executor: OwnExecutor) -> None:
    async with asyncio.timeout(ENGINE_S if executor.name == DOCKER else END_S):
        await executor.end_tasks()


def _joined(one: Findings, other: Findings) -> Findings:
    return Findings(
        {**one.enforced, **other.enforced},
        {**one.instances, **other.instances},
        {**one.held, **other.held},
        {**one.awaited, **other.awaited},
    )


def _docker_executor() -> type[DockerExecutor]:
    """Imports what only agents with an engine need. Raises `ImportError`."""
    from edgerm_agent.executors.docker import executor  # noqa: PLC0415

    return executor.DockerExecutor


def limits_here() -> Cgroups:
    """This box's groups for a look only."""
    return open_cgroups("doctor")


def process_problem(process: Process) -> str | None:
    """Why process tasks are off, as far as the settings tell; None: they are on."""
    if not process.enabled:
        return "executors.process.enabled is false"
    return NEEDS_USER if os.geteuid() == 0 and not process.user else None
