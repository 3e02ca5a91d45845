"""Blobs over HTTP: `PUT`, `GET` and `HEAD /artifacts/{sha256}` (docs/link.md, "Blobs").

What does not live here: keeping them (`api/blobs.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from aiohttp import web

from edgerm.core.blobs import check_digest
from edgerm.core.errors import Invalid
from edgerm_master.api.access import Action
from edgerm_master.api.blobs import Blobs
from edgerm_master.api.http import Route

CHUNK_BYTES = 1 << 18
SILENCE_S = 60.0  # an upload without a byte for so long is given up


class ArtifactFace:
    """The requests for blobs."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs

    def routes(self) -> Iterator[Route]:
        """What this face serves."""
        yield Route("PUT", "/artifacts/{digest}", Action.WRITE_BLOB, self.put)
        yield Route("GET", "/artifacts/{digest}", Action.READ_BLOB, self.get)
        yield Route("HEAD", "/artifacts/{digest}", Action.READ_BLOB, self.head)

    async def put(self, request: web.Request) -> web.StreamResponse:
        """201: stored; 200: it was here already. Bytes that do not match the name are refused with 400."""
        digest = check_digest(request.match_info["digest"])
        async with self._blobs.writing(digest, request.content_length) as writer:
            waiting = bytearray()
            while chunk := await self._read(request):
                if writer is None:
                    continue
                waiting += chunk
                if len(waiting) >= CHUNK_BYTES:
                    await self._blobs.write(writer, bytes(waiting))
                    waiting.clear()
            if writer is None:
                return web.Response(status=200)
            await self._blobs.write(writer, bytes(waiting))
            await self._blobs.commit(writer)
        return web.Response(status=201)

    async def get(self, request: web.Request) -> web.StreamResponse:
        """The bytes, or the range of them that is asked for: 200, 206, 404, 416."""
        path = await self._blobs.find(check_digest(request.match_info["digest"]))
        return web.FileResponse(path, headers={"Content-Type": "application/octet-stream"})

    async def head(self, request: web.Request) -> web.StreamResponse:
        """Whether the blob is here, and its length."""
        return await self.get(request)

    async def _read(self, request: web.Request) -> bytes:
        try:
            async with asyncio.timeout(SILENCE_S):
                return await request.content.readany()
        except TimeoutError:
            raise Invalid(f"no byte of the blob came for {SILENCE_S:.0f} s: send it again") from None
