"""Our CoAP server on a real socket: what it takes, what it refuses, and that no datagram brings it down."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiocoap.numbers.constants import Reliable
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.coap_wire import (
    ACCEPT,
    ACK,
    BLOCK1,
    BLOCK2,
    CON,
    DELETE,
    FETCH,
    FORMAT,
    GET,
    NON,
    OBSERVE,
    PATH,
    POST,
    PUT,
    QUERY,
    RST,
    Option,
    Wire,
    block,
    encode,
    number,
    path,
    wire,
)

from edgerm.core.errors import Conflict, Forbidden, Unavailable
from edgerm.transport.coap_observation import Observation
from edgerm.transport.coap_recent import Recent
from edgerm.transport.coap_server import CoapServer, Route
from edgerm.transport.coap_values import CHANGED, CONTENT, NOT_FOUND, CoapReply, CoapRequest

ECHO = path("echo")


class Served:
    """A server whose handlers count."""

    def __init__(self) -> None:
        self.requests: list[CoapRequest] = []
        self.observations: list[Observation] = []
        self.ended: asyncio.Queue[Observation] = asyncio.Queue()
        self.go_on = asyncio.Event()
        routes = [
            Route("POST", "/echo", "use", self.echo, attributes={"rt": "echo"}),
            Route("POST", "/bad/{}", "use", self.bad),
            Route("POST", "/slow", "use", self.slow),
            Route("POST", "/secret", "steal", self.echo),
            Route("GET", "/watch", "use", self.look, observer=self.watch),
        ]
        self.server = CoapServer(routes, self.authorize, "use")
        self.url = ""

    def authorize(self, peer: str, action: str) -> None:
        if action == "steal":
            raise Forbidden(f"{peer} may not")

    async def echo(self, request: CoapRequest) -> CoapReply:
        self.requests.append(request)
        return CoapReply(CHANGED, request.payload)

    async def bad(self, request: CoapRequest) -> CoapReply:
        if request.path[1] == "conflict":
            raise Conflict("ü" * 200)
        raise ZeroDivisionError("a secret of ours")

    async def slow(self, request: CoapRequest) -> CoapReply:
        self.requests.append(request)
        await self.go_on.wait()
        return CoapReply(CHANGED, b"at last")

    async def look(self, request: CoapRequest) -> CoapReply:
        return CoapReply(CONTENT, b"looked")

    def watch(self, request: CoapRequest, observation: Observation) -> CoapReply:
        self.observations.append(observation)
        observation.on_end = lambda: self.ended.put_nowait(observation)
        return CoapReply(CONTENT, b"0")


@asynccontextmanager
async def serving(host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[Served]:
    """A server, and nothing of it afterwards."""
    served = Served()
    served.url = await served.server.listen(host, port)
    try:
        yield served
    finally:
        await served.server.close()


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    async with serving() as made:
        yield made


@pytest.fixture
async def peer(served: Served) -> AsyncIterator[Wire]:
    async with wire(served.url) as opened:
        yield opened


async def test_a_request_reaches_its_handler(served: Served, peer: Wire) -> None:
    """Path, query, payload and the peer's address; the answer is piggy-backed, in one datagram."""
    answer = await peer.ask(POST, [*ECHO, (QUERY, b"a=1"), (FORMAT, b"*")], b"hello")
    assert (answer.kind, answer.code, answer.payload) == (ACK, "2.04", b"hello")
    assert served.requests == [CoapRequest("POST", ("echo",), ("a=1",), b"hello", 42, "127.0.0.1")]


async def test_a_non_confirmable_request_is_answered_in_kind(peer: Wire) -> None:
    """NON for NON."""
    answer = await peer.ask(POST, ECHO, b"hello", kind=NON)
    assert (answer.kind, answer.code, answer.payload) == (NON, "2.04", b"hello")


@pytest.mark.parametrize(
    ("code", "options", "payload", "expected"),
    [
        (POST, path("nowhere"), b"", "4.04"),
        (POST, [], b"", "4.04"),
        (POST, path("echo", ""), b"", "4.04"),
        (GET, ECHO, b"", "4.05"),
        (PUT, ECHO, b"x", "4.05"),
        (DELETE, ECHO, b"", "4.05"),
        (FETCH, ECHO, b"x", "4.05"),
        (31, ECHO, b"", "4.05"),
        (POST, path("secret"), b"", "4.03"),
        (POST, [*ECHO, (2049, b"x")], b"", "4.02"),
        (POST, [*ECHO, (2048, b"x")], b"", "2.04"),
        (POST, [*ECHO, (5, b"")], b"", "4.02"),  # If-None-Match
        (POST, [*ECHO, (35, b"coap://example.org/")], b"", "5.05"),
        (POST, [*ECHO, (BLOCK1, block(0, 6, more=True))], bytes(1024), "4.13"),
        (POST, [*ECHO, (BLOCK1, block(0, 6))], b"whole", "4.13"),
        (POST, [*path("nowhere"), (BLOCK1, block(0, 6, more=True))], bytes(1024), "4.04"),
        (PUT, [*ECHO, (BLOCK1, block(0, 6, more=True))], bytes(1024), "4.05"),
        (POST, ECHO, bytes(1025), "4.13"),
        (POST, ECHO, bytes(3000), "4.13"),
        (POST, ECHO, bytes(60_000), "4.13"),
        (POST, ECHO, bytes(1024), "2.04"),
        (POST, [*ECHO, (FORMAT, b"*")], b"x", "2.04"),
        (POST, [*ECHO, (FORMAT, b"")], b"x", "4.15"),
        (POST, [*ECHO, (FORMAT, number(65_001))], b"x", "4.15"),
        (POST, [*ECHO, (ACCEPT, b"*")], b"x", "2.04"),
        (POST, [*ECHO, (ACCEPT, b"\x32")], b"x", "4.06"),
        (POST, [*ECHO, (BLOCK2, b"\x07")], b"x", "4.00"),
    ],
)
async def test_requests_are_checked(
    served: Served, peer: Wire, code: int, options: list[Option], payload: bytes, expected: str
) -> None:
    """Path before method before rights before options before the body; a refusal says why, and no handler is called."""
    answer = await peer.ask(code, options, payload)
    assert answer.code == expected
    assert bool(served.requests) is (expected == "2.04")
    assert answer.payload if expected != "2.04" else True


async def test_requests_beyond_what_it_can_bear_are_put_off(
    served: Served, peer: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    """5.03 while too many are under way, and no longer."""
    monkeypatch.setattr("edgerm.transport.coap_server.UNDER_WAY_MAX", 2)
    async with wire(served.url) as other:
        for _ in range(2):
            await other.tell(POST, path("slow"), kind=NON)
        assert (await peer.ask(POST, ECHO)).code == "5.03"
        assert (await peer.ask(POST, [*ECHO, (FORMAT, b"*")])).code == "5.03"
        served.go_on.set()
        for _ in range(2):
            assert (await other.receive()).code == "2.04"
        assert (await peer.ask(POST, ECHO)).code == "2.04"


async def test_an_error_is_told_with_its_code_and_text(peer: Wire) -> None:
    """The text is the diagnostic payload, at most 255 bytes and whole characters."""
    answer = await peer.ask(POST, path("bad", "conflict"))
    assert (answer.code, answer.payload.decode()) == ("4.09", "ü" * 127)


async def test_a_fault_of_ours_is_500_and_one_log_line(peer: Wire, capsys: pytest.CaptureFixture[str]) -> None:
    """The peer learns nothing of it; the next request is answered as ever."""
    answer = await peer.ask(POST, path("bad", "fault"))
    assert answer.code == "5.00" and b"secret" not in answer.payload
    assert capsys.readouterr().out.count("a request failed by a fault of ours") == 1
    assert (await peer.ask(POST, ECHO, b"on")).payload == b"on"


async def test_a_slow_answer_is_acknowledged_first(served: Served, peer: Wire) -> None:
    """An empty acknowledgement, then the answer as a message of its own; repeated requests change nothing."""
    mid = await peer.tell(POST, path("slow"))
    acknowledged = await peer.receive()
    assert (acknowledged.kind, acknowledged.code, acknowledged.mid) == (ACK, "0.00", mid)
    await peer.send(encode(CON, POST, mid, mid.to_bytes(2), path("slow")))
    await peer.hears_nothing()
    served.go_on.set()
    answer = await peer.receive()
    assert (answer.kind, answer.token, answer.payload) == (CON, mid.to_bytes(2), b"at last")
    await peer.acknowledge(answer)
    assert len(served.requests) == 1


async def test_a_repeated_message_has_one_effect_and_one_answer(served: Served, peer: Wire) -> None:
    """A confirmable one is answered with the same bytes again; of another that came twice nothing is heard."""
    request = encode(CON, POST, 7, b"t", ECHO, b"x")
    await peer.send(request)
    first = await peer.receive()
    await peer.send(request)
    assert await peer.receive() == first
    await peer.send(encode(NON, POST, 8, b"u", ECHO, b"y"))
    assert (await peer.receive()).payload == b"y"
    await peer.send(encode(NON, POST, 8, b"u", ECHO, b"y"))
    await peer.hears_nothing()
    assert [request.payload for request in served.requests] == [b"x", b"y"]


async def test_the_same_message_id_of_another_peer_is_another_message(served: Served, peer: Wire) -> None:
    """Ids are told apart by where they come from."""
    async with wire(served.url) as other:
        for one in (peer, other):
            await one.send(encode(CON, POST, 7, b"t", ECHO, b"x"))
            assert (await one.receive()).code == "2.04"
    assert len(served.requests) == 2


@pytest.mark.parametrize("length", range(9, 16))
async def test_a_token_that_is_too_long_is_never_answered(served: Served, peer: Wire, length: int) -> None:
    """A message format error (RFC 7252, 3): a confirmable message is reset, another ignored."""
    for kind in (NON, CON):
        await peer.send(bytes((0x40 | kind << 4 | length, POST, 0, 9)) + bytes(15) + b"\xb4echo")
    answer = await peer.receive()
    assert (answer.kind, answer.code, answer.mid, answer.token) == (RST, "0.00", 9, b"")
    await peer.hears_nothing()
    assert not served.requests


@pytest.mark.parametrize(
    ("data", "reset"),
    [
        (encode(CON, 0, 9), True),  # a ping
        (encode(CON, 0, 9) + b"x", True),
        (encode(NON, 0, 9), False),
        (encode(CON, POST, 9, b"", ECHO) + b"\xff", True),  # a payload of no bytes
        (encode(CON, POST, 9, b"", [(PATH, b"\xff")]), True),  # no UTF-8
        (encode(NON, POST, 9, b"", [(PATH, b"\xff")]), False),
        (encode(CON, 0x45, 9, b"t"), True),  # an answer to nothing
        (encode(NON, 0x45, 9, b"t"), False),
        (encode(ACK, 0x45, 9, b"t"), False),
        (encode(CON, 0x25, 9), True),  # a class that is not used
        (encode(ACK, POST, 9, b"", ECHO), False),
        (encode(RST, POST, 9, b"", ECHO), False),
        (encode(ACK, 0, 9), False),
        (encode(RST, 0, 9), False),
        (b"", False),
        (b"\x40\x02\x00", False),
        (b"\x00" + encode(CON, POST, 9, b"", ECHO)[1:], False),  # version 0
        (b"\x80" + encode(CON, POST, 9, b"", ECHO)[1:], False),  # version 2
    ],
)
async def test_what_is_no_request_is_reset_or_ignored(served: Served, peer: Wire, data: bytes, reset: bool) -> None:
    """As RFC 7252, 4.2 and 4.3 have it; nothing reaches a handler."""
    await peer.send(data)
    if reset:
        answer = await peer.receive()
        assert (answer.kind, answer.code, answer.mid) == (RST, "0.00", 9)
    await peer.hears_nothing()
    assert not served.requests


_REQUEST = encode(CON, POST, 1, b"to", [*ECHO, (FORMAT, b"*"), (OBSERVE, b""), (BLOCK2, b"\x16")], b"payload")


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A good request with some bytes changed, cut or added."""
    data = bytearray(_REQUEST)
    for at, byte in draw(st.lists(st.tuples(st.integers(0, len(data) - 1), st.integers(0, 255)), max_size=6)):
        data[at] = byte
    return bytes(data[: draw(st.integers(0, len(data)))]) + draw(st.binary(max_size=20))


async def test_no_datagram_brings_it_down(served: Served, peer: Wire, capsys: pytest.CaptureFixture[str]) -> None:
    """Random bytes and damaged requests: the server answers the next request, and no fault of ours shows."""

    @settings(max_examples=1500, database=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.one_of(st.binary(max_size=60), damaged(), st.binary(max_size=20).map(lambda tail: b"\x42\x01" + tail)))
    def send(data: bytes) -> None:
        peer.socket.setblocking(True)
        peer.socket.send(data)
        peer.socket.setblocking(False)
        told.append(data)

    told: list[bytes] = []
    await asyncio.to_thread(send)
    async with wire(served.url) as other:
        assert (await other.ask(POST, ECHO, b"alive")).payload == b"alive"
    assert len(told) > 100
    assert "fault of ours" not in capsys.readouterr().out


async def test_a_flood_of_message_ids_does_not_grow_it(served: Served) -> None:
    """Ids from changing ports push out the oldest; what is remembered stays within its bound."""
    assert served.server._endpoint is not None
    recent = served.server._endpoint.messages.recent = Recent(entries_max=50, bytes_max=1000)
    for _ in range(10):
        async with wire(served.url) as one:
            for _ in range(20):
                await one.ask(POST, ECHO, b"x" * 30)
    assert len(recent) == 50 or recent.answer_bytes <= 1000 + 40
    assert len(recent) <= 50 and len(served.requests) == 200


async def test_a_get_is_not_remembered(served: Served, peer: Wire) -> None:
    """It is idempotent, and a blob is many: they must not push out what has to be remembered."""
    assert served.server._endpoint is not None
    for _ in range(10):
        await peer.ask(GET, path(".well-known", "core"))
    assert len(served.server._endpoint.messages.recent) == 0


# --- observers --------------------------------------------------------------------------------------------------

WATCH = [*path("watch"), (OBSERVE, b"")]


async def test_an_observer_is_told_one_at_a_time_and_the_last_word(served: Served, peer: Wire) -> None:
    """While a notification is under way others wait; of those only the last is sent. Numbers rise."""
    first = await peer.ask(GET, WATCH)
    assert (first.kind, first.code, first.options[OBSERVE], first.payload) == (ACK, "2.05", b"", b"0")
    [observation] = served.observations
    for text in (b"1", b"2", b"3"):
        observation.notify(text)
    told = await peer.receive()
    assert (told.kind, told.token, told.options[OBSERVE], told.payload) == (CON, first.token, b"\x01", b"1")
    await peer.hears_nothing()
    await peer.acknowledge(told)
    told = await peer.receive()
    assert (told.options[OBSERVE], told.payload) == (b"\x02", b"3")
    await peer.acknowledge(told)
    await peer.hears_nothing()


async def test_the_end_of_an_observation_is_told_with_a_code(served: Served, peer: Wire) -> None:
    """4.04 without Observe, and it is over."""
    await peer.ask(GET, WATCH)
    [observation] = served.observations
    observation.end(NOT_FOUND)
    told = await peer.receive()
    assert (told.kind, told.code, OBSERVE in told.options) == (CON, "4.04", False)
    await peer.acknowledge(told)
    assert await asyncio.wait_for(served.ended.get(), 60) is observation
    observation.notify(b"late")
    await peer.hears_nothing()


async def test_an_observer_that_resets_is_gone(served: Served, peer: Wire) -> None:
    """RFC 7641, 3.6: it has forgotten what it asked for."""
    await peer.ask(GET, WATCH)
    [observation] = served.observations
    observation.notify(b"1")
    await peer.acknowledge(await peer.receive(), RST)
    assert await asyncio.wait_for(served.ended.get(), 60) is observation


async def test_an_observer_whose_socket_is_closed_is_gone(served: Served) -> None:
    """The network says that nobody is there, with the first notification."""
    async with wire(served.url) as peer:
        await peer.ask(GET, WATCH)
    [observation] = served.observations
    observation.notify(b"1")
    assert await asyncio.wait_for(served.ended.get(), 60) is observation


async def test_an_observer_that_never_acknowledges_is_gone(
    served: Served, peer: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A notification is repeated as it is, then given up, and so is the observation; a later one has a new chance."""

    class Hasty(Reliable):
        ACK_TIMEOUT, MAX_RETRANSMIT = 0.01, 2

    monkeypatch.setattr("edgerm.transport.coap_observation._RELIABLE", Hasty())
    for _ in range(2):
        await peer.ask(GET, WATCH)
        observation = served.observations[-1]
        observation.notify(b"1")
        told = [await peer.receive() for _ in range(3)]
        assert told[0] == told[1] == told[2]
        assert await asyncio.wait_for(served.ended.get(), 60) is observation
        await peer.hears_nothing()


async def test_a_registration_again_takes_the_place_of_the_old(served: Served, peer: Wire) -> None:
    """The same token from the same peer is one observation; a GET with Observe 1 ends it."""
    for mid in (1, 2):
        await peer.send(encode(CON, GET, mid, b"t", WATCH))
        assert (await peer.receive()).payload == b"0"
    first, second = served.observations
    assert await asyncio.wait_for(served.ended.get(), 60) is first
    await peer.send(encode(CON, GET, 3, b"t", [*path("watch"), (OBSERVE, b"\x01")]))
    answer = await peer.receive()
    assert (answer.payload, OBSERVE in answer.options) == (b"looked", False)
    assert await asyncio.wait_for(served.ended.get(), 60) is second


async def test_a_dropped_observer_hears_nothing(served: Served, peer: Wire) -> None:
    """What is told later has no one to go to."""
    await peer.ask(GET, WATCH)
    [observation] = served.observations
    observation.drop()
    observation.notify(b"1")
    await peer.hears_nothing()
    assert await asyncio.wait_for(served.ended.get(), 60) is observation


# --- addresses --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "shown", "dialled"),
    [
        ("127.0.0.1", "127.0.0.1", "127.0.0.1"),
        ("::1", "[::1]", "::1"),
        ("0.0.0.0", "0.0.0.0", "127.0.0.1"),
        ("::", "[::]", "127.0.0.1"),
        ("::", "[::]", "::1"),
    ],
)
async def test_it_listens_where_it_is_told(host: str, shown: str, dialled: str) -> None:
    """IPv4, IPv6, all of either; the real port is told, and peers have their own notation."""
    async with serving(host) as served:
        address, _, port = served.url.rpartition(":")
        assert address == f"coap://{shown}" and int(port) > 0
        async with wire(f"coap://[{dialled}]:{port}" if ":" in dialled else f"coap://{dialled}:{port}") as peer:
            assert (await peer.ask(POST, ECHO)).code == "2.04"
    assert served.requests[0].peer == dialled


@pytest.mark.parametrize("group", ["ff02::1", "ff05::fd", "::ffff:224.0.1.187", "::ffff:239.1.2.3"])
async def test_what_was_sent_to_many_is_not_taken(served: Served, peer: Wire, group: str) -> None:
    """Whoever could ask many servers at once in somebody's name would flood them with the answers."""
    assert served.server._endpoint is not None
    door = served.server._endpoint.messages.message_interface
    address = ("::ffff:127.0.0.1", peer.socket.getsockname()[1], 0, 0)
    for place in (group, "::ffff:127.0.0.1"):  # loopback carries no multicast: what the kernel would tell
        told = (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, socket.inet_pton(socket.AF_INET6, place) + bytes(4))
        door.datagram_msg_received(encode(CON, POST, 7, b"t", ECHO, place.encode()), [told], 0, address)
    assert (await peer.receive()).code == "2.04"
    assert [request.payload for request in served.requests] == [b"::ffff:127.0.0.1"]


async def test_it_listens_by_name() -> None:
    """A name is looked up."""
    async with serving("localhost") as served, wire(served.url) as peer:
        assert (await peer.ask(POST, ECHO)).code == "2.04"


async def test_a_port_in_use_is_told_with_the_remedy(served: Served) -> None:
    """Two servers never share a port without a word, whoever has it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        for port in (int(served.url.rpartition(":")[2]), other.getsockname()[1]):
            with pytest.raises(Unavailable, match=rf"127\.0\.0\.1:{port} \(UDP\) is in use: .* --coap"):
                await Served().server.listen("127.0.0.1", port)


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid", "x" * 300])
async def test_an_address_of_nobody_is_told_with_the_remedy(host: str) -> None:
    """One line, with the flag."""
    with pytest.raises(Unavailable, match="--coap"):
        await Served().server.listen(host, 0)


async def test_without_ipv6_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that has it not is told apart, with both remedies."""
    real = socket.socket

    def refuse(family: int = -1, *args: int) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(97, "Address family not supported by protocol")
        return real(family, *args)

    monkeypatch.setattr("edgerm.transport.coap_bind.socket.socket", refuse)
    with pytest.raises(Unavailable, match=r"needs IPv6 in the kernel.*--coap ''"):
        await Served().server.listen("127.0.0.1", 0)


async def test_after_its_end_it_says_nothing_and_may_be_closed_again(peer: Wire, served: Served) -> None:
    """Requests under way end without an answer, and no timer is left that would fail."""
    await peer.tell(POST, path("slow"))
    await peer.ask(GET, WATCH)
    await served.server.close()
    await served.server.close()
    with pytest.raises(ConnectionRefusedError):
        await peer.ask(POST, ECHO)
