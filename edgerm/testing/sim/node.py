"""A program in the simulator: a core, its outbox, its disk. It can crash at any moment and be started again."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from edgerm.core.effects import Change, Outbox, Spoken
from edgerm.core.instant import Instant
from edgerm.testing.sim.clock import Clock
from edgerm.testing.sim.disk import Disk

S = TypeVar("S", bound=Spoken)


class Node(ABC, Generic[S]):
    """Runs one core the way a shell does: event, core, persist, then speak."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.disk = Disk(clock)
        self.alive = False
        self.wall_offset_s = 0.0
        self.life = 0  # counts the starts; what an earlier life had under way never arrives
        self._outbox: Outbox[S] = Outbox()
        self._due_s: float | None = None

    @property
    def now(self) -> Instant:
        return self.clock.instant(self.wall_offset_s)

    def start(self) -> None:
        """Begin a new life with what is on the disk."""
        self.life += 1
        self.alive = True
        self._outbox = Outbox()
        self._due_s = None
        self.begin()

    def crash(self) -> None:
        """Stop at once, wherever it stands."""
        self.alive = False
        self.life += 1
        self.disk.cut()

    def later(self, wait_s: float, do: Callable[[], None]) -> None:
        """As `Clock.after`, but void once this life is over."""
        life = self.life
        self.clock.after(wait_s, lambda: do() if life == self.life and self.alive else None)

    @abstractmethod
    def begin(self) -> None:
        """Make the core from the disk and give it its first event."""

    @abstractmethod
    def speak(self, effect: S) -> None:
        """Carry out an effect."""

    @abstractmethod
    def due_s(self) -> float | None:
        """When the core wants a tick."""

    @abstractmethod
    def tick(self) -> None:
        """Give the core its tick."""

    def take(self, effects: Iterable[Change | S]) -> None:
        """Carry effects out, in order, each once what it depends on is durable."""
        for effect in self._outbox.add(effects):
            self.speak(effect)
        self._persist()
        self._set_timer()

    def _persist(self) -> None:
        batch = self._outbox.take_batch()
        if batch:
            self.disk.write(batch, self._committed)

    def _committed(self) -> None:
        for effect in self._outbox.committed():
            self.speak(effect)
        self._persist()

    def _set_timer(self) -> None:
        due_s = self.due_s()
        if due_s is None or due_s == self._due_s:
            return
        self._due_s = due_s
        self.later(due_s - self.clock.now_s, lambda: self._timer(due_s))

    def _timer(self, due_s: float) -> None:
        if due_s == self._due_s:
            self._due_s = None
            self.tick()
