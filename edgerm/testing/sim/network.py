"""Links that lose, delay, double and reorder: what lies between an agent and its master."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from edgerm.testing.sim.clock import Clock

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Faults:
    """How bad it is: probabilities of a single message, and the longest way."""

    lose: float = 0.0
    double: float = 0.0
    delay_max_s: float = 0.01  # messages overtake each other within this

    def calm(self) -> Faults:
        """No faults, short ways."""
        return replace(self, lose=0.0, double=0.0, delay_max_s=0.01)


class Network:
    """Carries messages one way. What is under way may arrive never, late, twice or out of order."""

    def __init__(self, clock: Clock, faults: Faults) -> None:
        self._clock = clock
        self.faults = faults
        self.cut: set[object] = set()  # ends that nothing reaches or leaves
        self.lost = 0

    def carry(self, end: object, message: T, deliver: Callable[[T], None]) -> None:
        """Bring `message` over the link of `end`."""
        random, faults = self._clock.random, self.faults
        copies = 2 if random.random() < faults.double else 1
        for _ in range(copies):
            if end in self.cut or random.random() < faults.lose:
                self.lost += 1
                continue
            self._clock.after(
                0.0005 + random.random() * faults.delay_max_s, lambda: self._arrive(end, message, deliver)
            )

    def _arrive(self, end: object, message: T, deliver: Callable[[T], None]) -> None:
        if end in self.cut:
            self.lost += 1
        else:
            deliver(message)
