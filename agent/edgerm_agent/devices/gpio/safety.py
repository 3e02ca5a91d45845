"""Lines that no task drives, held at their safe levels.

A line that is let go stays as its driver likes, so the agent keeps driving it until its chip is given to a task again.
What must be safe is noted before a task gets the chip, so that neither a crash nor a power cut loses it. All blocks as
long as the kernel does. What does not live here: which levels are safe (`parts`), when a task has ended (`plugin`).
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Mapping

from edgerm.plugin.device import Notes
from edgerm_agent.lines import Chip, Chips, Lines

SAFE = "safe "  # how the names of notes begin
US = "edgerm-safe"  # as whom the lines are used


class Safety:
    """Of all chips of the box, by their ids."""

    def __init__(self, chips: Chips, notes: Notes) -> None:
        self._chips = chips
        self._notes = notes
        self._held: dict[str, tuple[Lines, set[int]]] = {}
        self._lock = threading.RLock()  # at the agent's end a look may still be under way

    def levels(self, chip: str) -> dict[int, int]:
        """What is safe for its lines: offset → level."""
        note = self._notes.get(f"{SAFE}{chip}")
        levels = note.get("levels") if note else None
        return {int(offset): int(level) for offset, level in levels.items()} if isinstance(levels, Mapping) else {}

    def state(self, chip: str, levels: Mapping[int, int]) -> None:
        """From now on this is safe, durable; nothing of what was before."""
        if levels:
            stated = {str(offset): level for offset, level in levels.items()}
            self._notes.put(f"{SAFE}{chip}", {"levels": stated})
        else:
            self._notes.drop(f"{SAFE}{chip}")

    def held(self, chip: str) -> frozenset[int]:
        """The lines that we drive."""
        return frozenset(self._held[chip][1]) if chip in self._held else frozenset()

    def check(self, chip: Chip, name: str) -> None:
        """Let go of lines that are ours no more, though nobody took them: the chip went and came again."""
        users = {line.offset: line.user for line in chip.lines}
        if any(users.get(offset) != US for offset in self.held(name)):
            self.let_go(name)

    def apply(self, chip: str, path: str) -> tuple[str, ...]:
        """Drive its lines to their safe levels, and go on driving them; what kept us from some of them, in words."""
        levels = self.levels(chip)
        problems = []
        with self._lock:
            if levels and chip not in self._held:
                try:
                    self._held[chip] = (self._chips.open(path, US), set())
                except OSError as error:
                    return (f"{path} cannot be opened: {error.strerror}",)
            for offset in levels.keys() - self.held(chip):
                lines, held = self._held[chip]
                try:
                    lines.write(offset, levels[offset])
                    held.add(offset)
                except OSError as error:
                    why = "it is in use" if error.errno == errno.EBUSY else error.strerror
                    problems.append(f"line {offset} of {path} cannot be driven to its safe level: {why}")
        return tuple(problems)

    def let_go(self, chip: str) -> None:
        """Drive them no more."""
        with self._lock:
            if chip in self._held:
                lines, _ = self._held.pop(chip)
                lines.close()

    def close(self) -> None:
        """The agent ends."""
        for chip in list(self._held):
            self.let_go(chip)
