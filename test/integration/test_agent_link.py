"""The agent's link over HTTP, against a server that plays a master badly."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest_asyncio
from aiohttp import web
from support.caller import JOIN, Caller

from edgerm.core.blobs import digest_of
from edgerm.core.link import Beat, BeatAnswer, Stale, Welcome
from edgerm.core.scheduler import BlobRef
from edgerm.wire.codec import link as codec
from edgerm_agent.core.effects import Send
from edgerm_agent.core.events import BeatAnswered, JoinAnswered, Rang, RequestFailed

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def server(**routes: Handler) -> AsyncIterator[str]:
    """A server; its URL. `join`, `beat`, `doorbell`, `blob`."""
    app = web.Application()
    paths = {"join": "/link/v1/join", "beat": "/link/v1/beat", "doorbell": "/link/v1/doorbell"}
    for name, handler in routes.items():
        app.router.add_route("*", paths.get(name, "/artifacts/{digest}"), handler)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest_asyncio.fixture
async def caller(tmp_path: Path) -> AsyncIterator[Caller]:
    """A caller that is closed at the end."""
    made = Caller(tmp_path / "blobs")
    yield made
    if made.link is not None:
        await made.link.close()
    await made.blobs.close()


async def welcome(request: web.Request) -> web.Response:
    """A session of 7."""
    assert codec.decode_join(await request.read()).agent.hostname == "here"
    return web.Response(body=codec.encode_join_answer(Welcome(7, 15.0)))


async def test_a_redirect_is_followed(caller: Caller) -> None:
    """A master that sends the agent elsewhere is obeyed, for beats too."""

    async def beat(request: web.Request) -> web.Response:
        return web.Response(body=codec.encode_beat_answer(BeatAnswer(persisted=3), JOIN.agent_id))

    async with server(join=welcome, beat=beat) as second:

        async def elsewhere(request: web.Request) -> web.Response:
            return web.Response(status=307, headers={"Location": f"{second}/link/v1/join"})

        async with server(join=elsewhere) as first:
            link = caller.dial(first)
            link.send(Send(1, JOIN))
            assert await caller.next() == JoinAnswered(1, Welcome(7, 15.0))
        link.send(Send(2, Beat(7, 0)))
        assert await caller.next() == BeatAnswered(2, BeatAnswer(persisted=3))


async def test_the_next_master_is_tried(caller: Caller) -> None:
    """When one master does not answer, the next request goes to the next one of the list."""
    async with server(join=welcome) as alive:
        link = caller.dial("http://127.0.0.1:1", alive)
        link.send(Send(1, JOIN))
        assert await caller.next() == RequestFailed(1)
        link.send(Send(2, JOIN))
        assert isinstance(await caller.next(), JoinAnswered)


async def test_bad_answers_are_failures(caller: Caller) -> None:
    """A late join is told as stale; an error, garbage and endless redirects count as no answer."""
    answers = [
        web.Response(status=409, body=codec.encode_join_answer(Stale())),
        web.Response(status=503, text="not now"),
        web.Response(body=b"\xff\xff\xff"),
        *(web.Response(status=307, headers={"Location": "/link/v1/join"}) for _ in range(3)),
        web.Response(status=307, headers={"Location": "file:///etc/passwd"}),
    ]

    async def join(request: web.Request) -> web.Response:
        return answers.pop(0)

    async with server(join=join) as url:
        link = caller.dial(url)
        told = []
        for number in range(5):
            link.send(Send(number, JOIN))
            told.append(await caller.next())
    assert told == [JoinAnswered(0, Stale()), *(RequestFailed(number) for number in range(1, 5))]
    assert not answers


async def test_the_doorbell_is_connected_again(caller: Caller) -> None:
    """Each ring is told, and each connection counts as one; a refused session ends the listening."""
    connections: list[str] = []

    async def doorbell(request: web.Request) -> web.StreamResponse:
        connections.append(request.query["session"])
        if len(connections) > 2:
            return web.Response(status=409)
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"idle\nring\n")
        return response

    async with server(doorbell=doorbell) as url:
        link = caller.dial(url)
        link.listen(7)
        assert [await caller.next() for _ in range(5)] == [Rang()] * 5
        assert link._doorbell is not None
        async with asyncio.timeout(20):
            await link._doorbell
    assert connections == ["7", "7", "7"]


async def test_a_blob_is_resumed_over_http(caller: Caller) -> None:
    """A download that breaks is continued with a range, and what arrives is the blob."""
    data = bytes(range(256)) * 4096
    ranges: list[str] = []

    async def blob(request: web.Request) -> web.StreamResponse:
        ranges.append(request.headers.get("Range", ""))
        begin = int(ranges[-1].removeprefix("bytes=").rstrip("-")) if ranges[-1] else 0
        response = web.StreamResponse(status=206 if begin else 200)
        response.content_length = len(data) - begin
        await response.prepare(request)
        if begin:
            await response.write(data[begin:])
        else:
            await response.write(data[: len(data) // 2])
            assert request.transport is not None
            await asyncio.sleep(0.05)  # what was written must reach the other side before the line is cut
            request.transport.abort()
        return response

    async with server(blob=blob) as url:
        ref = BlobRef(digest_of(data), len(data))
        await caller.blobs.fetch(ref, caller.dial(url))
    assert caller.blobs.path(ref.digest).read_bytes() == data
    assert ranges[0] == ""
    assert ranges[1].startswith("bytes=")
