"""One reader's stream of events: RecordIO, heartbeats, and a bound on what waits for a slow reader.

What does not live here: who may open one, and what is said on it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

from aiohttp import web

from edgerm.wire.recordio import frame

E = TypeVar("E")

HEARTBEAT_S = 15.0
WAITING_MAX = 4  # times the bound, which a reader that reads may have waiting
REFUSED_HOLD_S = 0.5  # how long a refused subscription stays open: some clients come back at once, for ever


class EventStream(Generic[E]):
    """Takes events synchronously, and writes them in one coroutine, as many at once as there are.

    `broken` says why no more can be sent: the reader was too slow, or an event could not be written. Slow is who does
    takes nothing of what was handed to its connection, while `max_bytes` more come to wait; and who lets WAITING_MAX
    times as much wait. What many events at once bring is handed over in the writer's next turn, however much it is.
    """

    def __init__(self, encode: Callable[[E], bytes], max_bytes: int, heartbeat: E) -> None:
        self._encode = encode
        self._heartbeat = heartbeat
        self._max_bytes = max_bytes
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._writing = False  # what was handed to the connection is not taken whole yet
        self._left_bytes = 0  # of that, when it was looked at last
        self._unmoved_bytes = 0  # came to wait since the reader last took anything
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._heart: asyncio.TimerHandle | None = None
        self._refused = False
        self._transport: asyncio.Transport | None = None
        self.ended = False  # by the core: what waits is still written
        self.broken = ""

    def send(self, event: E) -> None:
        """Queue an event."""
        if self.ended or self.broken:
            return
        try:
            self._append(frame(self._encode(event)))
        except Exception as error:
            self.cut(f"an event could not be written: {error}")

    def begin(self) -> None:
        """The subscription stands: the first heartbeat follows at once, and then the others."""
        if not (self.ended or self.broken):
            self._beat()

    def refuse(self) -> None:
        """What was sent refuses a subscription, unless it has begun: the end is held back for a moment."""
        self._refused = self._heart is None

    def end(self) -> None:
        """Nothing more will be sent."""
        self.ended = True
        self._wake.set()

    def stop(self) -> None:
        """Let go of the timer."""
        if self._heart is not None:
            self._heart.cancel()

    def _beat(self) -> None:
        self._heart = self._loop.call_later(HEARTBEAT_S, self._beat)
        self._append(frame(self._encode(self._heartbeat)))

    def _append(self, record: bytes) -> None:
        self._waiting_bytes += len(record)
        if self._writing and self._is_slow(len(record)):
            self.cut(f"its reader is too slow: {self._waiting_bytes} bytes wait for it")
            return
        self._waiting.append(record)
        self._wake.set()

    def _is_slow(self, more_bytes: int) -> bool:
        left_bytes = self._transport.get_write_buffer_size() if self._transport is not None else 0
        moved = left_bytes != self._left_bytes
        self._left_bytes = left_bytes
        self._unmoved_bytes = more_bytes if moved else self._unmoved_bytes + more_bytes
        if len(self._waiting) == 0:  # a single event may be larger than the bound
            return False
        return self._unmoved_bytes > self._max_bytes or self._waiting_bytes > WAITING_MAX * self._max_bytes

    def cut(self, reason: str) -> None:
        """The order of events cannot be kept, so the stream ends at once; this also wakes a write that is stuck."""
        self.broken = self.broken or reason
        self._waiting.clear()
        self._wake.set()
        if self._transport is not None:
            self._transport.abort()

    async def write(self, request: web.Request, response: web.StreamResponse) -> None:
        """Write until the stream ends, and then the body's end, or breaks; raises ConnectionError: the peer is gone."""
        self._transport = request.transport
        while not self.broken:
            if self._waiting:
                records = b"".join(self._waiting)
                self._waiting.clear()
                self._waiting_bytes = 0
                self._writing, self._left_bytes, self._unmoved_bytes = True, 0, 0
                await response.write(records)
                self._writing = False
            elif self.ended:
                break
            else:
                self._wake.clear()
                await self._wake.wait()
        if self._refused:
            await asyncio.sleep(REFUSED_HOLD_S)
        if not self.broken:
            await response.write_eof()
