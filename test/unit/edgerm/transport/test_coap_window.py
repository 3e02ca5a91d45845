"""The window of requests over CoAP, on paths of all kinds in virtual time."""

from __future__ import annotations

import heapq
import random
from collections import deque
from dataclasses import dataclass, field
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgerm.transport.coap_window import IN_FLIGHT_MAX, RTO_MAX_S, RTO_MIN_S, Window


@dataclass
class Path:
    """A path with a bottleneck, and somebody who sends over it as much as the window allows."""

    delay_s: float  # there and back, without a queue
    jitter_s: float = 0.0
    lost: float = 0.0  # share of round trips
    rate: float = inf  # of the bottleneck, messages each second
    queue: int = 10_000  # its length; what finds no room is lost
    seed: int = 1
    now_s: float = 100.0
    window: Window = field(default_factory=Window)
    sent: int = 0
    answered: int = 0
    queues_s: list[float] = field(default_factory=list)  # how long each answered one waited at the bottleneck

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._free_s = 0.0  # when the bottleneck has sent all that waits
        self._in_flight: deque[list[float]] = deque()  # when sent, and whether answered
        self._coming: list[tuple[float, int, list[float]]] = []

    def run(self, until_s: float = inf, answers: int = 1 << 60) -> float:
        """Go on for so long, or until there are so many answers in all; how long it took."""
        began_s, until_s = self.now_s, self.now_s + until_s
        while self.answered < answers and self.now_s < until_s:
            self._expire()
            while self.window.room(sum(1 for one in self._in_flight if not one[1])):
                self._send()
            due_s = min(self._in_flight[0][0] + self.window.rto_s, until_s)
            if self._coming and self._coming[0][0] <= due_s:
                self.now_s, _, one = heapq.heappop(self._coming)
                self._hear(one)
            else:
                self.now_s = due_s
        return self.now_s - began_s

    def _send(self) -> None:
        one = [self.now_s, 0.0]
        self._in_flight.append(one)
        self.sent += 1
        waits_s = max(self._free_s - self.now_s, 0.0)
        if self._random.random() < self.lost or waits_s * self.rate > self.queue:
            return
        self._free_s = self.now_s + waits_s + 1 / self.rate
        there_s = self._free_s + self.delay_s + self._random.uniform(0, self.jitter_s)
        self.queues_s.append(waits_s)
        heapq.heappush(self._coming, (there_s, self.sent, one))

    def _hear(self, one: list[float]) -> None:
        self.answered += 1
        self.window.answered(self.now_s - one[0], self.now_s)
        one[1] = 1.0

    def _expire(self) -> None:
        while self._in_flight and (self._in_flight[0][1] or self._in_flight[0][0] + self.window.rto_s <= self.now_s):
            if not self._in_flight.popleft()[1]:
                self.window.lost(self.now_s)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("jitter_s", [0.0, 0.5])
def test_chance_loss_does_not_shut_it(seed: int, jitter_s: float) -> None:
    """With 30 % lost each way and round trips of 2 s a megabyte takes little more than a minute."""
    path = Path(2.0 - jitter_s / 2, jitter_s, lost=1 - 0.7 * 0.7, seed=seed)
    assert path.run(answers=1024) < 110
    assert path.window.size > IN_FLIGHT_MAX / 2


def test_a_fast_path_is_filled() -> None:
    """Where nothing is lost and nothing queues, the window is as wide as it may be after a few round trips."""
    path = Path(0.05)
    path.run(until_s=0.5)
    assert path.window.size == IN_FLIGHT_MAX


@pytest.mark.parametrize(("rate", "delay_s"), [(5, 0.1), (20, 0.2), (20, 1.0), (100, 0.02)])
def test_a_narrow_path_is_used_but_not_flooded(rate: float, delay_s: float) -> None:
    """A bottleneck is kept busy, and what waits before it stays short."""
    path = Path(delay_s, rate=rate)
    path.run(until_s=20)
    before, path.queues_s = path.answered, []
    path.run(until_s=60)
    assert path.answered - before > 0.85 * rate * 60
    target_s = max(0.1, delay_s / 3)
    assert sorted(path.queues_s)[len(path.queues_s) // 2] <= target_s + 2 / rate


def test_a_short_queue_that_overflows() -> None:
    """Where a bottleneck drops rather than lets wait, most of what is sent arrives all the same."""
    path = Path(0.3, rate=30, queue=2)
    path.run(until_s=120)
    assert path.answered > 0.8 * 30 * 100
    assert path.answered > 0.2 * path.sent


def test_a_path_that_is_down_is_probed_only() -> None:
    """While nothing comes back, less and less is sent; when it works again, all is as before."""
    path = Path(0.1)
    path.run(until_s=5)
    path.lost, before = 1.0, path.sent
    path.run(until_s=30)
    assert path.sent - before < IN_FLIGHT_MAX + 100
    path.lost, before = 0.0, path.answered
    path.run(until_s=20)
    assert path.answered - before > 20 / 0.1


def test_most_is_lost() -> None:
    """When nine of ten are lost there are few in flight: that is no chance any more."""
    path = Path(0.2, lost=0.9)
    path.run(until_s=60)
    assert path.window.size < 8


def test_a_path_that_becomes_longer() -> None:
    """A route that takes longer than before looks like a queue, but not for ever."""
    path = Path(0.05)
    path.run(until_s=10)
    path.delay_s = 1.0
    path.run(until_s=150)
    assert path.window.size > IN_FLIGHT_MAX / 2


happenings = st.lists(
    st.tuples(st.booleans(), st.floats(0, 1000, allow_nan=False), st.floats(0, 50, allow_nan=False)), max_size=200
)


@given(happenings)
def test_bounds(told: list[tuple[bool, float, float]]) -> None:
    """Whatever happens, one request may be in flight, never more than the bound, and the timer has its bounds."""
    window, now_s = Window(), 0.0
    for answered, round_trip_s, later_s in told:
        now_s += later_s
        if answered:
            window.answered(round_trip_s, now_s)
        else:
            window.lost(now_s)
        assert window.room(0)
        assert not window.room(IN_FLIGHT_MAX)
        assert RTO_MIN_S <= window.rto_s <= RTO_MAX_S
