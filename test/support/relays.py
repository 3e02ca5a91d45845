"""Bad links, drawn from a seed: a UDP relay that drops, delays, doubles, reorders and rebinds, a TCP relay that cuts.

Both stand between an agent and its master in the test's own event loop. What does not live here: what travels.
"""

from __future__ import annotations

import asyncio
import random
import socket
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TypeAlias

Address: TypeAlias = tuple[str, int]

HOST = "127.0.0.1"
DATAGRAM_BYTES = 2048
SOURCES_MAX = 512  # the last so many packets' source addresses can still be answered
PIECE_BYTES = 1 << 14


@dataclass(frozen=True)
class Weather:
    """What a UDP relay does to each datagram, there and back."""

    dropped: float = 0.0
    doubled: float = 0.0
    delay_s: tuple[float, float] = (0.0, 0.0)  # drawn anew for each: later ones overtake
    rebinds: bool = False  # each packet towards the server has a source address that was never seen before


class UdpRelay:
    """Carries datagrams between clients and one server. `counts` tells what became of them."""

    def __init__(self, server: Address, weather: Weather, seed: int) -> None:
        self._server = server
        self._weather = weather
        self._chance = random.Random(seed)
        self._loop = asyncio.get_running_loop()
        self._front = self._socket()
        self._sources: deque[tuple[socket.socket, Address]] = deque()
        self._by_client: dict[Address, socket.socket] = {}
        self._waiting: set[asyncio.TimerHandle] = set()
        self.counts: Counter[str] = Counter()
        self.address: Address = self._front.getsockname()
        self._loop.add_reader(self._front, self._from_clients)

    def close(self) -> None:
        """Carry nothing more."""
        for handle in self._waiting:
            handle.cancel()
        while self._sources:
            self._forget()
        self._loop.remove_reader(self._front)
        self._front.close()

    def _socket(self) -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.setblocking(False)
        made.bind((HOST, 0))
        return made

    def _from_clients(self) -> None:
        with suppress(BlockingIOError):
            data, client = self._front.recvfrom(DATAGRAM_BYTES)
            self._carry("there", lambda: self._to_server(data, client))

    def _to_server(self, data: bytes, client: Address) -> None:
        source = self._by_client.get(client)
        if source is None or self._weather.rebinds:
            source = self._by_client[client] = self._socket()
            self._sources.append((source, client))
            self._loop.add_reader(source, self._from_server, source, client)
            if len(self._sources) > SOURCES_MAX:
                self._forget()
        with suppress(OSError):
            source.sendto(data, self._server)

    def _from_server(self, source: socket.socket, client: Address) -> None:
        with suppress(BlockingIOError, ConnectionError):
            data = source.recv(DATAGRAM_BYTES)
            self._carry("back", lambda: self._front.sendto(data, client))

    def _forget(self) -> None:
        source, client = self._sources.popleft()
        if self._by_client.get(client) is source:
            del self._by_client[client]
        self._loop.remove_reader(source)
        source.close()

    def _carry(self, way: str, send: Callable[[], object]) -> None:
        self.counts[way] += 1
        if self._chance.random() < self._weather.dropped:
            self.counts["dropped"] += 1
            return
        copies = 1 + (self._chance.random() < self._weather.doubled)
        self.counts["doubled"] += copies - 1
        for _ in range(copies):
            self._later(send)

    def _later(self, send: Callable[[], object]) -> None:
        def now() -> None:
            self._waiting.discard(handle)
            send()

        handle = self._loop.call_later(self._chance.uniform(*self._weather.delay_s), now)
        self._waiting.add(handle)


@asynccontextmanager
async def udp_relay(server: Address, weather: Weather, seed: int) -> AsyncIterator[UdpRelay]:
    """A relay on a port of its own, until the block is left."""
    relay = UdpRelay(server, weather, seed)
    try:
        yield relay
    finally:
        relay.close()


class TcpRelay:
    """Carries connections to one server and cuts each, without a word, after some bytes or some time drawn anew."""

    def __init__(self, server: Address, bytes_max: int, seconds_max: float, seed: int) -> None:
        self._server = server
        self._bytes_max = bytes_max
        self._seconds_max = seconds_max
        self._chance = random.Random(seed)
        self._connections: set[asyncio.Task[None]] = set()
        self.counts: Counter[str] = Counter()
        self.address: Address = (HOST, 0)

    async def begin(self) -> None:
        """Listen on a port of its own."""
        self._listening = await asyncio.start_server(self._take, HOST, 0)
        self.address = self._listening.sockets[0].getsockname()

    async def close(self) -> None:
        """Cut all, take none."""
        self._listening.close()
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await self._listening.wait_closed()

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        self.counts["connections"] += 1
        try:
            with suppress(OSError, asyncio.CancelledError):  # the stream server would log that it was cancelled
                await self._carry(reader, writer)
        finally:
            writer.transport.abort()
            self._connections.discard(task)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = self._chance.randrange(self._bytes_max)
        back = self._chance.randrange(self._bytes_max)
        lasts_s = self._chance.uniform(0, self._seconds_max)
        from_server, to_server = await asyncio.open_connection(*self._server)
        pumps = [
            asyncio.create_task(self._pump(reader, to_server, there)),
            asyncio.create_task(self._pump(from_server, writer, back)),
        ]
        try:
            await asyncio.wait(pumps, timeout=lasts_s, return_when=asyncio.FIRST_COMPLETED)
            self.counts["cut"] += 1
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            to_server.transport.abort()

    async def _pump(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, budget_bytes: int) -> None:
        """Until the source ends or the budget is spent; what is over the budget does not arrive."""
        while budget_bytes > 0 and (data := await source.read(min(PIECE_BYTES, budget_bytes))):
            target.write(data)
            await target.drain()
            budget_bytes -= len(data)
            self.counts["bytes"] += len(data)


@asynccontextmanager
async def tcp_relay(server: Address, bytes_max: int, seconds_max: float, seed: int) -> AsyncIterator[TcpRelay]:
    """A relay on a port of its own, until the block is left."""
    relay = TcpRelay(server, bytes_max, seconds_max, seed)
    await relay.begin()
    try:
        yield relay
    finally:
        await relay.close()
