"""The agent's core: the truth about what runs on this box, and what it owes the master.

Nothing here waits for the link: a task starts, ends and is recorded with or without a master. The journal always knows
the step before it is taken, so that after a crash it can be told what happened. What lives here: events in, effects
out, and all that has to do with the master. What does not: a task's way (`way`), its devices (`stock`), and what a
restart finds (`resuming`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from edgerm.core.blobs import Digest
from edgerm.core.devices import Device
from edgerm.core.ids import AgentId, TaskKey
from edgerm.core.instant import Instant
from edgerm.core.link import (
    HTTP,
    AgentHalf,
    Carrier,
    Forget,
    Frame,
    Intake,
    Kill,
    Launch,
    Letter,
    LinkState,
    OrderBody,
    TaskReport,
)
from edgerm.core.scheduler import AgentSpec
from edgerm.plugin.executor import Handle
from edgerm_agent.core import refusing, resuming
from edgerm_agent.core.effects import (
    Dismissed,
    Effect,
    FramesIn,
    MessageIn,
    Send,
    SessionBegan,
    Sleep,
    What,
)
from edgerm_agent.core.events import (
    BeatAnswered,
    CarrierChanged,
    Chosen,
    Described,
    Ended,
    Event,
    ExecutorFound,
    Fetched,
    FetchFailed,
    GivenBack,
    InstanceChanged,
    Inventoried,
    JoinAnswered,
    KillLocal,
    LaunchLocal,
    Preparing,
    Rang,
    Recovered,
    Released,
    RequestFailed,
    SendFrame,
    SendMessage,
    Started,
    StartFailed,
    Tick,
)
from edgerm_agent.core.grants import Holding
from edgerm_agent.core.records import Record, is_local
from edgerm_agent.core.rest import Rest
from edgerm_agent.core.stock import Stock
from edgerm_agent.core.task import Task
from edgerm_agent.core.way import Way

NEVER: Mapping[str, float] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this agent is, for the whole life of the process."""

    agent_id: AgentId
    spec: AgentSpec  # without devices that plugins report
    incarnation: int  # higher than any that an earlier process of this agent used
    boot_id: str = ""
    seed: bytes = b""
    carrier: Carrier = HTTP
    alone: bool = False  # there is no master: nothing is ever sent


class Agent:
    """Takes events, gives effects. Until `Recovered` no order is taken and nothing is said; before it may only come
    what plugins have (`Inventoried`), so that the first join tells of it.

    `idle_s`: executors that may sleep when they had no task for so long. One that sleeps has the empty instance. It is
    awake before a task of its own is STARTING, so that the journal knows who was asked; and while one lives.
    """

    def __init__(self, identity: Identity, records: Iterable[Record] = (), idle_s: Mapping[str, float] = NEVER) -> None:
        self._half = AgentHalf(
            identity.agent_id, identity.spec, identity.incarnation, identity.boot_id, identity.seed, identity.carrier
        )
        self._alone = identity.alone
        self._rest = Rest(idle_s)
        self._stock = Stock(identity.spec, identity.incarnation)
        self._way = Way(self._half, self._stock, self._rest)
        self._up = False
        self._amended = resuming.load(self._way, records)
        for task in self._way.tasks.values():
            for update in task.run.owed:
                self._half.report(update)

    @property
    def tasks(self) -> Mapping[TaskKey, Task]:
        """For reading: every task that is not forgotten."""
        return self._way.tasks

    @property
    def grants(self) -> Mapping[TaskKey, Holding]:
        """For reading: what every task was given and is not known to be clean, also of tasks that are forgotten."""
        return self._stock.grants.all

    @property
    def present(self) -> set[TaskKey]:
        """The tasks that may be on the box even if no executor says that it holds them.

        An ended one is not: what is left of it was not removed, because the agent was killed at that moment.
        """
        return {key for key, task in self.tasks.items() if task.live} | self.grants.keys()

    @property
    def free(self) -> tuple[Device, ...]:
        """The devices that a task could be given now, in order of preference."""
        return refusing.free(self._stock.picture, self._stock.grants)

    @property
    def carrier(self) -> Carrier:
        return self._half.carrier

    @property
    def unheard(self) -> Iterable[Frame]:
        """The frames that the master is not known to have."""
        return self._half.unheard

    @property
    def link_state(self) -> LinkState:
        return self._half.state

    @property
    def spec(self) -> AgentSpec:
        """What the agent says of itself, devices included."""
        return self._stock.spec

    def due_s(self) -> float | None:
        """When to hand in a Tick (steady seconds; may be in the past: at once), or None."""
        if not self._up:
            return None
        link = None if self._alone else self._half.due_s(self._way.now.steady_s)
        return min((due for due in (link, self._way.due_s(), self._rest.next_s()) if due is not None), default=None)

    def needs(self) -> set[Digest]:
        """The blobs that must be kept: those of tasks that have not ended."""
        return {ref.digest for task in self.tasks.values() if task.live for ref in task.record.task.needs}

    def handle(self, event: Event, now: Instant) -> list[Effect]:
        """Let `event` happen."""
        way = self._way
        way.now, way.out, way.notes = now, [], []
        match event:
            case JoinAnswered() | BeatAnswered() | RequestFailed() | CarrierChanged() | Rang() | SendFrame():
                self._heard(event)
            case SendMessage(letter):
                self._half.send_message(letter)  # at most once: who drops it need not say so
            case Recovered() | ExecutorFound() | InstanceChanged() | Described() | Inventoried():
                self._looked(event)
            case Tick():
                way.expire()
                way.retry()
                way.give_up()
                self._doze()
            case LaunchLocal() | KillLocal():
                self._asked(event)
            case _:
                self._came_about(event)
        self._poll()
        way.out += way.notes
        return way.out

    def _heard(self, event: JoinAnswered | BeatAnswered | RequestFailed | CarrierChanged | Rang | SendFrame) -> None:
        match event:
            case JoinAnswered(request, answer):
                self._take(self._half.join_answered(request, answer, self._now_s), frozenset())
            case BeatAnswered(request, answer, present):
                self._take(self._half.beat_answered(request, answer, self._now_s), present)
            case RequestFailed(request):
                self._half.failed(request, self._now_s)
            case CarrierChanged(carrier):
                self._half.carrier = carrier
            case Rang():
                self._half.ring()
            case SendFrame(frame):
                self._half.send(frame)

    def _looked(self, event: Recovered | ExecutorFound | InstanceChanged | Described | Inventoried) -> None:
        match event:
            case Recovered(instances, held, awaited):
                self._recover(instances, held, awaited)
            case ExecutorFound(executor, instance, held) if executor not in self._way.instances:
                was_awaited = self._way.awaited.pop(executor, None) is not None
                if instance is not None:
                    self._instance(executor, instance)
                resuming.found(self._way, executor, held, was_awaited=was_awaited)
            case InstanceChanged(executor, instance) if executor in self._way.instances:
                self._instance(executor, instance)
            case Described(spec):
                self._stock.describe(spec)
                self._way.described()
                self._minded(frozenset())
            case Inventoried(plugin, inventory):
                self._minded(self._stock.picture.report(plugin, inventory))

    def _minded(self, back: frozenset[str]) -> None:
        """The picture may be another. Before it is known what runs, that means nothing to tasks."""
        self._way.redraw()
        if self._up:
            self._way.inventoried(back)

    def _recover(
        self, instances: Mapping[str, str], held: Mapping[TaskKey, Handle], awaited: Mapping[str, str]
    ) -> None:
        self._way.awaited = dict(awaited)
        for executor, instance in instances.items():
            self._instance(executor, instance)
        self._up = True
        self._way.out += self._amended
        resuming.recover(self._way, held)

    @property
    def _now_s(self) -> float:
        return self._way.now.steady_s

    def _instance(self, executor: str, instance: str) -> None:
        self._way.instances[executor] = instance
        if instance:
            self._rest.used(executor, self._now_s)

    def _doze(self) -> None:
        while (executor := self._rest.pop(self._now_s, self._is_busy)) is not None:
            if self._way.instances.get(executor):
                self._way.instances[executor] = ""
                self._way.out.append(Sleep(executor))

    def _is_busy(self, executor: str) -> bool:
        return any(task.live and task.executor == executor for task in self.tasks.values())

    def _came_about(
        self,
        event: Fetched | FetchFailed | Preparing | Started | StartFailed | Ended | Released | GivenBack | Chosen,
    ) -> None:
        way = self._way
        match event:
            case Fetched(key):
                way.fetched(key)
            case Preparing(key, message):
                way.preparing(key, message)
            case FetchFailed(key, why) | StartFailed(key, why):
                way.not_started(key, why)
            case Started(key, handle):
                way.started(key, handle)
            case Ended(key, exited):
                way.ended(key, exited)
            case Released(key):
                way.released(key)
            case GivenBack(key, evidence):
                way.given_back(key, evidence)
            case Chosen(key, name, ids):
                way.chosen(key, name, ids)

    def _asked(self, event: LaunchLocal | KillLocal) -> None:
        """Somebody on this box wants something."""
        task = self.tasks.get(event.key)
        match event:
            case LaunchLocal(key, spec) if task is None:
                self._way.note(What.LAUNCH, key, spec.executor)
                self._way.launch(Launch(key, "*", spec), frozenset())
            case KillLocal() if task is not None:
                self._way.note(What.KILL, task.key, task.executor)
                self._way.kill(task, None)

    # --- the link ---

    def _poll(self) -> None:
        if not self._up or self._alone:
            return
        reports = self._reports() if self._half.joins_next else ()
        request = self._half.poll(self._now_s, reports)
        if request is not None:
            self._way.out.append(Send(*request))

    def _reports(self) -> tuple[TaskReport, ...]:
        return tuple(
            TaskReport(task.key, task.run.state, task.run.seq, task.record.role, task.record.task, bool(task.run.owed))
            for task in self.tasks.values()
            if not is_local(task.key)
        )

    def _take(self, intake: Intake, present: frozenset[Digest]) -> None:
        out = self._way.out
        for update in intake.persisted:
            self._way.persisted(update)
        for order in intake.orders:
            self._order(order.body, present)
        if intake.frames:
            out.append(FramesIn(intake.frames))
        for letter in intake.letters:
            self._deliver(letter)
        if intake.gone:
            out.append(Dismissed(intake.gone))
        if intake.joined:
            out.append(SessionBegan(self._half.session))

    def _deliver(self, letter: Letter) -> None:
        task = self.tasks.get(letter.key)
        if task is not None and task.live:
            self._way.out.append(MessageIn(letter))

    def _order(self, body: OrderBody, present: frozenset[Digest]) -> None:
        task = self.tasks.get(body.key)
        match body:
            case Launch() if task is None:
                self._way.note(What.LAUNCH, body.key, body.task.executor, body.request)
                self._way.launch(body, present)
            case Kill(key, grace_s, request) if task is not None:
                if task.live:
                    self._way.note(What.KILL, key, task.executor, request)
                self._way.kill(task, grace_s)
            case Forget() if task is not None and not task.live:
                self._way.forget(task)
