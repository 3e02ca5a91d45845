"""The agents' link over HTTP: join, beat, doorbell (docs/link.md, "Over HTTP").

What does not live here: what is said over it (`edgerm.core.link`, the core), the bytes of it (`api/link.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from aiohttp import web

from edgerm.core.errors import UnsupportedMediaType
from edgerm.core.link import HTTP
from edgerm.wire.content import PROTOBUF
from edgerm_master.api.access import Action
from edgerm_master.api.doorbells import Doorbells
from edgerm_master.api.http import Route, open_stream, read_body
from edgerm_master.api.link import REQUEST_BYTES_MAX, answer_beat, answer_join, session_of
from edgerm_master.api.port import Port


class AgentFace:
    """The agents' requests."""

    def __init__(self, port: Port, doorbells: Doorbells) -> None:
        self._port = port
        self._doorbells = doorbells

    def routes(self) -> Iterator[Route]:
        """What this face serves."""
        yield Route("POST", "/link/v1/join", Action.LINK, self.join)
        yield Route("POST", "/link/v1/beat", Action.LINK, self.beat)
        yield Route("GET", "/link/v1/doorbell", Action.LINK, self.doorbell)

    async def join(self, request: web.Request) -> web.StreamResponse:
        """200 with a session, or that the next part is wanted; 409: a later incarnation has joined."""
        answer, stale = await answer_join(self._port, await _body(request), HTTP)
        return web.Response(status=409 if stale else 200, body=answer, headers=_HEADERS)

    async def beat(self, request: web.Request) -> web.StreamResponse:
        """200 with orders and acknowledgements, or with the word to join."""
        return web.Response(body=await answer_beat(self._port, await _body(request), HTTP), headers=_HEADERS)

    async def doorbell(self, request: web.Request) -> web.StreamResponse:
        """A line for each ring, and one for each silent beat interval; a newer doorbell of a session ends the older."""
        session, doorbell = session_of(request.query.get("session", "")), Doorbell()
        self._doorbells.hang(session, doorbell)
        try:
            response = await open_stream(request, "text/plain", {})
            idle_s = self._port.core.settings.beat_interval_s
            while line := await doorbell.wait(idle_s):
                await response.write(line)
            await response.write_eof()
            return response
        finally:
            self._doorbells.gone(session, doorbell)


class Doorbell:
    """Rings that come faster than they are read are one ring."""

    def __init__(self) -> None:
        self._rung = self._closed = False
        self._news = asyncio.Event()

    def ring(self, count: int) -> None:
        """Beat now."""
        del count
        self._rung = True
        self._news.set()

    def take_down(self, session_over: bool) -> None:
        """The stream ends, whatever the reason."""
        del session_over
        self._closed = True
        self._news.set()

    async def wait(self, idle_s: float) -> bytes:
        """The next line to write; empty: no more."""
        self._news.clear()
        if not (self._rung or self._closed):
            try:
                async with asyncio.timeout(idle_s):
                    await self._news.wait()
            except TimeoutError:
                return b"idle\n"
        if self._closed:
            return b""
        self._rung = False
        return b"ring\n"


_HEADERS = {"Content-Type": PROTOBUF}


async def _body(request: web.Request) -> bytes:
    content_type = request.headers.get("Content-Type", "")
    if content_type.partition(";")[0].strip().lower() != PROTOBUF:
        raise UnsupportedMediaType(f"Content-Type {content_type[:80]!r} is not read here; send {PROTOBUF}")
    return await read_body(request, REQUEST_BYTES_MAX)
