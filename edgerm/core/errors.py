"""The family of errors: few classes, one code each.

What lives here: errors that cross a face. `edgerm.transport.status` maps each code, in one table, to an HTTP status
and a CoAP code. A refusal that is part of the normal course (an offer was used, a task is unknown) is a value and
no error.
"""

from __future__ import annotations

from enum import Enum


class Code(Enum):
    """What kind of thing went wrong; the only part of an error that a program should branch on."""

    INVALID = "invalid"  # the request is malformed or breaks a stated bound
    UNAUTHENTICATED = "unauthenticated"  # who asks is not known
    FORBIDDEN = "forbidden"  # who asks is known and may not
    NOT_FOUND = "not_found"  # what was named does not exist
    METHOD = "method"  # the path exists, the method does not
    NOT_ACCEPTABLE = "not_acceptable"  # no representation that the peer takes
    MEDIA_TYPE = "media_type"  # the body's type is not one of ours
    TOO_LARGE = "too_large"  # a size bound was reached
    CONFLICT = "conflict"  # true, but not in this state
    NOT_IMPLEMENTED = "not_implemented"  # known by name, not built
    UNAVAILABLE = "unavailable"  # not now; trying again later may help
    INTERNAL = "internal"  # our own fault


class EdgermError(Exception):
    """Base of all errors of edgerm; `str()` is one line that says what was wrong, with what value."""

    code: Code = Code.INTERNAL
    request: str = ""  # the id of the request that it answers, if it came over HTTP


class Invalid(EdgermError, ValueError):
    """The input breaks a rule; nothing was changed."""

    code = Code.INVALID


class TooLarge(Invalid):
    """The input is larger than the stated bound; it was not read whole."""

    code = Code.TOO_LARGE


class NotFound(EdgermError, LookupError):
    """Nothing has this name."""

    code = Code.NOT_FOUND


class Forbidden(EdgermError):
    """The principal may not do this, or not in its present state."""

    code = Code.FORBIDDEN


class Conflict(EdgermError):
    """The request is sound but does not fit the present state."""

    code = Code.CONFLICT


class Unavailable(EdgermError):
    """Not possible now; a later try may succeed."""

    code = Code.UNAVAILABLE


class NotImplementedCall(EdgermError):
    """A call that edgerm knows by name only."""

    code = Code.NOT_IMPLEMENTED


class NotAcceptable(EdgermError):
    """The peer takes none of the representations that we have."""

    code = Code.NOT_ACCEPTABLE


class UnsupportedMediaType(EdgermError):
    """The body is of a type that we do not read."""

    code = Code.MEDIA_TYPE


class IllegalMove(AssertionError):
    """A machine was given a signal that its table does not have: a bug of ours, told with the story so far."""

    def __init__(self, machine: str, state: object, signal: object, story: object = ()) -> None:
        super().__init__(f"{machine}: no move from {state} on {signal}; story: {story}")
