"""What goes between a program and a task that runs: messages that wait to be read, and its open standard input.

What does not live here: the task's end of messages (`mailbox`), which runs where the task does.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from edgerm.core.errors import NotFound, Unavailable
from edgerm.sdk.operator import Name, Operator

INBOX_MAX = 1024  # messages that wait, of one task
INBOX_BYTES_MAX = 4 << 20
PIECE_BYTES = 64 * 1024
RETRY_S = 0.5
PATIENCE_S = 60.0  # with a master or an agent that is away


class Inbox:
    """Messages of one task that nobody has read yet: bounded, the oldest go first. `lost` counts those."""

    def __init__(self) -> None:
        self.lost = 0
        self.news = asyncio.Event()
        self._messages: deque[bytes] = deque()
        self._bytes = 0

    def put(self, data: bytes) -> None:
        """One came."""
        self._messages.append(data)
        self._bytes += len(data)
        while len(self._messages) > INBOX_MAX or self._bytes > INBOX_BYTES_MAX:
            self.take()
            self.lost += 1
        self.news.set()

    def take(self) -> bytes | None:
        """The oldest."""
        if not self._messages:
            return None
        data = self._messages.popleft()
        self._bytes -= len(data)
        return data


class TaskInput:
    """Writes a task's open standard input, each byte once. `lives` tells whether the task may still read."""

    def __init__(self, operator: Operator, name: Name, lives: Callable[[], bool] = lambda: True) -> None:
        self.offset: int | None = None
        """So many live bytes the task has taken; None: not asked yet."""
        self._operator = operator
        self._name = name
        self._lives = lives
        self._lock = asyncio.Lock()

    async def write(self, data: bytes) -> None:
        """Return when the task has taken all of it, however long that takes.

        Raises `NotFound` if nobody will read it: the task has ended, or closed its input; `Unavailable` if master or
        agent were away for a minute: `offset` then tells how far the task is known to be.
        """
        async with self._lock:
            offset = await self._begin()
            end = offset + len(data)
            while offset < end:
                begin = len(data) - (end - offset)
                offset = self.offset = await self._put(offset, data[begin : begin + PIECE_BYTES], close=False)

    async def close(self) -> None:
        """End of file: return when the task's input is closed. Raises as `write`."""
        async with self._lock:
            await self._put(await self._begin(), b"", close=True)

    async def _begin(self) -> int:
        if self.offset is None:
            self.offset = await self._put(None, b"", close=False)
        return self.offset

    async def _put(self, offset: int | None, piece: bytes, *, close: bool) -> int:
        loop = asyncio.get_running_loop()
        until_s = loop.time() + PATIENCE_S
        while True:
            try:
                taken, closed = await self._operator.write_input(self._name, piece, offset=offset, close=close)
                if closed or not close:
                    return taken
                offset, until_s = taken, loop.time() + PATIENCE_S  # what was written before is not read yet
            except Unavailable:
                if not self._lives():
                    raise NotFound(f"task {self._name.task_id!r} has ended: nobody reads its input") from None
                if loop.time() > until_s:
                    raise
                await asyncio.sleep(RETRY_S)
