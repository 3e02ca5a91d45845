"""The master's core: the only owner of its state. Dispatch only; what may happen stands in the files beside."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from edgerm.core.ids import AgentId, FrameworkId, OfferId, StreamId, TaskKey
from edgerm.core.instant import Instant
from edgerm.core.link import Close, Frame
from edgerm.core.scheduler import (
    Accept,
    Acknowledge,
    Call,
    Decline,
    Kill,
    Offer,
    Reconcile,
    Revive,
    Suppress,
    Teardown,
)
from edgerm_master.core import joining, offers, reconciling, subscribing, updating
from edgerm_master.core.agents import Agent
from edgerm_master.core.effects import Accepted, Effect, FramesIn
from edgerm_master.core.events import Beaten, Called, Event, Joined, SendFrame, StreamClosed, Subscribe, Tick
from edgerm_master.core.frameworks import Framework, FrameworkSignal
from edgerm_master.core.launching import accept
from edgerm_master.core.records import (
    AgentRecord,
    FrameworkRecord,
    Record,
    RemovedRecord,
    RunRecord,
    TaskRecord,
)
from edgerm_master.core.world import Settings, Task, Timer, TimerKey, World

__all__ = ["Master", "Settings"]


class Master:
    """Takes events, gives effects. The same records, events, instants and seed give the same effects.

    `run_id` names this run of the master in every id that it gives; `seed` (at least 16 secret bytes) makes its
    sessions. The mappings are for reading.
    """

    def __init__(self, run_id: str, seed: bytes, settings: Settings | None = None) -> None:
        self._world = World(run_id, seed, settings or Settings())
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
        world = self._world
        world.now = now
        what: dict[TaskKey, TaskRecord] = {}
        runs: dict[TaskKey, RunRecord] = {}
        removed: list[RemovedRecord] = []
        for record in records:
            match record:
                case FrameworkRecord(framework_id, spec):
                    world.frameworks[framework_id] = Framework(framework_id, spec)
                case RemovedRecord():
                    removed.append(record)
                case AgentRecord(agent_id, spec, incarnation):
                    world.agents[agent_id] = Agent(agent_id, spec, incarnation)
                case TaskRecord():
                    what[record.key] = record
                case RunRecord():
                    runs[record.key] = record
        removed.sort(key=lambda record: record.number)
        world.removed = {record.framework_id: record for record in removed}
        for key, record in what.items():
            self._recover_task(Task(record, runs[key]))
        for framework in world.frameworks.values():
            subscribing.enter(world, framework)
            wait_s = max(framework.spec.failover_timeout_s, world.settings.recovery_s)
            subscribing.await_return(world, framework, wait_s)
        for agent_id in world.agents:
            due_s = now.steady_s + world.settings.recovery_s
            world.timers.set((Timer.AGENT, agent_id, "", ""), due_s)

    def _recover_task(self, task: Task) -> None:
        world, key = self._world, task.key
        world.tasks[key] = task
        world.agents[task.agent_id].tasks[key] = None
        framework = world.frameworks.get(key.framework_id)
        if framework is not None and not task.run.settled:
            framework.tasks[key.task_id] = key

    def handle(self, event: Event, now: Instant) -> list[Effect]:
        """Let `event` happen."""
        world = self._world
        world.now = now
        world.out = []
        match event:
            case Beaten(request, beat, carrier):
                joining.beat(world, request, beat, carrier)
            case Called(request, framework_id, call):
                framework = world.frameworks.get(framework_id)
                if framework is not None:
                    self._call(framework, call)
                world.out.append(Accepted(request))
            case Joined(request, join, carrier):
                joining.join(world, self._joining, request, join, carrier)
            case Subscribe():
                subscribing.subscribe(world, event)
            case StreamClosed(stream):
                framework = world.frameworks.get(world.streams.get(stream, FrameworkId("")))
                if framework is not None:
                    subscribing.stream_closed(world, framework)
            case SendFrame(agent_id, frame):
                self._send_frame(agent_id, frame)
            case Tick():
                self._tick()
        if world.dirty:
            offers.allocate(world)
        return world.out

    def _call(self, framework: Framework, call: Call) -> None:
        world = self._world
        match call:
            case Accept():
                accept(world, framework, call)
            case Decline():
                offers.decline(world, framework, call)
            case Acknowledge():
                updating.acknowledge(world, framework, call)
            case Kill():
                reconciling.kill(world, framework, call)
            case Reconcile():
                reconciling.reconcile(world, framework, call)
            case Revive():
                subscribing.revive(world, framework, call)
            case Suppress():
                subscribing.suppress(framework, call)
            case Teardown(why):
                subscribing.remove(world, framework, FrameworkSignal.TEARDOWN, why)

    def _send_frame(self, agent_id: AgentId, frame: Frame) -> None:
        world = self._world
        agent = world.agents.get(agent_id)
        if agent is None or agent.half is None:
            why = f"agent {agent_id} is not connected"
        elif not agent.half.send(frame):
            why = f"too many frames wait for agent {agent_id}"
        else:
            world.ring(agent)
            return
        world.out.append(FramesIn(agent_id, (Frame(frame.stream, Close(why)),)))

    def _tick(self) -> None:
        world = self._world
        while (key := world.timers.pop(world.now.steady_s)) is not None:
            self._due(key)

    def _due(self, key: TimerKey) -> None:
        world = self._world
        kind, name, role, agent_id = key
        match kind:
            case Timer.AGENT if name in world.agents:
                joining.check_silence(world, world.agents[AgentId(str(name))])
            case Timer.GONE if name in world.agents:
                joining.forget_agent(world, world.agents[AgentId(str(name))])
            case Timer.FAILOVER if name in world.frameworks:
                framework = world.frameworks[FrameworkId(str(name))]
                subscribing.remove(world, framework, FrameworkSignal.EXPIRE)
            case Timer.OFFER if name in world.offers:
                offers.expire(world, OfferId(str(name)))
            case Timer.FILTER if name in world.frameworks:
                framework = world.frameworks[FrameworkId(str(name))]
                offers.drop_filter(world, framework, role, AgentId(agent_id))
            case Timer.ANSWER if name in world.frameworks:
                reconciling.answer_some(world, world.frameworks[FrameworkId(str(name))])
            case Timer.RETRY if isinstance(name, TaskKey):
                updating.retry(world, name)

    def due_s(self) -> float | None:
        """When to hand in a Tick (steady seconds; may be in the past: at once), or None."""
        return self._world.now.steady_s if self._world.dirty else self._world.timers.next_s()

    def stream_of(self, framework_id: FrameworkId) -> StreamId | None:
        """The framework's open stream, or None when it has none or is not known."""
        framework = self._world.frameworks.get(framework_id)
        return framework.stream if framework else None

    def knows(self, framework_id: FrameworkId) -> bool:
        """Whether this framework is known and not completed."""
        return framework_id in self._world.frameworks

    def find_tasks(self, task_id: str, framework_id: str | None = None) -> list[TaskKey]:
        """Keys of the tasks whose id is, else begins with, `task_id`; those that still matter before completed ones."""
        for exact in (True, False):
            live = [key for key in self._task_keys(framework_id) if _names(key, task_id, exact)]
            if live:
                return live
            old = [key for key in self._completed_keys(framework_id) if _names(key, task_id, exact)]
            if old:
                return old
        return []

    def _task_keys(self, framework_id: str | None) -> Iterator[TaskKey]:
        for key, task in self._world.tasks.items():
            if not task.run.settled and framework_id in (None, key.framework_id):
                yield key

    def _completed_keys(self, framework_id: str | None) -> Iterator[TaskKey]:
        for framework in (*self._world.frameworks.values(), *self._world.completed):
            if framework_id in (None, framework.framework_id):
                yield from (record.key for record, _ in framework.completed)


def _names(key: TaskKey, task_id: str, exact: bool) -> bool:
    return key.task_id == task_id if exact else key.task_id.startswith(task_id)
