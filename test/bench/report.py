"""What a bench found: figures, ratios of one round, gates; as a table and as JSON.

What does not live here: how anything is measured.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any


@dataclass(frozen=True, slots=True)
class Figure:
    """One thing, measured once in each round. `unit` is "x" for a ratio of two things of the same round."""

    subject: str
    what: str
    unit: str
    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle of the rounds."""
        return median(self.values)


@dataclass(frozen=True, slots=True)
class Gate:
    """A goal, or the first step towards one: the median of a figure against a bound."""

    what: str
    value: float
    bound: float
    unit: str
    at_most: bool = True

    @property
    def met(self) -> bool:
        """Whether the median keeps the bound."""
        return self.value <= self.bound if self.at_most else self.value >= self.bound

    def __str__(self) -> str:
        verdict, sign = "met   " if self.met else "MISSED", "≤" if self.at_most else "≥"
        return f"{verdict} {self.what}: {_text(self.value)} {sign} {_text(self.bound)} {self.unit}"


@dataclass(slots=True)
class Report:
    """Everything that a run found, in order."""

    machine: dict[str, Any]
    figures: list[Figure] = field(default_factory=list)
    gates: list[Gate] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, subject: str, what: str, unit: str, values: Sequence[float]) -> Figure:
        """One more figure."""
        figure = Figure(subject, what, unit, tuple(values))
        self.figures.append(figure)
        return figure

    def ratio(self, ours: Figure, theirs: Figure, what: str) -> Figure:
        """`ours` / `theirs`, round by round: what disturbed a round disturbed both."""
        pairs = zip(ours.values, theirs.values, strict=True)
        return self.add(ours.subject, what, "x", [mine / other for mine, other in pairs])

    def gate(self, figure: Figure, bound: float, *, at_most: bool = True) -> None:
        """Hold a figure's median against a bound."""
        name = f"{figure.subject}: {figure.what}"
        self.gates.append(Gate(name, figure.median, bound, figure.unit, at_most))

    def note(self, text: str) -> None:
        """Something that a reader must know to judge the figures."""
        self.notes.append(text)

    def print_since(self, first: int) -> None:
        """Print the figures from number `first` on."""
        for figure in self.figures[first:]:
            low, middle, high = min(figure.values), figure.median, max(figure.values)
            print(f"  {figure.what:<58} {_text(low):>9} {_text(middle):>9} {_text(high):>9}  {figure.unit}")

    def print_end(self) -> None:
        """Print notes and gates."""
        for note in self.notes:
            print(f"note: {note}")
        print("GATES")
        for gate in self.gates:
            print(f"  {gate}")

    @property
    def passed(self) -> bool:
        """Whether every gate is met."""
        return all(gate.met for gate in self.gates)

    def write(self, path: Path) -> None:
        """Everything, as JSON."""
        text = json.dumps(
            {
                "machine": self.machine,
                "figures": [asdict(figure) for figure in self.figures],
                "gates": [{**asdict(gate), "met": gate.met} for gate in self.gates],
                "notes": self.notes,
            },
            indent=1,
            ensure_ascii=False,
        )
        path.write_text(text + "\n")


def quantile(values: Sequence[float], part: float) -> float:
    """The value below which `part` of the values lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def _text(value: float) -> str:
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"
