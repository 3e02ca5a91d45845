"""Which HTTP status and which CoAP code each kind of error is: one table for all faces.

What does not live here: the body of an error (the face), and statuses that are no errors.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from edgerm.core.errors import Code, EdgermError


class Answer(NamedTuple):
    """How an error is told. `coap` is the code's byte: class in the upper 3 bits, detail below (RFC 7252, 5.9)."""

    http: int
    coap: int


def _coap(code_class: int, detail: int) -> int:
    return code_class << 5 | detail


ANSWERS: Mapping[Code, Answer] = MappingProxyType(
    {
        Code.INVALID: Answer(400, _coap(4, 0)),
        Code.UNAUTHENTICATED: Answer(401, _coap(4, 1)),
        Code.FORBIDDEN: Answer(403, _coap(4, 3)),
        Code.NOT_FOUND: Answer(404, _coap(4, 4)),
        Code.METHOD: Answer(405, _coap(4, 5)),
        Code.NOT_ACCEPTABLE: Answer(406, _coap(4, 6)),
        Code.MEDIA_TYPE: Answer(415, _coap(4, 15)),
        Code.TOO_LARGE: Answer(413, _coap(4, 13)),
        Code.CONFLICT: Answer(409, _coap(4, 9)),  # 4.09 Conflict: RFC 8132
        Code.NOT_IMPLEMENTED: Answer(501, _coap(5, 1)),
        Code.UNAVAILABLE: Answer(503, _coap(5, 3)),
        Code.INTERNAL: Answer(500, _coap(5, 0)),
    }
)


def answer_of(error: BaseException) -> Answer:
    """How this error is told; what is no error of edgerm's own family is our fault."""
    return ANSWERS[error.code if isinstance(error, EdgermError) else Code.INTERNAL]
