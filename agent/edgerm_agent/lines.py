"""GPIO lines by the character device: the one file that names gpiod (at least 2.1), imported when a chip is opened.

For the plugin of GPIO chips and for the WASM host alike, so nothing but the standard library beside it. What does not
live here: who may drive a line, and what is done when nobody does.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import gpiod
    from gpiod.line import Direction, Value

SOMEBODY = "somebody"  # of a line in use whose user has not said its name


@dataclass(frozen=True, slots=True)
class Line:
    """One line, as the kernel tells of it."""

    offset: int
    name: str  # empty: it has none
    user: str = ""  # who has it now; empty: nobody


@dataclass(frozen=True, slots=True)
class Chip:
    """One chip."""

    path: str  # of its character device, links followed
    name: str  # gpiochipN
    label: str  # of its driver
    lines: tuple[Line, ...]


class Lines(Protocol):
    """Lines of one chip that somebody uses. Levels are physical: 0 low, 1 high. Raises `OSError`, EBUSY if taken."""

    def read(self, offset: int) -> int:
        """The level; a line that was not used before becomes an input."""
        ...

    def write(self, offset: int, level: int) -> None:
        """Drive the line, which becomes an output."""
        ...

    def close(self) -> None:
        """Let go of all of them; the driver decides which of them stay as they are."""
        ...


class Chips(Protocol):
    """The box's chips. Raises `OSError`."""

    def look(self, path: str) -> Chip:
        """What is behind this path now."""
        ...

    def open(self, path: str, user: str) -> Lines:
        """Use lines of it, in this name."""
        ...


class CharacterDevices:
    """The kernel's chips (`Chips`). Raises `ModuleNotFoundError` where gpiod is not installed."""

    def __init__(self) -> None:
        import gpiod  # noqa: PLC0415 - 4 MiB, and most boxes have no chip for tasks

        self._gpiod = gpiod

    def look(self, path: str) -> Chip:
        real = os.path.realpath(path)
        with self._gpiod.Chip(real) as chip:
            info = chip.get_info()
            lines = tuple(_line(chip.get_line_info(offset)) for offset in range(info.num_lines))
        return Chip(real, info.name, info.label, lines)

    def open(self, path: str, user: str) -> Lines:
        return _Requests(self._gpiod.Chip(os.path.realpath(path)), user)


def _line(info: gpiod.LineInfo) -> Line:
    return Line(info.offset, info.name or "", (info.consumer or SOMEBODY) if info.used else "")


class _Requests:
    """A request for each line, so that each is taken when it is used."""

    def __init__(self, chip: gpiod.Chip, user: str) -> None:
        self._chip = chip
        self._count = chip.get_info().num_lines
        self._user = user
        self._requests: dict[int, gpiod.LineRequest] = {}
        self._outputs: set[int] = set()

    def read(self, offset: int) -> int:
        from gpiod.line import Direction  # noqa: PLC0415 - it is there, or we were not

        if offset not in self._requests:
            self._request(offset, Direction.INPUT)
        return int(self._requests[offset].get_value(offset).value)

    def write(self, offset: int, level: int) -> None:
        from gpiod import LineSettings  # noqa: PLC0415 - it is there, or we were not
        from gpiod.line import Direction, Value  # noqa: PLC0415 - likewise

        value = Value(level)
        if offset not in self._requests:
            self._request(offset, Direction.OUTPUT, value)
        elif offset not in self._outputs:
            settings = LineSettings(direction=Direction.OUTPUT, output_value=value)
            self._requests[offset].reconfigure_lines({offset: settings})
        else:
            self._requests[offset].set_value(offset, value)
        self._outputs.add(offset)

    def _request(self, offset: int, direction: Direction, value: Value | None = None) -> None:
        from gpiod import LineSettings  # noqa: PLC0415 - it is there, or we were not

        if not 0 <= offset < self._count:
            raise OSError(errno.EINVAL, f"it has {self._count} lines, and none at offset {offset}")
        settings = LineSettings(direction=direction) if value is None else LineSettings(direction, output_value=value)
        self._requests[offset] = self._chip.request_lines({offset: settings}, consumer=self._user)

    def close(self) -> None:
        for request in self._requests.values():
            request.release()
        self._requests.clear()
        self._outputs.clear()
        self._chip.close()
