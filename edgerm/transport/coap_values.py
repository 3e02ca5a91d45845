"""What is asked and answered over CoAP, as values: shared by our server, our client and the faces. Names no library.

Codes are bytes: the class in the upper 3 bits, the detail below (RFC 7252, 5.9). Those of errors: `transport.status`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from edgerm.core.blobs import Digest
from edgerm.core.errors import Invalid

CREATED = 0x41  # 2.01
CHANGED = 0x44  # 2.04
CONTENT = 0x45  # 2.05
BAD_OPTION = 0x82  # 4.02
NOT_FOUND = 0x84  # 4.04
METHOD_NOT_ALLOWED = 0x85  # 4.05
INCOMPLETE = 0x88  # 4.08
NO_PROXY = 0xA5  # 5.05

TEXT = 0  # text/plain
LINK_FORMAT = 40  # application/link-format
OCTETS = 42  # application/octet-stream; all protobuf of the link
NAMED = 65001  # a BlobRef of the message that is meant (docs/link.md, "Over CoAP")

PAYLOAD_BYTES_MAX = 1024
BLOCK_BYTES_MAX = 1024
BLOCK_BYTES_MIN = 16
DIAGNOSTIC_BYTES_MAX = 255


def etag_of(digest: Digest) -> bytes:
    """The ETag of a blob: at most 8 bytes are allowed (RFC 7252, 5.10.6)."""
    return bytes.fromhex(digest)[:8]


class Block(NamedTuple):
    """Block2 (RFC 7959, 2.2): `number` counts in blocks of `size_bytes`, a power of two from 16 to 1024."""

    number: int
    size_bytes: int
    more: bool = False

    @property
    def offset_bytes(self) -> int:
        """Where the block begins."""
        return self.number * self.size_bytes


@dataclass(frozen=True, slots=True)
class CoapRequest:
    """A request that its route takes."""

    method: str
    path: tuple[str, ...]
    query: tuple[str, ...]
    payload: bytes
    content_format: int | None
    peer: str  # address, without port; IPv4 in its own notation
    block2: Block | None = None


@dataclass(frozen=True, slots=True)
class CoapReply:
    """The answer to a request."""

    code: int
    payload: bytes = b""
    content_format: int | None = None
    block2: Block | None = None
    etag: bytes | None = None
    size2_bytes: int | None = None  # of the whole


def sliced(reply: CoapReply, asked: Block | None) -> CoapReply:
    """The block of the whole `reply` that is asked for; raises `Invalid` past its end."""
    block = asked or Block(0, BLOCK_BYTES_MAX)
    size_bytes, begin = len(reply.payload), block.offset_bytes
    if begin >= max(size_bytes, 1):
        raise Invalid(f"block {block.number} of {block.size_bytes} bytes is past the end at {size_bytes}")
    end = begin + block.size_bytes
    if asked is None and end >= size_bytes:
        return reply
    part = Block(block.number, block.size_bytes, end < size_bytes)
    size2_bytes = None if begin else size_bytes
    return CoapReply(reply.code, reply.payload[begin:end], reply.content_format, part, reply.etag, size2_bytes)


def block_of(value: int) -> Block:
    """The block that an option's value names; raises `Invalid`."""
    size_exponent = value & 7
    if size_exponent == 7:
        raise Invalid("Block2 with the reserved size exponent 7")
    return Block(value >> 4, 16 << size_exponent)
