"""A disk that takes its time, and a box that may lose power before it is done."""

from __future__ import annotations

from collections.abc import Callable

from edgerm.core.effects import Change, Put
from edgerm.testing.sim.clock import Clock


class Disk:
    """Rows as values. A batch is on the disk as a whole or not at all.

    `torn`: a part of it may be, from the first change on. Changes that one event makes can fall into two batches.
    """

    def __init__(self, clock: Clock, torn: bool = False) -> None:
        self._clock = clock
        self._torn = torn
        self.rows: dict[tuple[str, str], object] = {}
        self._under_way: list[Change] = []
        self._life = 0

    def write(self, batch: list[Change], done: Callable[[], None]) -> None:
        """Write a batch; `done` follows unless the power is cut before."""
        self._under_way = batch
        life = self._life
        self._clock.after(self._clock.random.uniform(0.0001, 0.005), lambda: self._finish(life, done))

    def _finish(self, life: int, done: Callable[[], None]) -> None:
        if life == self._life:
            self._apply()
            done()

    def _apply(self) -> None:
        for change in self._under_way:
            if isinstance(change, Put):
                self.rows[(change.kind, change.key)] = change.record
            else:
                self.rows.pop((change.kind, change.key), None)
        self._under_way = []

    def cut(self) -> None:
        """The writer is gone: what it was writing is there, or it is not."""
        self._life += 1
        if self._torn:
            self._under_way = self._under_way[: self._clock.random.randint(0, len(self._under_way))]
            self._apply()
        elif self._clock.random.random() < 0.5:
            self._apply()
        self._under_way = []
