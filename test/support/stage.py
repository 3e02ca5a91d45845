"""A stage for the master's core: plays agents, frameworks, the disk and time, and keeps all that the core asked for.

After each event every invariant is checked. Nothing here decides: an agent takes each order over as it comes, and
reports what a test tells it to.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import starmap
from typing import cast

from edgerm.core.attributes import AttributeValue, attribute
from edgerm.core.constraints import NO_CONSTRAINTS, Constraints
from edgerm.core.effects import Drop, Put
from edgerm.core.ids import AgentId, FrameworkId, OfferId, StreamId, TaskId, TaskKey
from edgerm.core.instant import Instant
from edgerm.core.link import (
    Beat,
    BeatAnswer,
    Forget,
    Frame,
    Join,
    JoinAnswer,
    Launch,
    Order,
    OrderBody,
    TaskReport,
    Update,
    Welcome,
)
from edgerm.core.resources import parse
from edgerm.core.scheduler import (
    Accept,
    Acknowledge,
    AgentSpec,
    Call,
    Capability,
    Decline,
    Event,
    FrameworkSpec,
    Minimum,
    Offer,
    Offers,
    Status,
    Subscribed,
    TaskSpec,
)
from edgerm.core.scheduler import Update as Told
from edgerm.core.tasks import Source, TaskState
from edgerm_master.core.effects import AnswerAgent, Effect, Tell, TellSoon
from edgerm_master.core.events import Beaten, Called, Joined, Maintained, Maintenance, StreamClosed, Subscribe, Tick
from edgerm_master.core.events import Event as Happening
from edgerm_master.core.invariants import broken
from edgerm_master.core.master import Master
from edgerm_master.core.records import Record
from edgerm_master.core.world import Settings

PARTITION_AWARE = frozenset({Capability.PARTITION_AWARE})


@dataclass(slots=True)
class Box:
    """An agent as its master meets it."""

    agent_id: AgentId
    resources: str
    incarnation: int = 0
    session: int = 0
    seen: int = 0
    number: int = 0  # of updates in this session
    tasks: dict[TaskKey, TaskReport] = field(default_factory=dict)
    orders: list[OrderBody] = field(default_factory=list)  # all that were ever taken over


@dataclass(slots=True)
class Scheduler:
    """A framework as its master meets it."""

    framework_id: FrameworkId
    stream: StreamId
    spec: FrameworkSpec
    heard: list[Event] = field(default_factory=list)  # and not yet asked for


class Stage:
    """One master and all that it deals with."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self.now_s = 0.0
        self.life = 0
        self.rows: dict[tuple[str, str], object] = {}  # what is stored
        self.boxes: dict[str, Box] = {}
        self.schedulers: dict[str, Scheduler] = {}
        self.streams: dict[StreamId, list[Event]] = {}
        self.answers: dict[int, JoinAnswer | BeatAnswer] = {}
        self.log: list[Effect] = []
        self._count = 0
        self.master = Master("m0", bytes(16), self.settings)

    # --- the master ---

    def happen(self, event: Happening) -> list[Effect]:
        """Hand in one event; every invariant must hold after it."""
        effects = self.master.handle(event, self.now)
        for effect in effects:
            match effect:
                case Put(kind, key, record):
                    self.rows[(kind, key)] = record
                case Drop(kind, key):
                    self.rows.pop((kind, key), None)
                case Tell(stream, told) | TellSoon(stream, told):
                    self.streams.setdefault(stream, []).append(told)
                case AnswerAgent(request, answer):
                    self.answers[request] = answer
        self.log += effects
        assert broken(self.master.world) == []
        return effects

    @property
    def now(self) -> Instant:
        return Instant(self.now_s, 1_000_000 + self.now_s)

    def pass_time(self, seconds: float) -> None:
        """Let time pass, with a Tick whenever the core wants one."""
        end_s = self.now_s + seconds
        self.settle()
        while (due_s := self.master.due_s()) is not None and due_s <= end_s:
            self.now_s = max(due_s, self.now_s)
            self.happen(Tick())
        self.now_s = end_s

    def settle(self) -> None:
        """Let the core do what it has to do at once."""
        while (due_s := self.master.due_s()) is not None and due_s <= self.now_s:
            self.happen(Tick())

    def live(self, seconds: float) -> None:
        """Let time pass while all agents beat as they should."""
        end_s = self.now_s + seconds
        while self.now_s < end_s:
            self.pass_time(min(15.0, end_s - self.now_s))
            self.beats()

    def restart(self, seconds: float = 1.0) -> None:
        """The master's process ends; another one takes over what is stored."""
        self.life += 1
        self.now_s += seconds
        self.streams = {}
        self.master = Master(f"m{self.life}", bytes([self.life]) * 16, self.settings)
        self.master.recover(cast("list[Record]", list(self.rows.values())), self.now)
        assert broken(self.master.world) == []

    # --- agents ---

    def join(
        self,
        name: str,
        resources: str | None = None,
        tasks: Iterable[TaskReport] | None = None,
        **attributes: AttributeValue,
    ) -> JoinAnswer:
        """The agent joins with a new incarnation, with what it had, and reports its tasks (or those that are given)."""
        box = self.boxes.setdefault(name, Box(AgentId(name), "cpus:4;mem:1024"))
        box.resources, box.incarnation = resources or box.resources, box.incarnation + 1
        reports = tuple(box.tasks.values() if tasks is None else tasks)
        said = tuple(starmap(attribute, attributes.items()))
        spec = replace(agent_spec(name, box.resources), attributes=said)
        return self.send_join(Join(box.agent_id, box.incarnation, spec, "", reports))

    def send_join(self, join: Join) -> JoinAnswer:
        """Any join at all."""
        self._count += 1
        self.happen(Joined(self._count, join))
        answer = self.answers[self._count]
        box = self.boxes.get(join.agent_id)
        if isinstance(answer, Welcome) and box and answer.session != box.session:
            box.session, box.seen, box.number = answer.session, 0, 0
        assert not isinstance(answer, BeatAnswer)
        return answer

    def beat(self, name: str, *updates: Update, frames: tuple[Frame, ...] = ()) -> tuple[Order, ...]:
        """The agent beats, takes the orders over and journals them; its next beat says so."""
        box = self.boxes[name]
        answer = self.send_beat(Beat(box.session, box.seen, tuple(updates), frames))
        assert not answer.join, "the session is unknown"
        for order in answer.orders:
            if order.number > box.seen:
                box.seen = order.number
                box.orders.append(order.body)
                self._obey(box, order.body)
        return answer.orders

    def send_beat(self, beat: Beat) -> BeatAnswer:
        """Any beat at all."""
        self._count += 1
        self.happen(Beaten(self._count, beat))
        answer = self.answers[self._count]
        assert isinstance(answer, BeatAnswer)
        return answer

    def _obey(self, box: Box, body: OrderBody) -> None:
        match body:
            case Launch(key, role, task):
                box.tasks.setdefault(key, TaskReport(key, TaskState.STAGING, 0, role, task))
            case Forget(key):
                box.tasks.pop(key, None)

    def beats(self, *names: str) -> None:
        """These agents (all that have a session if none are named) beat until nothing is new."""
        sessions = self.master.world.sessions
        for name in names or [name for name, box in self.boxes.items() if sessions.get(box.session) == name]:
            while self.beat(name):
                pass

    def news(self, name: str, task_id: str, state: TaskState, **fields: object) -> Update:
        """The agent's next update of a task, not yet sent."""
        box = self.boxes[name]
        key = next(key for key in reversed(box.tasks) if key.task_id == task_id)
        box.number += 1
        report = box.tasks[key] = replace(box.tasks[key], state=state, seq=box.tasks[key].seq + 1)
        status = Status(
            TaskId(task_id),
            state,
            box.agent_id,
            Source.EXECUTOR,
            uuid=f"{task_id}-{report.seq}".encode(),
            **fields,  # type: ignore[arg-type]
        )
        return Update(key, report.seq, status, box.number)

    def report(self, name: str, task_id: str, state: TaskState, **fields: object) -> None:
        """The agent beats with an update of a task."""
        self.beat(name, self.news(name, task_id, state, **fields))

    # --- operators ---

    def maintain(self, call: Maintenance) -> list[Effect]:
        """An operator says what an agent is to be used for."""
        self._count += 1
        return self.happen(Maintained(self._count, call))

    # --- frameworks ---

    def subscribe(
        self,
        name: str,
        *roles: str,
        framework_id: str | None = None,
        suppressed: tuple[str, ...] = (),
        capabilities: frozenset[Capability] = PARTITION_AWARE,
        timeout_s: float = 60.0,
        principal: str = "",
        constraints: Mapping[str, Constraints] = NO_CONSTRAINTS,
        minimums: tuple[Minimum, ...] = (),
    ) -> list[Event]:
        """Open a stream; answers what it said at once. A known name comes back with its id."""
        self._count += 1
        stream = StreamId(f"s{self._count}")
        spec = FrameworkSpec(name, "u", roles or ("*",), timeout_s, capabilities, principal, minimums=minimums)
        if framework_id is None and name in self.schedulers:
            framework_id = self.schedulers[name].framework_id
        known = FrameworkId(framework_id) if framework_id is not None else None
        self.happen(Subscribe(stream, spec, known, suppressed, constraints))
        said = self.streams[stream]
        if isinstance(said[0], Subscribed):
            self.schedulers[name] = Scheduler(said[0].framework_id, stream, spec)
        return list(said)

    def hang_up(self, name: str) -> None:
        """The framework's stream breaks."""
        self.happen(StreamClosed(self.schedulers[name].stream))

    def call(self, name: str, call: Call) -> list[Effect]:
        """The framework makes a call."""
        self._count += 1
        return self.happen(Called(self._count, self.schedulers[name].framework_id, call))

    def hear(self, name: str) -> list[Event]:
        """What the framework was told since it was last asked."""
        heard = self.streams.get(self.schedulers[name].stream, [])
        news, heard[:] = list(heard), []
        return news

    def hear_offers(self, name: str) -> list[Offer]:
        """The offers among what the framework was told since."""
        return [offer for event in self.hear(name) if isinstance(event, Offers) for offer in event.offers]

    def hear_updates(self, name: str) -> list[Status]:
        """The updates among what the framework was told since."""
        return [event.status for event in self.hear(name) if isinstance(event, Told)]

    def accept(self, name: str, *tasks: TaskSpec, refuse_s: float = 5.0) -> list[Effect]:
        """Use all offers that the framework holds of the first task's agent."""
        held = self.offers(name, tasks[0].agent_id)
        return self.call(name, Accept(tuple(held), tasks, refuse_s))

    def decline(self, name: str, refuse_s: float = 5.0) -> list[Effect]:
        """Give back all offers that the framework holds."""
        return self.call(name, Decline(tuple(self.offers(name)), refuse_s))

    def offers(self, name: str, agent: str | None = None) -> list[OfferId]:
        """The offers that the framework holds (of that agent)."""
        framework_id = self.schedulers[name].framework_id
        return [
            offer_id
            for offer_id, offer in self.master.offers.items()
            if offer.framework_id == framework_id and agent in (None, offer.agent_id)
        ]

    def acknowledge(self, name: str, status: Status) -> list[Effect]:
        """The framework has taken the update over."""
        assert status.agent_id is not None
        return self.call(name, Acknowledge(status.agent_id, status.task_id, status.uuid))

    # --- short ways ---

    def run(self, name: str, agent: str, task_id: str, resources: str = "cpus:1;mem:64") -> TaskKey:
        """Launch a task, let its agent take it and report RUNNING, and acknowledge that."""
        self.accept(name, task(task_id, agent, resources))
        self.beats(agent)
        self.report(agent, task_id, TaskState.RUNNING)
        for status in self.hear_updates(name):
            if status.uuid:
                self.acknowledge(name, status)
        return self.key(name, task_id)

    def key(self, name: str, task_id: str) -> TaskKey:
        """The key of the framework's task."""
        framework_id = self.schedulers[name].framework_id
        return next(key for key in reversed(list(self.master.tasks)) if key[:2] == (framework_id, task_id))

    def state(self, name: str, task_id: str) -> TaskState:
        """The state that the master has of a task."""
        return self.master.tasks[self.key(name, task_id)].run.state


def agent_spec(name: str, resources: str) -> AgentSpec:
    """An agent with these resources."""
    return AgentSpec(hostname=f"{name}.local", name=name, resources=parse(resources))


def task(task_id: str, agent: str, resources: str = "cpus:1;mem:64", **fields: object) -> TaskSpec:
    """A task for an agent."""
    return TaskSpec(TaskId(task_id), AgentId(agent), parse(resources), executor="wasm", **fields)  # type: ignore[arg-type]
