"""A lean CoAP client for loads: one confirmable POST under way on each socket, answers piggy-backed, nothing repeated.

What does not live here: what is asked. It understands just enough of RFC 7252 to find an answer's payload; a load that
cost as much as the server would measure itself.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple, cast
from urllib.parse import urlsplit

CON_2, ACK_2 = 0x42, 0x62  # version 1, a token of two bytes
POST = 0x02
CHANGED = 0x44
PAYLOAD = 0xFF
LOST_S = 10.0


class Answer(NamedTuple):
    """The code's byte, and the payload of an answer without options."""

    code: int
    payload: bytes


class Socket(asyncio.DatagramProtocol):
    """One socket, one request at a time."""

    def __init__(self) -> None:
        self._mid = 0
        self._waiter: asyncio.Future[Answer] | None = None
        self._transport: asyncio.DatagramTransport | None = None
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ready."""
        self._transport = cast("asyncio.DatagramTransport", transport)  # Python 3.11's is none by its class

    def datagram_received(self, data: bytes, addr: object) -> None:
        """An answer."""
        del addr
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            if data[0] != ACK_2 or int.from_bytes(data[2:4]) != self._mid:
                waiter.set_exception(RuntimeError(f"no piggy-backed answer: {data[:8].hex()}"))
            else:
                waiter.set_result(Answer(data[1], data[7:]))

    async def ask(self, path: str, payload: bytes, options: bytes = b"") -> Answer:
        """POST to a path of one segment, shorter than 13 characters; `options`, encoded, come behind the path."""
        assert self._transport is not None
        self._mid = (self._mid + 1) & 0xFFFF
        mid = self._mid.to_bytes(2)
        head = bytes((CON_2, POST)) + mid + mid + bytes((0xB0 | len(path),)) + path.encode() + options
        self._waiter = self._loop.create_future()
        self._transport.sendto(head + bytes((PAYLOAD,)) + payload if payload else head)
        async with asyncio.timeout(LOST_S):
            return await self._waiter

    def close(self) -> None:
        """Let go."""
        if self._transport is not None:
            self._transport.abort()


async def open_socket(url: str) -> Socket:
    """A socket for one server, `coap://HOST:PORT`."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    _, protocol = await asyncio.get_running_loop().create_datagram_endpoint(
        Socket, remote_addr=(parts.hostname, parts.port or 5683)
    )
    return protocol
