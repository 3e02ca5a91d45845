"""The agent's core: the truth about what runs on this box, and what it owes the master.

Each task goes through the phases of `records.Phase`; the journal always knows the phase before the step is taken, so
that after a crash `recovery.judge` can tell what happened. Nothing here waits for the link: a task starts, ends and is
recorded with or without a master.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from edgerm.core.blobs import Digest
from edgerm.core.effects import Drop, Put
from edgerm.core.ids import AgentId, TaskKey
from edgerm.core.instant import BEGINNING, Instant
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
    Update,
    update_uuid,
)
from edgerm.core.resources import Resources
from edgerm.core.scheduler import KILL_GRACE_S, AgentSpec, Status
from edgerm.core.tasks import SIGNAL_OF, Reason, Source, TaskState, advance
from edgerm.core.timers import Timers
from edgerm.plugin.executor import Exit, ExitReason, Handle
from edgerm_agent.core.effects import (
    Abandon,
    Discard,
    Dismissed,
    Effect,
    Fetch,
    FramesIn,
    MessageIn,
    Noted,
    Release,
    Send,
    SessionBegan,
    Sleep,
    Start,
    Stop,
    Watch,
    What,
)
from edgerm_agent.core.events import (
    BeatAnswered,
    CarrierChanged,
    Described,
    Ended,
    Event,
    ExecutorFound,
    Fetched,
    FetchFailed,
    InstanceChanged,
    JoinAnswered,
    Preparing,
    Rang,
    Recovered,
    RequestFailed,
    SendFrame,
    SendMessage,
    Started,
    StartFailed,
    Tick,
)
from edgerm_agent.core.holding import gone, refusal
from edgerm_agent.core.records import Phase, Record, RunRecord, TaskRecord
from edgerm_agent.core.recovery import Verdict, judge
from edgerm_agent.core.rest import Rest
from edgerm_agent.core.verdicts import ending

NEVER: Mapping[str, float] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this agent is, for the whole life of the process."""

    agent_id: AgentId
    spec: AgentSpec
    incarnation: int  # higher than any that an earlier process of this agent used
    boot_id: str = ""
    seed: bytes = b""
    carrier: Carrier = HTTP


@dataclass(slots=True)
class Task:
    """One task: what it is, and how far it has come."""

    record: TaskRecord
    run: RunRecord

    @property
    def key(self) -> TaskKey:
        return self.record.key

    @property
    def live(self) -> bool:
        return self.run.phase is not Phase.ENDED


class Agent:
    """Takes events, gives effects. The first event is `Recovered`; until then no order is taken.

    `idle_s`: executors that may sleep when they had no task for so long. One that sleeps has the empty instance. It is
    awake before a task of its own is STARTING, so that the journal knows who was asked; and while one lives.
    """

    def __init__(self, identity: Identity, records: Iterable[Record] = (), idle_s: Mapping[str, float] = NEVER) -> None:
        self._spec = identity.spec
        self._half = AgentHalf(
            identity.agent_id, identity.spec, identity.incarnation, identity.boot_id, identity.seed, identity.carrier
        )
        self._instances: dict[str, str] = {}
        self._awaited: dict[str, str] = {}  # executors that may hold tasks, and why they do not answer
        self._news: dict[TaskKey, str] = {}  # the latest of a start, while the master has not got the one before
        self._tasks: dict[TaskKey, Task] = {}
        self._left: Resources | None = None  # by tasks that have not ended; None: to be worked out anew
        self._timers: Timers[TaskKey] = Timers()  # when a task has run for as long as it may
        self._rest = Rest(idle_s)
        self._now = BEGINNING
        self._out: list[Effect] = []
        self._notes: list[Noted] = []  # for the log, after all else
        self._up = False
        self._load(records)

    def _load(self, records: Iterable[Record]) -> None:
        kept = list(records)
        runs = {record.key: record for record in kept if isinstance(record, RunRecord)}
        for record in kept:
            if isinstance(record, TaskRecord):
                self._tasks[record.key] = Task(record, runs[record.key])
        for task in self._tasks.values():
            for update in task.run.owed:
                self._half.report(update)

    @property
    def tasks(self) -> Mapping[TaskKey, Task]:
        """For reading: every task that is not forgotten."""
        return self._tasks

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
        return self._spec

    def due_s(self) -> float | None:
        """When to hand in a Tick (steady seconds; may be in the past: at once), or None."""
        if not self._up:
            return None
        dues = (self._half.due_s(self._now.steady_s), self._timers.next_s(), self._rest.next_s())
        return min((due for due in dues if due is not None), default=None)

    def needs(self) -> set[Digest]:
        """The blobs that must be kept: those of tasks that have not ended."""
        return {ref.digest for task in self._tasks.values() if task.live for ref in task.record.task.needs}

    def handle(self, event: Event, now: Instant) -> list[Effect]:
        """Let `event` happen."""
        self._now = now
        self._out, self._notes = [], []
        match event:
            case JoinAnswered() | BeatAnswered() | RequestFailed() | CarrierChanged() | Rang() | SendFrame():
                self._heard(event)
            case SendMessage(letter):
                self._half.send_message(letter)  # at most once: who drops it need not say so
            case Recovered() | ExecutorFound() | InstanceChanged() | Described():
                self._looked(event)
            case Tick():
                self._expire()
                self._doze()
            case _:
                self._came_about(event)
        self._poll()
        self._out += self._notes
        return self._out

    def _heard(self, event: JoinAnswered | BeatAnswered | RequestFailed | CarrierChanged | Rang | SendFrame) -> None:
        match event:
            case JoinAnswered(request, answer):
                self._take(self._half.join_answered(request, answer, self._now.steady_s), frozenset())
            case BeatAnswered(request, answer, present):
                self._take(self._half.beat_answered(request, answer, self._now.steady_s), present)
            case RequestFailed(request):
                self._half.failed(request, self._now.steady_s)
            case CarrierChanged(carrier):
                self._half.carrier = carrier
            case Rang():
                self._half.ring()
            case SendFrame(frame):
                self._half.send(frame)

    def _looked(self, event: Recovered | ExecutorFound | InstanceChanged | Described) -> None:
        match event:
            case Recovered(instances, held, awaited):
                self._recover(instances, held, awaited)
            case ExecutorFound(executor, instance, held):
                self._found(executor, instance, held)
            case InstanceChanged(executor, instance) if executor in self._instances:
                self._instance(executor, instance)
            case Described(spec):
                self._spec, self._left = spec, None
                self._half.describe(spec)

    def _instance(self, executor: str, instance: str) -> None:
        self._instances[executor] = instance
        if instance:
            self._rest.used(executor, self._now.steady_s)

    def _doze(self) -> None:
        while (executor := self._rest.pop(self._now.steady_s, self._is_busy)) is not None:
            if self._instances.get(executor):
                self._instances[executor] = ""
                self._out.append(Sleep(executor))

    def _is_busy(self, executor: str) -> bool:
        return any(task.live and task.record.task.executor == executor for task in self._tasks.values())

    def _came_about(self, event: Fetched | FetchFailed | Preparing | Started | StartFailed | Ended) -> None:
        match event:
            case Fetched(key):
                self._fetched(key)
            case Preparing(key, message):
                self._preparing(key, message)
            case FetchFailed(key, why) | StartFailed(key, why):
                self._not_started(key, why)
            case Started(key, handle):
                self._started(key, handle)
            case Ended(key, exited):
                self._ended(key, exited)

    # --- the link ---

    def _poll(self) -> None:
        if not self._up:
            return
        reports = self._reports() if self._half.joins_next else ()
        request = self._half.poll(self._now.steady_s, reports)
        if request is not None:
            self._out.append(Send(*request))

    def _reports(self) -> tuple[TaskReport, ...]:
        return tuple(
            TaskReport(task.key, task.run.state, task.run.seq, task.record.role, task.record.task, bool(task.run.owed))
            for task in self._tasks.values()
        )

    def _take(self, intake: Intake, present: frozenset[Digest]) -> None:
        for update in intake.persisted:
            self._persisted(update)
        for order in intake.orders:
            self._order(order.body, present)
        if intake.frames:
            self._out.append(FramesIn(intake.frames))
        for letter in intake.letters:
            self._deliver(letter)
        if intake.gone:
            self._out.append(Dismissed(intake.gone))
        if intake.joined:
            self._out.append(SessionBegan(self._half.session))

    def _deliver(self, letter: Letter) -> None:
        task = self._tasks.get(letter.key)
        if task is not None and task.live:
            self._out.append(MessageIn(letter))

    def _persisted(self, update: Update) -> None:
        """Owe it no more. Not journaled: after a crash it is sent again, and the master drops what it has."""
        task = self._tasks.get(update.key)
        if task is not None:
            task.run = replace(task.run, owed=tuple(owed for owed in task.run.owed if owed.seq > update.seq))
            if not task.run.owed and (message := self._news.pop(update.key, None)) is not None:
                self._preparing(update.key, message)

    def _order(self, body: OrderBody, present: frozenset[Digest]) -> None:
        match body:
            case Launch() if body.key not in self._tasks:
                self._note(What.LAUNCH, body.key, body.task.executor, body.request)
                self._launch(body, present)
            case Kill(key, grace_s, request) if key in self._tasks:
                if self._tasks[key].live:
                    self._note(What.KILL, key, self._tasks[key].record.task.executor, request)
                self._kill(self._tasks[key], grace_s)
            case Forget(key) if key in self._tasks and not self._tasks[key].live:
                del self._tasks[key]
                self._out += (Drop("task", str(key)), Drop("run", str(key)), Discard(key))

    def _note(self, what: What, key: TaskKey, executor: str, request: str = "", status: Status | None = None) -> None:
        self._notes.append(Noted(what, key, executor, request, status))

    # --- a task's way ---

    def _change(self, task: Task, **changes: object) -> None:
        task.run = replace(task.run, **changes)  # type: ignore[arg-type]
        self._out.append(Put("run", str(task.key), task.run))

    def _launch(self, order: Launch, present: frozenset[Digest]) -> None:
        record = TaskRecord(order.key, order.role, order.task)
        awaited = self._awaited.get(order.task.executor)
        wakes = self._sleeping(order.task.executor)
        missing = bool(wakes) or any(ref.digest not in present for ref in order.task.needs)
        phase = Phase.FETCHING if missing or awaited is not None else Phase.STARTING
        instance = self._instances.get(order.task.executor, "")
        task = Task(record, RunRecord(order.key, phase, TaskState.STAGING, instance))
        fault = self._fault(order)
        self._tasks[order.key] = task
        # The run first: a batch may end between the two, and a task without a run would be a promise half made.
        if fault is not None:
            self._end(task, *fault)
            self._out.append(Put("task", str(order.key), record))
            return
        self._left = self._left.less(order.task.resources) if self._left is not None else None
        self._out += (Put("run", str(order.key), task.run), Put("task", str(order.key), record))
        if missing:
            self._out.append(Fetch(order.key, order.task.needs, wakes))
        elif awaited is not None:
            self._preparing(order.key, awaited)
        else:
            self._out.append(Start(order.key, order.task))

    def _sleeping(self, executor: str) -> str:
        """The executor if it sleeps, else nothing."""
        return executor if self._instances.get(executor) == "" else ""

    def _fault(self, order: Launch) -> tuple[TaskState, Reason, str] | None:
        """Why this agent does not even try; it is the authority on what it has."""
        executor = order.task.executor
        if order.task.fault:  # a newer master's task may ask for what this agent does not know
            return TaskState.FAILED, Reason.CONTAINER_LAUNCH_FAILED, order.task.fault
        if executor not in self._instances and executor not in self._awaited:
            have = ", ".join(sorted(self._instances)) or "none"
            message = f"this agent has no {executor!r} executor (it has: {have}); see: edgerm doctor on the agent"
            return TaskState.FAILED, Reason.CONTAINER_LAUNCH_FAILED, message
        left = self._left = self._left if self._left is not None else self._spare()
        if left.covers(order.task.resources):
            return None
        holders = ((task.key, task.record.task.resources) for task in self._tasks.values() if task.live)
        message = refusal(order.task.resources, self._spec.resources, left, holders)
        return TaskState.DROPPED, Reason.RESOURCES_UNKNOWN, message

    def _spare(self) -> Resources:
        left = self._spec.resources
        for task in self._tasks.values():
            if task.live:
                left = left.less(task.record.task.resources)
        return left

    def _fetched(self, key: TaskKey) -> None:
        task = self._tasks.get(key)
        if task is not None and task.run.phase is Phase.FETCHING:
            self._start(task)

    def _start(self, task: Task) -> None:
        executor = task.record.task.executor
        if executor in self._awaited:  # it stays here until `_found`
            self._preparing(task.key, self._awaited[executor])
            return
        instance = self._instances.get(executor)
        if instance is None:
            message = f"this agent has no {executor!r} executor any more"
            self._end(task, TaskState.FAILED, Reason.CONTAINER_LAUNCH_FAILED, message)
            return
        if message := gone(task.record.task.resources, self._spec.resources):
            self._end(task, TaskState.FAILED, Reason.CONTAINER_LAUNCH_FAILED, message)
            return
        if not instance:
            self._out.append(Fetch(task.key, task.record.task.needs, executor))
            return
        self._change(task, phase=Phase.STARTING, instance=instance)
        self._out.append(Start(task.key, task.record.task))

    def _preparing(self, key: TaskKey, message: str) -> None:
        """Tell it; while the master lacks what was told before, only the latest is kept, and not on the disk."""
        task = self._tasks.get(key)
        if task is None or task.run.phase not in (Phase.FETCHING, Phase.STARTING) or task.run.kill_asked:
            return
        if task.run.owed:
            self._news[key] = message
        else:
            self._change_and_report(task, TaskState.STARTING, message=message)

    def _started(self, key: TaskKey, handle: Handle) -> None:
        task = self._tasks.get(key)
        if task is None or task.run.phase is not Phase.STARTING:
            return
        self._news.pop(key, None)
        self._change_and_report(task, TaskState.RUNNING, phase=Phase.RUNNING, handle=handle, instance=handle.instance)
        self._note(What.RUNNING, key, handle.executor)
        self._limit_time(task)
        if task.run.kill_asked:
            self._out.append(Stop(handle, self._grace_s(task)))

    def _limit_time(self, task: Task) -> None:
        if task.record.task.completion_s is not None:
            self._timers.set(task.key, self._now.steady_s + task.record.task.completion_s)

    def _expire(self) -> None:
        while (key := self._timers.pop(self._now.steady_s)) is not None:
            task = self._tasks.get(key)
            if task is not None and task.run.handle is not None and task.live and not task.run.kill_asked:
                self._change(task, kill_asked=True, expired=True)
                self._out.append(Stop(task.run.handle, self._grace_s(task)))

    def _kill(self, task: Task, grace_s: float | None) -> None:
        if not task.live:
            return
        if task.run.phase is Phase.FETCHING:
            self._end(task, TaskState.KILLED, Reason.TASK_KILLED_DURING_LAUNCH, "killed before it was started")
            return
        first = not task.run.kill_asked
        if task.run.handle is None:
            self._change(task, kill_asked=True, kill_grace_s=grace_s)
            self._out.append(Abandon(task.key, task.record.task.executor))
            return
        if first:
            self._change_and_report(task, TaskState.KILLING, kill_asked=True, kill_grace_s=grace_s)
        elif grace_s != task.run.kill_grace_s:
            self._change(task, kill_grace_s=grace_s)
        self._out.append(Stop(task.run.handle, self._grace_s(task)))

    def _grace_s(self, task: Task) -> float:
        for grace_s in (task.run.kill_grace_s, task.record.task.grace_s):
            if grace_s is not None:
                return grace_s
        return KILL_GRACE_S

    def _not_started(self, key: TaskKey, why: str) -> None:
        task = self._tasks.get(key)
        if task is None or task.run.phase not in (Phase.FETCHING, Phase.STARTING):
            return
        if task.run.kill_asked:
            self._end(task, TaskState.KILLED, Reason.TASK_KILLED_DURING_LAUNCH, why)
        else:
            self._end(task, TaskState.FAILED, Reason.CONTAINER_LAUNCH_FAILED, why)

    def _ended(self, key: TaskKey, exited: Exit) -> None:
        task = self._tasks.get(key)
        if task is None or not task.live:
            return
        end = ending(exited, task.run.kill_asked, task.run.expired)
        self._end(task, *end, exited)

    def _end(
        self, task: Task, state: TaskState, reason: Reason | None, message: str, exited: Exit | None = None
    ) -> None:
        handle = task.run.handle
        self._left = None
        self._rest.used(task.record.task.executor, self._now.steady_s)
        self._timers.cancel(task.key)
        self._news.pop(task.key, None)
        self._change_and_report(task, state, reason, message, exited, phase=Phase.ENDED, handle=None)
        if task.run.owed:
            self._note(What.ENDED, task.key, task.record.task.executor, status=task.run.owed[-1].status)
        if handle is not None:
            self._out.append(Release(task.key, handle))

    def _change_and_report(
        self,
        task: Task,
        state: TaskState,
        reason: Reason | None = None,
        message: str = "",
        exited: Exit | None = None,
        **changes: object,
    ) -> None:
        """Move the task and owe the master an update about it, in one record."""
        state = advance(task.run.state, SIGNAL_OF[state], task.run)
        update = Update(task.key, task.run.seq + 1, self._status(task, state, reason, message, exited))
        self._change(task, state=state, seq=update.seq, owed=(*task.run.owed, update), **changes)
        self._half.report(update)

    def _status(self, task: Task, state: TaskState, reason: Reason | None, message: str, exited: Exit | None) -> Status:
        return Status(
            task.key.task_id,
            state,
            self._half.agent_id,
            Source.AGENT if state is TaskState.DROPPED else Source.EXECUTOR,
            reason,
            message,
            update_uuid(task.key, task.run.seq + 1),
            self._now.wall_s,
            task.key.launch_id,
            exited.code if exited else None,
            exited.signal if exited else None,
            (exited.trap or "") if exited else "",
            exited.tail if exited else "",
        )

    # --- recovery ---

    def _recover(
        self, instances: Mapping[str, str], held: Mapping[TaskKey, Handle], awaited: Mapping[str, str]
    ) -> None:
        self._awaited = dict(awaited)
        for executor, instance in instances.items():
            self._instance(executor, instance)
        self._up = True
        for task in list(self._tasks.values()):
            self._resume(task, held)
        self._end_strangers(held)

    def _found(self, executor: str, instance: str | None, held: Mapping[TaskKey, Handle]) -> None:
        """Judge the tasks of an awaited executor, once: what was started since is none of this event's business."""
        if executor in self._instances:
            return
        was_awaited = self._awaited.pop(executor, None) is not None
        if instance is not None:
            self._instance(executor, instance)
        if was_awaited:
            for task in list(self._tasks.values()):
                if task.record.task.executor == executor:
                    self._resume(task, held)
        self._end_strangers(held)

    def _end_strangers(self, held: Mapping[TaskKey, Handle]) -> None:
        for key, handle in held.items():
            if key not in self._tasks or not self._tasks[key].live:
                self._out += (Stop(handle, 0.0), Release(key, handle))

    def _resume(self, task: Task, held: Mapping[TaskKey, Handle]) -> None:
        executor = task.record.task.executor
        match judge(task.run, self._instances.get(executor), held, awaited=executor in self._awaited):
            case Verdict.FETCH:
                self._out.append(Fetch(task.key, task.record.task.needs, self._sleeping(executor)))
            case Verdict.START if task.run.kill_asked:
                self._not_started(task.key, "killed before it was started")
            case Verdict.START:
                self._out.append(Start(task.key, task.record.task))
            case Verdict.ADOPT:
                self._adopt(task, held[task.key])
            case Verdict.LOST:
                message = "the agent was restarted and what held the task is gone"
                self._ended(task.key, Exit(ExitReason.EXECUTOR_DIED, message=message))

    def _adopt(self, task: Task, handle: Handle) -> None:
        self._out.append(Watch(handle))
        if task.run.phase is Phase.STARTING:
            self._started(task.key, handle)
            return
        # Its time begins anew: how long the agent was away is not known.
        self._limit_time(task)
        if task.run.kill_asked:
            self._out.append(Stop(handle, self._grace_s(task)))
