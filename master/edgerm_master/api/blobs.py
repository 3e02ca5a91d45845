"""The blobs that the faces share: a `BlobStore` on a thread of its own, kept while a live task refers to them.

What does not live here: how a blob lies on disk and which one goes first (`edgerm.store.blobs`, `edgerm.core.blobs`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar, TypeVarTuple

from edgerm import logs
from edgerm.core.blobs import Digest
from edgerm.core.errors import EdgermError, NotFound
from edgerm.store.blobs import BlobStore, BlobWriter

EVICT_EVERY_S = 600.0

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
log = logs.get("master.blobs")


class Blobs:
    """All methods are for the event loop; `referenced` tells the digests that live tasks need."""

    def __init__(self, store: BlobStore, referenced: Callable[[], set[Digest]]) -> None:
        self._store = store
        self._referenced = referenced
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="blobs")
        self._locks: dict[Digest, asyncio.Lock] = {}

    async def find(self, digest: Digest) -> Path:
        """The blob's file, which this use keeps from eviction for a while; raises `NotFound`."""
        return await self._run(self._use, digest)

    async def has(self, digest: Digest) -> bool:
        """Whether the blob is here; if so, this counts as a use."""
        return await self._run(self._use_if_here, digest)

    async def read(self, digest: Digest, offset_bytes: int, length_bytes: int) -> tuple[bytes, int]:
        """Bytes from an offset on, fewer at the blob's end, and its length; counts as a use. Raises `NotFound`."""
        return await self._run(self._read, digest, offset_bytes, length_bytes)

    async def keep(self, digest: Digest, data: bytes) -> None:
        """Store bytes under their name, if they are not here; durable on return."""
        async with self.writing(digest, len(data)) as writer:
            if writer is not None:
                await self.write(writer, data)
                await self.commit(writer)

    @asynccontextmanager
    async def writing(self, digest: Digest, size_bytes: int | None) -> AsyncIterator[BlobWriter | None]:
        """A writer for the blob, or None if it is here; a second one for the same blob waits for the first.

        Raises `TooLarge`, or `Unavailable` if there is no room even without all that nothing refers to.
        """
        lock = self._locks.setdefault(digest, asyncio.Lock())
        try:
            async with lock:
                if await self._run(self._use_if_here, digest):
                    yield None
                    return
                writer = await self._run(self._begin, digest, size_bytes, self._referenced())
                try:
                    yield writer
                finally:
                    await self._run(writer.__exit__, None, None, None)
        finally:
            if not lock.locked():
                self._locks.pop(digest, None)

    async def write(self, writer: BlobWriter, chunk: bytes) -> None:
        """Append to the blob."""
        await self._run(writer.write, chunk)

    async def commit(self, writer: BlobWriter) -> None:
        """Check and sync the blob; raises `Invalid` if its bytes have another name."""
        await self._run(writer.commit, time.time())

    async def evict_for_ever(self) -> None:
        """Delete what is old or too much, again and again."""
        while True:
            await asyncio.sleep(EVICT_EVERY_S)
            try:
                gone = await self._run(self._store.evict, self._referenced(), time.time())
            except EdgermError as error:
                log.warning("blobs could not be evicted", error=str(error))
            else:
                log.info("evicted blobs", count=len(gone))

    def close(self) -> None:
        """End the thread once it has done what it was asked."""
        self._thread.shutdown(wait=True)

    async def _run(self, work: Callable[[*Ts], T], *args: *Ts) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *args)

    def _read(self, digest: Digest, offset_bytes: int, length_bytes: int) -> tuple[bytes, int]:
        self._store.touch(digest, time.time())
        return self._store.read(digest, offset_bytes, length_bytes), self._store.size(digest)

    def _use(self, digest: Digest) -> Path:
        self._store.touch(digest, time.time())
        return self._store.path(digest)

    def _use_if_here(self, digest: Digest) -> bool:
        try:
            self._store.touch(digest, time.time())
        except NotFound:
            return False
        return True

    def _begin(self, digest: Digest, size_bytes: int | None, referenced: set[Digest]) -> BlobWriter:
        self._store.evict(referenced, time.time(), size_bytes or 0)
        return self._store.writer(digest, size_bytes)
