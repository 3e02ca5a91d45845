"""Starts under way: the image is got, the container made and started, however long the engine is away meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from edgerm.core.errors import Unavailable
from edgerm.core.ids import AgentId, TaskKey
from edgerm.plugin.executor import Handle, LaunchFailed, LaunchSpec, Tell
from edgerm_agent.executors.docker import container
from edgerm_agent.executors.docker.engine import Engine, EngineError, NoSuchImage
from edgerm_agent.executors.docker.held import RETRY_FIRST_S, RETRY_MAX_S, Held, is_task
from edgerm_agent.executors.docker.pulls import Pulls
from edgerm_agent.executors.docker.watch import Watch

SLOW_S = 5.0  # a start that takes longer is told of: the engine may hang
GIVEN_UP = "the start was given up before the container ran"

Json = dict[str, Any]


@dataclass(slots=True)
class Start:
    """A start under way, and who hears of it."""

    task: asyncio.Task[Handle]
    tells: list[Tell] = field(default_factory=list)
    abandoned: bool = False
    uncertain: bool = False  # an attempt had no answer: the container may be there


class Starts:
    """The starts of one executor. `held`: its containers; `body`: what makes one, given the engine's info."""

    def __init__(
        self,
        agent_id: AgentId,
        engine: Engine,
        watch: Watch,
        pulls: Pulls,
        held: dict[TaskKey, Held],
        body: Callable[[LaunchSpec, Json], Json],
    ) -> None:
        self._agent_id = agent_id
        self._engine = engine
        self._watch = watch
        self._pulls = pulls
        self._held = held
        self._body = body
        self._hangs = f"waits for the Docker engine at {engine.url}: it has not answered for {SLOW_S:.0f} s"
        self._starts: dict[TaskKey, Start] = {}

    def __contains__(self, key: TaskKey) -> bool:
        """Whether the task is being started."""
        return key in self._starts

    async def start(self, spec: LaunchSpec, tell: Tell) -> Handle:
        """As `Executor.start`, of a task that does not run yet; never raises `Unavailable`."""
        start = self._starts.get(spec.key)
        if start is None:
            start = self._starts[spec.key] = Start(asyncio.create_task(self._start(spec)))
            start.task.add_done_callback(lambda _: self._starts.pop(spec.key))
        start.tells.append(tell)
        try:
            return await asyncio.shield(start.task)
        except asyncio.CancelledError:
            if start.abandoned and start.task.cancelled():
                raise LaunchFailed(GIVEN_UP) from None
            raise

    def abandon(self, key: TaskKey) -> None:
        """As `Executor.abandon`."""
        start = self._starts.get(key)
        if start is not None and not start.abandoned:
            start.abandoned = True
            if key not in self._held and not start.uncertain:  # else it is about to run, or that must be ruled out
                start.task.cancel()

    async def _start(self, spec: LaunchSpec) -> Handle:
        wait_s = RETRY_FIRST_S
        pulled = False
        while True:
            try:
                info = await self._watch.ensure()
                if self._starts[spec.key].abandoned:
                    await self._undo(spec.key)
                if spec.container is not None and spec.container.force_pull and not pulled:
                    await self._pull(spec)
                    pulled = True
                await self._launch(spec, info)
                return Handle(spec.key, "docker", str(info["ID"]))
            except NoSuchImage as error:
                if pulled:
                    raise LaunchFailed(str(error)) from error
                await self._pull(spec)
                pulled = True
            except Unavailable as error:
                self._say(spec.key, str(error))
                if self._watch.is_up:
                    await asyncio.sleep(wait_s)
                    wait_s = min(2 * wait_s, RETRY_MAX_S)
                else:
                    await self._watch.came(RETRY_MAX_S)
            except EngineError as error:
                raise LaunchFailed(str(error)) from error

    async def _undo(self, key: TaskKey) -> None:
        """Make sure that there is no container, then raise `LaunchFailed`."""
        await self._engine.remove(container.name_of(self._agent_id, key), force=True)
        raise LaunchFailed(GIVEN_UP)

    async def _launch(self, spec: LaunchSpec, info: Json) -> None:
        body = self._body(spec, info)
        name = container.name_of(self._agent_id, spec.key)
        # Before it exists: its end may be told at once.
        held = self._held[spec.key] = Held(name, starting=True, ours=True)
        slow = asyncio.get_running_loop().call_later(SLOW_S, self._say, spec.key, self._hangs)
        try:
            held.id = await self._engine.launch(name, body, lambda found: is_task(found, self._agent_id, spec.key))
        except BaseException as error:
            self._starts[spec.key].uncertain = isinstance(error, Unavailable)
            del self._held[spec.key]
            raise
        finally:
            slow.cancel()
        held.starting = False

    async def _pull(self, spec: LaunchSpec) -> None:
        assert spec.container is not None
        await self._pulls.pull(spec.container.image, lambda line: self._say(spec.key, line))

    def _say(self, key: TaskKey, line: str) -> None:
        for tell in self._starts[key].tells if key in self._starts else ():
            tell(line)

    async def cancel(self) -> None:
        """End all of them as they are."""
        tasks = [start.task for start in self._starts.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
