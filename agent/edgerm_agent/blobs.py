"""The cache of blobs: fetched from the master when a task needs them, kept while it lives, evicted when there is need.

What does not live here: how a blob lies on disk (`edgerm.store.blobs`), how it is carried (`Source`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar, TypeVarTuple, Unpack

from edgerm import logs
from edgerm.core.blobs import Digest
from edgerm.core.errors import EdgermError, Invalid, NotFound, TooLarge, Unavailable
from edgerm.core.scheduler import BlobRef
from edgerm.store.blobs import BlobStore, BlobWriter

TRIES = 5  # of what the master lacks, or what finds no room here
RETRY_FIRST_S = 0.5
RETRY_MAX_S = 15.0
FETCHES_MAX = 4  # at a time
CHUNK_BYTES = 1 << 18  # written at once
WRITE_S = 5.0  # or what has come in so long, for a restart to go on from
TOUCH_S = 10.0  # a use is noted on disk once in this time; what was used so lately is not evicted (`YOUNG_S`)
TOUCHED_MAX = 1000
SWEEP_S = 3600.0

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
log = logs.get("agent.blobs")


@dataclass(frozen=True, slots=True)
class Body:
    """Bytes on their way: where they begin, and they."""

    offset_bytes: int
    chunks: AsyncIterator[bytes]


class Source(Protocol):
    """Who has blobs."""

    def get_blob(self, ref: BlobRef, offset_bytes: int) -> AbstractAsyncContextManager[Body]:
        """The blob from an offset on, or from 0; raises `NotFound`, or `Unavailable` when the link is down."""
        ...


class Blobs:
    """All methods are for the event loop; `referenced` tells the digests that live tasks need."""

    def __init__(self, store: BlobStore, referenced: Callable[[], set[Digest]]) -> None:
        self._store = store
        self._referenced = referenced
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="blobs")
        self._under_way: dict[Digest, asyncio.Task[None]] = {}
        self._slots = asyncio.Semaphore(FETCHES_MAX)
        self._touched_s: dict[Digest, float] = {}
        self._sweeping: asyncio.Task[None] | None = None

    def has(self, digest: Digest) -> bool:
        """Whether the whole blob is here."""
        return self._store.has(digest)

    def path(self, digest: Digest) -> Path:
        """The blob's file, to be read only; raises `NotFound`."""
        return self._store.path(digest)

    def read(self, ref: BlobRef) -> bytes:
        """All of a small blob; blocks. Raises `NotFound`."""
        return self._store.read(ref.digest, 0, ref.size_bytes)

    async def touch(self, digest: Digest) -> bool:
        """Whether the blob is here; if so, it will not be evicted soon."""
        now_s = asyncio.get_running_loop().time()
        if self.has(digest) and now_s < self._touched_s.get(digest, -TOUCH_S) + TOUCH_S:
            return True
        here = self.has(digest) and await self._run(self._touch, digest)
        if here:
            if len(self._touched_s) >= TOUCHED_MAX:
                self._touched_s.clear()
            self._touched_s[digest] = now_s
        return here

    async def fetch(self, ref: BlobRef, source: Source) -> None:
        """Return when the blob is here; whoever asks for one that is under way waits for it.

        Tries for as long as the link is down. Raises `NotFound` when the master lacks it, `Invalid` when the bytes
        are not those that were named, `TooLarge`, or `Unavailable` when there is no room here.
        """
        task = self._under_way.get(ref.digest)
        if task is None:
            task = asyncio.create_task(self._fetch(ref, source), name=f"fetch {ref.digest}")
            self._under_way[ref.digest] = task
            task.add_done_callback(lambda done: self._fetched(ref.digest, done))
        await asyncio.shield(task)

    def _fetched(self, digest: Digest, task: asyncio.Task[None]) -> None:
        self._under_way.pop(digest, None)
        if not task.cancelled():
            task.exception()  # whoever waited has been told; perhaps nobody waits any more

    def sweep(self) -> None:
        """Delete what no live task needs and what is old or too much, now and again and again."""
        self._sweeping = asyncio.create_task(self._sweep(), name="blob eviction")

    async def close(self) -> None:
        """Stop what is under way; partials are continued by the next fetch."""
        tasks = [*self._under_way.values(), *([self._sweeping] if self._sweeping else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._thread.shutdown(wait=True)

    async def _sweep(self) -> None:
        while True:
            try:
                await self._run(self._store.evict, self._referenced(), time.time())
            except EdgermError as error:
                log.warning("blobs could not be evicted", error=str(error))
            await asyncio.sleep(SWEEP_S)

    async def _fetch(self, ref: BlobRef, source: Source) -> None:
        failures = waits = had_bytes = 0
        while not await self.touch(ref.digest):
            try:
                async with self._slots:
                    await self._attempt(ref, source)
            except (NotFound, _NoRoom) as error:
                failures += 1
                if failures == TRIES:
                    raise
                log.info("a blob cannot be had yet", blob=ref.digest, error=str(error))
            except _LinkDown as error:
                log.debug("a blob is waited for", blob=ref.digest, error=str(error))
            before_bytes, had_bytes = had_bytes, await self._run(self._store.partial_size, ref.digest)
            waits = (
                1 if had_bytes > before_bytes else waits + 1
            )  # a link that breaks, but brings something, is no worse
            if not self.has(ref.digest):
                await asyncio.sleep(min(RETRY_FIRST_S * 2.0 ** (waits - 1), RETRY_MAX_S))

    async def _attempt(self, ref: BlobRef, source: Source) -> None:
        left_bytes = await self._run(self._store.partial_size, ref.digest)
        for offset_bytes in dict.fromkeys((left_bytes, 0)):
            try:
                await self._download(ref, source, offset_bytes)
            except Invalid as error:
                if offset_bytes == 0 or isinstance(error, TooLarge):
                    raise Invalid(f"blob {ref.digest}: {error}") from error
                # What an earlier attempt left was bad, perhaps from before a power cut: all of it anew.
            else:
                return

    async def _download(self, ref: BlobRef, source: Source, offset_bytes: int) -> None:
        try:
            async with source.get_blob(ref, offset_bytes) as body:
                writer = await self._begin(ref, body.offset_bytes)
                try:
                    await self._copy(body, writer)
                finally:
                    await self._run(writer.__exit__, None, None, None)
        except Unavailable as error:
            if isinstance(error, _NoRoom):
                raise
            raise _LinkDown(str(error)) from error

    async def _begin(self, ref: BlobRef, offset_bytes: int) -> BlobWriter:
        try:
            return await self._run(self._open, ref, offset_bytes, self._referenced())
        except Unavailable as error:
            raise _NoRoom(str(error)) from error

    async def _copy(self, body: Body, writer: BlobWriter) -> None:
        loop = asyncio.get_running_loop()
        waiting, written_s = bytearray(), loop.time()
        try:
            async for chunk in body.chunks:
                waiting += chunk
                if len(waiting) >= CHUNK_BYTES or loop.time() > written_s + WRITE_S:
                    data, written_s = bytes(waiting), loop.time()
                    waiting.clear()
                    await self._write(writer, data)
        finally:  # whatever ended it: what has come is kept, for over a bad link it may be all that ever comes at once
            if waiting:
                await self._write(writer, bytes(waiting))
        try:
            await self._run(writer.commit, time.time())
        except Unavailable as error:
            raise _NoRoom(str(error)) from error

    async def _write(self, writer: BlobWriter, data: bytes) -> None:
        try:
            await self._run(writer.write, data)
        except Unavailable as error:
            raise _NoRoom(str(error)) from error

    async def _run(self, work: Callable[[Unpack[Ts]], T], *args: *Ts) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *args)

    def _touch(self, digest: Digest) -> bool:
        try:
            self._store.touch(digest, time.time())
        except NotFound:
            return False
        return True

    def _open(self, ref: BlobRef, offset_bytes: int, referenced: set[Digest]) -> BlobWriter:
        self._store.evict(referenced, time.time(), ref.size_bytes)
        return self._store.writer(ref.digest, ref.size_bytes, offset_bytes)


class _LinkDown(Unavailable):
    """The master could not be reached: try again for as long as it takes."""


class _NoRoom(Unavailable):
    """The blob finds no room here."""
