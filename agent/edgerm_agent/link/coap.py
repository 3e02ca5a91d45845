"""The link over CoAP (docs/link.md, "Over CoAP").

What does not live here: exchanges, windows, sockets (`edgerm.transport.coap_client`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from urllib.parse import urlsplit

from edgerm.core.blobs import digest_of
from edgerm.core.errors import Code, NotFound, Unavailable
from edgerm.core.ids import AgentId
from edgerm.core.link import COAP, Beat, BeatAnswer, Chunk, Join, JoinAnswer, Stale
from edgerm.core.scheduler import BlobRef
from edgerm.transport.coap_client import CoapClient, succeeded, told
from edgerm.transport.coap_dial import Request
from edgerm.transport.coap_values import INCOMPLETE, NAMED, NOT_FOUND, CoapReply, etag_of
from edgerm.transport.status import ANSWERS
from edgerm.wire.codec import link as codec
from edgerm_agent.blobs import Body
from edgerm_agent.link.face import ANSWER_BYTES_MAX, no_blob

CHUNK_BYTES = 896  # with digest and sizes within the budget of a datagram
UPLOADS_MAX = 3  # of one message, which the master may drop before the request that names it arrives
REGISTER_AGAIN_S = 300.0
_CONFLICT = ANSWERS[Code.CONFLICT].coap


class CoapFace:
    """See `Face`. One socket for each master, some for each blob, which comes in blocks of `block_bytes`."""

    def __init__(self, agent_id: AgentId, block_bytes: int) -> None:
        self._agent_id = agent_id
        self._block_bytes = block_bytes
        self._clients: dict[str, CoapClient] = {}
        self._ear = Ear()
        self._registration: asyncio.Timeout | None = None

    async def join(self, master: str, join: Join) -> JoinAnswer:
        """See `Face`."""
        reply = await self._post(master, "j", codec.encode_join(join))
        if reply.code == _CONFLICT:
            return Stale()
        return codec.decode_join_answer(await self._content(master, reply))

    async def beat(self, master: str, beat: Beat) -> BeatAnswer:
        """See `Face`."""
        self._ear.asked(beat)
        reply = await self._post(master, "b", codec.encode_beat(beat, self._agent_id))
        answer = codec.decode_beat_answer(await self._content(master, reply), self._agent_id)
        if self._ear.deaf(answer) and self._registration is not None:
            with suppress(RuntimeError):  # it has just ended: then the next one is on its way
                self._registration.reschedule(asyncio.get_running_loop().time())
        return answer

    async def listen(self, master: str, session: int, silence_s: float, rang: Callable[[], None]) -> None:
        """See `Face`. The master is silent while nothing rings: `silence_s` means nothing here."""

        def hear(count: int, registered: bool) -> None:
            if self._ear.news(session, count, registered):
                rang()

        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(REGISTER_AGAIN_S) as self._registration:
                    if not await self._observe(master, session, hear):
                        rang()  # a beat is told of it
                        return

    @asynccontextmanager
    async def get_blob(self, master: str, ref: BlobRef, offset_bytes: int) -> AsyncIterator[Body]:
        """See `blobs.Source`."""
        begin = offset_bytes if offset_bytes < ref.size_bytes else 0
        async with aclosing(self._blocks(master, ref, begin)) as blocks:
            yield Body(begin, blocks)

    async def close(self) -> None:
        """End all connections."""
        for client in self._clients.values():
            await client.close()

    def _client(self, master: str) -> CoapClient:
        if master not in self._clients:
            self._clients[master] = CoapClient(urlsplit(master).netloc)
        return self._clients[master]

    # --- messages, whatever their size ---

    async def _post(self, master: str, name: str, data: bytes) -> CoapReply:
        client, ref = self._client(master), BlobRef(digest_of(data), len(data))
        request = Request("POST", (name,), payload=data)
        if len(data) > COAP.budget_bytes:
            request = Request("POST", (name,), payload=codec.encode_blob_ref(ref), content_format=NAMED)
        for _ in range(UPLOADS_MAX):
            reply = await client.request(request)
            if reply.code != INCOMPLETE:
                return reply
            await self._upload(client, ref, data)
        raise Unavailable(f"a message of {len(data)} bytes was sent {UPLOADS_MAX} times, and {master} lacks it still")

    async def _upload(self, client: CoapClient, ref: BlobRef, data: bytes) -> None:
        def ask(number: int) -> Request:
            content = data[number * CHUNK_BYTES : (number + 1) * CHUNK_BYTES]
            chunk = Chunk(ref.digest, ref.size_bytes, CHUNK_BYTES, number, content)
            return Request("POST", ("u",), payload=codec.encode_chunk(chunk))

        async with aclosing(client.send_all(ask, -(-len(data) // CHUNK_BYTES))) as replies:
            async for reply in replies:
                if not succeeded(reply):
                    raise Unavailable(f"the master does not take a message of {len(data)} bytes: {told(reply)}")

    async def _content(self, master: str, reply: CoapReply) -> bytes:
        """What the answer says, fetched if it is only named."""
        if not succeeded(reply):
            raise Unavailable(f"the master answers {told(reply)}")
        if reply.content_format != NAMED:
            return reply.payload
        ref = codec.decode_blob_ref(reply.payload)
        if ref.size_bytes > ANSWER_BYTES_MAX:
            raise Unavailable(f"the master's answer has {ref.size_bytes} bytes, more than {ANSWER_BYTES_MAX}")
        try:
            async with aclosing(self._blocks(master, ref, 0)) as blocks:
                data = b"".join([block async for block in blocks])
        except NotFound:
            raise Unavailable("the master's answer was dropped before all of it was here") from None
        if digest_of(data) != ref.digest:
            raise Unavailable("the bytes of the master's answer are not those that it named")
        return data

    async def _blocks(self, master: str, ref: BlobRef, offset_bytes: int) -> AsyncGenerator[bytes, None]:
        blocks = self._client(master).get_blocks(
            ("a", ref.digest), ref.size_bytes, offset_bytes, block_bytes=self._block_bytes, etag=etag_of(ref.digest)
        )
        try:
            async with aclosing(blocks):
                async for block in blocks:
                    yield block
        except NotFound:
            raise no_blob(ref) from None

    # --- the doorbell ---

    async def _observe(self, master: str, session: int, hear: Callable[[int, bool], None]) -> bool:
        """Tell each count, with whether it answers the registration; False: the session is not known."""
        registered = True
        async with aclosing(self._client(master).observe(Request("GET", ("d",), (str(session),)))) as replies:
            async for reply in replies:
                if reply.code in (_CONFLICT, NOT_FOUND):
                    return False
                if not succeeded(reply):
                    raise Unavailable(f"the master answers {told(reply)} to a request for the doorbell")
                hear(_count(reply.payload), registered)
                registered = False
        raise Unavailable("the master has ended the observation")


def _count(payload: bytes) -> int:
    if not payload.isdigit() or len(payload) > 20:
        raise Unavailable(f"the doorbell says {payload[:40]!r}, which is no count")
    return int(payload)


class Ear:
    """Tells new rings from old ones, and that the doorbell is deaf: a beat that nobody rang for brought orders, and
    nobody rang meanwhile.
    """

    def __init__(self) -> None:
        self._rung = False
        self._count = 0
        self._count_of = 0
        self._expected = False
        self._session = 0
        self._highest = 0

    def news(self, session: int, count: int, registered: bool) -> bool:
        """Whether it rang again. A notification may come twice or in another order; a registration's answer may not."""
        if session != self._count_of:
            self._count_of, self._count = session, 0
        if count == self._count or (count < self._count and not registered):
            return False
        self._count, self._rung = count, True
        return True

    def asked(self, beat: Beat) -> None:
        """A beat is sent."""
        self._expected |= self._rung or beat.session != self._session
        self._rung = False
        if beat.session != self._session:  # its first beat fetches what the join led to
            self._session, self._highest = beat.session, 0

    def deaf(self, answer: BeatAnswer) -> bool:
        """The beat is answered."""
        highest = max((order.number for order in answer.orders), default=0)
        surprised = highest > self._highest and not (self._expected or self._rung)
        self._highest = max(self._highest, highest)
        self._expected = answer.more
        return surprised
