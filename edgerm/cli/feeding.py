"""This process's standard input, poured into a task's. Imported when it is used.

What does not live here: how bytes get there (`edgerm.sdk.talking`).
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from contextlib import suppress
from typing import Protocol

PIECE_BYTES = 65536


class Sink(Protocol):
    """Where it goes: a `TaskHandle`."""

    async def write(self, data: bytes) -> None: ...
    async def close_input(self) -> None: ...


async def feed(sink: Sink) -> None:
    """Until the end of our standard input, which ends the task's too. Raises as `TaskHandle.write`."""
    if sys.stdin is not None:  # a shell's `<&-` closed it
        pieces = _Pieces(sys.stdin.fileno())
        while data := await pieces.next():
            await sink.write(data)
    await sink.close_input()


class _Pieces:
    """Reads in a thread that nobody waits for: a terminal may say nothing until we have ended. One piece ahead."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._loop = asyncio.get_running_loop()
        self._piece: asyncio.Queue[bytes] = asyncio.Queue()
        self._wanted = threading.Semaphore(0)
        threading.Thread(target=self._read, name="stdin", daemon=True).start()

    async def next(self) -> bytes:
        """What comes next, as soon as it comes; empty: the end."""
        self._wanted.release()
        return await self._piece.get()

    def _read(self) -> None:
        data = b"more"
        while data:
            self._wanted.acquire()
            try:
                data = os.read(self._fd, PIECE_BYTES)
            except OSError:  # such as a terminal that is gone
                data = b""
            with suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._piece.put_nowait, data)
