"""The master's half of the link: one agent's session, the orders that it has not seen, the frames not heard."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from edgerm.core.ids import TaskKey
from edgerm.core.link.frames import fitting_frames, queue
from edgerm.core.link.messages import (
    HTTP,
    LANE,
    LANE_TALK,
    Beat,
    BeatAnswer,
    Carrier,
    Frame,
    Kill,
    Launch,
    MessagePart,
    Order,
    OrderBody,
    Update,
)
from edgerm.core.link.parts import Assembly, Letter, queue_message
from edgerm.core.link.sizes import MESSAGE_BYTES, fitting, order_bytes


@dataclass(slots=True)
class MasterHalf:
    """One agent's session at the master."""

    session: int
    incarnation: int
    carrier: Carrier = HTTP  # of the agent's latest request
    lane: int = LANE  # which frames the agent knows
    taken: int = 0  # updates taken over, up to this number
    _last: int = 0  # orders numbered so far
    _sent: int = 0  # orders that have been in an answer, up to this number
    _heard: int = 0  # frames that the agent has, up to this number
    _told: bool = False  # the latest beat had updates
    _got: int = 0  # frames of the agent, up to this number
    _letters: Assembly | None = None  # made with the first part of a message
    _orders: deque[Order] | None = None  # None: none, for an empty deque weighs more than all the rest
    _frames: deque[Frame] | None = None  # above `_heard`: each goes with every answer until then

    def order(self, body: OrderBody) -> None:
        """Queue an order; it goes with every answer until the agent has seen it. The same kill waits once only."""
        orders = deque[Order]() if self._orders is None else self._orders
        if isinstance(body, Kill) and any(_same_kill(order.body, body) for order in orders):
            return
        self._last += 1
        orders.append(Order(self._last, body))
        self._orders = orders

    def withdraw(self, key: TaskKey) -> bool:
        """Take back the launch of `key` if it has been in no answer yet."""
        for order in self._orders or ():
            if order.number > self._sent and isinstance(order.body, Launch) and order.body.key == key:
                assert self._orders is not None
                self._orders.remove(order)
                self._orders = self._orders or None
                return True
        return False

    def send(self, frame: Frame) -> bool:
        """Queue a frame for the next answers; False when the queue is full and the stream must be given up."""
        return queue(self._queue(), frame)

    def _queue(self) -> deque[Frame]:
        if self._frames is None:
            self._frames = deque()
        return self._frames

    def send_message(self, letter: Letter) -> bool:
        """Queue a message for the next answers; False: it is dropped, for the agent knows none, or there is no room."""
        return self.lane >= LANE_TALK and queue_message(self._queue(), letter, self.carrier.data_bytes)

    def take_frames(self, beat: Beat) -> tuple[list[Letter], tuple[Frame, ...]]:
        """The messages, and the frames of streams, that are new in `beat`."""
        fresh = beat.frames
        if beat.frames_first:
            fresh = beat.frames[max(self._got + 1 - beat.frames_first, 0) :]
            self._got = max(self._got, beat.frames_first + len(beat.frames) - 1)
        if self._letters is None:
            if not any(isinstance(frame.body, MessagePart) for frame in fresh):
                return [], fresh
            self._letters = Assembly()
        return self._letters.take(fresh)

    def take(self, beat: Beat) -> tuple[list[Update], list[OrderBody]]:
        """The updates of `beat` that are new, in order, and the orders that the agent has now journaled."""
        seen: list[OrderBody] = []
        while self._orders and self._orders[0].number <= beat.seen:
            seen.append(self._orders.popleft().body)
        while self._frames and self._heard < beat.heard:
            self._frames.popleft()
            self._heard += 1
        self._orders, self._frames = self._orders or None, self._frames or None
        self._told = bool(beat.updates)
        fresh = []
        for update in beat.updates:
            if update.number == self.taken + 1:
                self.taken += 1
                fresh.append(update)
        return fresh, seen

    def answer(self) -> BeatAnswer:
        """All that the agent has not seen or heard, as far as the carrier's budget goes."""
        waiting, speaking = self._orders or _NOTHING, self._frames or _NOTHING
        count, left = fitting(map(order_bytes, waiting), self.carrier.budget_bytes - MESSAGE_BYTES)
        orders = tuple(waiting)[:count]
        frames = fitting_frames(speaking, left, alone=not orders)
        if orders:
            self._sent = max(self._sent, orders[-1].number)
        more = count < len(waiting) or len(frames) < len(speaking)
        persisted = self.taken if self._told else 0
        return BeatAnswer(False, persisted, orders, frames, more, self._heard + 1 if frames else 0)


def _same_kill(order: OrderBody, kill: Kill) -> bool:
    """Whoever asked for it."""
    return isinstance(order, Kill) and order.key == kill.key and order.grace_s == kill.grace_s


REJOIN = BeatAnswer(join=True)
_NOTHING: deque[Any] = deque(maxlen=0)


def make_session(seed: bytes, count: int) -> int:
    """A session of 32 bits that cannot be guessed without the seed; never 0."""
    return int.from_bytes(blake2b(count.to_bytes(8, "big"), key=seed[:64], digest_size=4).digest(), "big") or 1
