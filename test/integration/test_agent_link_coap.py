"""The agent's link over CoAP, against a server that plays a master badly."""

from __future__ import annotations

import asyncio
import logging
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sized
from contextlib import asynccontextmanager
from dataclasses import replace
from logging.handlers import BufferingHandler
from pathlib import Path

import pytest
import pytest_asyncio
from support import coap_wire
from support.caller import AGENT_ID, JOIN, Caller
from support.coap_wire import NON
from support.master import PATIENCE_S

from edgerm.core.blobs import digest_of
from edgerm.core.errors import Invalid, NotFound, Unavailable
from edgerm.core.ids import FrameworkId, LaunchId, TaskId, TaskKey
from edgerm.core.link import Beat, BeatAnswer, Forget, Order, Welcome
from edgerm.core.scheduler import AgentSpec, BlobRef
from edgerm.transport import coap_values as values
from edgerm.transport.coap_client import CoapClient
from edgerm.transport.coap_dial import Request, addresses_of
from edgerm.transport.coap_observation import Observation
from edgerm.transport.coap_server import CoapServer, Observer, Route
from edgerm.transport.coap_socket import Remote
from edgerm.transport.coap_values import Block, CoapReply, CoapRequest, sliced
from edgerm.wire.codec import link as codec
from edgerm_agent.core.effects import Send
from edgerm_agent.core.events import BeatAnswered, JoinAnswered, Rang, RequestFailed
from edgerm_agent.link.coap import CoapFace

KEY = TaskKey(FrameworkId("f"), TaskId("t"), LaunchId("l"))
WELCOME = codec.encode_join_answer(Welcome(7, 15.0))
Handler = Callable[[CoapRequest], Awaitable[CoapReply]]
PATHS = {"join": "/j", "beat": "/b", "doorbell": "/d", "blob": "/a/{}", "chunk": "/u"}
FORMATS = frozenset({values.OCTETS, values.NAMED})


@asynccontextmanager
async def server(observer: Observer | None = None, **handlers: Handler) -> AsyncIterator[str]:
    """A server; its URL. `join`, `beat`, `blob`, `chunk`, and `observer` for the doorbell."""

    async def nothing(request: CoapRequest) -> CoapReply:
        raise AssertionError("asked without Observe")

    routes = [
        Route("GET" if name == "blob" else "POST", PATHS[name], "any", handler, FORMATS)
        for name, handler in handlers.items()
    ]
    if observer is not None:
        routes.append(Route("GET", "/d", "any", nothing, answers=values.TEXT, observer=observer))
    made = CoapServer(routes, lambda peer, action: None, "any")
    url = await made.listen("127.0.0.1", 0)
    try:
        yield url
    finally:
        await made.close()


async def count(some: Sized, least: int) -> None:
    """Return when there are so many."""
    async with asyncio.timeout(PATIENCE_S):
        while len(some) < least:
            await asyncio.sleep(0.01)


def client_of(caller: Caller, url: str) -> CoapClient:
    """The client that the link uses."""
    assert caller.link is not None
    face = caller.link._faces["coap"]
    assert isinstance(face, CoapFace)
    return face._client(url)


@pytest_asyncio.fixture
async def caller(tmp_path: Path) -> AsyncIterator[Caller]:
    """A caller that is closed at the end."""
    made = Caller(tmp_path / "blobs")
    yield made
    if made.link is not None:
        await made.link.close()
    await made.blobs.close()


async def test_bad_answers_are_failures(caller: Caller) -> None:
    """An error, garbage and names of bytes that are not there, are others or are too many count as no answer."""
    gone = BlobRef(digest_of(b"gone"), 4)
    wrong = codec.encode_join_answer(Welcome(8, 15.0))
    other = BlobRef(digest_of(WELCOME), len(wrong))
    large = BlobRef(digest_of(b"large"), 5 << 20)
    answers = [
        CoapReply(0xA3, b"not now"),
        CoapReply(values.CHANGED, b"\xff\xff\xff"),
        *(CoapReply(values.CHANGED, codec.encode_blob_ref(ref), values.NAMED) for ref in (gone, other, large)),
        CoapReply(values.CHANGED, WELCOME),
    ]
    count = len(answers)

    async def join(request: CoapRequest) -> CoapReply:
        return answers.pop(0)

    async def blob(request: CoapRequest) -> CoapReply:
        if request.path[1] == other.digest:
            return sliced(CoapReply(values.CONTENT, wrong), request.block2)
        raise NotFound("gone")

    async with server(join=join, blob=blob) as url:
        link, told = caller.dial(url), []
        for number in range(count):
            link.send(Send(number, JOIN))
            told.append(await caller.next())
    assert told == [*map(RequestFailed, range(count - 1)), JoinAnswered(count - 1, Welcome(7, 15.0))]


async def test_a_message_that_the_master_keeps_losing(caller: Caller) -> None:
    """Chunks are sent again when the master has dropped them, but not for ever."""
    wholes: list[set[int]] = [set()]
    lost = 2

    async def join(request: CoapRequest) -> CoapReply:
        assert request.content_format == values.NAMED
        if len(wholes) > lost and wholes[-1]:
            return CoapReply(values.CHANGED, WELCOME)
        wholes.append(set())
        return CoapReply(values.INCOMPLETE)

    async def chunk(request: CoapRequest) -> CoapReply:
        taken = codec.decode_chunk(request.payload)
        assert len(request.payload) <= 984
        wholes[-1].add(taken.number)
        return CoapReply(values.CHANGED)

    big = replace(JOIN, agent=AgentSpec("here", name="n" * 20_000))
    async with server(join=join, chunk=chunk) as url:
        link = caller.dial(url)
        link.send(Send(1, big))
        assert await caller.next() == JoinAnswered(1, Welcome(7, 15.0))
        assert [len(whole) for whole in wholes] == [0, 23, 23]
        lost, wholes[:] = 1000, [set()]
        link.send(Send(2, big))
        assert await caller.next() == RequestFailed(2)


async def test_the_doorbell_counts(caller: Caller) -> None:
    """Each ring is told once, and a registration without news is none."""
    hanging: list[Observation] = []
    counts = [0, 3]

    def observe(request: CoapRequest, observation: Observation) -> CoapReply:
        assert request.query == ("7",)
        hanging.append(observation)
        return CoapReply(values.CONTENT, b"%d" % counts.pop(0))

    async def beat(request: CoapRequest) -> CoapReply:
        return CoapReply(values.CHANGED)

    async with server(observe, beat=beat) as url:
        link = caller.dial(url)
        link.listen(7)
        link.send(Send(1, Beat(7, 0)))
        assert await caller.next() == BeatAnswered(1, BeatAnswer())
        while not hanging:
            await asyncio.sleep(0.01)
        for count in (1, 3):
            hanging[0].notify(b"%d" % count)
            assert await caller.next() == Rang()
        hanging[0].end(values.BAD_OPTION)  # the agent comes again and is told 3, which it knows
        while len(hanging) < 2:
            await asyncio.sleep(0.01)
        hanging[1].notify(b"4")
        assert await caller.next() == Rang()
        link.send(Send(2, Beat(7, 0)))
        assert await caller.next() == BeatAnswered(2, BeatAnswer()), "a ring too many"


async def test_a_deaf_doorbell_is_hung_up_anew(caller: Caller) -> None:
    """A beat that nobody rang for and that brings an order lets the agent register again, and at once."""
    registrations: list[Observation] = []
    orders = [1, 2]

    def observe(request: CoapRequest, observation: Observation) -> CoapReply:
        registrations.append(observation)
        return CoapReply(values.CONTENT, b"0")

    async def beat(request: CoapRequest) -> CoapReply:
        answer = BeatAnswer(orders=(Order(orders.pop(0), Forget(KEY)),))
        return CoapReply(values.CHANGED, codec.encode_beat_answer(answer, AGENT_ID))

    async with server(observe, beat=beat) as url:
        link = caller.dial(url)
        link.listen(7)
        while not registrations:
            await asyncio.sleep(0.01)
        for number in (1, 2):
            assert len(registrations) == 1, "the first beat of a session may bring orders"
            link.send(Send(number, Beat(7, 0)))
            assert isinstance(await caller.next(), BeatAnswered)
        async with asyncio.timeout(PATIENCE_S):
            while len(registrations) < 2:
                await asyncio.sleep(0.01)


async def test_a_doorbell_found_deaf_while_it_is_hung_up_anew(caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    """The beat that finds it is answered all the same."""
    monkeypatch.setattr("edgerm_agent.link.coap.REGISTER_AGAIN_S", 0.0)  # it is hung up anew all the time

    async def beat(request: CoapRequest) -> CoapReply:
        seen = codec.decode_beat(request.payload, {7: AGENT_ID}.get).seen
        answer = BeatAnswer(orders=(Order(seen + 1, Forget(KEY)),))
        return CoapReply(values.CHANGED, codec.encode_beat_answer(answer, AGENT_ID))

    async with server(lambda request, observation: CoapReply(values.CONTENT, b"0"), beat=beat) as url:
        link = caller.dial(url)
        link.listen(7)
        for number in range(30):
            link.send(Send(number, Beat(7, number)))
            assert isinstance(await caller.next(), BeatAnswered)


async def test_a_doorbell_is_hung_up_anew_after_a_while(caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    """Again and again: a master that has dropped it says nothing."""
    monkeypatch.setattr("edgerm_agent.link.coap.REGISTER_AGAIN_S", 0.01)
    registrations: list[Observation] = []

    def observe(request: CoapRequest, observation: Observation) -> CoapReply:
        registrations.append(observation)
        return CoapReply(values.CONTENT, b"0")

    async with server(observe) as url:
        caller.dial(url).listen(7)
        await count(registrations, 3)


async def test_a_doorbell_is_hung_up_anew_after_a_failure(caller: Caller) -> None:
    """A request that has no answer puts the doorbell in doubt, too: it goes with the new socket."""
    registrations: list[Remote] = []

    def observe(request: CoapRequest, observation: Observation) -> CoapReply:
        registrations.append(observation.remote)
        return CoapReply(values.CONTENT, b"0")

    async def beat(request: CoapRequest) -> CoapReply:
        raise asyncio.CancelledError  # the only way to say nothing

    async with server(observe, beat=beat) as url:
        caller.dial(url).listen(7)
        await count(registrations, 1)
        with pytest.raises(Unavailable, match="no answer"):
            await client_of(caller, url).request(Request("POST", ("b",)), timeout_s=0.05)
        await count(registrations, 2)
    assert registrations[0] != registrations[1]


async def test_blocks_are_as_large_as_the_settings_say(caller: Caller) -> None:
    """Blobs and answers that are named are asked for in blocks of that size."""
    data, sizes = bytes(1000), set()

    async def blob(request: CoapRequest) -> CoapReply:
        assert request.block2 is not None
        sizes.add(request.block2.size_bytes)
        return sliced(CoapReply(values.CONTENT, data), request.block2)

    async with server(blob=blob) as url:
        ref = BlobRef(digest_of(data), len(data))
        await caller.blobs.fetch(ref, caller.dial(url, block_bytes=64))
    assert sizes == {64}


async def test_a_blob_is_resumed_over_coap(caller: Caller) -> None:
    """A download that breaks goes on with the block where it stopped, and what arrives is the blob."""
    data = bytes(number * 7 % 251 for number in range(100_000))
    asked: list[int] = []
    breaks = True

    async def blob(request: CoapRequest) -> CoapReply:
        assert request.block2 is not None
        asked.append(request.block2.number)
        if breaks and request.block2.number >= 40:
            raise Unavailable("not now")
        return sliced(CoapReply(values.CONTENT, data), request.block2)

    async with server(blob=blob) as url:
        ref = BlobRef(digest_of(data), len(data))
        fetch = asyncio.create_task(caller.blobs.fetch(ref, caller.dial(url)))
        while 40 not in asked:
            await asyncio.sleep(0.01)
        breaks = False
        await fetch
    assert caller.blobs.path(ref.digest).read_bytes() == data
    assert asked.count(0) == 1
    assert asked.count(40) > 1


@pytest.mark.parametrize(
    ("reply", "error", "why"),
    [
        (CoapReply(values.CONTENT, bytes(512), block2=Block(0, 512, True)), Unavailable, "of 512: ask for those"),
        (CoapReply(values.CONTENT, bytes(1024), block2=Block(3, 1024, True)), Unavailable, "block 3 came"),
        (CoapReply(values.CONTENT, bytes(1000), block2=Block(0, 1024, False)), Invalid, "2000 were announced"),
        (CoapReply(values.CONTENT, bytes(1024), block2=Block(0, 1024, True), size2_bytes=9), Invalid, "it has 9 bytes"),
        (CoapReply(values.CONTENT, bytes(1024), block2=Block(0, 1024, True), etag=b"other"), Invalid, "other bytes"),
        (CoapReply(0xA0, b"oh"), Unavailable, "5.00: oh"),
        (CoapReply(values.NOT_FOUND), NotFound, "not there"),
    ],
)
async def test_blocks_that_do_not_fit(reply: CoapReply, error: type[Exception], why: str) -> None:
    """A block that is not the one that was asked for ends the download with what is wrong."""

    async def blob(request: CoapRequest) -> CoapReply:
        return reply

    async with server(blob=blob) as url:
        client = CoapClient(url.removeprefix("coap://"))
        with pytest.raises(error, match=why):
            async for _ in client.get_blocks(("a", "x"), 2000, block_bytes=1024, etag=b"etag"):
                pass
        await client.close()


async def test_a_server_that_falls_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """A download whose server says nothing more ends, and says so."""
    monkeypatch.setattr("edgerm.transport.coap_volley.SILENCE_S", 0.5)

    async def blob(request: CoapRequest) -> CoapReply:
        assert request.block2 is not None
        if request.block2.number:
            raise asyncio.CancelledError  # the only way to say nothing
        return sliced(CoapReply(values.CONTENT, bytes(5000)), request.block2)

    async with server(blob=blob) as url, asyncio.timeout(PATIENCE_S):
        client = CoapClient(url.removeprefix("coap://"))
        with pytest.raises(Unavailable, match="no answer from 127"):
            async for _ in client.get_blocks(("a", "x"), 5000, block_bytes=1024):
                pass
        await client.close()


async def test_a_server_that_has_no_name() -> None:
    """A host that nobody knows is told by name, each time that it is asked."""
    client = CoapClient("nowhere.invalid")
    for _ in range(2):
        with pytest.raises(Unavailable, match=r"nowhere\.invalid"):
            await client.request(Request("POST", ("b",)))
    await client.close()


async def test_a_name_leads_to_each_of_its_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody listens the next address is tried, and one that has answered is not left for its first failure."""
    asked: list[bytes] = []

    async def beat(request: CoapRequest) -> CoapReply:
        asked.append(request.payload)
        return CoapReply(values.CHANGED)

    async with server(beat=beat) as url:
        port = int(url.rpartition(":")[2])
        places = {"two.example": ["::1", "127.0.0.1"]}
        resolve = socket.getaddrinfo

        def getaddrinfo(host: str, *more: object, **named: object) -> list[object]:
            found = [resolve(place, *more, **named) for place in places.get(host, [host])]  # type: ignore[arg-type]
            return [entry for entries in found for entry in entries]

        monkeypatch.setattr("socket.getaddrinfo", getaddrinfo)
        client = CoapClient(f"two.example:{port}")
        with pytest.raises(Unavailable, match=r"two\.example"):
            await client.request(Request("POST", ("b",), payload=b"to ::1"))
        await client.request(Request("POST", ("b",), payload=b"to 127.0.0.1"))
        assert client._socket is not None
        client._renew(client._socket)
        await client.request(Request("POST", ("b",), payload=b"there again"))
        await client.close()
    assert asked == [b"to 127.0.0.1", b"there again"]


async def test_garbage_from_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is no answer is passed over, and the operator's log is not filled with it."""
    loop, told = asyncio.get_running_loop(), BufferingHandler(100)
    monkeypatch.setattr(logging.getLogger(), "handlers", [told])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bad:
        bad.setblocking(False)
        bad.bind(("127.0.0.1", 0))
        client = CoapClient(f"127.0.0.1:{bad.getsockname()[1]}")
        asking = asyncio.create_task(client.request(Request("POST", ("b",))))
        data, peer = await loop.sock_recvfrom(bad, 2048)
        token = coap_wire.decode(data).token
        for garbage in (
            b"",
            b"\xff" * 40,
            b"\x50\x44\x00\x01\xf0",
            coap_wire.encode(NON, 0x44, 2, b"other"),
            b"\x60\0\0\3",
        ):
            await loop.sock_sendto(bad, garbage, peer)
        await loop.sock_sendto(bad, coap_wire.encode(NON, 0x44, 4, token, payload=b"well"), peer)
        assert (await asking).payload == b"well"
        await client.close()
    assert told.buffer == []


async def test_addresses_of_a_server() -> None:
    """An address is taken as it is, with its zone; a name is looked up, and 5683 is the port if none is given."""
    for address in ("127.0.0.1", "127.0.0.1:17", "[::1]:17", "[fe80::1%eth0]:17"):
        assert await addresses_of(address) == [address]
    assert "127.0.0.1:5683" in await addresses_of("localhost")
    assert "127.0.0.1:17" in await addresses_of("localhost:17")


async def test_a_socket_is_replaced_before_its_message_ids_repeat(monkeypatch: pytest.MonkeyPatch) -> None:
    """A long download changes its socket, and nobody notices."""
    monkeypatch.setattr("edgerm.transport.coap_volley.SENT_MAX", 10)
    data, peers = bytes(range(256)) * 100, []

    async def blob(request: CoapRequest) -> CoapReply:
        peers.append(request.peer)
        return sliced(CoapReply(values.CONTENT, data), request.block2)

    async with server(blob=blob) as url:
        client = CoapClient(url.removeprefix("coap://"))
        opened = 0
        original = client._another

        async def another() -> object:
            nonlocal opened
            opened += 1
            return await original()

        monkeypatch.setattr(client, "_another", another)
        pieces = [piece async for piece in client.get_blocks(("a", "x"), len(data), block_bytes=64)]
        await client.close()
    assert b"".join(pieces) == data
    assert opened >= len(data) // 64 // 10


SCRIPT = """
import asyncio, sys
from pathlib import Path
import msgspec
from edgerm_agent.config import Config
from edgerm_agent.running import running

async def run():
    settings = {"master": sys.argv[1], "data_dir": sys.argv[2], "executors": {"process": {"enabled": False}}}
    settings |= {"port": 0} if sys.argv[3] == "http" else {}
    async with running(msgspec.convert(settings, Config)):
        while "edgerm_agent.link." + sys.argv[3] not in sys.modules:
            await asyncio.sleep(0.01)
        print("imported:", *sorted({"aiohttp", "aiocoap", "ssl"} & sys.modules.keys()))

asyncio.run(run())
"""


@pytest.mark.parametrize(("face", "library"), [("coap", "aiocoap"), ("http", "aiohttp")])
def test_what_an_agent_does_not_use_is_not_imported(tmp_path: Path, face: str, library: str) -> None:
    """An agent over CoAP has no aiohttp in memory, one over HTTP no aiocoap."""
    argv = [sys.executable, "-c", SCRIPT, f"{face}://127.0.0.1:1", str(tmp_path), face]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE_S, check=True)
    [said] = [line for line in done.stdout.splitlines() if line.startswith("imported:")]  # among what it logs
    assert set(said.split()[1:]) - {"ssl"} == {library}
