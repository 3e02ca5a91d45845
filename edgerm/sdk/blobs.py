"""Blobs on their way to the master: hashed, and uploaded only if it lacks them."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

from edgerm.core.blobs import Digest, digest_of
from edgerm.core.errors import Invalid, NotFound
from edgerm.core.scheduler import BlobRef
from edgerm.transport.http_client import HttpClient

KNOWN_S = 60.0  # so long after the master said that it has a blob it is not asked again; it keeps them far longer


class Blobs:
    """What this client knows of the master's blobs."""

    def __init__(self, client: HttpClient) -> None:
        self._client = client
        self._known_s: dict[Digest, float] = {}
        self._locks: dict[Digest, asyncio.Lock] = {}

    async def keep(self, content: bytes | Path) -> BlobRef:
        """The blob of these bytes, which the master has on return.

        Raises `Invalid` for a file that cannot be read, and what the master refuses with (`TooLarge`, `Unavailable`).
        """
        blob = await _name(content)
        lock = self._locks.setdefault(blob.digest, asyncio.Lock())
        async with lock:
            now_s = asyncio.get_running_loop().time()
            if now_s - self._known_s.get(blob.digest, -KNOWN_S) >= KNOWN_S:
                await self._ensure(blob, content)
                self._known_s[blob.digest] = now_s
        return blob

    async def _ensure(self, blob: BlobRef, content: bytes | Path) -> None:
        path = f"/artifacts/{blob.digest}"
        try:
            await self._client.request("HEAD", path)
        except NotFound:
            await self._client.upload(path, content)


async def _name(content: bytes | Path) -> BlobRef:
    if isinstance(content, bytes):
        return BlobRef(digest_of(content), len(content))
    try:
        return await asyncio.to_thread(_name_of_file, content)
    except OSError as error:
        raise Invalid(f"cannot read {content}: {error.strerror}") from None


def _name_of_file(path: Path) -> BlobRef:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return BlobRef(Digest(digest), file.tell())
