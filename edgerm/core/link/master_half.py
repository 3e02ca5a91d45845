"""The master's half of the link: one agent's session, the orders that it has not seen, the frames not heard."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from hashlib import blake2b

from edgerm.core.ids import TaskKey
from edgerm.core.link.frames import fitting_frames, queue
from edgerm.core.link.messages import HTTP, Beat, BeatAnswer, Carrier, Frame, Kill, Launch, Order, OrderBody, Update
from edgerm.core.link.sizes import MESSAGE_BYTES, fitting, order_bytes


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
        return queue(self._frames, frame)

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
        count, left = fitting(map(order_bytes, self._orders), self.carrier.budget_bytes - MESSAGE_BYTES)
        orders = tuple(self._orders)[:count] if count < len(self._orders) else tuple(self._orders)
        frames = fitting_frames(self._frames, left, alone=not orders)
        if orders:
            self._sent = max(self._sent, orders[-1].number)
        more = count < len(self._orders) or len(frames) < len(self._frames)
        persisted = self.taken if self._told else 0
        return BeatAnswer(False, persisted, orders, frames, more, self._heard + 1 if frames else 0)


REJOIN = BeatAnswer(join=True)


def make_session(seed: bytes, count: int) -> int:
    """A session of 32 bits that cannot be guessed without the seed; never 0."""
    return int.from_bytes(blake2b(count.to_bytes(8, "big"), key=seed[:64], digest_size=4).digest(), "big") or 1
