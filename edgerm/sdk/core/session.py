"""The session machine of a framework: subscribed or not, offers held, tasks awaited. Time and chance are arguments.

A `Session` hosts a framework's callbacks. What its shell hears (events of a stream, a stream that broke, a call that
was refused) goes in; what is to be done (open or close a stream, make a call) comes out as effects. What does not live
here: HTTP, protobuf, and how a framework decides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Protocol

from edgerm.core.constraints import Constraints
from edgerm.core.errors import Conflict, IllegalMove, Invalid
from edgerm.core.ids import AgentId, ExecutorId, FrameworkId, OfferId, TaskId
from edgerm.core.instant import BEGINNING, Instant
from edgerm.core.resources import NOTHING, Resources
from edgerm.core.scheduler import (
    MESSAGE_BYTES_MAX,
    REFUSE_DEFAULT_S,
    Accept,
    Acknowledge,
    AnswerInverse,
    Call,
    Decline,
    Error,
    Event,
    Failure,
    FrameworkSpec,
    InverseOffers,
    Kill,
    Message,
    Offer,
    Offers,
    Reconcile,
    Request,
    Rescind,
    RescindInverse,
    Revive,
    Status,
    Subscribed,
    Suppress,
    TaskSpec,
    Teardown,
    Update,
    UpdateFramework,
    Waiting,
)
from edgerm.core.tasks import Reason, Source, TaskState
from edgerm.core.timers import Timers
from edgerm.sdk.core.moves import SESSION_MOVES, SessionSignal, SessionState
from edgerm.sdk.core.values import Awaited, Broke, Effect, Happening, Heard, Leave, Make, Refused, Subscribe

RETRY_FIRST_S = 1.0
RETRY_MAX_S = 30.0
SUBSCRIBE_TIMEOUT_S = 30.0  # for SUBSCRIBED to arrive
HEARTBEATS_MISSED_MAX = 3
HEARTBEAT_S = 15.0  # where the master does not say
RECONCILE_S = 600.0
ASK_AGAIN_FIRST_S = 2.0  # doubling: a master is silent on a task whose agent has not come back to it yet
ENDED_REMEMBERED_MAX = 10_000


class Callbacks(Protocol):
    """What a session tells its framework: see `edgerm.sdk.scheduler.Scheduler`."""

    def subscribed(self, driver: Session, framework_id: FrameworkId, /) -> None: ...
    def offers(self, driver: Session, offers: tuple[Offer, ...], /) -> None: ...
    def rescinded(self, driver: Session, offer: Offer, /) -> None: ...
    def update(self, driver: Session, status: Status, /) -> None: ...
    def message(self, driver: Session, agent_id: AgentId, executor_id: ExecutorId, data: bytes, /) -> None: ...
    def agent_lost(self, driver: Session, agent_id: AgentId, /) -> None: ...
    def draining(self, driver: Session, agent_id: AgentId, in_s: float | None, /) -> None: ...
    def disconnected(self, driver: Session, why: str, /) -> None: ...
    def error(self, driver: Session, message: str, /) -> None: ...


@dataclass(slots=True)
class Session:
    """One framework's session; also the `driver` that callbacks get: its verbs only queue calls.

    Duties of the shell: give every happening to `handle`, call `tick` at `due_s`, carry out the effects that both
    answer, in order. After a verb that was called outside of a callback `take` has the effects; `news` tells of them.
    """

    callbacks: Callbacks
    seed: bytes = b""  # for the jitter of back-off
    framework_id: FrameworkId | None = None  # given: come back as this framework
    roles: tuple[str, ...] = ("*",)
    constraints: Mapping[str, Constraints] = field(default_factory=dict)  # which agents are offered, by role
    spec: FrameworkSpec | None = None  # as of the latest `update_framework`
    state: SessionState = SessionState.DISCONNECTED
    now: Instant = BEGINNING  # of what is being handled
    why_ended: str = ""
    news: Callable[[], None] = lambda: None
    tasks: dict[TaskId, Awaited] = field(default_factory=dict)
    held: dict[OfferId, Offer] = field(default_factory=dict)
    _asked_back: dict[AgentId, OfferId] = field(default_factory=dict)  # by the latest inverse offer of each
    _stream: int = 0
    _failures: int = 0
    _silence_max_s: float = HEARTBEAT_S * HEARTBEATS_MISSED_MAX
    _suppressed: set[str] = field(default_factory=set)
    _taken: dict[TaskId, bytes] = field(default_factory=dict)  # uuid of the latest update that was handed on
    _unanswered: dict[TaskId, None] = field(default_factory=dict)  # tasks that the master was asked for
    _asked: int = 0  # times, for these
    _before: tuple[tuple[str, ...], Mapping[str, Constraints], FrameworkSpec | None] | None = None  # the latest update
    _own: list[Status] = field(default_factory=list)  # updates that we make ourselves
    _effects: list[Effect] = field(default_factory=list)
    _timers: Timers[str] = field(default_factory=Timers)

    # --- verbs ---

    def accept(self, offers: Iterable[Offer], tasks: Iterable[TaskSpec], *, refuse_s: float = REFUSE_DEFAULT_S) -> None:
        """Launch tasks on offers of one agent; what they leave is withheld for `refuse_s`.

        A task that cannot be launched (an offer is void, nobody is subscribed) ends as DROPPED, by an update like any
        other. Raises `Conflict` for the id of a task that is awaited.
        """
        offer_ids, launched = tuple(offer.offer_id for offer in offers), tuple(tasks)
        for task in launched:
            if task.task_id in self.tasks:
                raise Conflict(f"task {task.task_id!r} has not ended: give each task an id of its own")
        for task in launched:
            self.tasks[task.task_id] = Awaited(task.task_id, task.agent_id)
            self._taken.pop(task.task_id, None)
        call = Accept(offer_ids, launched, refuse_s)
        if not all(offer_id in self.held for offer_id in offer_ids):
            self._drop(call, "an offer that it uses is void")
        elif self._make(call):
            self._spend(offer_ids)

    def decline(self, offers: Iterable[Offer], *, refuse_s: float = REFUSE_DEFAULT_S) -> None:
        """Give offers back; the same or less of their agents is withheld for `refuse_s`."""
        offer_ids = tuple(offer.offer_id for offer in offers if offer.offer_id in self.held)
        if offer_ids and self._make(Decline(offer_ids, refuse_s)):
            self._spend(offer_ids)

    def kill(self, task_id: TaskId, *, grace_s: float | None = None) -> None:
        """End a task; asked for again after each reconnection until it has ended."""
        awaited = self.tasks.get(task_id)
        call = Kill(task_id, awaited.agent_id if awaited else None, grace_s)
        if awaited is not None:
            awaited.kill = call
        self._make(call)

    def message(self, agent_id: AgentId, executor_id: ExecutorId, data: bytes) -> None:
        """Send bytes to a task (a built-in one's executor id is the task's id): at most once, perhaps never.

        Raises `Invalid` unless there are 1 to 65,536 bytes.
        """
        if not isinstance(data, bytes):
            raise Invalid(f"a message is bytes, not {type(data).__name__}")
        if not 0 < len(data) <= MESSAGE_BYTES_MAX:
            raise Invalid(f"a message has 1 to {MESSAGE_BYTES_MAX} bytes, not {len(data)}")
        self._make(Message(agent_id, executor_id, data))

    def accept_inverse(self, agent_id: AgentId) -> None:
        """Answer `draining`: our tasks will be off the agent in time. Operators see the answer; nothing waits for it.

        Nothing is said of an agent that is not, or no longer, asked back.
        """
        self._answer_inverse(agent_id, agreed=True)

    def decline_inverse(self, agent_id: AgentId) -> None:
        """Answer `draining`: our tasks will not be off the agent in time. The draining goes on all the same."""
        self._answer_inverse(agent_id, agreed=False)

    def revive(self, *roles: str) -> None:
        """Clear filters and suppression for these roles; none named: for all."""
        self._suppressed.difference_update(roles or self.roles)
        self._make(Revive(roles))

    def suppress(self, *roles: str) -> None:
        """No more offers for these roles, until `revive`; none named: for all."""
        self._suppressed.update(roles or self.roles)
        self._make(Suppress(roles))

    def request(self, resources: Resources = NOTHING, waiting: Iterable[Waiting] = ()) -> None:
        """Say what would be welcome, and which tasks wait for devices: that is told to who asks why they wait.

        Offers come as they come. `waiting` takes the place of what was told before, within a subscription.
        """
        self._make(Request(resources, tuple(waiting)))

    def update_framework(self, spec: FrameworkSpec, constraints: Mapping[str, Constraints] | None = None) -> None:
        """Change what the framework says of itself: all but user, principal and checkpoint.

        `constraints`, by role, take the place of those of before; None keeps them, for the roles that stay. Offers of
        roles that go, and of agents that do not meet the new constraints, are rescinded. What the master refuses
        changes nothing: `disconnected` has its words, and the session subscribes again as before.
        """
        self._before = (self.roles, self.constraints, self.spec)
        kept = self.constraints if constraints is None else constraints
        self.roles, self.spec = spec.roles, spec
        self.constraints = {role: one for role, one in kept.items() if role in spec.roles}
        self._suppressed.intersection_update(spec.roles)
        self._make(UpdateFramework(spec, tuple(sorted(self._suppressed)), self.constraints))

    def watch(self, task_id: TaskId, agent_id: AgentId | None = None) -> None:
        """Await a task that an earlier process of this framework launched."""
        self.tasks.setdefault(task_id, Awaited(task_id, agent_id))

    def reconcile(self) -> None:
        """Ask for the state of all awaited tasks now, and again for those without an answer.

        The session also does so by itself: when it is subscribed, and now and then.
        """
        self._unanswered = dict.fromkeys(self.tasks)
        self._asked = 0
        self._ask()

    def teardown(self) -> None:
        """End the framework with all its tasks, for ever; the session ends."""
        self._make(Teardown())
        self.leave()

    def leave(self) -> None:
        """End the session; the framework's tasks run on, for its failover timeout."""
        if self.state is not SessionState.ENDED:
            self._end("")

    # --- the shell's side ---

    def start(self, now: Instant) -> list[Effect]:
        """Subscribe."""
        self.now = now
        self._dial()
        return self.take()

    def handle(self, happening: Happening, now: Instant) -> list[Effect]:
        """Take over what happened; answers what is to be done. What a stream of before says is void."""
        self.now = now
        open_ = self.state in (SessionState.SUBSCRIBING, SessionState.SUBSCRIBED)
        if happening.stream == self._stream and open_:
            match happening:
                case Heard(event=event):
                    self._hear(event)
                case Broke(why=why, final=final):
                    self._broke(why, final=final)
                case Refused(call=call, why=why):
                    self._refused(call, why)
        elif isinstance(happening, Refused):
            self._drop(happening.call, happening.why)
        return self.take()

    def due_s(self) -> float | None:
        """When to `tick` next, in steady seconds."""
        return self._timers.next_s()

    def tick(self, now: Instant) -> list[Effect]:
        """A deadline may be due."""
        self.now = now
        while (what := self._timers.pop(now.steady_s)) is not None:
            if what == "dial":
                self._dial()
            elif what == "silence":
                self._broke("the master was silent for too long", final=False)
            elif what == "ask":
                self._ask()
            else:
                self._reconcile_later()
                self.reconcile()
        return self.take()

    def take(self) -> list[Effect]:
        """What is to be done, in order; first tells of tasks that were dropped here."""
        while self._own:
            self._update(self._own.pop(0))
        effects, self._effects = self._effects, []
        return effects

    # --- inside ---

    def _move(self, signal: SessionSignal) -> None:
        try:
            self.state = SESSION_MOVES[self.state][signal]
        except KeyError:
            raise IllegalMove("session", self.state.name, signal.name, self._stream) from None

    def _make(self, call: Call) -> bool:
        """Queue a call. Apart from the master it is dropped: what must be said again is said after SUBSCRIBED."""
        if self.state is SessionState.SUBSCRIBED:
            self._effects.append(Make(self._stream, call))
            self.news()
            return True
        self._drop(call, "the framework is not subscribed now")
        return False

    def _drop(self, call: Call, why: str) -> None:
        """The tasks of a call that changed nothing were never launched."""
        if not isinstance(call, Accept):
            return
        for task in call.tasks:
            if task.task_id in self.tasks:
                self._own.append(
                    Status(
                        task.task_id,
                        TaskState.DROPPED,
                        task.agent_id,
                        Source.MASTER,
                        Reason.INVALID_OFFERS,
                        why,
                        wall_s=self.now.wall_s,
                    )
                )
        self.news()

    def _answer_inverse(self, agent_id: AgentId, *, agreed: bool) -> None:
        if agent_id in self._asked_back:
            self._make(AnswerInverse((self._asked_back[agent_id],), agreed))

    def _spend(self, offer_ids: Iterable[OfferId]) -> None:
        for offer_id in offer_ids:
            self.held.pop(offer_id, None)

    def _dial(self) -> None:
        self._move(SessionSignal.DIAL)
        self._stream += 1
        suppressed = tuple(sorted(self._suppressed))
        self._effects.append(Subscribe(self._stream, self.framework_id, suppressed, self.constraints, self.spec))
        self._timers.set("silence", self.now.steady_s + SUBSCRIBE_TIMEOUT_S)

    def _hear(self, event: Event) -> None:
        if self.state is SessionState.SUBSCRIBED:
            self._timers.set("silence", self.now.steady_s + self._silence_max_s)
        match event:
            case Subscribed():
                self._welcome(event)
            case Offers(offers=offers):
                self.held.update((offer.offer_id, offer) for offer in offers)
                self.callbacks.offers(self, offers)
            case Rescind(offer_id=offer_id):
                offer = self.held.pop(offer_id, None)
                if offer is not None:
                    self.callbacks.rescinded(self, offer)
            case Update(status=status):
                self._update(status)
            case InverseOffers(offers=inverse):
                for asked in inverse:
                    self._asked_back[asked.agent_id] = asked.offer_id
                    self.callbacks.draining(self, asked.agent_id, asked.starts_in_s)
            case RescindInverse(offer_id=offer_id):
                self._asked_back = {agent: one for agent, one in self._asked_back.items() if one != offer_id}
            case Message(agent_id=agent_id, executor_id=executor_id, data=data):
                self.callbacks.message(self, agent_id, executor_id, data)
            case Failure(agent_id=agent_id, executor_id=None):
                self.callbacks.agent_lost(self, agent_id)
            case Error(message=message):
                self._end(message)

    def _welcome(self, event: Subscribed) -> None:
        self._move(SessionSignal.WELCOME)
        self._failures = 0
        self.framework_id = event.framework_id
        self._silence_max_s = (event.heartbeat_interval_s or HEARTBEAT_S) * HEARTBEATS_MISSED_MAX
        self._timers.set("silence", self.now.steady_s + self._silence_max_s)
        self._reconcile_later()
        self.reconcile()
        for task in self.tasks.values():
            if task.kill is not None:
                self._make(task.kill)
        self.callbacks.subscribed(self, event.framework_id)

    def _update(self, status: Status) -> None:
        """Hand an update on, once, and acknowledge it after: a callback that raises will see it again."""
        self._unanswered.pop(status.task_id, None)
        task = self.tasks.get(status.task_id)
        if task is None and status.reason is Reason.RECONCILIATION:
            return  # we asked before we heard of its end
        if not status.uuid or self._taken.get(status.task_id) != status.uuid:
            if task is not None:
                task.state = status.state
                task.agent_id = status.agent_id or task.agent_id
                if status.state.terminal:
                    del self.tasks[status.task_id]
            self.callbacks.update(self, status)
        if status.uuid and status.agent_id is not None:
            self._taken.pop(status.task_id, None)
            self._taken[status.task_id] = status.uuid
            while len(self._taken) > ENDED_REMEMBERED_MAX + len(self.tasks):
                del self._taken[next(iter(self._taken))]
            self._make(Acknowledge(status.agent_id, status.task_id, status.uuid))

    def _ask(self) -> None:
        asked = tuple((task_id, self.tasks[task_id].agent_id) for task_id in self._unanswered)
        if asked and self._make(Reconcile(asked)):
            wait_s = min(ASK_AGAIN_FIRST_S * 2.0 ** min(self._asked, 30), RECONCILE_S)
            self._asked += 1
            self._timers.set("ask", self.now.steady_s + wait_s * (1 - self._roll() / 4))

    def _reconcile_later(self) -> None:
        self._timers.set("reconcile", self.now.steady_s + RECONCILE_S * (1 - self._roll() / 4))

    def _refused(self, call: Call, why: str) -> None:
        if isinstance(call, UpdateFramework) and call.spec is self.spec and self._before is not None:
            self.roles, self.constraints, self.spec = self._before
        self._drop(call, why)
        self._broke(why, final=False)

    def _broke(self, why: str, *, final: bool) -> None:
        if final:
            self._end(why)
            return
        was_subscribed = self.state is SessionState.SUBSCRIBED
        self._lose_stream(SessionSignal.BREAK)
        wait_s = min(RETRY_FIRST_S * 2.0 ** min(self._failures, 30), RETRY_MAX_S)
        self._failures += 1
        self._timers.set("dial", self.now.steady_s + wait_s * (1 - self._roll() / 2))
        if was_subscribed:
            self.callbacks.disconnected(self, why)

    def _end(self, why: str) -> None:
        """For good; `why` is empty when it is our own will."""
        self.why_ended = why
        self._lose_stream(SessionSignal.END)
        self._timers.cancel("dial")
        if why:
            self.callbacks.error(self, why)

    def _lose_stream(self, signal: SessionSignal) -> None:
        """Offers are void without the stream that brought them."""
        if self.state is not SessionState.DISCONNECTED:
            self._effects.append(Leave(self._stream))
        self._move(signal)
        self.held.clear()
        self._asked_back.clear()
        self._timers.cancel("silence")
        self._timers.cancel("reconcile")
        self._timers.cancel("ask")
        self.news()

    def _roll(self) -> float:
        """0 to 1, from the seed."""
        roll = blake2b(f"{self._stream}:{self._failures}".encode(), key=self.seed[:64], digest_size=2).digest()
        return int.from_bytes(roll, "big") / 65536
