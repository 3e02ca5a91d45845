"""Virtual time: what is to happen, in order. A run of hours takes milliseconds, and the same each time."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from random import Random

from edgerm.core.instant import Instant


class Clock:
    """The time of a simulated world. Each box sees it through a wall clock of its own, which may be wrong."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.now_s = 0.0
        self.happened = 0
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def after(self, wait_s: float, do: Callable[[], None]) -> None:
        """Let `do` happen `wait_s` from now."""
        self._count += 1
        heapq.heappush(self._queue, (self.now_s + max(wait_s, 0.0), self._count, do))

    def instant(self, wall_offset_s: float = 0.0) -> Instant:
        """Now, as a box sees it whose wall clock is off by so much."""
        return Instant(self.now_s, 1.7e9 + self.now_s + wall_offset_s)

    def step(self) -> bool:
        """Let the next thing happen; False when nothing is left."""
        if not self._queue:
            return False
        self.now_s, _, do = heapq.heappop(self._queue)
        self.happened += 1
        do()
        return True

    def run_until(self, until_s: float) -> None:
        """Let everything happen up to then."""
        while self._queue and self._queue[0][0] <= until_s:
            self.step()
        self.now_s = max(self.now_s, until_s)
