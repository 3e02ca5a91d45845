"""Chips of GPIO lines that are fakes: they say so in their labels. And what any chips must keep to, fakes or not."""

from __future__ import annotations

import errno

import pytest

from edgerm_agent.lines import Chip, Chips, Line, Lines


class FakeChip:
    """One chip: named lines that float at their pulls until somebody drives them, and go back there when let go."""

    def __init__(self, path: str, *names: str, hogs: dict[int, str] | None = None) -> None:
        self.path = path
        self.names = names
        self.pulls = [0] * len(names)
        self.users = dict(hogs or {})
        self.driven: dict[int, int] = {}

    def levels(self) -> list[int]:
        """As a meter would show them."""
        return [self.driven.get(offset, pull) for offset, pull in enumerate(self.pulls)]


class FakeChips:
    """The chips of a box (`edgerm_agent.lines.Chips`); one may be taken out of `here` and put back."""

    def __init__(self, *chips: FakeChip) -> None:
        self.here = {chip.path: chip for chip in chips}

    def look(self, path: str) -> Chip:
        chip = self._find(path)
        lines = tuple(Line(offset, name, chip.users.get(offset, "")) for offset, name in enumerate(chip.names))
        return Chip(path, path.rpartition("/")[2], "fake chip", lines)

    def open(self, path: str, user: str) -> Lines:
        return FakeLines(self._find(path), user)

    def _find(self, path: str) -> FakeChip:
        if path not in self.here:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)
        return self.here[path]


class FakeLines:
    """Those that one user has."""

    def __init__(self, chip: FakeChip, user: str) -> None:
        self._chip = chip
        self._user = user
        self._mine: set[int] = set()

    def _take(self, offset: int) -> None:
        if not 0 <= offset < len(self._chip.names):
            raise OSError(errno.EINVAL, f"it has no line at offset {offset}")
        if offset not in self._mine and offset in self._chip.users:
            raise OSError(errno.EBUSY, "Device or resource busy")
        self._mine.add(offset)
        self._chip.users[offset] = self._user

    def read(self, offset: int) -> int:
        self._take(offset)
        return self._chip.levels()[offset]

    def write(self, offset: int, level: int) -> None:
        self._take(offset)
        self._chip.driven[offset] = level

    def close(self) -> None:
        for offset in self._mine:
            self._chip.users.pop(offset, None)
            self._chip.driven.pop(offset, None)
        self._mine.clear()


def check_chips(chips: Chips, path: str) -> None:
    """What users of chips rely on; `path`: of one with two free lines at 0 and 1, both low, the first of them named."""
    chip = chips.look(path)
    assert chip.name == chip.path.rpartition("/")[2]
    assert [line.offset for line in chip.lines] == list(range(len(chip.lines)))
    assert (chip.lines[0].name != "", chip.lines[0].user, chip.lines[1].user) == (True, "", "")
    lines = chips.open(path, "first")
    assert lines.read(0) == 0
    assert chips.look(path).lines[0].user == "first"
    lines.write(0, 1)  # an input becomes an output
    lines.write(1, 1)
    assert (lines.read(0), lines.read(1)) == (1, 1)
    lines.write(1, 0)
    assert lines.read(1) == 0
    other = chips.open(path, "second")
    for use in (lambda: other.read(0), lambda: other.write(1, 1)):
        with pytest.raises(OSError, match="busy") as caught:
            use()
        assert caught.value.errno == errno.EBUSY
    for offset in (-1, len(chip.lines)):
        with pytest.raises(OSError, match="offset") as caught:
            other.read(offset)
        assert caught.value.errno == errno.EINVAL
    lines.close()
    assert [line.user for line in chips.look(path).lines[:2]] == ["", ""]
    other.write(0, 1)
    other.close()
    with pytest.raises(OSError) as caught:
        chips.look(f"{path}-none")
    assert caught.value.errno == errno.ENOENT
