"""Whether the engine is there, which one it is, and what it tells of our containers as it happens."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from edgerm import logs
from edgerm.core.errors import EdgermError, Unavailable
from edgerm_agent.executors.docker.engine import Engine, EngineError
from edgerm_agent.executors.docker.threads import Feed, ToLoop

OPEN_S = 30.0
RETRY_FIRST_S = 0.1
RETRY_MAX_S = 5.0

Json = dict[str, Any]
log = logs.get("agent.docker")


class Watch:
    """Keeps one event stream open, from the first `ensure` on.

    `happened` is given each event. `look` is called after each (re)connection, to catch up with what happened while
    nobody listened.
    """

    def __init__(
        self, engine: Engine, label: str, happened: Callable[[Json], None], look: Callable[[], Awaitable[None]]
    ) -> None:
        self.info: Json = {}
        self._engine = engine
        self._label = label
        self._happened = happened
        self._look = look
        self._lock = asyncio.Lock()
        self._up, self._down = asyncio.Event(), asyncio.Event()
        self._down.set()
        self._feed: Feed | None = None
        self._retry: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def is_up(self) -> bool:
        """Whether events arrive."""
        return self._up.is_set()

    async def ensure(self) -> Json:
        """The engine's info, once events arrive. Raises `Unavailable`, saying what is waited for."""
        if not self._up.is_set():
            async with self._lock:
                if not self._up.is_set():
                    await self._connect()
        return self.info

    async def came(self, timeout_s: float) -> None:
        """Return when the engine is there, or after so long."""
        if self._retry is None or self._retry.done():
            self._retry = asyncio.create_task(self._reconnect(), name="docker reconnect")
        try:
            async with asyncio.timeout(timeout_s):
                await self._up.wait()
        except TimeoutError:
            return

    async def went(self) -> None:
        """Return when the engine is away."""
        await self._down.wait()

    async def close(self) -> None:
        """Listen no more."""
        self._closed = True
        if self._retry is not None:
            self._retry.cancel()
            await asyncio.gather(self._retry, return_exceptions=True)
        if self._feed is not None:
            feed, self._feed = self._feed, None
            feed.close()

    async def _connect(self) -> None:
        try:
            info = await self._engine.info()
            feed = self._feed = await self._open()
            try:
                self.info = info
                await self._look()
            except BaseException:
                feed.close()
                raise
        except EngineError as error:
            raise Unavailable(f"waits for the Docker engine at {self._engine.url}: {error}") from error
        if self._feed is feed:
            self._up.set()
            self._down.clear()

    async def _open(self) -> Feed:
        opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        feed: Feed

        def begun() -> None:
            if not opened.done():
                opened.set_result(None)

        def ended(error: EdgermError | None) -> None:
            if not opened.done():
                opened.set_exception(error or Unavailable(f"waits for the Docker engine at {self._engine.url}"))
            elif self._feed is feed:
                self._lost(error)

        feed = self._engine.follow_events(self._label, ToLoop(self._happened, ended, begun))
        try:
            async with asyncio.timeout(OPEN_S):
                await opened
        except TimeoutError as error:
            feed.close()
            raise Unavailable(f"waits for the Docker engine at {self._engine.url}: it tells no events") from error
        return feed

    def _lost(self, error: EdgermError | None) -> None:
        self._feed = None
        self._up.clear()
        self._down.set()
        if not self._closed:
            log.warning("the Docker engine is away: its containers are looked at when it is back", error=str(error))
            if self._retry is None or self._retry.done():
                self._retry = asyncio.create_task(self._reconnect(), name="docker reconnect")

    async def _reconnect(self) -> None:
        wait_s = RETRY_FIRST_S
        while True:
            await asyncio.sleep(wait_s)
            try:
                await self.ensure()
            except Unavailable:
                wait_s = min(2 * wait_s, RETRY_MAX_S)
            else:
                log.info("the Docker engine is back")
                return
