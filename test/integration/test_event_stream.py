"""A framework's stream to a real socket: who keeps up gets all, who does not is cut off."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

from aiohttp import web

from edgerm.core.scheduler import Error, Event, Heartbeat
from edgerm.wire.recordio import frame
from edgerm_master.api.event_stream import WAITING_MAX, EventStream
from edgerm_master.api.http import open_stream

BOUND_BYTES: Final = 1 << 20
EVENT_BYTES: Final = 10_000
BURST: Final = 2000  # events, 20 MB
DEADLINE_S: Final = 60


def encode(event: Event) -> bytes:
    """An event of a fixed size that can be told from others."""
    return (event.message if isinstance(event, Error) else "").encode().ljust(EVENT_BYTES, b".")


@asynccontextmanager
async def opened() -> AsyncIterator[tuple[EventStream[Event], asyncio.StreamReader]]:
    """A stream, and its reader's end, which has read the answer's head; its buffer is as small as it gets."""
    streams: asyncio.Queue[EventStream[Event]] = asyncio.Queue()

    async def serve(request: web.Request) -> web.StreamResponse:
        stream = EventStream[Event](encode, BOUND_BYTES, Heartbeat())
        assert request.transport is not None
        request.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
        response = await open_stream(request, "application/json", {})
        streams.put_nowait(stream)
        with suppress(ConnectionError):
            await stream.write(request, response)
        return response

    app = web.Application()
    app.router.add_get("/", serve)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    ours = socket.socket()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)  # so that what it takes is seen at once
    ours.setblocking(False)
    await asyncio.get_running_loop().sock_connect(ours, runner.addresses[0])
    reader, writer = await asyncio.open_connection(sock=ours, limit=4096)
    try:
        async with asyncio.timeout(DEADLINE_S):
            writer.write(b"GET / HTTP/1.1\r\nHost: m\r\n\r\n")
            await reader.readuntil(b"\r\n\r\n")
            yield await streams.get(), reader
    finally:
        writer.close()
        await runner.cleanup()


async def read_events(reader: asyncio.StreamReader, count: int) -> bytes:
    """So many events, out of HTTP's chunks."""
    wanted = count * len(frame(encode(Heartbeat())))
    data = bytearray()
    while len(data) < wanted:
        size = int(await reader.readline(), 16)
        data += await reader.readexactly(size)
        await reader.readexactly(2)
    return bytes(data)


async def test_a_burst_reaches_a_reader_that_reads() -> None:
    """Twenty times the bound, told in one turn, arrives whole and in order at a reader that reads at once."""
    async with opened() as (stream, reader):
        reading = asyncio.create_task(read_events(reader, BURST))
        told = [Error(str(number)) for number in range(BURST)]
        for event in told:
            stream.send(event)
        assert await reading == b"".join(frame(encode(event)) for event in told)
        assert not stream.broken


async def test_many_events_reach_a_reader_that_reads() -> None:
    """A reader that takes something between one event and the next is not slow, however much is told in all."""
    async with opened() as (stream, reader):
        for _ in range(BURST):
            stream.send(Heartbeat())
        for _ in range((WAITING_MAX - 1) * BOUND_BYTES // EVENT_BYTES // 10):
            await reader.readexactly(10 * EVENT_BYTES)  # of the one chunk that the burst is
            for _ in range(10):
                stream.send(Heartbeat())
        assert not stream.broken


async def test_a_reader_that_does_not_read_is_cut_off_at_the_bound() -> None:
    """Of what is told while nothing is taken at most the bound is kept; then the stream breaks, saying why."""
    async with opened() as (stream, _):
        for _ in range(BURST):
            stream.send(Heartbeat())
        for _ in range(10):  # turns of the loop, in which the writer has its own
            await asyncio.sleep(0)
        count = 0
        while not stream.broken:
            stream.send(Heartbeat())
            count += 1
        assert BOUND_BYTES // EVENT_BYTES - 1 <= count <= BOUND_BYTES // EVENT_BYTES + 1
        assert "its reader is too slow" in stream.broken
