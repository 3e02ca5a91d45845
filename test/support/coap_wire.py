"""CoAP datagrams by hand, so that broken ones can be sent too (RFC 7252, 3)."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from urllib.parse import urlsplit

CON, NON, ACK, RST = range(4)
GET, POST, PUT, DELETE, FETCH = range(1, 6)
OBSERVE, PATH, FORMAT, QUERY, ACCEPT, BLOCK2, BLOCK1 = 6, 11, 12, 15, 17, 23, 27
PATIENCE_S = 60.0  # so that a test that waits for what does not come fails

Option = tuple[int, bytes]


def number(value: int) -> bytes:
    """A number as an option has it."""
    return value.to_bytes((value.bit_length() + 7) // 8)


def block(index: int, size_exponent: int, more: bool = False) -> bytes:
    """The value of Block1 or Block2."""
    return number(index << 4 | more << 3 | size_exponent)


def path(*segments: str) -> list[Option]:
    """Uri-Path."""
    return [(PATH, segment.encode()) for segment in segments]


def encode(
    kind: int, code: int, mid: int, token: bytes = b"", options: Iterable[Option] = (), payload: bytes = b""
) -> bytes:
    """A datagram; options are sorted."""
    data = bytearray((0x40 | kind << 4 | len(token), code)) + mid.to_bytes(2) + token
    last = 0
    for index, value in sorted(options, key=lambda option: option[0]):
        (delta, delta_more), (length, length_more) = _nibble(index - last), _nibble(len(value))
        data += bytes((delta << 4 | length,)) + delta_more + length_more + value
        last = index
    return bytes(data + (b"\xff" + payload if payload else b""))


def _nibble(value: int) -> tuple[int, bytes]:
    if value < 13:
        return value, b""
    return (13, bytes((value - 13,))) if value < 269 else (14, (value - 269).to_bytes(2))


@dataclass(frozen=True)
class Answer:
    """A datagram taken apart."""

    kind: int
    code: str  # "2.05"
    mid: int
    token: bytes
    options: dict[int, bytes]
    payload: bytes


def decode(data: bytes) -> Answer:
    """A well-formed datagram."""
    token_end = 4 + (data[0] & 15)
    at, index, options = token_end, 0, {}
    while at < len(data) and data[at] != 0xFF:
        head, at = data[at], at + 1
        values = []
        for nibble in (head >> 4, head & 15):
            more = max(0, nibble - 12)
            values.append(nibble + int.from_bytes(data[at : at + more]) + (256 if more == 2 else 0) - (more == 2))
            at += more
        index += values[0]
        options[index], at = data[at : at + values[1]], at + values[1]
    code = f"{data[1] >> 5}.{data[1] & 31:02d}"
    return Answer(data[0] >> 4 & 3, code, int.from_bytes(data[2:4]), data[4:token_end], options, data[at + 1 :])


@dataclass
class Wire:
    """A socket that is connected to a server."""

    socket: socket.socket
    mids: Iterable[int] = field(default_factory=lambda: count(1))

    async def send(self, data: bytes) -> None:
        """Send these bytes as they are."""
        await asyncio.get_running_loop().sock_sendall(self.socket, data)

    async def receive(self) -> Answer:
        """The next datagram."""
        async with asyncio.timeout(PATIENCE_S):
            return decode(await asyncio.get_running_loop().sock_recv(self.socket, 65_536))

    async def tell(self, code: int, options: Iterable[Option] = (), payload: bytes = b"", kind: int = CON) -> int:
        """Send a request with a message id and token of its own; the message id."""
        mid = next(iter(self.mids))
        await self.send(encode(kind, code, mid, mid.to_bytes(2), options, payload))
        return mid

    async def ask(self, code: int, options: Iterable[Option] = (), payload: bytes = b"", kind: int = CON) -> Answer:
        """Send a request; the next datagram, which must be its answer, be it separate from its acknowledgement."""
        mid = await self.tell(code, options, payload, kind)
        answer = await self.receive()
        if (answer.kind, answer.code, answer.mid) == (ACK, "0.00", mid):  # the disk is slow
            answer = await self.receive()
            await self.acknowledge(answer)
        assert answer.token == mid.to_bytes(2), answer
        return answer

    async def acknowledge(self, answer: Answer, kind: int = ACK) -> None:
        """ACK, or RST."""
        await self.send(encode(kind, 0, answer.mid))

    async def hears_nothing(self) -> None:
        """The next datagram is the answer to a ping sent now: whatever was to be said would have come before it."""
        await self.send(encode(CON, 0, 0xFFFF))
        answer = await self.receive()
        assert (answer.kind, answer.mid) == (RST, 0xFFFF), answer


@asynccontextmanager
async def wire(url: str) -> AsyncIterator[Wire]:
    """A socket of its own."""
    parts = urlsplit(url)
    family = socket.AF_INET6 if ":" in (parts.hostname or "") else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as opened:
        opened.setblocking(False)
        opened.connect((parts.hostname, parts.port))
        yield Wire(opened)
