"""The master's core: the only owner of its state. Dispatch only; what may happen stands in the files beside."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from edgerm.core.constraints import Matcher, match_whole
from edgerm.core.ids import AgentId, FrameworkId, OfferId, StreamId, TaskKey
from edgerm.core.instant import Instant
from edgerm.core.link import LANE_TALK, Close, Frame, OpenInput
from edgerm.core.scheduler import (
    Offer,
    TaskSpec,
    UpdateFramework,
)
from edgerm_master.core import (
    allocating,
    calling,
    joining,
    maintaining,
    offers,
    reconciling,
    recovering,
    renewing,
    subscribing,
    updating,
)
from edgerm_master.core.agents import Agent
from edgerm_master.core.effects import Accepted, Effect, FramesIn, Watching
from edgerm_master.core.events import (
    Beaten,
    Called,
    Event,
    Joined,
    Maintained,
    SendFrame,
    StreamClosed,
    Subscribe,
    Tick,
    Watch,
    WatchEnded,
)
from edgerm_master.core.finding import find_tasks
from edgerm_master.core.frameworks import Framework
from edgerm_master.core.records import (
    Record,
)
from edgerm_master.core.world import Settings, Task, Timer, TimerKey, World

__all__ = ["Master", "Settings"]

TIMERS_PER_TICK = 50  # what else is due waits for the next turn of the loop


class Master:
    """Takes events, gives effects. The same records, events, instants and seed give the same effects.

    `run_id` names this run of the master in every id that it gives; `seed` (at least 16 secret bytes) makes its
    sessions; `matcher` matches the regular expressions of offer constraints, and must not be one that they can stall.
    The mappings are for reading.
    """

    def __init__(
        self, run_id: str, seed: bytes, settings: Settings | None = None, matcher: Matcher = match_whole
    ) -> None:
        self._world = World(run_id, seed, settings or Settings(), matcher)
        self._joining = joining.Joining()

    @property
    def settings(self) -> Settings:
        return self._world.settings

    @property
    def agents(self) -> Mapping[AgentId, Agent]:
        return self._world.agents

    @property
    def frameworks(self) -> Mapping[FrameworkId, Framework]:
        return self._world.frameworks

    @property
    def completed(self) -> list[Framework]:
        return self._world.completed

    @property
    def offers(self) -> Mapping[OfferId, Offer]:
        return self._world.offers

    @property
    def tasks(self) -> Mapping[TaskKey, Task]:
        return self._world.tasks

    @property
    def world(self) -> World:
        """All of it, for `invariants` and `explain`."""
        return self._world

    def recover(self, records: Iterable[Record], now: Instant) -> None:
        """Take over what an earlier master stored. Once, before any event."""
        self._world.now = now
        recovering.recover(self._world, records)

    def handle(self, event: Event, now: Instant) -> list[Effect]:
        """Let `event` happen."""
        world = self._world
        world.now = now
        world.out, world.request = [], ""
        match event:
            case Beaten(request, beat, carrier):
                joining.beat(world, request, beat, carrier)
            case Called(request, framework_id, call, cause):
                world.request = cause
                framework = world.frameworks.get(framework_id)
                if framework is not None:
                    calling.carry_out(world, framework, call)
                world.out.append(Accepted(request))
            case Joined(request, join, carrier):
                joining.join(world, self._joining, request, join, carrier)
            case Maintained():
                maintaining.carry_out(world, event)
            case Subscribe() | StreamClosed():
                self._stream(event)
            case SendFrame(agent_id, frame):
                self._send_frame(agent_id, frame)
            case Watch() | WatchEnded():
                self._watch(event)
            case Tick():
                self._tick()
        if world.dirty or world.swept:
            allocating.allocate(world, sweeping=isinstance(event, Tick))
        return world.out

    def _stream(self, event: Subscribe | StreamClosed) -> None:
        world = self._world
        before = world.frameworks.get(world.streams.get(event.stream, FrameworkId("")))
        if isinstance(event, Subscribe):
            world.request = event.cause
            subscribing.subscribe(world, event)
        elif before is not None:
            subscribing.stream_closed(world, before)
        framework = before or world.frameworks.get(world.streams.get(event.stream, FrameworkId("")))
        if framework is not None:
            offers.line_up(world, framework)

    def _watch(self, event: Watch | WatchEnded) -> None:
        world = self._world
        if isinstance(event, Watch):
            world.watched += 1
            world.out.append(Watching(event.stream))
        else:
            world.watched -= 1

    def _send_frame(self, agent_id: AgentId, frame: Frame) -> None:
        world = self._world
        agent = world.agents.get(agent_id)
        if agent is None or agent.half is None:
            why = f"agent {agent_id} is not connected"
        elif isinstance(frame.body, OpenInput) and agent.half.lane < LANE_TALK:
            why = f"not found: the edgerm of agent {agent_id} is older than live input; start a newer one there"
        elif not agent.half.send(frame):
            why = f"too many frames wait for agent {agent_id}"
            world.tally.frames_dropped += 1
        else:
            world.ring(agent)
            return
        world.out.append(FramesIn(agent_id, (Frame(frame.stream, Close(why)),)))

    def _tick(self) -> None:
        world = self._world
        for _ in range(TIMERS_PER_TICK):
            key = world.timers.pop(world.now.steady_s)
            if key is None:
                return
            self._due(key)

    def _due(self, key: TimerKey) -> None:
        world = self._world
        if isinstance(key, str):
            agent = world.agents.get(key)
            if agent is not None:
                joining.check_silence(world, agent)
            return
        kind, name, role, agent_id = key
        match kind:
            case Timer.GONE if name in world.agents:
                joining.forget_agent(world, world.agents[AgentId(str(name))])
            case Timer.FAILOVER if name in world.frameworks:
                subscribing.expire(world, world.frameworks[FrameworkId(str(name))])
            case Timer.WITHDRAW if name in world.frameworks:
                subscribing.withdraw_some(world, world.frameworks[FrameworkId(str(name))])
            case Timer.OFFER:
                offers.expire_oldest(world)
            case Timer.FILTER if name in world.frameworks:
                framework = world.frameworks[FrameworkId(str(name))]
                offers.drop_filter(world, framework, role, AgentId(agent_id))
            case Timer.ANSWER if name in world.frameworks:
                reconciling.answer_some(world, world.frameworks[FrameworkId(str(name))])
            case Timer.DRAIN if name in world.agents:
                maintaining.look(world, world.agents[AgentId(str(name))])
            case Timer.RETRY if isinstance(name, TaskKey):
                updating.retry(world, name)

    def due_s(self) -> float | None:
        """When to hand in a Tick (steady seconds; may be in the past: at once), or None."""
        world = self._world
        return world.now.steady_s if world.dirty or world.swept else world.timers.next_s()

    def stream_of(self, framework_id: FrameworkId) -> StreamId | None:
        """The framework's open stream, or None when it has none or is not known."""
        framework = self._world.frameworks.get(framework_id)
        return framework.stream if framework else None

    def fault_of_update(self, framework_id: FrameworkId, call: UpdateFramework) -> str:
        """Why this known framework cannot make this update now; empty if it can."""
        return renewing.fault(self._world.frameworks[framework_id], call)

    def knows(self, framework_id: FrameworkId) -> bool:
        """Whether this framework is known and not completed."""
        return framework_id in self._world.frameworks

    def spec_of(self, key: TaskKey) -> TaskSpec | None:
        """What this task is; None if it is not known, or forgotten."""
        task = self._world.tasks.get(key)
        return None if task is None else task.record.task

    def find_tasks(self, task_id: str, framework_id: str | None = None) -> list[TaskKey]:
        """Keys of the tasks whose id is, else begins with, `task_id`; those that still matter before completed ones."""
        return find_tasks(self._world, task_id, framework_id)
