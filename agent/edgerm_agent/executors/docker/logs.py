"""A container's output by offset, from the log that the engine keeps of it.

The engine's log has no offsets, so a reader walks it from its oldest byte and counts. A cursor stays where the last
read ended, for whoever reads on from there; nothing is read, and nothing kept, while nobody asks. When the engine has
dropped the oldest part of a log (`executors.docker.log_bytes`), a reader that begins then counts from the oldest byte
kept: it misses what was dropped, and its offsets are lower than those of a reader that was there from the start.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import NamedTuple

from edgerm.core.errors import EdgermError
from edgerm.core.ids import TaskKey
from edgerm.plugin.executor import Stream
from edgerm_agent.executors.docker.engine import CALL_S, Engine
from edgerm_agent.executors.docker.threads import Feed

BUFFER_BYTES = 128 * 1024
READ_BYTES_MAX = 1 << 20  # by one call
CURSORS_MAX = 32
IDLE_S = 60.0


class Place(NamedTuple):
    """Where a reader is."""

    key: TaskKey
    stream: Stream
    follow: bool
    offset: int


class Cursor:
    """One walk along one stream; a `threads.Reader`. It waits while 128 KiB, or what a call wants, are not taken."""

    def __init__(self, begin: Callable[[Cursor], Feed], offset: int) -> None:
        self.offset = 0  # of the next byte that `read` gives
        self._wanted = offset
        self._buffer = bytearray()
        self._walked = 0
        self._capacity = BUFFER_BYTES
        self._error: EdgermError | None = None
        self._over = False
        self._room = threading.Condition()
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self._idle: asyncio.TimerHandle | None = None
        self._feed = begin(self)

    # The feed's thread.

    def opened(self) -> None:
        """Nothing yet."""

    def take(self, data: bytes, /) -> None:
        with self._room:
            self._room.wait_for(lambda: len(self._buffer) < self._capacity or self._over)
            skip = min(max(self._wanted - self._walked, 0), len(data))
            self._walked += len(data)
            self._buffer += data[skip:]
        self._tell()

    def ended(self, error: EdgermError | None) -> None:
        with self._room:
            self._error, self._over = error, True
        self._tell()

    def _tell(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._news.set)
        except RuntimeError:  # the loop has ended: nobody reads
            return

    # The event loop's thread.

    async def read(self, max_bytes: int, wait_s: float, *, fill: bool) -> tuple[bytes, bool]:
        """The next bytes and whether the walk is over; `fill`: as many as there are, not only the first to come.

        Raises what the engine said, `Unavailable` or `EngineError`.
        """
        least = min(max_bytes, READ_BYTES_MAX) if fill else 1
        with self._room:
            self._capacity = max(BUFFER_BYTES, least)
            self._room.notify()
        try:
            async with asyncio.timeout(wait_s):
                while not self._is_ready(least):
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            pass
        return self._cut(max_bytes)

    def _is_ready(self, least: int) -> bool:
        with self._room:
            return self._over or len(self._buffer) >= least

    def _cut(self, max_bytes: int) -> tuple[bytes, bool]:
        with self._room:
            if self._error is not None and not self._buffer:
                raise self._error
            data = bytes(self._buffer[:max_bytes])
            del self._buffer[:max_bytes]
            self._room.notify()
            self.offset = min(self._wanted, self._walked)
            self._wanted += len(data)
            return data, self._over and not self._buffer and self._error is None

    def rest(self, too_long: Callable[[], None]) -> None:
        """Nobody reads now; `too_long` is called if that lasts."""
        self._idle = self._loop.call_later(IDLE_S, too_long)

    def wake(self) -> None:
        """It is read again."""
        if self._idle is not None:
            self._idle.cancel()

    def close(self) -> None:
        """End the walk."""
        self.wake()
        with self._room:
            self._over = True
            self._room.notify()
        self._feed.close()


class Logs:
    """The outputs of all containers of an engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._resting: dict[Place, Cursor] = {}

    async def read(self, name: str, place: Place, max_bytes: int, wait_s: float) -> tuple[int, bytes, bool]:
        """The bytes at `place` with their offset, and whether the log has no more; waits only where it follows."""
        cursor = self._resting.pop(place, None) or self._begin(name, place)
        cursor.wake()
        try:
            wait_s = wait_s if place.follow else CALL_S
            data, over = await cursor.read(max_bytes, wait_s, fill=not place.follow)
        except BaseException:
            cursor.close()
            raise
        if over:
            cursor.close()
        else:
            self._keep(place._replace(offset=cursor.offset + len(data)), cursor)
        return cursor.offset, data, over

    def forget(self, key: TaskKey) -> None:
        """The container is gone."""
        for place in [place for place in self._resting if place.key == key]:
            self._drop(place)

    def close(self) -> None:
        """End all walks."""
        for place in list(self._resting):
            self._drop(place)

    def _begin(self, name: str, place: Place) -> Cursor:
        return Cursor(lambda cursor: self._engine.follow_log(name, place.stream, place.follow, cursor), place.offset)

    def _keep(self, place: Place, cursor: Cursor) -> None:
        if place in self._resting:
            cursor.close()
            return
        if len(self._resting) >= CURSORS_MAX:
            self._drop(next(iter(self._resting)))
        self._resting[place] = cursor
        cursor.rest(lambda: self._drop(place))

    def _drop(self, place: Place) -> None:
        cursor = self._resting.pop(place, None)
        if cursor is not None:
            cursor.close()
