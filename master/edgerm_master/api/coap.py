"""The agents' link over CoAP: join, beat, doorbell, blobs, chunks (docs/link.md, "Over CoAP").

What does not live here: what is said over it (`edgerm.core.link`, the core), the bytes of it (the codec), what every
CoAP server does (`edgerm.transport.coap_server`).
"""

from __future__ import annotations

from collections.abc import Iterator

from edgerm.core.blobs import check_digest
from edgerm.core.errors import Code, Invalid
from edgerm.core.link import COAP
from edgerm.core.scheduler import BlobRef
from edgerm.transport.coap_observation import Observation
from edgerm.transport.coap_server import Route
from edgerm.transport.coap_values import (
    BLOCK_BYTES_MAX,
    CHANGED,
    CONTENT,
    CREATED,
    INCOMPLETE,
    NAMED,
    NOT_FOUND,
    OCTETS,
    TEXT,
    Block,
    CoapReply,
    CoapRequest,
    etag_of,
    sliced,
)
from edgerm.transport.status import ANSWERS
from edgerm.wire.codec import link as codec
from edgerm_master.api.access import Action
from edgerm_master.api.blobs import Blobs
from edgerm_master.api.blocks import Blocks
from edgerm_master.api.doorbells import Doorbells
from edgerm_master.api.link import answer_beat, answer_join, session_of
from edgerm_master.api.port import Port
from edgerm_master.api.uploads import Uploads

MESSAGE = frozenset({OCTETS, NAMED})
CONFLICT = ANSWERS[Code.CONFLICT].coap


class CoapFace:
    """The agents' requests."""

    def __init__(self, port: Port, doorbells: Doorbells, blobs: Blobs) -> None:
        self._port = port
        self._doorbells = doorbells
        self._blocks = Blocks(blobs)
        self._uploads = Uploads()

    def routes(self) -> Iterator[Route[Action]]:
        """What this face serves."""
        link, doorbell = Action.LINK, {"rt": "edgerm.link.doorbell", "obs": ""}
        yield Route("POST", "/j", link, self.join, MESSAGE, attributes=_attributes("join"))
        yield Route("POST", "/b", link, self.beat, MESSAGE, attributes=_attributes("beat"))
        yield Route("GET", "/d", link, self.doorbell, answers=TEXT, observer=self.observe, attributes=doorbell)
        yield Route("GET", "/a/{}", Action.READ_BLOB, self.blob, attributes=_attributes("blob"))
        yield Route("POST", "/u", link, self.chunk, attributes=_attributes("chunk"))

    async def join(self, request: CoapRequest) -> CoapReply:
        """2.04 with a session, or that the next part is wanted; 4.08: send the chunks; 4.09: stale."""
        message = self._message(request)
        if message is None:
            return CoapReply(INCOMPLETE)
        answer, stale = await answer_join(self._port, message, COAP)
        return CoapReply(CONFLICT if stale else CHANGED, answer)

    async def beat(self, request: CoapRequest) -> CoapReply:
        """2.04 with orders and acknowledgements, or with the word to join; named if it fits no datagram."""
        message = self._message(request)
        if message is None:
            return CoapReply(INCOMPLETE)
        data = await answer_beat(self._port, message, COAP)
        if len(data) <= COAP.budget_bytes:
            return CoapReply(CHANGED, data)
        blob = BlobRef(self._uploads.put(data, self._now_s()), len(data))
        return CoapReply(CHANGED, codec.encode_blob_ref(blob), NAMED)

    async def doorbell(self, request: CoapRequest) -> CoapReply:
        """2.05, how often it rang in this session; 4.09: join."""
        session = _session(request)
        self._doorbells.check(session)
        return CoapReply(CONTENT, b"%d" % self._doorbells.count(session))

    def observe(self, request: CoapRequest, observation: Observation) -> CoapReply:
        """The same, again with each ring; a newer doorbell of a session takes the place of the older."""
        session, doorbell = _session(request), _Doorbell(observation)
        self._doorbells.hang(session, doorbell)
        observation.on_end = lambda: self._doorbells.gone(session, doorbell)
        return CoapReply(CONTENT, b"%d" % self._doorbells.count(session))

    async def blob(self, request: CoapRequest) -> CoapReply:
        """2.05 with the block that is asked for, the first if none is; 4.04; 4.00 past the end."""
        digest = check_digest(request.path[1])
        etag = etag_of(digest)
        answer = self._uploads.get(digest, self._now_s())
        if answer is not None:
            return sliced(CoapReply(CONTENT, answer, etag=etag), request.block2)
        block = request.block2 or Block(0, BLOCK_BYTES_MAX)
        data, whole_bytes = await self._blocks.read(digest, block.offset_bytes, block.size_bytes)
        end = block.offset_bytes + len(data)
        if not data and block.number:
            raise Invalid(f"block {block.number} of {block.size_bytes} bytes is past the end at {whole_bytes}")
        asked = Block(block.number, block.size_bytes, end < whole_bytes)
        return CoapReply(CONTENT, data, block2=asked, etag=etag, size2_bytes=whole_bytes if block.number == 0 else None)

    async def chunk(self, request: CoapRequest) -> CoapReply:
        """2.04: taken; 2.01: and the message is whole."""
        whole = self._uploads.add(codec.decode_chunk(request.payload), self._now_s())
        return CoapReply(CREATED if whole else CHANGED)

    def _message(self, request: CoapRequest) -> bytes | None:
        """The message that a request brings or names; None: chunks of it are missing."""
        if request.content_format != NAMED:
            return request.payload
        return self._uploads.get(codec.decode_blob_ref(request.payload).digest, self._now_s())

    def _now_s(self) -> float:
        return self._port.now().steady_s


def _attributes(name: str) -> dict[str, str]:
    return {"rt": f"edgerm.link.{name}", "ct": str(OCTETS)}


class _Doorbell:
    """An Observe is told how often it rang."""

    def __init__(self, observation: Observation) -> None:
        self._observation = observation

    def ring(self, count: int) -> None:
        self._observation.notify(b"%d" % count)

    def take_down(self, session_over: bool) -> None:
        if session_over:
            self._observation.end(NOT_FOUND)
        else:
            self._observation.drop()


def _session(request: CoapRequest) -> int:
    return session_of(request.query[0] if len(request.query) == 1 else "")
