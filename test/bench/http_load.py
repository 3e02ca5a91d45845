"""A lean HTTP/1.1 client for loads: keeps its connections, one request under way on each, reads what our servers send.

What does not live here: what is asked. It understands Content-Length and chunks, nothing else; a load that cost as much
as the server would measure itself.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import NamedTuple
from urllib.parse import urlsplit


class Answer(NamedTuple):
    """Status, head (lower case) and body."""

    status: int
    head: bytes
    body: bytes

    def header(self, name: str) -> str:
        """The value of a header; empty if it is not there."""
        _, found, rest = self.head.partition(f"\r\n{name.lower()}:".encode())
        return rest.partition(b"\r\n")[0].strip().decode() if found else ""


class Connection(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._waiter: asyncio.Future[Answer] | None = None
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Part of an answer."""
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0 or self._waiter is None:
            return
        head = bytes(self._buffer[:end]).lower() + b"\r\n"
        _, found, rest = head.partition(b"\r\ncontent-length:")
        length = int(rest.partition(b"\r\n")[0]) if found else 0
        if len(self._buffer) < end + 4 + length:
            return
        body = bytes(self._buffer[end + 4 : end + 4 + length])
        self._buffer.clear()
        waiter, self._waiter = self._waiter, None
        if not waiter.done():
            waiter.set_result(Answer(int(head[9:12]), head, body))

    def connection_lost(self, exc: Exception | None) -> None:
        """An answer that is awaited will not come."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(exc or ConnectionError("the server closed the connection"))

    def ask(self, request: bytes) -> asyncio.Future[Answer]:
        """Send a whole request."""
        assert self._transport is not None
        self._waiter = self._loop.create_future()
        self._transport.write(request)
        return self._waiter

    @property
    def closed(self) -> bool:
        """Whether the other end is gone."""
        return self._transport is None or self._transport.is_closing()

    def close(self) -> None:
        """Let go."""
        if self._transport is not None:
            self._transport.abort()


class Client:
    """Some connections to one server; requests wait in a line for a free one."""

    def __init__(self, url: str) -> None:
        self.host, self.port = _address(url)
        self._free: deque[Connection] = deque()
        self._all: list[Connection] = []
        self._waiting: deque[asyncio.Future[Connection]] = deque()

    async def open(self, connections: int) -> Client:
        """Connect."""
        loop = asyncio.get_running_loop()
        for _ in range(connections):
            _, connection = await loop.create_connection(Connection, self.host, self.port)
            self._all.append(connection)
            self._free.append(connection)
        return self

    @property
    def closed(self) -> bool:
        """Whether all connections are gone."""
        return all(connection.closed for connection in self._all)

    def close(self) -> None:
        """End all connections."""
        for connection in self._all:
            connection.close()

    def post(self, path: str, headers: Mapping[str, str]) -> bytes:
        """The head of a POST up to its Content-Length; `ask` adds length and body."""
        lines = [f"POST {path} HTTP/1.1", f"Host: {self.host}:{self.port}"]
        return "\r\n".join([*lines, *(f"{name}: {value}" for name, value in headers.items()), ""]).encode()

    async def ask(self, head: bytes, body: bytes) -> Answer:
        """One exchange; raises RuntimeError for a status that is no success."""
        connection = await self._take()
        try:
            answer = await connection.ask(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        finally:
            self._give(connection)
        if answer.status >= 300:
            raise RuntimeError(f"{head[:60]!r}: {answer.status} {answer.body[:200]!r}")
        return answer

    async def _take(self) -> Connection:
        if self._free:
            return self._free.popleft()
        waiter: asyncio.Future[Connection] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        return await waiter

    def _give(self, connection: Connection) -> None:
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(connection)
                return
        self._free.append(connection)


@asynccontextmanager
async def stream(url: str, request: bytes) -> AsyncIterator[tuple[Answer, AsyncIterator[bytes]]]:
    """An answer in chunks: its head, and its chunks as they come."""
    reader, writer = await asyncio.open_connection(*_address(url), limit=1 << 24)
    try:
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n"))[:-2].lower()
        answer = Answer(int(head[9:12]), head, b"")
        if answer.status != 200:
            raise RuntimeError(f"{request[:60]!r}: {answer.status} {(await reader.read(500))!r}")
        yield answer, _chunks(reader)
    finally:
        writer.transport.abort()


async def _chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while size := int(await reader.readline(), 16):
        yield (await reader.readexactly(size + 2))[:-2]


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or 80
