"""Parts of an output in memory: bounded, oldest gone first. Pure.

What does not live here: who reads them (`upstreams.py`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from edgerm.core.link import Data

PART_BYTES = 128  # what a part takes beside its bytes
MERGED_BYTES = 1024  # parts that follow each other are one up to this size, or small ones would take most of the room


class Parts:
    """A queue of parts that come in order, of at most `max_bytes` or else of one part."""

    def __init__(self) -> None:
        self._parts: deque[Data] = deque()
        self._bytes = 0

    def __bool__(self) -> bool:
        return bool(self._parts)

    def __iter__(self) -> Iterator[Data]:
        return iter(self._parts)

    def push(self, part: Data, max_bytes: int) -> bool:
        """Append; False: the oldest had to go."""
        if self._parts and not part.end:
            part = self._merge(self._parts[-1], part)
        self._parts.append(part)
        self._bytes += PART_BYTES + len(part.data)
        whole = True
        while self._bytes > max_bytes and len(self._parts) > 1:
            self.pop()
            whole = False
        return whole

    def _merge(self, last: Data, part: Data) -> Data:
        follows = last.offset + len(last.data) == part.offset
        if not follows or len(last.data) + len(part.data) > MERGED_BYTES:
            return part
        self._parts.pop()
        self._bytes -= PART_BYTES + len(last.data)
        return Data(last.offset, last.data + part.data)

    def pop(self) -> Data:
        """The oldest part."""
        part = self._parts.popleft()
        self._bytes -= PART_BYTES + len(part.data)
        return part


class Window:
    """All that came of an output from `start` on, up to `end`: what lies between and is missing, its agent lacked."""

    def __init__(self, start: int) -> None:
        self.start = start
        self.end: int | None = None  # None: nothing has come
        self._parts = Parts()

    def add(self, data: Data, max_bytes: int) -> None:
        """Take what lies beyond `end`, and keep about the latest `max_bytes`."""
        part = beyond(data, self.end)
        if part is not None:
            self.end = part.offset + len(part.data)
            if not self._parts.push(part, max_bytes):
                self.start = next(iter(self._parts)).offset

    def since(self, offset: int) -> Iterator[Data]:
        """What is here from `offset` on."""
        for part in self._parts:
            rest = beyond(part, offset)
            if rest is not None:
                yield rest


def beyond(data: Data, offset: int | None) -> Data | None:
    """The bytes from `offset` on, None if there are none; the end of the output is not in it."""
    skipped = max(0, offset - data.offset) if offset is not None else 0
    return Data(data.offset + skipped, data.data[skipped:]) if skipped < len(data.data) else None
