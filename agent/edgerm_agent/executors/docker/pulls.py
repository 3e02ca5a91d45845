"""Getting images: each at most once at a time, with progress, a limit on standing still, and an end on demand."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from edgerm.core.errors import EdgermError, Unavailable
from edgerm.plugin.executor import LaunchFailed, Tell
from edgerm_agent.executors.docker.engine import Engine, EngineError
from edgerm_agent.executors.docker.progress import Progress
from edgerm_agent.executors.docker.threads import ToLoop

AT_ONCE = 3


class Pulls:
    """The pulls of one engine. `stall_s`: a pull without progress for so long has failed."""

    def __init__(self, engine: Engine, stall_s: float) -> None:
        self._engine = engine
        self._stall_s = stall_s
        self._pulls: dict[str, _Pull] = {}
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def pull(self, image: str, tell: Tell) -> None:
        """Get the image; cancelled, the pull goes on only if another waits for it.

        Raises `LaunchFailed` if it cannot be got, `Unavailable` if the engine went away.
        """
        pull = self._pulls.get(image)
        if pull is None:
            pull = self._pulls[image] = _Pull(self._engine, image, self._stall_s)
            pull.task = asyncio.create_task(self._run(pull), name=f"pull {image}")
        pull.listeners.append(tell)
        tell(pull.progress.text)
        try:
            await asyncio.shield(pull.task)
        finally:
            pull.listeners.remove(tell)
            if not pull.listeners and not pull.task.done():
                pull.task.cancel()
                if self._pulls.get(image) is pull:
                    del self._pulls[image]

    async def _run(self, pull: _Pull) -> None:
        try:
            async with self._turns:
                await pull.run()
        finally:
            if self._pulls.get(pull.image) is pull:
                del self._pulls[pull.image]


class _Pull:
    def __init__(self, engine: Engine, image: str, stall_s: float) -> None:
        self.image = image
        self.progress = Progress(image)
        self.listeners: list[Tell] = []
        self.task: asyncio.Task[None]
        self._engine = engine
        self._stall_s = stall_s
        self._news: asyncio.Event = asyncio.Event()
        self._over: asyncio.Future[EdgermError | None] = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        """Until the image is there. Raises as `Pulls.pull`."""
        feed = self._engine.pull(self.image, ToLoop(self._take, self._ended))
        try:
            await self._await_end()
        except EngineError as error:
            raise LaunchFailed(f"image {self.image} cannot be pulled: {error}") from error
        finally:
            feed.close()
        if self.progress.error:
            raise LaunchFailed(f"image {self.image} cannot be pulled: {self.progress.error}")
        if not self.progress.done:
            raise Unavailable(f"waits for the Docker engine at {self._engine.url}: it went away during a pull")

    async def _await_end(self) -> None:
        while not self._over.done():
            self._news.clear()
            try:
                async with asyncio.timeout(self._stall_s):
                    await self._news.wait()
            except TimeoutError:
                at = self.progress.text.removeprefix("pulling ")
                raise LaunchFailed(f"image {at}: no progress for {self._stall_s:g} s, the pull is given up") from None
        error = self._over.result()
        if error is not None:
            raise error

    def _take(self, line: bytes) -> None:
        before = self.progress.text
        if self.progress.feed(line):
            self._news.set()
        text = self.progress.text
        if text != before:
            for tell in list(self.listeners):
                tell(text)

    def _ended(self, error: EdgermError | None) -> None:
        with suppress(asyncio.InvalidStateError):
            self._over.set_result(error)
        self._news.set()
