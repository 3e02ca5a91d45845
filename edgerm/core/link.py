"""The agent link, both halves, as `docs/link.md` states it: sessions, orders, updates, back-off.

What lives here: what is said and when. What does not: how it is carried (faces), what an order means (the cores).
Sizes are bounds of the encoded form, never too small, so that a message stays within a transport's budget.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from hashlib import blake2b
from types import MappingProxyType
from typing import TypeAlias

from edgerm.core.blobs import Digest
from edgerm.core.errors import IllegalMove
from edgerm.core.ids import AgentId, TaskKey
from edgerm.core.resources import Amount, ResourceKey, Resources
from edgerm.core.scheduler import AgentSpec, Status, TaskSpec
from edgerm.core.tasks import TaskState
from edgerm.core.texts import cut, utf8_bytes

BEAT_INTERVAL_S = 15.0
JOIN_BUDGET_BYTES = 256 * 1024  # of a part of a join, whatever carries it
QUEUED_FRAMES_MAX = 256
NAME_BYTES_MAX = 255  # of a task whose TaskInfo travels as a blob; the whole name is in there
REASON_BYTES_MAX = 255  # of why a stream was closed
RETRY_FIRST_S = 1.0


@dataclass(frozen=True, slots=True)
class Carrier:
    """What a face of the link carries at once."""

    name: str
    budget_bytes: int  # of a beat or an answer
    data_bytes: int  # of the output in one frame, at most


HTTP = Carrier("http", 256 * 1024, 32 * 1024)
COAP = Carrier("coap", 984, 800)  # a datagram of 1024 bytes, less OSCORE, header, token and path


# --- what is said -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TaskReport:
    """One task as its agent knows it."""

    key: TaskKey
    state: TaskState
    seq: int  # of the latest update that the agent made of this task; 0: none
    role: str
    task: TaskSpec
    owes: bool = False  # updates of it follow in beats: no master has persisted them yet


@dataclass(frozen=True, slots=True)
class Join:
    """An agent introduces itself; `part` counts from 0, `more` on all parts but the last."""

    agent_id: AgentId
    incarnation: int
    agent: AgentSpec
    boot_id: str = ""
    tasks: tuple[TaskReport, ...] = ()
    part: int = 0
    more: bool = False


@dataclass(frozen=True, slots=True)
class Welcome:
    """The join is complete."""

    session: int
    beat_interval_s: float


@dataclass(frozen=True, slots=True)
class NextPart:
    """This part is taken; the next one, please."""


@dataclass(frozen=True, slots=True)
class Stale:
    """A later incarnation of this agent has joined: the request is a late duplicate."""


JoinAnswer: TypeAlias = Welcome | NextPart | Stale


@dataclass(frozen=True, slots=True)
class Launch:
    """Run this task, once."""

    key: TaskKey
    role: str
    task: TaskSpec


@dataclass(frozen=True, slots=True)
class Kill:
    """End this task; None: with its own grace."""

    key: TaskKey
    grace_s: float | None = None


@dataclass(frozen=True, slots=True)
class Forget:
    """Its framework knows how this task ended."""

    key: TaskKey


OrderBody: TypeAlias = Launch | Kill | Forget


@dataclass(frozen=True, slots=True)
class Order:
    """What the master tells an agent, numbered within the session."""

    number: int
    body: OrderBody


@dataclass(frozen=True, slots=True)
class Update:
    """One status update on its way to the master. `seq` counts within the task and survives sessions."""

    key: TaskKey
    seq: int
    status: Status
    number: int = 0  # within the session; given when it is sent


@dataclass(frozen=True, slots=True)
class OpenLog:
    """Send this task's output from `offset` on (negative: from the end)."""

    key: TaskKey
    stderr: bool
    offset: int
    follow: bool
    credit_bytes: int


@dataclass(frozen=True, slots=True)
class OpenStats:
    """Say what the tasks use; CPU is measured over the interval."""

    interval_s: float


@dataclass(frozen=True, slots=True)
class TaskUsage:
    """What one task uses."""

    key: TaskKey
    cpu_s: float  # since its start
    cpus_milli: int  # over the interval
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class Stats:
    """What some tasks use; `end` with the last of them."""

    tasks: tuple[TaskUsage, ...] = ()
    end: bool = False


@dataclass(frozen=True, slots=True)
class Data:
    """Bytes of a stream."""

    offset: int
    data: bytes
    end: bool = False


@dataclass(frozen=True, slots=True)
class Credit:
    """So many more bytes may be sent."""

    credit_bytes: int


@dataclass(frozen=True, slots=True)
class Close:
    """The stream is over, and why."""

    reason: str = ""


FrameBody: TypeAlias = OpenLog | OpenStats | Data | Stats | Credit | Close


@dataclass(frozen=True, slots=True)
class Frame:
    """One message of the ephemeral lane."""

    stream: int
    body: FrameBody


@dataclass(frozen=True, slots=True)
class Beat:
    """The agent is alive, and this is new."""

    session: int
    seen: int  # highest order that is journaled
    updates: tuple[Update, ...] = ()
    frames: tuple[Frame, ...] = ()
    more: bool = False  # there is more news than fitted
    heard: int = 0  # the master's frames up to this number have arrived; 0: nothing new to say of that


@dataclass(frozen=True, slots=True)
class BeatAnswer:
    """What the master has for the agent. `join`: the session is unknown, all else is void."""

    join: bool = False
    persisted: int = 0  # updates up to this number are on the master's disk; 0: the beat had none
    orders: tuple[Order, ...] = ()
    frames: tuple[Frame, ...] = ()
    more: bool = False
    frames_first: int = 0  # the number of the first frame; they count from 1 within the session


@dataclass(frozen=True, slots=True)
class Chunk:
    """A slice of a message that fits no datagram; all but the last are `chunk_bytes` long."""

    digest: Digest  # of the whole
    size_bytes: int  # of the whole
    chunk_bytes: int
    number: int  # from 0
    content: bytes


def common_begin(key: TaskKey) -> str:
    """What the launch id shares with the framework's id, which the same run of a master gave; empty: nothing."""
    begin = key.framework_id[: key.framework_id.rfind("-") + 1]
    return begin if key.launch_id.startswith(begin) and key.launch_id != begin else ""


def update_uuid(key: TaskKey, seq: int) -> bytes:
    """The uuid of a task's update: never two alike, for a key is used once; the same again after a crash."""
    return blake2b(f"{key}/{seq}".encode(), digest_size=16).digest()


# --- sizes ------------------------------------------------------------------------------------------------------


# A field takes its bytes, a tag of at most 2 and a length of at most 4; a number at most 10 and its tag.
_FIELD_BYTES = 6
_NUMBER_BYTES = 12
_MESSAGE_BYTES = 32  # of a beat or an answer, beside what it carries
_BLOB_BYTES = 64


def _text_bytes(*texts: str) -> int:
    return sum(_FIELD_BYTES + utf8_bytes(text) for text in texts)


def _some_bytes(*texts: str) -> int:
    """As `_text_bytes`, of texts that are left out when they are empty."""
    return _text_bytes(*filter(None, texts))


def _key_bytes(key: TaskKey) -> int:
    begin = common_begin(key)
    return 12 + sum(map(utf8_bytes, key)) - utf8_bytes(begin)  # lengths of at most 2 bytes


def _resources_bytes(resources: Resources) -> int:
    return sum(_resource_key_bytes(key) + _amount_bytes(resources[key]) for key in resources)


def _resource_key_bytes(key: ResourceKey) -> int:
    reservations = sum(
        32 + _text_bytes(part.role, part.principal) + len(part.labels) + _FIELD_BYTES for part in key.reservations
    )
    return 32 + _text_bytes(key.name) + len(key.disk) + reservations


def _amount_bytes(amount: Amount) -> int:
    if isinstance(amount, int):
        return 16
    if isinstance(amount, tuple):
        return 16 + 32 * len(amount)
    return 16 + _text_bytes(*amount)


def _excerpt_bytes(task: TaskSpec) -> int:
    name_bytes = min(utf8_bytes(task.name), NAME_BYTES_MAX)
    ids = _text_bytes(task.task_id, task.agent_id)
    return 96 + name_bytes + ids + _resources_bytes(task.resources)


def _task_bytes(task: TaskSpec) -> int:
    """What travels of a task: its TaskInfo, or an excerpt and the names of its blobs."""
    if task.info and task.info_blob is None:
        return _FIELD_BYTES + len(task.info)
    blobs = _text_bytes(task.executor) + _BLOB_BYTES * len(task.needs)
    return _FIELD_BYTES + _excerpt_bytes(task) + blobs


def _order_bytes(order: Order) -> int:
    body = order.body
    extra = _FIELD_BYTES + _task_bytes(body.task) + _text_bytes(body.role) if isinstance(body, Launch) else 6
    return 2 * _FIELD_BYTES + _NUMBER_BYTES + _key_bytes(body.key) + extra


def _update_bytes(update: Update, agent_id: AgentId) -> int:
    key, status = update.key, update.status
    total = 36 + update.seq.bit_length() // 7 + _key_bytes(key) + len(status.extra)
    total += _some_bytes(status.message, status.output_tail, status.trap, status.detail)
    numbers = status.exit_code, status.signal, status.unreachable_wall_s
    total += sum(16 for number in numbers if number is not None)
    ours = status.agent_id == agent_id and status.launch_id == key.launch_id
    if ours and status.uuid == update_uuid(key, update.seq):
        return total  # what follows from the key is left out
    return total + 64 + _text_bytes(status.task_id, status.agent_id or "", status.launch_id or "")


def _report_bytes(report: TaskReport) -> int:
    return 48 + _key_bytes(report.key) + _text_bytes(report.role) + _task_bytes(report.task)


def _agent_bytes(agent: AgentSpec) -> int:
    """What goes with each part of a join beside the tasks."""
    return 160 + _text_bytes(agent.hostname, agent.name) + len(agent.info) + _resources_bytes(agent.resources)


def _frame_bytes(frame: Frame) -> int:
    match frame.body:
        case Data(data=data):
            return 40 + len(data)
        case OpenLog(key=key):
            return 64 + _key_bytes(key)
        case Stats(tasks=tasks):
            return 32 + sum(map(usage_bytes, tasks))
        case Close(reason=reason):
            return 24 + utf8_bytes(reason)
        case Credit() | OpenStats():
            return 32


def usage_bytes(usage: TaskUsage) -> int:
    """What a task's usage takes of a frame."""
    return 3 * _NUMBER_BYTES + _FIELD_BYTES + _key_bytes(usage.key)


def _fitting(sizes: Iterable[int], budget_bytes: int, least: int = 1) -> tuple[int, int]:
    """How many of the first fit (at least so many, if there are), and what is left of the budget."""
    count, left = 0, budget_bytes
    for size in sizes:
        if count >= least and size > left:
            break
        count, left = count + 1, left - size
    return count, max(left, 0)


def _fitting_frames(frames: deque[Frame], left_bytes: int, alone: bool) -> tuple[Frame, ...]:
    """The first that fit; `alone`, with nothing else in the message, one that is too big goes all the same."""
    if not frames:
        return ()
    count, _ = _fitting(map(_frame_bytes, frames), left_bytes, least=int(alone))
    return tuple(frames) if count == len(frames) else tuple(frames)[:count]


def _queue(frames: deque[Frame], frame: Frame) -> bool:
    if len(frames) >= QUEUED_FRAMES_MAX:
        return False
    if isinstance(frame.body, Close):
        frame = Frame(frame.stream, Close(cut(frame.body.reason, REASON_BYTES_MAX)))
    frames.append(frame)
    return True


# --- the master's half ------------------------------------------------------------------------------------------


@dataclass(slots=True)
class MasterHalf:
    """One agent's session at the master."""

    session: int
    incarnation: int
    carrier: Carrier = HTTP  # of the agent's latest request
    taken: int = 0  # updates taken over, up to this number
    _last: int = 0  # orders numbered so far
    _sent: int = 0  # orders that have been in an answer, up to this number
    _heard: int = 0  # frames that the agent has, up to this number
    _told: bool = False  # the latest beat had updates
    _orders: deque[Order] = field(default_factory=deque)
    _frames: deque[Frame] = field(default_factory=deque)  # above `_heard`: each goes with every answer until then

    def order(self, body: OrderBody) -> None:
        """Queue an order; it goes with every answer until the agent has seen it. The same kill waits once only."""
        if isinstance(body, Kill) and any(order.body == body for order in self._orders):
            return
        self._last += 1
        self._orders.append(Order(self._last, body))

    def withdraw(self, key: TaskKey) -> bool:
        """Take back the launch of `key` if it has been in no answer yet."""
        for order in self._orders:
            if order.number > self._sent and isinstance(order.body, Launch) and order.body.key == key:
                self._orders.remove(order)
                return True
        return False

    def send(self, frame: Frame) -> bool:
        """Queue a frame for the next answers; False when the queue is full and the stream must be given up."""
        return _queue(self._frames, frame)

    def take(self, beat: Beat) -> tuple[list[Update], list[OrderBody]]:
        """The updates of `beat` that are new, in order, and the orders that the agent has now journaled."""
        seen: list[OrderBody] = []
        while self._orders and self._orders[0].number <= beat.seen:
            seen.append(self._orders.popleft().body)
        while self._frames and self._heard < beat.heard:
            self._frames.popleft()
            self._heard += 1
        self._told = bool(beat.updates)
        fresh = []
        for update in beat.updates:
            if update.number == self.taken + 1:
                self.taken += 1
                fresh.append(update)
        return fresh, seen

    def answer(self) -> BeatAnswer:
        """All that the agent has not seen or heard, as far as the carrier's budget goes."""
        count, left = _fitting(map(_order_bytes, self._orders), self.carrier.budget_bytes - _MESSAGE_BYTES)
        orders = tuple(self._orders)[:count] if count < len(self._orders) else tuple(self._orders)
        frames = _fitting_frames(self._frames, left, alone=not orders)
        if orders:
            self._sent = max(self._sent, orders[-1].number)
        more = count < len(self._orders) or len(frames) < len(self._frames)
        persisted = self.taken if self._told else 0
        return BeatAnswer(False, persisted, orders, frames, more, self._heard + 1 if frames else 0)


REJOIN = BeatAnswer(join=True)


def make_session(seed: bytes, count: int) -> int:
    """A session of 32 bits that cannot be guessed without the seed; never 0."""
    return int.from_bytes(blake2b(count.to_bytes(8, "big"), key=seed[:64], digest_size=4).digest(), "big") or 1


# --- the agent's half -------------------------------------------------------------------------------------------


class LinkState(Enum):
    """How an agent stands with its master."""

    APART = "apart"  # no session; a join is due
    JOINING = "joining"  # a join is under way
    JOINED = "joined"  # there is a session


class LinkSignal(Enum):
    """What can happen to the agent's half."""

    DIAL = "dial"  # a join is sent
    WELCOME = "welcome"  # the master gave a session
    FAIL = "fail"  # a request had no answer
    OUTCAST = "outcast"  # the master does not know the session
    CHANGED = "changed"  # the agent is not any more what it said when it joined


LINK_MOVES: Mapping[LinkState, Mapping[LinkSignal, LinkState]] = MappingProxyType(
    {
        LinkState.APART: {LinkSignal.DIAL: LinkState.JOINING},
        LinkState.JOINING: {
            LinkSignal.DIAL: LinkState.JOINING,  # the next part
            LinkSignal.WELCOME: LinkState.JOINED,
            LinkSignal.FAIL: LinkState.APART,
            LinkSignal.OUTCAST: LinkState.APART,
        },
        LinkState.JOINED: {
            LinkSignal.FAIL: LinkState.JOINED,  # tried again with back-off; contact lost is no reason to leave
            LinkSignal.OUTCAST: LinkState.APART,
            LinkSignal.CHANGED: LinkState.APART,
        },
    }
)

Request: TypeAlias = Join | Beat


@dataclass(frozen=True, slots=True)
class Intake:
    """What an answer brought: orders above the highest seen, frames, and the updates that need no resending."""

    orders: tuple[Order, ...] = ()
    frames: tuple[Frame, ...] = ()
    persisted: tuple[Update, ...] = ()
    joined: bool = False  # a session began with this answer


@dataclass(slots=True)
class AgentHalf:
    """The agent's side of its link: what to send next and when. One request is under way at a time."""

    agent_id: AgentId
    agent: AgentSpec
    incarnation: int  # for the first join of this process; later ones count up
    boot_id: str = ""
    seed: bytes = b""  # for the jitter of back-off
    carrier: Carrier = HTTP
    state: LinkState = LinkState.APART
    session: int = 0
    beat_interval_s: float = BEAT_INTERVAL_S
    seen: int = 0
    _request: int = 0  # number of the latest request
    _under_way: bool = False
    _due_s: float = 0.0
    _rang: bool = False
    _failures: int = 0
    _persisted: int = 0  # in this session
    _pending: deque[Update] = field(default_factory=deque)
    _frames: deque[Frame] = field(default_factory=deque)
    _frames_sent: int = 0  # of them, in the beat under way
    _heard: int = 0  # the master's frames up to this number are here
    _heard_sent: int = 0  # what the beat under way says of that
    _heard_told: int = 0  # what the master knows of it
    _parts: list[Join] = field(default_factory=list)
    _part: int = 0
    _changed: bool = False  # `agent` is not what was said at the last join

    def _move(self, signal: LinkSignal) -> None:
        try:
            self.state = LINK_MOVES[self.state][signal]
        except KeyError:
            raise IllegalMove("link", self.state.name, signal.name, self._request) from None

    def report(self, update: Update) -> None:
        """Queue an update that is (or is being) journaled."""
        self._pending.append(update)

    def send(self, frame: Frame) -> bool:
        """Queue a frame; False when the queue is full: the stream must slow down."""
        return _queue(self._frames, frame)

    @property
    def unheard(self) -> Iterable[Frame]:
        """The frames that the master is not known to have."""
        return self._frames

    def ring(self) -> None:
        """The doorbell rang, or there is a reason to beat at once."""
        self._rang = True

    def describe(self, agent: AgentSpec) -> None:
        """The agent is this now: it joins again, as soon as no request is under way."""
        self.agent, self._changed = agent, True

    @property
    def joins_next(self) -> bool:
        """Whether the next request is a join that reports every task."""
        return self.state is LinkState.APART or (self.state is LinkState.JOINED and self._changed)

    def due_s(self, now_s: float) -> float | None:
        """When to `poll` next; None while a request is under way."""
        if self._under_way:
            return None
        news = self._pending or self._frames or self._rang or self._changed
        if self.state is LinkState.JOINED and not self._failures and news:
            return now_s
        return self._due_s

    def poll(self, now_s: float, reports: Sequence[TaskReport]) -> tuple[int, Request] | None:
        """The request to send now, with its number, or None if nothing is due."""
        due_s = self.due_s(now_s)
        if due_s is None or due_s > now_s:
            return None
        self._request += 1
        self._under_way = True
        if self.state is LinkState.JOINED and not self._changed:
            return self._request, self._beat()
        if self.state is LinkState.JOINED:
            self._move(LinkSignal.CHANGED)
            self.incarnation += 1
        if self.state is LinkState.APART:
            self._parts, self._part, self._changed = self._make_parts(reports), 0, False
        self._move(LinkSignal.DIAL)
        return self._request, self._parts[self._part]

    def _beat(self) -> Beat:
        sizes = (_update_bytes(update, self.agent_id) for update in self._pending)
        count, left = _fitting(sizes, self.carrier.budget_bytes - _MESSAGE_BYTES)
        updates = tuple(
            Update(update.key, update.seq, update.status, self._persisted + 1 + index)
            for index, update in zip(range(count), self._pending, strict=False)
        )
        frames = _fitting_frames(self._frames, left, alone=not updates)
        self._rang = False
        self._frames_sent, self._heard_sent = len(frames), self._heard
        heard = self._heard if self._heard > self._heard_told else 0
        more = count < len(self._pending) or len(frames) < len(self._frames)
        return Beat(self.session, self.seen, updates, frames, more, heard)

    def _make_parts(self, reports: Sequence[TaskReport]) -> list[Join]:
        parts: list[tuple[TaskReport, ...]] = []
        rest = tuple(reports)
        left_bytes = max(JOIN_BUDGET_BYTES - _agent_bytes(self.agent) - utf8_bytes(self.boot_id), 0)
        while rest or not parts:
            count, _ = _fitting(map(_report_bytes, rest), left_bytes)
            parts.append(rest[:count])
            rest = rest[count:]
        last = len(parts) - 1
        return [
            Join(self.agent_id, self.incarnation, self.agent, self.boot_id, tasks, part, part < last)
            for part, tasks in enumerate(parts)
        ]

    def failed(self, request: int, now_s: float) -> None:
        """The request had no answer, or none that could be read."""
        if request != self._request or not self._under_way:
            return
        self._under_way = False
        self._move(LinkSignal.FAIL)
        self._back_off(now_s)

    def _back_off(self, now_s: float) -> None:
        wait_s = min(RETRY_FIRST_S * 2.0 ** min(self._failures, 30), self.beat_interval_s)
        self._failures += 1
        roll = blake2b(f"{self.agent_id}:{self._request}".encode(), key=self.seed[:64], digest_size=2).digest()
        self._due_s = now_s + wait_s * (1 - int.from_bytes(roll, "big") / 65536 / 2)

    def join_answered(self, request: int, answer: JoinAnswer, now_s: float) -> Intake:
        """The master's word on a join."""
        if request != self._request or not self._under_way or self.state is not LinkState.JOINING:
            return Intake()
        self._under_way = False
        if isinstance(answer, Welcome):
            self._move(LinkSignal.WELCOME)
            self._begin_session(answer, now_s)
            return Intake(joined=True)
        if isinstance(answer, NextPart) and self._part + 1 < len(self._parts):
            self._part += 1
            self._due_s = now_s
            return Intake()
        # Stale, or a master that lost count of the parts: once more, under a number that nobody has seen.
        self._move(LinkSignal.OUTCAST)
        self.incarnation += 1
        self._back_off(now_s)
        return Intake()

    def _begin_session(self, welcome: Welcome, now_s: float) -> None:
        self.session, self.beat_interval_s = welcome.session, welcome.beat_interval_s
        self.seen = self._persisted = self._failures = self._heard = self._heard_told = 0
        self._frames.clear()
        self._parts = []
        self._due_s = now_s  # the first beat fetches the orders that the join led to

    def beat_answered(self, request: int, answer: BeatAnswer, now_s: float) -> Intake:
        """The master's word on a beat; answers to anything but the latest request are void."""
        if request != self._request or not self._under_way or self.state is not LinkState.JOINED:
            return Intake()
        self._under_way = False
        self._failures = 0
        if answer.join:
            self._move(LinkSignal.OUTCAST)
            self.incarnation += 1
            self._due_s = now_s
            return Intake()
        self._due_s = now_s if answer.more else now_s + self.beat_interval_s
        self._heard_told = self._heard_sent
        for _ in range(self._frames_sent):
            self._frames.popleft()
        done = min(max(answer.persisted - self._persisted, 0), len(self._pending))
        persisted = tuple(self._pending.popleft() for _ in range(done))
        self._persisted += done
        orders = tuple(order for order in answer.orders if order.number > self.seen)
        if orders:
            self.seen = orders[-1].number
        return Intake(orders, self._hear(answer), persisted)

    def _hear(self, answer: BeatAnswer) -> tuple[Frame, ...]:
        """The frames that are new here; none if one between is missing, which no master of ours leaves out."""
        fresh = answer.frames[max(self._heard + 1 - answer.frames_first, 0) :]
        if not fresh or answer.frames_first > self._heard + 1:
            return ()
        self._heard += len(fresh)
        return fresh
