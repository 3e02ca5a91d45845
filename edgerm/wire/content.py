"""Messages by media type: one `decode`, one `encode`, and the choice between JSON and protobuf.

What does not live here: the JSON form itself (`json.py`), framing of streams (`recordio.py`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from edgerm.core.errors import EdgermError, Invalid, NotAcceptable, TooLarge, UnsupportedMediaType
from edgerm.wire.json import MAX_BYTES, Ignored, from_json, missing, name_of, to_json

JSON = "application/json"
PROTOBUF = "application/x-protobuf"

M = TypeVar("M", bound=Message)


def decode(
    message_class: type[M],
    content_type: str | None,
    body: bytes,
    *,
    max_bytes: int = MAX_BYTES,
    ignored: Ignored | None = None,
) -> M:
    """Reads a body of the type that its Content-Type names; parameters such as a charset are tolerated.

    Raises Invalid (no Content-Type, or whatever is wrong with the body), TooLarge, UnsupportedMediaType.
    """
    if not content_type:
        raise Invalid(f"Content-Type is missing; send {JSON} or {PROTOBUF}")
    media_type = _bare(content_type)
    if media_type == JSON:
        return from_json(message_class, body, max_bytes=max_bytes, ignored=ignored)
    if media_type == PROTOBUF:
        return from_protobuf(message_class, body, max_bytes=max_bytes)
    raise UnsupportedMediaType(f"Content-Type {content_type[:80]!r} is not read here; send {JSON} or {PROTOBUF}")


def encode(message: Message, media_type: str) -> bytes:
    """Writes a message as JSON or PROTOBUF; raises EdgermError when a required field is missing."""
    return to_json(message) if media_type == JSON else to_protobuf(message)


def negotiate(accept: Iterable[str]) -> str:
    """The media type for a reply, from all Accept lines of a request: JSON where it is allowed, else PROTOBUF.

    No line at all means JSON. Raises NotAcceptable when neither is allowed.
    """
    lines = list(accept)
    ranges = [item for line in lines for item in line.split(",") if item.strip()]
    if not ranges:
        return JSON
    allowed = {_bare(item): not _refuses(item) for item in ranges}
    for media_type in (JSON, PROTOBUF):
        if next((allowed[name] for name in (media_type, "application/*", "*/*") if name in allowed), False):
            return media_type
    raise NotAcceptable(f"Accept {', '.join(lines)[:80]!r} allows neither {JSON} nor {PROTOBUF}")


def to_protobuf(message: Message) -> bytes:
    """The one canonical encoding: map entries sorted. Raises EdgermError when a required field is missing."""
    if not message.IsInitialized():
        raise EdgermError(f"cannot write {name_of(message)}: {missing(message)}")
    return message.SerializeToString(deterministic=True)


def from_protobuf(message_class: type[M], body: bytes, *, max_bytes: int = MAX_BYTES) -> M:
    """Reads one message; unknown fields, and enum values that we do not know, survive in it unseen.

    Raises TooLarge for more than `max_bytes`, and Invalid for a corrupt body, text that is not UTF-8, nesting beyond
    protobuf's own bound (100), and a missing required field.
    """
    message = from_protobuf_partly(message_class, body, max_bytes=max_bytes)
    check_complete(message)
    return message


def from_protobuf_partly(message_class: type[M], body: bytes, *, max_bytes: int = MAX_BYTES) -> M:
    """As `from_protobuf`, but required fields may be missing."""
    message = message_class()
    if len(body) > max_bytes:
        raise TooLarge(f"{name_of(message)} of {len(body)} bytes; at most {max_bytes} are taken")
    try:
        message.ParseFromString(body)
    except DecodeError as error:
        raise Invalid(f"{name_of(message)} in protobuf: {error}") from None
    return message


def check_complete(message: Message) -> None:
    """Raises `Invalid`, naming it, when a required field is missing."""
    if not message.IsInitialized():
        raise Invalid(f"{name_of(message)} in protobuf: {missing(message)}")


def _bare(media_range: str) -> str:
    return media_range.partition(";")[0].strip().lower()


def _refuses(media_range: str) -> bool:
    parameters = media_range.partition(";")[2].replace(" ", "").lower().split(";")
    return any(parameter.startswith("q=") and not parameter[2:].strip("0.") for parameter in parameters)
