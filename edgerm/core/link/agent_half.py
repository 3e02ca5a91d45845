"""The agent's half of the link: its state, what to send next and when, back-off."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import TypeAlias

from edgerm.core.errors import IllegalMove
from edgerm.core.ids import AgentId
from edgerm.core.link.frames import fitting_frames, queue
from edgerm.core.link.messages import (
    BEAT_INTERVAL_S,
    HTTP,
    JOIN_BUDGET_BYTES,
    LANE_TALK,
    RETRY_FIRST_S,
    Beat,
    BeatAnswer,
    Carrier,
    Frame,
    Gone,
    Join,
    JoinAnswer,
    NextPart,
    Order,
    TaskReport,
    Update,
    WantsInventory,
    Welcome,
)
from edgerm.core.link.moves import LINK_MOVES, LinkSignal, LinkState
from edgerm.core.link.parts import Assembly, Letter, queue_message
from edgerm.core.link.sizes import MESSAGE_BYTES, agent_bytes, fitting, report_bytes, tellable, update_bytes
from edgerm.core.scheduler import AgentSpec
from edgerm.core.texts import utf8_bytes

SAME_TURN = 1e-3  # of an interval: a turn that is no further away is the present one, whatever was rounded


Request: TypeAlias = Join | Beat


@dataclass(frozen=True, slots=True)
class Intake:
    """What an answer brought: orders above the highest seen, frames, and the updates that need no resending."""

    orders: tuple[Order, ...] = ()
    frames: tuple[Frame, ...] = ()
    persisted: tuple[Update, ...] = ()
    joined: bool = False  # a session began with this answer
    letters: tuple[Letter, ...] = ()  # messages for tasks
    gone: str = ""  # why this agent may never join again


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
    _frames_done: int = 0  # in this session, that the master has
    _letters: Assembly = field(default_factory=Assembly)
    _lane: int = 0  # which frames the master knows
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
        return queue(self._frames, frame)

    def send_message(self, letter: Letter) -> bool:
        """Queue a message; False: it is dropped, for there is no session, or none with messages, or no room."""
        if self.state is not LinkState.JOINED or self._lane < LANE_TALK:
            return False
        return queue_message(self._frames, letter, self.carrier.data_bytes)

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
        if self._under_way or self.state is LinkState.GONE:
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
        sizes = (update_bytes(update, self.agent_id) for update in self._pending)
        count, left = fitting(sizes, self.carrier.budget_bytes - MESSAGE_BYTES)
        updates = tuple(
            Update(update.key, update.seq, update.status, self._persisted + 1 + index)
            for index, update in zip(range(count), self._pending, strict=False)
        )
        frames = fitting_frames(self._frames, left, alone=not updates)
        self._rang = False
        self._frames_sent, self._heard_sent = len(frames), self._heard
        heard = self._heard if self._heard > self._heard_told else 0
        more = count < len(self._pending) or len(frames) < len(self._frames)
        first = self._frames_done + 1 if frames else 0
        return Beat(self.session, self.seen, updates, frames, more, heard, first)

    def _make_parts(self, reports: Sequence[TaskReport]) -> list[Join]:
        parts: list[tuple[TaskReport, ...]] = []
        rest = tuple(reports)
        left_bytes = max(JOIN_BUDGET_BYTES - agent_bytes(self.agent) - utf8_bytes(self.boot_id), 0)
        while rest or not parts:
            count, _ = fitting(map(report_bytes, rest), left_bytes)
            parts.append(rest[:count])
            rest = rest[count:]
        last, agent = len(parts) - 1, tellable(self.agent)
        return [
            Join(self.agent_id, self.incarnation, agent, self.boot_id, tasks, part, part < last)
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
        if isinstance(answer, WantsInventory) and not self._parts[self._part].devices:
            self._parts[self._part] = replace(self._parts[self._part], devices=True)
            self._due_s = now_s
            return Intake()
        if isinstance(answer, Gone):
            self._move(LinkSignal.DISMISS)
            return Intake(gone=answer.why)
        # Stale, or a master that lost count of parts or devices: once more, under a number that nobody has seen.
        self._move(LinkSignal.OUTCAST)
        self.incarnation += 1
        self._back_off(now_s)
        return Intake()

    def _begin_session(self, welcome: Welcome, now_s: float) -> None:
        self.session, self.beat_interval_s, self._lane = welcome.session, welcome.beat_interval_s, welcome.lane
        self.seen = self._persisted = self._failures = self._heard = self._heard_told = 0
        self._frames.clear()
        self._frames_done, self._letters = 0, Assembly()
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
        self._due_s = now_s if answer.more else next_turn_s(self.agent_id, self.beat_interval_s, now_s)
        self._heard_told = self._heard_sent
        for _ in range(self._frames_sent):
            self._frames.popleft()
        self._frames_done += self._frames_sent
        done = min(max(answer.persisted - self._persisted, 0), len(self._pending))
        persisted = tuple(self._pending.popleft() for _ in range(done))
        self._persisted += done
        orders = tuple(order for order in answer.orders if order.number > self.seen)
        if orders:
            self.seen = orders[-1].number
        letters, frames = self._letters.take(self._hear(answer))
        return Intake(orders, frames, persisted, letters=tuple(letters))

    def _hear(self, answer: BeatAnswer) -> tuple[Frame, ...]:
        """The frames that are new here; none if one between is missing, which no master of ours leaves out."""
        fresh = answer.frames[max(self._heard + 1 - answer.frames_first, 0) :]
        if not fresh or answer.frames_first > self._heard + 1:
            return ()
        self._heard += len(fresh)
        return fresh


def next_turn_s(agent_id: AgentId, interval_s: float, now_s: float) -> float:
    """When the agent's next idle beat is due: later than now, by an interval and a thousandth at most.

    Its turns hang on its id alone, so those of many agents stay apart, whatever made all of them beat at once: a master
    that was started anew hears somebody within moments.
    """
    phase = int.from_bytes(blake2b(agent_id.encode(), digest_size=4).digest(), "big") / 2**32
    turn_s = now_s + interval_s - (now_s - phase * interval_s) % interval_s
    return turn_s if turn_s > now_s + interval_s * SAME_TURN else turn_s + interval_s
