"""When executors that have nothing to do are put to sleep. Pure.

What does not live here: what sleeping and waking means for a task (`agent`), how it is done (`edgerm_agent.roster`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from edgerm.core.timers import Timers


class Rest:
    """`idle_s`: executors that may sleep → how long after the last use. All others stay awake."""

    def __init__(self, idle_s: Mapping[str, float]) -> None:
        self._idle_s = idle_s
        self._used_s: dict[str, float] = {}
        self._timers: Timers[str] = Timers()

    def used(self, executor: str, now_s: float) -> None:
        """It is awake, and has or had something to do now."""
        if executor in self._idle_s:
            self._used_s[executor] = now_s
            if self._timers.due_s(executor) is None:  # else that one looks again: a timer for each use would pile up
                self._timers.set(executor, now_s + self._idle_s[executor])

    def next_s(self) -> float | None:
        """When to ask `pop` next (steady seconds), or None."""
        return self._timers.next_s()

    def pop(self, now_s: float, is_busy: Callable[[str], bool]) -> str | None:
        """An executor that was not used for so long and is not busy; each once, until it is used again."""
        while (executor := self._timers.pop(now_s)) is not None:
            if is_busy(executor):
                self._used_s[executor] = now_s
            due_s = self._used_s[executor] + self._idle_s[executor]
            if due_s <= now_s:
                return executor
            self._timers.set(executor, due_s)
        return None
