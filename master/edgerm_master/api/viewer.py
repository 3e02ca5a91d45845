"""One reader of an output: what waits for it, each byte once and in order.

What does not live here: where it comes from (`upstreams.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from edgerm.core.errors import NotFound, Unavailable
from edgerm.core.link import Data
from edgerm_master.api.window import Parts, beyond

WINDOW_BYTES = 1 << 20  # what may wait for a viewer; one who is further behind has a gap


class Viewer:
    """Reads from `offset` on; a negative one counts from the end, wherever that is."""

    def __init__(self, offset: int, has_read: Callable[[], None], leave: Callable[[Viewer], None]) -> None:
        self.next = offset if offset >= 0 else None  # of what it is handed; None: not known yet
        self.from_end_bytes = max(0, -offset)
        self.read_to = self.next
        self._has_read = has_read
        self._leave = leave
        self._waiting = Parts()
        self._failed: str | None = None
        self._closed = False
        self._news = asyncio.Event()

    def begin_at(self, offset: int) -> None:
        """Where it begins, counted from the end, is here."""
        self.next = self.read_to = offset

    def put(self, data: Data) -> None:
        """Hand it what it has not been handed yet."""
        part = beyond(data, self.next) if self.next is not None else None
        if part is not None:
            self.next = part.offset + len(part.data)
            self._waiting.push(part, WINDOW_BYTES)
            self._news.set()

    def put_end(self, offset: int) -> None:
        """The output ends here."""
        self._waiting.push(Data(offset, b"", end=True), WINDOW_BYTES)
        self._news.set()

    def fail(self, why: str) -> None:
        """There will be no more, although this is not the end."""
        self._failed = why
        self._news.set()

    async def read(self) -> Data:
        """The next bytes; raises `Unavailable` when the output was cut, or `NotFound` when there is no such output."""
        while not self._waiting:
            if self._failed is not None:
                raise (NotFound if self._failed.startswith("not found") else Unavailable)(self._failed)
            self._news.clear()
            await self._news.wait()
        data = self._waiting.pop()
        if data.data:
            self.read_to = data.offset + len(data.data)
            self._has_read()
        return data

    def close(self) -> None:
        """Nobody reads any more; idempotent."""
        if not self._closed:
            self._closed = True
            self._leave(self)
