"""The master's face of the link over CoAP: joins, beats, doorbells, blobs and messages that fit no datagram."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator
from hashlib import sha256
from io import BytesIO

import aiohttp
import pytest
from aiocoap.message import Message
from aiocoap.numbers import Code
from aiocoap.protocol import Context
from support.coap_wire import (
    BLOCK2,
    CON,
    FORMAT,
    GET,
    NON,
    OBSERVE,
    POST,
    QUERY,
    Answer,
    Wire,
    block,
    number,
    path,
    wire,
)
from support.master import Framework, task

from edgerm.core.blobs import digest_of
from edgerm.core.ids import AgentId
from edgerm.core.link import COAP, Beat, BeatAnswer, Chunk, Join, JoinAnswer, Launch, NextPart, Stale, Welcome
from edgerm.core.resources import parse
from edgerm.core.scheduler import AgentSpec, BlobRef
from edgerm.wire.codec import link as codec
from edgerm_master.api.doorbells import Doorbells
from edgerm_master.main import Served

AGENT = AgentId("a" * 32)
SPEC = AgentSpec("here", "coap-agent", 5051, parse("cpus:4;mem:2048;disk:1000"))
NAMED = (FORMAT, number(65_001))
BLOB = random.Random(3).randbytes(150_001)


@pytest.fixture
async def peer(master: Served) -> AsyncIterator[Wire]:
    assert master.coap_url is not None
    async with wire(master.coap_url) as opened:
        yield opened


async def joined(peer: Wire, incarnation: int = 1) -> int:
    """Join with everything in one datagram; the session."""
    answer = await peer.ask(POST, path("j"), codec.encode_join(Join(AGENT, incarnation, SPEC)))
    welcome = codec.decode_join_answer(answer.payload)
    assert answer.code == "2.04" and isinstance(welcome, Welcome)
    return welcome.session


async def beaten(peer: Wire, beat: Beat) -> BeatAnswer:
    """The answer to a beat, fetched if it was named."""
    answer = await peer.ask(POST, path("b"), codec.encode_beat(beat, AGENT))
    assert answer.code == "2.04"
    if answer.options.get(FORMAT) == NAMED[1]:
        blob = codec.decode_blob_ref(answer.payload)
        data = await fetched(peer, blob.digest, 6)
        assert len(data) == blob.size_bytes > 984
        return codec.decode_beat_answer(data, AGENT)
    return codec.decode_beat_answer(answer.payload, AGENT)


async def fetched(peer: Wire, digest: str, size_exponent: int) -> bytes:
    """A blob, block by block."""
    data, more, index = b"", True, 0
    while more:
        answer = await peer.ask(GET, [*path("a", digest), (BLOCK2, block(index, size_exponent))])
        assert answer.code == "2.05"
        told = int.from_bytes(answer.options[BLOCK2])
        assert (told >> 4, told & 7) == (index, size_exponent)
        data, more, index = data + answer.payload, bool(told & 8), index + 1
    return data


async def put(master: Served, data: bytes) -> str:
    """Store a blob over HTTP; its name."""
    name = sha256(data).hexdigest()
    async with aiohttp.ClientSession() as http, http.put(f"{master.url}/artifacts/{name}", data=BytesIO(data)) as done:
        assert done.status in (200, 201)
    return name


# --- join and beat ----------------------------------------------------------------------------------------------


async def test_an_agent_joins_and_beats(master: Served, peer: Wire) -> None:
    """A session, and an idle beat whose answer is empty; a join repeated has the same session; a lower one is 4.09."""
    session = await joined(peer, 2)
    half = master.shell.core.agents[AGENT].half
    assert half is not None and half.carrier is COAP
    answer = await peer.ask(POST, path("b"), codec.encode_beat(Beat(session, 0), AGENT))
    assert (answer.code, answer.payload) == ("2.04", b"")
    assert await joined(peer, 2) == session
    stale = await peer.ask(POST, path("j"), codec.encode_join(Join(AGENT, 1, SPEC)))
    assert (stale.code, codec.decode_join_answer(stale.payload)) == ("4.09", Stale())


async def test_a_beat_of_nobody_is_told_to_join(peer: Wire) -> None:
    """The same answer as over HTTP."""
    assert (await beaten(peer, Beat(1, 0))).join


@pytest.mark.parametrize("resource", ["j", "b", "u"])
@pytest.mark.parametrize("payload", [b"\xff" * 20, b"garbage, no protobuf", b"\x0a\x7f"])
async def test_garbage_is_400(peer: Wire, resource: str, payload: bytes) -> None:
    """With the reason; the next request is answered as ever."""
    answer = await peer.ask(POST, path(resource), payload)
    assert (answer.code, bool(answer.payload)) == ("4.00", True)
    assert (await beaten(peer, Beat(1, 0))).join


async def test_a_launch_reaches_an_agent_over_coap(master: Served, peer: Wire) -> None:
    """The doorbell rings, the beat brings the order, the update that follows is persisted."""
    session = await joined(peer)
    assert master.coap_url is not None
    async with wire(master.coap_url) as ear, Framework(master.url) as framework:
        answer = await ear.ask(GET, [*path("d"), (QUERY, b"%d" % session), (OBSERVE, b"")])
        assert (answer.code, answer.payload) == ("2.05", b"0")
        offer = await framework.offer()
        assert await framework.launch(offer, task(offer, "t")) == 202
        rung = await ear.receive()
        assert (rung.kind, rung.code, rung.payload) == (CON, "2.05", b"1")
        await ear.acknowledge(rung)
        [order] = (await beaten(peer, Beat(session, 0))).orders
        assert isinstance(order.body, Launch) and order.body.key.task_id == "t"
        assert (await beaten(peer, Beat(session, order.number))).orders == ()


async def test_an_order_that_fits_no_datagram_is_named_and_fetched(master: Served, peer: Wire) -> None:
    """A TaskInfo of about a thousand bytes goes inline, its answer as a blob."""
    session = await joined(peer)
    async with Framework(master.url) as framework:
        offer = await framework.offer()
        big = task(offer, "big", command={"value": "x" * 930})
        assert await framework.launch(offer, big) == 202
        answer = await peer.ask(POST, path("b"), codec.encode_beat(Beat(session, 0), AGENT))
        assert answer.options[FORMAT] == NAMED[1]
        [order] = (await beaten(peer, Beat(session, 0))).orders
        assert isinstance(order.body, Launch)


# --- doorbell ---------------------------------------------------------------------------------------------------


async def register(ear: Wire, session: int) -> Answer:
    return await ear.ask(GET, [*path("d"), (QUERY, b"%d" % session), (OBSERVE, b"")])


@pytest.mark.parametrize(("query", "code"), [(b"12345", "4.09"), (b"x", "4.00"), (b"", "4.00"), (b"9" * 11, "4.00")])
async def test_a_doorbell_needs_a_session(peer: Wire, query: bytes, code: str) -> None:
    """4.09 for one that is not known, 4.00 for what is no number; with and without Observe."""
    for observe in ([], [(OBSERVE, b"")]):
        answer = await peer.ask(GET, [*path("d"), (QUERY, query), *observe])
        assert (answer.code, OBSERVE in answer.options) == (code, False)


async def test_the_end_of_a_session_is_told_at_its_doorbell(peer: Wire, master: Served) -> None:
    """A later incarnation joins: 4.04, and the old session is nobody's."""
    session = await joined(peer)
    assert master.coap_url is not None
    async with wire(master.coap_url) as ear:
        await register(ear, session)
        await joined(peer, 2)
        told = await ear.receive()
        assert (told.kind, told.code) == (CON, "4.04")
        await ear.acknowledge(told)
        assert (await register(ear, session)).code == "4.09"


async def test_the_rings_of_a_session_that_is_over_are_forgotten(peer: Wire, master: Served) -> None:
    """Agents come again and again; the master does not grow with it."""
    doorbells, session = Doorbells(master.shell), await joined(peer)
    async with Framework(master.url) as framework:
        offer = await framework.offer()
        await framework.launch(offer, task(offer, "t"))
        assert doorbells.count(session) == 1
        await joined(peer, 2)
        assert doorbells.count(session) == 0


async def test_the_end_of_a_session_ends_its_line_over_http(peer: Wire, master: Served) -> None:
    """The doorbells of both faces hear of it."""
    session = await joined(peer)
    url = f"{master.url}/link/v1/doorbell?session={session}"
    async with aiohttp.ClientSession() as http, http.get(url) as line:
        await joined(peer, 2)
        async with asyncio.timeout(60):
            assert await line.content.read() == b""


async def test_a_session_has_one_doorbell_and_the_count_goes_on(master: Served, peer: Wire) -> None:
    """The newer one rings, wherever it hangs; it is told how often it rang before; over HTTP it counts as well."""
    session = await joined(peer)
    assert master.coap_url is not None
    async with wire(master.coap_url) as old, wire(master.coap_url) as new, Framework(master.url) as framework:
        await register(old, session)
        assert (await register(new, session)).payload == b"0"
        offer = await framework.offer()
        await framework.launch(offer, task(offer, "t"))
        rung = await new.receive()
        assert rung.payload == b"1"
        await new.acknowledge(rung)
        await old.hears_nothing()
        await beaten(peer, Beat(session, 0))
        url = f"{master.url}/link/v1/doorbell?session={session}"
        async with aiohttp.ClientSession() as http, http.get(url) as line:
            await framework.call("KILL", task_id={"value": "t"})
            assert await line.content.readline() == b"ring\n"
        await new.hears_nothing()
        assert (await peer.ask(GET, [*path("d"), (QUERY, b"%d" % session)])).payload == b"2"


async def test_rings_that_are_not_acknowledged_are_one(master: Served, peer: Wire) -> None:
    """The second notification waits for the first, and then says the last count."""
    session = await joined(peer)
    assert master.coap_url is not None
    async with wire(master.coap_url) as ear, Framework(master.url) as framework:
        await register(ear, session)
        offer = await framework.offer()
        await framework.launch(offer, task(offer, "t"))
        rung = await ear.receive()
        await beaten(peer, Beat(session, 0))
        for _ in range(2):
            await framework.call("KILL", task_id={"value": "t"})
        await ear.hears_nothing()
        await ear.acknowledge(rung)
        last = await ear.receive()
        assert (rung.payload, last.payload) == (b"1", b"3")
        await ear.acknowledge(last)
        await ear.hears_nothing()


# --- blobs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size_exponent", range(7))
async def test_a_blob_comes_in_blocks_of_every_size(master: Served, peer: Wire, size_exponent: int) -> None:
    """16 to 1024 bytes; the bytes are the blob's."""
    data = BLOB[: 30 << (size_exponent + 4)]
    assert await fetched(peer, await put(master, data), size_exponent) == data


async def test_blocks_come_in_any_order_from_any_address(master: Served) -> None:
    """The server keeps no state: each block from a socket of its own, shuffled, confirmable or not."""
    name = await put(master, BLOB)
    assert master.coap_url is not None
    count = -(-len(BLOB) // 1024)
    order = random.Random(5).sample(range(count), count)
    parts = {}
    for index in order:
        async with wire(master.coap_url) as one:
            answer = await one.ask(GET, [*path("a", name), (BLOCK2, block(index, 6))], kind=NON if index % 2 else CON)
        assert int.from_bytes(answer.options[BLOCK2]) & 8 == (8 if index + 1 < count else 0)
        assert answer.options[4] == bytes.fromhex(name)[:8]
        assert (28 in answer.options) is (index == 0)
        parts[index] = answer.payload
    assert b"".join(parts[index] for index in range(count)) == BLOB


async def test_a_blob_without_block2_is_its_first_block(master: Served, peer: Wire) -> None:
    """A client that does not ask for blocks is told that there are more, and how long the whole is."""
    name = await put(master, BLOB)
    answer = await peer.ask(GET, path("a", name))
    assert (answer.code, answer.payload, answer.options[BLOCK2]) == ("2.05", BLOB[:1024], block(0, 6, more=True))
    assert int.from_bytes(answer.options[28]) == len(BLOB)


@pytest.mark.parametrize("length", [1, 16, 1024, 65_536])
async def test_blocks_past_the_end_are_400(master: Served, peer: Wire, length: int) -> None:
    """Also right behind the last byte."""
    name = await put(master, BLOB[:length])
    assert await fetched(peer, name, 6 if length > 5000 else 0) == BLOB[:length]
    for index in (length // 16 if length >= 16 else 1, 4096, (1 << 20) - 1):
        if index * 16 >= length:
            answer = await peer.ask(GET, [*path("a", name), (BLOCK2, block(index, 0))])
            assert (answer.code, b"past the end" in answer.payload) == ("4.00", True)


@pytest.mark.parametrize(("name", "code"), [("0" * 64, "4.04"), ("0" * 63, "4.00"), ("A" * 64, "4.00"), ("", "4.00")])
async def test_blobs_that_are_not_there(peer: Wire, name: str, code: str) -> None:
    """4.04 for a digest, 4.00 for what is none; asked again it is the same."""
    for _ in range(2):
        assert (await peer.ask(GET, path("a", name))).code == code


async def test_a_blob_that_comes_later_is_found(master: Served, peer: Wire) -> None:
    """That it was not there is not remembered."""
    name = digest_of(BLOB[:99])
    assert (await peer.ask(GET, path("a", name))).code == "4.04"
    assert await put(master, BLOB[:99]) == name
    assert (await peer.ask(GET, path("a", name))).payload == BLOB[:99]


# --- messages in chunks -----------------------------------------------------------------------------------------


def cut(message: bytes, chunk_bytes: int = 900) -> list[bytes]:
    """A message as chunks."""
    starts = range(0, len(message), chunk_bytes)
    return [
        codec.encode_chunk(Chunk(digest_of(message), len(message), chunk_bytes, index, message[at : at + chunk_bytes]))
        for index, at in enumerate(starts)
    ]


def name(message: bytes) -> bytes:
    """What stands for a message."""
    return codec.encode_blob_ref(BlobRef(digest_of(message), len(message)))


def large_join(part: int = 0, more: bool = False) -> bytes:
    """A join that fits no datagram."""
    attributes = os.urandom(1 << 14).hex()[: 1 << 14]
    return codec.encode_join(Join(AGENT, 1, AgentSpec(attributes, "x", 5051, parse("cpus:1")), part=part, more=more))


def join_answer(answer: Answer) -> JoinAnswer:
    assert answer.code == "2.04", answer
    return codec.decode_join_answer(answer.payload)


async def test_a_join_that_fits_no_datagram_comes_in_chunks(peer: Wire) -> None:
    """4.08 until all chunks are there, in any order and some twice; the last is 2.01; then the join is answered."""
    message = large_join(more=True)
    ask = [*path("j"), NAMED]
    assert (await peer.ask(POST, ask, name(message))).code == "4.08"
    parts = cut(message)
    random.Random(1).shuffle(parts)
    for part in (*parts[:-1], parts[0]):
        assert (await peer.ask(POST, path("u"), part)).code == "2.04"
    assert (await peer.ask(POST, ask, name(message))).code == "4.08"
    assert (await peer.ask(POST, path("u"), parts[-1])).code == "2.01"
    assert (await peer.ask(POST, path("u"), parts[0])).code == "2.01"
    assert join_answer(await peer.ask(POST, ask, name(message))) == NextPart()


async def test_a_beat_may_be_named_too(peer: Wire) -> None:
    """What is named is read like what is brought."""
    session = await joined(peer)
    message = codec.encode_beat(Beat(session, 0), AGENT)
    assert (await peer.ask(POST, [*path("b"), NAMED], name(message))).code == "4.08"
    assert (await peer.ask(POST, path("u"), cut(message)[0])).code == "2.01"
    answer = await peer.ask(POST, [*path("b"), NAMED], name(message))
    assert (answer.code, answer.payload) == ("2.04", b"")


async def test_chunks_of_other_bytes_are_400(peer: Wire) -> None:
    """The whole is checked against its name, and forgotten if it is another."""
    message = bytes(1000)
    wrong = [
        codec.encode_chunk(Chunk(digest_of(message), 1000, 500, index, bytes([index]) * 500)) for index in range(2)
    ]
    assert (await peer.ask(POST, path("u"), wrong[0])).code == "2.04"
    answer = await peer.ask(POST, path("u"), wrong[1])
    assert (answer.code, b"send the right ones" in answer.payload) == ("4.00", True)
    assert (await peer.ask(POST, [*path("b"), NAMED], name(message))).code == "4.08"


async def test_too_much_in_chunks_is_refused(peer: Wire) -> None:
    """4.13 for one message that is too large; 5.03 when what is under way takes all the room."""
    huge = Chunk(digest_of(b"huge"), 800_001, 900, 0, bytes(900))
    assert (await peer.ask(POST, path("u"), codec.encode_chunk(huge))).code == "4.13"
    codes = [
        (
            await peer.ask(
                POST,
                path("u"),
                codec.encode_chunk(Chunk(digest_of(bytes([index])), 800_000, 900, 0, bytes(900))),
            )
        ).code
        for index in range(11)
    ]
    assert codes == ["2.04"] * 10 + ["5.03"]


# --- the door ---------------------------------------------------------------------------------------------------


async def test_discovery_lists_what_there_is(peer: Wire) -> None:
    """RFC 6690; the doorbell can be observed; a filter by rt works, and blocks do."""
    core = path(".well-known", "core")
    answer = await peer.ask(GET, core)
    assert (answer.code, answer.options[FORMAT]) == ("2.05", b"\x28")
    links = answer.payload.decode().split(",")
    assert '</d>;rt="edgerm.link.doorbell";obs' in links
    assert {link[1 : link.index(">")] for link in links} == {"/j", "/b", "/d", "/a", "/u"}
    found = await peer.ask(GET, [*core, (QUERY, b"rt=edgerm.link.join")])
    assert found.payload.decode() == '</j>;rt="edgerm.link.join";ct=42'
    whole = b""
    for index in range(len(answer.payload) // 32 + 1):
        whole += (await peer.ask(GET, [*core, (BLOCK2, block(index, 1))])).payload
    assert whole == answer.payload


async def test_aiocoaps_own_client_gets_along(master: Served) -> None:
    """A stock client discovers, fetches a blob in blocks and observes a doorbell."""
    assert master.coap_url is not None
    context = await Context.create_client_context(transports=["udp6"])
    try:
        core = await context.request(Message(code=Code.GET, uri=f"{master.coap_url}/.well-known/core")).response
        assert b'rt="edgerm.link.beat"' in core.payload
        name = await put(master, BLOB)
        blob = await context.request(Message(code=Code.GET, uri=f"{master.coap_url}/a/{name}")).response
        assert (blob.code, blob.payload) == (Code.CONTENT, BLOB)
        async with wire(master.coap_url) as peer:
            session = await joined(peer)
            uri = f"{master.coap_url}/d?{session}"
            heard = context.request(Message(code=Code.GET, uri=uri, observe=0), handle_blockwise=False)
            assert (await heard.response).payload == b"0"
            async with Framework(master.url) as framework:
                offer = await framework.offer()
                await framework.launch(offer, task(offer, "t"))
                async with asyncio.timeout(60):
                    assert (await anext(aiter(heard.observation))).payload == b"1"
    finally:
        await context.shutdown()


async def test_other_machines_are_refused(master: Served, peer: Wire) -> None:
    """The rule of access stands before each handler: 4.03, and nothing is joined."""
    assert master.coap_url is not None
    loopbacks = {"127.0.0.1"}
    from edgerm_master.api import access

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(access, "_loopback", lambda peer: peer not in loopbacks)
        answer = await peer.ask(POST, path("j"), codec.encode_join(Join(AGENT, 1, SPEC)))
        assert (answer.code, b"may not link" in answer.payload) == ("4.03", True)
        assert (await peer.ask(GET, path(".well-known", "core"))).code == "4.03"
    assert not master.shell.core.world.agents


async def test_a_join_of_many_at_once(master: Served) -> None:
    """A hundred agents with sockets of their own all get sessions, each its own."""
    assert master.coap_url is not None
    url = master.coap_url

    async def one(index: int) -> int:
        async with wire(url) as mine:
            join = Join(AgentId(f"{index:032x}"), 1, SPEC)
            welcome = join_answer(await mine.ask(POST, path("j"), codec.encode_join(join)))
            assert isinstance(welcome, Welcome)
            return welcome.session

    assert len(set(await asyncio.gather(*map(one, range(100))))) == 100
