"""Requests over CoAP to one server: one exchange, an observation, a download in blocks, a batch of small uploads.

What does not live here: what is said in a payload; how many requests are in flight (`coap_volley`, `coap_window`);
the library (`coap_dial`).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from typing import Final

from edgerm.core.errors import Invalid, NotFound, Unavailable
from edgerm.transport import coap_values as values
from edgerm.transport.coap_dial import Forget, Heard, Request, Socket, addresses_of, open_socket
from edgerm.transport.coap_values import Block, CoapReply
from edgerm.transport.coap_volley import Volley
from edgerm.transport.coap_window import Window

REPLY_S: Final = 30.0
AGAIN_MIN_S: Final = 1.0  # before the first repetition: a server may have to write before it answers
AGAIN_MAX_S: Final = 4.0
AGAIN_FACTOR: Final = 1.5
SPREAD: Final = 1.25  # by chance, so that many clients of a server that was away do not repeat at the same instant
NOTIFICATIONS_MAX: Final = 64
AHEAD_BLOCKS: Final = 512  # asked for before the first of them has come: what a gap may cost in memory


def succeeded(reply: CoapReply) -> bool:
    """Whether the server did what was asked."""
    return reply.code >> 5 == 2


def told(reply: CoapReply) -> str:
    """The code and, of an error, what the server says of it."""
    text = "" if succeeded(reply) else reply.payload[:200].decode(errors="replace").strip()
    return f"{reply.code >> 5}.{reply.code & 31:02}" + (f": {text}" if text else "")


class _Outcome:
    """What comes first of several tries, and how to forget them."""

    def __init__(self) -> None:
        self.tries: list[Forget] = []
        self._came: asyncio.Future[CoapReply | Unavailable] = asyncio.get_running_loop().create_future()

    def set(self, outcome: CoapReply | Unavailable) -> None:
        if not self._came.done():
            self._came.set_result(outcome)

    async def wait(self, timeout_s: float) -> CoapReply | Unavailable | None:
        """It, or None if there is none in time."""
        await asyncio.wait({self._came}, timeout=timeout_s)
        return self._came.result() if self._came.done() else None

    def forget(self) -> None:
        for forget in self.tries:
            forget()


class CoapClient:
    """Talks to one server, HOST or HOST:PORT, from one socket: what keeps a NAT open for requests keeps it open for
    notifications.

    Requests are non-confirmable, and repeated here rather than by the library: it would double the distance each time,
    which over a link that loses half leaves four tries in 30 s, it cannot stop once a caller has gone, and one request
    that it repeats holds up all others. The name is resolved at first use, and again after a failure; its addresses
    take turns until one answers. Every method raises `Unavailable` if the server cannot be reached or does not answer
    in time. All are for the event loop.
    """

    def __init__(self, server: str) -> None:
        self._server = server
        self._socket: Socket | None = None
        self._path = Window()
        self._address = ""  # of the server, while there is no reason to doubt it
        self._choice = 0  # which of those that the name leads to
        self._answered = False  # whether that one ever has
        self._opening = asyncio.Lock()
        self._closing: set[asyncio.Task[None]] = set()

    async def request(self, request: Request, timeout_s: float = REPLY_S) -> CoapReply:
        """One exchange; the answer, whatever its code. The request must be idempotent: it is repeated, and may arrive
        more than once.
        """
        socket, first = await self._connected(), _Outcome()
        try:
            outcome = await self._insist(lambda: socket.send(request, self._timed(first.set)), first, timeout_s)
        finally:
            first.forget()
        if isinstance(outcome, Unavailable):
            self._renew(socket)
            raise Unavailable(f"{self._server}: {outcome}")
        self._answered = True
        return outcome

    async def observe(self, request: Request, timeout_s: float = REPLY_S) -> AsyncGenerator[CoapReply, None]:
        """The answer, then what the server notifies; ends with an answer that is no success.

        Notifications may come twice or in another order: what they carry must tell.
        """
        socket, first = await self._connected(), _Outcome()
        queue: asyncio.Queue[CoapReply | Unavailable] = asyncio.Queue(NOTIFICATIONS_MAX)

        def heard(outcome: CoapReply | Unavailable) -> None:
            first.set(outcome)
            with suppress(asyncio.QueueFull):  # who reads so slowly has enough to read
                queue.put_nowait(outcome)

        try:
            outcome = await self._insist(lambda: socket.watch(request, heard), first, timeout_s)
            while isinstance(outcome, CoapReply):
                outcome = await queue.get()
                if isinstance(outcome, CoapReply):
                    yield outcome
                    if not succeeded(outcome):
                        return
            raise Unavailable(f"{self._server}: {outcome}")
        finally:
            first.forget()

    async def _insist(self, send: Callable[[], Forget], first: _Outcome, timeout_s: float) -> CoapReply | Unavailable:
        """Send it, and again while there is no answer; what came first."""
        loop = asyncio.get_running_loop()
        end_s = loop.time() + timeout_s
        wait_s = min(max(self._path.rto_s, AGAIN_MIN_S), AGAIN_MAX_S) * random.uniform(1.0, SPREAD)
        while (left_s := end_s - loop.time()) > 0:
            first.tries.append(send())
            if (outcome := await first.wait(min(wait_s, left_s))) is not None:
                return outcome
            wait_s = min(wait_s * AGAIN_FACTOR, AGAIN_MAX_S)
        return Unavailable(f"no answer for {timeout_s:.0f} s")

    def _timed(self, heard: Heard) -> Heard:
        """`heard`, and note how long the round trip takes."""
        loop = asyncio.get_running_loop()
        sent_s = loop.time()

        def timed(outcome: CoapReply | Unavailable) -> None:
            if isinstance(outcome, CoapReply):
                self._path.answered(loop.time() - sent_s, loop.time())
            heard(outcome)

        return timed

    async def get_blocks(
        self,
        path: tuple[str, ...],
        size_bytes: int,
        offset_bytes: int = 0,
        *,
        block_bytes: int,
        etag: bytes | None = None,
    ) -> AsyncGenerator[bytes, None]:
        """A representation of `size_bytes` from an offset on, in order; sockets of its own, many blocks in flight.

        Raises `NotFound`, and `Invalid` when what is there has another size or ETag.
        """
        first, end = offset_bytes // block_bytes, max(-(-size_bytes // block_bytes), 1)

        def ask(number: int) -> Request:
            return Request("GET", path, block2=Block(number, block_bytes))

        waiting: dict[int, bytes] = {}
        at, skip = first, offset_bytes % block_bytes
        async with Volley(self._another, ask, first, min(first + AHEAD_BLOCKS, end)) as volley:
            while at < end:
                number, reply = await volley.reply()
                waiting[number] = _checked(reply, Block(number, block_bytes), size_bytes, etag)
                while (content := waiting.pop(at, None)) is not None:
                    at += 1
                    volley.allow(min(at + AHEAD_BLOCKS, end))
                    yield content[skip:]
                    skip = 0

    async def send_all(self, ask: Callable[[int], Request], count: int) -> AsyncGenerator[CoapReply, None]:
        """The requests `ask(0)` to `ask(count - 1)`, which may arrive in any order and twice; answers as they come.

        From sockets of its own, many in flight.
        """
        async with Volley(self._another, ask, 0, count) as volley:
            for _ in range(count):
                yield (await volley.reply())[1]

    async def close(self) -> None:
        """Give up what is under way, but for downloads."""
        if self._socket is not None:
            self._renew(self._socket)
        await asyncio.gather(*self._closing)

    async def _connected(self) -> Socket:
        async with self._opening:
            if self._socket is None:
                self._socket = await self._another()
            return self._socket

    async def _another(self) -> Socket:
        if not self._address:
            addresses = await addresses_of(self._server)
            self._address = addresses[self._choice % len(addresses)]
        try:
            return await open_socket(self._address)
        except Unavailable:
            self._doubt()
            raise

    def _doubt(self) -> None:
        """Look the name up again, and go to its next address if this one has not answered since."""
        self._choice += not self._answered
        self._address, self._answered = "", False

    def _renew(self, socket: Socket) -> None:
        """The next request goes from a new socket, to where the name leads then."""
        if self._socket is socket:
            self._socket = None
            self._doubt()
            task = asyncio.create_task(socket.close(), name="close CoAP socket")
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)


def _checked(reply: CoapReply, asked: Block, size_bytes: int, etag: bytes | None) -> bytes:
    """What the block holds, if it is the block that was asked for."""
    if reply.code == values.NOT_FOUND:
        raise NotFound("it is not there")
    if reply.code != values.CONTENT:
        raise Unavailable(f"the answer is {told(reply)}")
    length = min(size_bytes - asked.offset_bytes, asked.size_bytes)
    block = reply.block2 or Block(0, asked.size_bytes)
    if block.size_bytes < asked.size_bytes:
        raise Unavailable(f"blocks of {asked.size_bytes} bytes are not sent, but of {block.size_bytes}: ask for those")
    if block[:2] != asked[:2]:
        raise Unavailable(f"block {asked.number} was asked for, block {block.number} came")
    last = asked.offset_bytes + length == size_bytes
    if len(reply.payload) != length or block.more is last or reply.size2_bytes not in (None, size_bytes):
        raise Invalid(f"it has {reply.size2_bytes or 'not those'} bytes, {size_bytes} were announced")
    if etag is not None and reply.etag not in (None, etag):
        raise Invalid("it has other bytes than were announced")
    return reply.payload
