"""Deadlines by name: what a core waits for, in the order in which it falls due. Knows no clock."""

from __future__ import annotations

import heapq
from collections.abc import Hashable
from typing import Generic, TypeVar

STALE_MAX = 1000  # moved and cancelled deadlines that may lie about, beside as many as are set

K = TypeVar("K", bound=Hashable)


class Timers(Generic[K]):
    """One deadline per key; setting it again moves it.

    Moved and cancelled entries are dropped when they surface, or all at once when most entries are such: what was
    cancelled does not pile up, however far off it was.
    """

    def __init__(self) -> None:
        self._set: dict[K, tuple[float, int, K]] = {}  # the same objects as in the heap
        self._heap: list[tuple[float, int, K]] = []
        self._count = 0  # breaks ties, so that equal deadlines fire in the order in which they were set

    def set(self, key: K, due_s: float) -> None:
        """Wake at `due_s` (steady seconds) for `key`."""
        if self.due_s(key) == due_s:
            return
        self._count += 1
        entry = self._set[key] = (due_s, self._count, key)
        heapq.heappush(self._heap, entry)
        self._tidy()

    def cancel(self, key: K) -> None:
        """Forget `key`; unknown keys are fine."""
        if self._set.pop(key, None) is not None:
            self._tidy()

    def _tidy(self) -> None:
        if len(self._heap) > 2 * len(self._set) + STALE_MAX:
            self._heap = list(self._set.values())
            heapq.heapify(self._heap)

    def due_s(self, key: K) -> float | None:
        """When `key` falls due, or None."""
        entry = self._set.get(key)
        return entry and entry[0]

    def next_s(self) -> float | None:
        """The earliest deadline, or None."""
        while self._heap:
            entry = self._heap[0]
            if self._set.get(entry[2]) is entry:
                return entry[0]
            heapq.heappop(self._heap)
        return None

    def pop(self, now_s: float) -> K | None:
        """The next key that is due, removed; None when nothing is."""
        due_s = self.next_s()
        if due_s is None or due_s > now_s:
            return None
        key = heapq.heappop(self._heap)[2]
        del self._set[key]
        return key

    def __len__(self) -> int:
        return len(self._set)
