"""The options of a CoAP request, read strictly from a datagram (RFC 7252, 3.1 and 5.4).

aiocoap's own reader keeps every option number and Content-Format that it has ever seen, forever, and raises whatever a
decoder raises; a server takes datagrams from anybody. What does not live here: what a request means.
"""

from __future__ import annotations

from dataclasses import dataclass, field

OPTIONS_MAX = 64
NUMBER_MAX = 65_535
PAYLOAD_MARKER = 0xFF

URI_HOST, OBSERVE, URI_PORT, URI_PATH, CONTENT_FORMAT, URI_QUERY, ACCEPT = 3, 6, 7, 11, 12, 15, 17
BLOCK2, BLOCK1, PROXY_URI, PROXY_SCHEME = 23, 27, 35, 39

# Number to least and most bytes; an option of another length counts as one that is not known (RFC 7252, 5.4.3).
_LENGTHS = {
    URI_HOST: (1, 255),
    OBSERVE: (0, 3),
    URI_PORT: (0, 2),
    URI_PATH: (0, 255),
    CONTENT_FORMAT: (0, 2),
    URI_QUERY: (0, 255),
    ACCEPT: (0, 2),
    BLOCK2: (0, 3),
    BLOCK1: (0, 3),
    PROXY_URI: (1, 1034),
    PROXY_SCHEME: (1, 255),
}


class Malformed(Exception):
    """No CoAP message: to be rejected without an answer (RFC 7252, 4.2 and 4.3)."""


@dataclass(slots=True)
class Options:
    """What a request's options say. `unknown` is the first critical option that is not understood."""

    path: list[str] = field(default_factory=list)
    query: list[str] = field(default_factory=list)
    numbers: dict[int, int] = field(default_factory=dict)  # Observe, Content-Format, Accept, Block1, Block2
    proxied: bool = False
    unknown: int | None = None

    def take(self, number: int, value: bytes) -> None:
        """Note one option; raises `Malformed` for text that is no UTF-8."""
        low, high = _LENGTHS.get(number, (1, 0))
        if not low <= len(value) <= high or number in self.numbers:
            if number & 1 and self.unknown is None:  # odd is critical; an elective one is ignored
                self.unknown = number
        elif number == URI_PATH:
            self.path.append(_text(value))
        elif number == URI_QUERY:
            self.query.append(_text(value))
        elif number in (PROXY_URI, PROXY_SCHEME):
            self.proxied = True
        elif number != URI_HOST:  # whatever name we are called by, it is us
            self.numbers[number] = int.from_bytes(value)


def read_options(data: bytes, at: int) -> tuple[Options, bytes]:
    """The options from `at` on, and the payload after them; raises `Malformed`."""
    options, number, count = Options(), 0, 0
    while at < len(data):
        head = data[at]
        at += 1
        if head == PAYLOAD_MARKER:
            if at == len(data):
                raise Malformed("a payload of no bytes")
            return options, data[at:]
        delta, at = _extended(data, head >> 4, at)
        length, at = _extended(data, head & 15, at)
        number, count, end = number + delta, count + 1, at + length
        if number > NUMBER_MAX or count > OPTIONS_MAX or end > len(data):
            raise Malformed(f"option {number} of {length} bytes, the {count}th")
        options.take(number, data[at:end])
        at = end
    return options, b""


def _extended(data: bytes, value: int, at: int) -> tuple[int, int]:
    """A delta or length whose first 4 bits are `value`, and where it ends."""
    if value < 13:
        return value, at
    if value == 15:
        raise Malformed("an option of length or delta 15")
    end = at + value - 12
    if end > len(data):
        raise Malformed("an option that ends early")
    return int.from_bytes(data[at:end]) + (13 if value == 13 else 269), end


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise Malformed("text that is no UTF-8") from None
