"""The JSON form of messages, as Mesos clients write and expect it.

Differs from protobuf's own JSON: 64-bit integers are numbers, unknown enum names are dropped, output is one line of
ASCII. What does not live here: the walk over fields (`json_reader.py`, `json_writer.py`), media types (`content.py`).
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeVar, cast

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from edgerm.core.errors import EdgermError, Invalid, TooLarge
from edgerm.wire.json_reader import Walk, reader_of
from edgerm.wire.json_scalars import Refused
from edgerm.wire.json_writer import writer_of

MAX_DEPTH = 64  # messages within messages
MAX_VALUES = 1_000_000  # members and elements, also of what is ignored
MAX_BYTES = 64 * 2**20  # for a caller that names no smaller bound

M = TypeVar("M", bound=Message)

_TEXT = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)  # linear, also where text is left open


@dataclass(slots=True)
class Ignored:
    """Counts the names and enum values that documents held and their messages have no place for."""

    total: int = 0
    latest: deque[str] = field(default_factory=lambda: deque(maxlen=16))

    def add(self, names: Iterable[str]) -> None:
        """Counts each name and remembers the latest ones, shortened."""
        for name in names:
            self.total += 1
            self.latest.append(name[:64])


def to_json(message: Message) -> bytes:
    """One line of ASCII; raises EdgermError when a required field is missing, which is a bug of the caller."""
    if not message.IsInitialized():
        raise EdgermError(f"cannot write {name_of(message)}: {missing(message)}")
    return _encode(writer_of(_descriptor(message))(message)).encode("ascii")


def from_json(message_class: type[M], body: bytes, *, max_bytes: int = MAX_BYTES, ignored: Ignored | None = None) -> M:
    """Reads one message; unknown names are ignored and counted in `ignored`.

    Raises TooLarge for more than `max_bytes`, and Invalid, with the JSON path and the value, for anything that does not
    fit, that is nested too deep or holds too much, and for a missing required field.
    """
    message = message_class()
    name = name_of(message)
    if len(body) > max_bytes:
        raise TooLarge(f"{name} of {len(body)} bytes; at most {max_bytes} are taken")
    walk = Walk(MAX_DEPTH)
    try:
        reader_of(_descriptor(message))(message, _parse(name, body), walk)
    except Refused as refused:
        raise Invalid(f"{name} in JSON: {refused.path or 'the document'}: {refused.problem}") from None
    if not message.IsInitialized():
        raise Invalid(f"{name} in JSON: {missing(message)}")
    if ignored is not None and walk.ignored:
        ignored.add(walk.ignored)
    return message


def missing(message: Message) -> str:
    """Which required fields a message lacks, in words, at most a dozen of them."""
    paths: list[str] = message.FindInitializationErrors()  # type: ignore[attr-defined]  # the stubs lack it
    more = f" and {len(paths) - 12} more" if len(paths) > 12 else ""
    return f"missing required {', '.join(paths[:12])}{more}"


def _parse(name: str, body: bytes) -> Any:
    if _values(body) > MAX_VALUES and _values(_TEXT.sub(b"", body)) > MAX_VALUES:
        raise Invalid(f"{name} in JSON: more than {MAX_VALUES} values in one document")
    try:
        return _decode(body.decode())
    except UnicodeDecodeError as error:
        raise Invalid(f"{name} in JSON: not UTF-8 at byte {error.start}") from None
    except RecursionError:
        raise Invalid(f"{name} in JSON: nested deeper than a document may be") from None
    except ValueError as error:  # malformed, or an integer of thousands of digits
        raise Invalid(f"{name} in JSON: {error}") from None


def _values(body: bytes) -> int:
    """No document of these bytes has more members and elements; found at the speed of memory, before any is made."""
    return body.count(b",") + body.count(b"[") + body.count(b"{")


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f'{constant} is no JSON; write "{constant}" in quotes')


def name_of(message: Message) -> str:
    """The message's type as Mesos' documents write it, such as `scheduler.Call`."""
    return message.DESCRIPTOR.full_name.removeprefix("edgerm.v1.")


def _descriptor(message: Message) -> Descriptor:
    return cast("Descriptor", message.DESCRIPTOR)  # the stubs know two classes of descriptors


_decode = json.JSONDecoder(parse_constant=_refuse_constant).decode
_encode = json.JSONEncoder(ensure_ascii=True, allow_nan=False, check_circular=False, separators=(",", ":")).encode
