"""What carries an agent of the crowd: one exchange at a time, and its doorbell, over HTTP or CoAP.

What does not live here: what is said.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast
from urllib.parse import urlsplit

CON_GET, ACK = 0x41, 0x60
CHUNK_BYTES = 896  # as the agent has it
_NAMED = b"\x12\xfd\xe9"  # Content-Format NAMED, behind Uri-Path


class HttpCarrier:
    """A connection that is kept, and one for the doorbell."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._client: Any = None

    async def ask(self, what: str, data: bytes) -> bytes:
        """One exchange."""
        from bench import http_load
        from bench.load_agent import PROTOBUF

        if self._client is None or self._client.closed:
            self._client = await http_load.Client(self._url).open(1)
        head = self._client.post(f"/link/v1/{what}", PROTOBUF)
        async with asyncio.timeout(10):
            return cast("bytes", (await self._client.ask(head, data)).body)

    async def listen(self, session: int, rang: Callable[[], None]) -> bool:
        """Until the stream ends; False: the session is not known."""
        parts = urlsplit(self._url)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port, limit=1024)
        try:
            writer.write(f"GET /link/v1/doorbell?session={session} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            status = int((await reader.readuntil(b"\r\n\r\n"))[9:12])
            rang()
            while status == 200 and (line := await reader.readline()):
                if b"ring" in line:
                    rang()
            return status != 409
        finally:
            writer.transport.abort()

    async def close(self) -> None:
        """Let go of the connection."""
        if self._client is not None:
            self._client.close()
            self._client = None


class CoapCarrier:
    """A socket, and one for the doorbell."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._socket: Any = None

    async def ask(self, what: str, data: bytes) -> bytes:
        """One exchange; not repeated, since on loopback nothing is lost that the master has room for."""
        from bench import coap_load

        from edgerm.core.link import COAP

        if self._socket is None:
            self._socket = await coap_load.open_socket(self._url)
        options = b""
        if len(data) > COAP.budget_bytes:
            data, options = await self._upload(data), _NAMED
        answer = await self._socket.ask(what[0], data, options)
        if answer.code != coap_load.CHANGED:
            raise RuntimeError(f"the master answers {answer.code >> 5}.{answer.code & 31:02d}")
        return cast("bytes", answer.payload)

    async def _upload(self, data: bytes) -> bytes:
        """Send a message that fits no datagram in chunks; its name."""
        from edgerm.core.blobs import digest_of
        from edgerm.core.link import Chunk
        from edgerm.core.scheduler import BlobRef
        from edgerm.wire.codec import link as codec

        digest = digest_of(data)
        for number, first in enumerate(range(0, len(data), CHUNK_BYTES)):
            chunk = Chunk(digest, len(data), CHUNK_BYTES, number, data[first : first + CHUNK_BYTES])
            answer = await self._socket.ask("u", codec.encode_chunk(chunk))
            if answer.code >> 5 != 2:
                raise RuntimeError(f"the master answers {answer.code >> 5}.{answer.code & 31:02d} to a chunk")
        return codec.encode_blob_ref(BlobRef(digest, len(data)))

    async def listen(self, session: int, rang: Callable[[], None]) -> bool:
        """Until the master ends it; nothing breaks when a master dies."""
        parts = urlsplit(self._url)
        loop = asyncio.get_running_loop()
        over: asyncio.Future[None] = loop.create_future()
        transport, _ = await loop.create_datagram_endpoint(
            lambda: Bell(session, rang, over), remote_addr=(parts.hostname or "", parts.port or 5683)
        )
        try:
            await over
            return False
        finally:
            transport.abort()

    async def close(self) -> None:
        """Let go of the socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class Bell(asyncio.DatagramProtocol):
    """Observes the doorbell: every notification is a ring, and is acknowledged."""

    def __init__(self, session: int, rang: Callable[[], None], over: asyncio.Future[None]) -> None:
        self._rang, self._over = rang, over
        query = str(session).encode()
        head = bytes((CON_GET, 1, 0, 1, 7, 0x60, 0x51)) + b"d"
        self._request = head + bytes((0x40 | len(query),)) + query

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask."""
        self._transport = cast("asyncio.DatagramTransport", transport)
        self._transport.sendto(self._request)

    def datagram_received(self, data: bytes, addr: object) -> None:
        """The first answer, or a notification."""
        del addr
        if data[0] & 0x30 == 0:  # confirmable
            self._transport.sendto(bytes((ACK, 0)) + data[2:4])
        if data[1] != 0x45:
            if not self._over.done():
                self._over.set_result(None)
        else:
            self._rang()

    def error_received(self, exc: Exception) -> None:
        """The master's port is closed just now: nothing that one can rely on."""
        del exc
