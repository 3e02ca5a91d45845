"""Deadlines by name, against a model that looks at all of them each time."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from edgerm.core.timers import Timers

keys = st.sampled_from("abcd")
times_s = st.integers(0, 6).map(float)


class TimersAgainstList(RuleBasedStateMachine):
    """Every sequence of set, cancel and pop does what a plain list in the order of setting would do."""

    def __init__(self) -> None:
        super().__init__()
        self.timers: Timers[str] = Timers()
        self.model: list[tuple[float, str]] = []  # in the order in which they were set

    def of(self, key: str) -> float | None:
        return next((due_s for due_s, name in self.model if name == key), None)

    def drop(self, key: str) -> None:
        self.model = [(due_s, name) for due_s, name in self.model if name != key]

    @rule(key=keys, due_s=times_s)
    def set(self, key: str, due_s: float) -> None:
        """Setting to the same deadline again changes nothing, not even whose turn it is."""
        if self.of(key) != due_s:
            self.drop(key)
            self.model.append((due_s, key))
        self.timers.set(key, due_s)

    @rule(key=keys)
    def cancel(self, key: str) -> None:
        """Cancelling what is not set is fine."""
        self.drop(key)
        self.timers.cancel(key)

    @rule(now_s=times_s)
    def pop(self, now_s: float) -> None:
        """The earliest that is due goes; of equal ones, the one that was set first."""
        due = min((entry for entry in self.model if entry[0] <= now_s), key=lambda entry: entry[0], default=None)
        assert self.timers.pop(now_s) == (due[1] if due else None)
        if due:
            self.drop(due[1])

    @invariant()
    def agree(self) -> None:
        """Both name the same deadlines and the same next one."""
        assert self.timers.next_s() == min((due_s for due_s, _ in self.model), default=None)
        assert {key: self.timers.due_s(key) for key in "abcd"} == {key: self.of(key) for key in "abcd"}
        assert len(self.timers) == len(self.model)


TestTimers = TimersAgainstList.TestCase


def test_moved_deadlines_leave_nothing_to_fire() -> None:
    """A deadline that was moved a thousand times fires once, at its last time."""
    timers: Timers[str] = Timers()
    for due_s in range(1000):
        timers.set("a", float(due_s))
    assert timers.pop(998.0) is None
    assert timers.pop(999.0) == "a"
    assert timers.pop(1e9) is None
