"""The agents' link over HTTP: join, beat, doorbell (docs/link.md, "Over HTTP").

What does not live here: what is said over it (`edgerm.core.link`, the core), the bytes of it (the codec).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from aiohttp import web

from edgerm.core.errors import Conflict, Invalid, UnsupportedMediaType
from edgerm.core.link import Stale
from edgerm.wire.codec import link as codec
from edgerm.wire.content import PROTOBUF
from edgerm_master.api.access import Action
from edgerm_master.api.http import Route, open_stream, read_body
from edgerm_master.api.port import Port
from edgerm_master.core.effects import Ring, SessionEnded

BODY_BYTES_MAX = 800_000  # what a message brings is stored in rows of at most 1 MB


class AgentFace:
    """The agents' requests, and their doorbells by session."""

    def __init__(self, port: Port) -> None:
        self._port = port
        self._doorbells: dict[int, Doorbell] = {}
        port.on(Ring, self._ring)
        port.on(SessionEnded, self._end)

    def routes(self) -> Iterator[Route]:
        """What this face serves."""
        yield Route("POST", "/link/v1/join", Action.LINK, self.join)
        yield Route("POST", "/link/v1/beat", Action.LINK, self.beat)
        yield Route("GET", "/link/v1/doorbell", Action.LINK, self.doorbell)

    async def join(self, request: web.Request) -> web.StreamResponse:
        """200 with a session, or that the next part is wanted; 409: a later incarnation has joined."""
        answer = await self._port.join(codec.decode_join(await _body(request)))
        status = 409 if isinstance(answer, Stale) else 200
        return web.Response(status=status, body=codec.encode_join_answer(answer), headers=_HEADERS)

    async def beat(self, request: web.Request) -> web.StreamResponse:
        """200 with orders and acknowledgements, or with the word to join."""
        answer = await self._port.beat(codec.decode_beat(await _body(request)))
        return web.Response(body=codec.encode_beat_answer(answer), headers=_HEADERS)

    async def doorbell(self, request: web.Request) -> web.StreamResponse:
        """A line for each ring, and one for each silent beat interval; a newer doorbell of a session ends the older."""
        session = _session(request)
        if session not in self._port.core.world.sessions:
            raise Conflict(f"session {session} is not known here: join")
        self._close(session)
        doorbell = self._doorbells[session] = Doorbell()
        try:
            response = await open_stream(request, "text/plain", {})
            idle_s = self._port.core.settings.beat_interval_s
            while line := await doorbell.wait(idle_s):
                await response.write(line)
            await response.write_eof()
            return response
        finally:
            if self._doorbells.get(session) is doorbell:
                del self._doorbells[session]

    def close(self) -> None:
        """End all doorbells."""
        for session in list(self._doorbells):
            self._close(session)

    def _ring(self, effect: Ring) -> None:
        doorbell = self._doorbells.get(effect.session)
        if doorbell is not None:
            doorbell.ring()

    def _end(self, effect: SessionEnded) -> None:
        self._close(effect.session)

    def _close(self, session: int) -> None:
        doorbell = self._doorbells.pop(session, None)
        if doorbell is not None:
            doorbell.close()


class Doorbell:
    """Rings that come faster than they are read are one ring."""

    def __init__(self) -> None:
        self._rung = self._closed = False
        self._news = asyncio.Event()

    def ring(self) -> None:
        """Beat now."""
        self._rung = True
        self._news.set()

    def close(self) -> None:
        """The session is over."""
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
    return await read_body(request, BODY_BYTES_MAX)


def _session(request: web.Request) -> int:
    text = request.query.get("session", "")
    if not text.isascii() or not text.isdigit() or len(text) > 10:
        raise Invalid(f"session {text[:20]!r} is no number; join gives one")
    return int(text)
