"""What a task asks for of devices: claims, and what it was given; which claims are well formed.

What does not live here: which device fits (`matching`), how claims are written in YAML (`edgerm.sdk`) and protobuf
(`edgerm.wire.codec.claims`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

from edgerm.core.errors import Invalid
from edgerm.core.resources import MESOS_RESOURCES
from edgerm.core.texts import utf8_bytes

CLAIMS_MAX = 64  # of one task
COUNT_MAX = 1000  # devices of one claim, and of one task
EXPRESSIONS_MAX = 32  # of one claim
VALUES_MAX = 256  # of one expression
CONFIG_BYTES_MAX = 16 * 1024
VALUES_BYTES_MAX = 16 * 1024  # of one expression
NAME_BYTES_MAX = 255  # of a claim and of a class
KEY_BYTES_MAX = 255
DEPTH_MAX = 16  # of values and configurations
NUMBER_BITS_MAX = 1024
PARTS_MAX = 10_000  # in all of one of them; aliases in YAML make many of few


class Operator(Enum):
    """How a filter compares; written exactly so."""

    IN = "In"
    NOT_IN = "NotIn"
    CONTAINS = "Contains"
    NOT_CONTAINS = "NotContains"

    __hash__ = object.__hash__  # there is one of each; filters are looked up often


@dataclass(frozen=True, slots=True)
class Expression:
    """A filter: what must hold of a device's metadata at `key`."""

    key: str  # segments with dots between
    operator: Operator
    values: str = "[]"  # a JSON list as text


@dataclass(frozen=True, slots=True)
class Claim:
    """So many devices of a class for one task."""

    name: str  # unique in its task: of its definition, else the class
    type: str  # the class
    count: int = 1
    expressions: tuple[Expression, ...] = ()  # all must hold
    shared: bool | None = None  # the pool; None: as the class has it
    optional: bool = False  # the task starts without, too
    config: str = ""  # a JSON object as text, for the plugin; empty: none

    def __str__(self) -> str:
        return f"claim {self.name[:80]!r}" + (f" of {self.type[:80]}" if self.type != self.name else "")


@dataclass(frozen=True, slots=True)
class Granted:
    """The devices given to one of a task's claims. A claim that was skipped has none."""

    claim: str  # its name
    type: str  # the class
    ids: tuple[str, ...]
    shared: bool = False  # the pool that they are of
    config: str = ""  # as the claim has it


# --- from what people write ---------------------------------------------------------------------------------------


def expression(key: object, operator: object, values: object) -> Expression:
    """A filter of plain values, such as YAML has. Raises `Invalid` for a key, operator or values that are none."""
    if not isinstance(key, str) or not key:
        raise Invalid(f"key {shown(key)} is no text, or empty")
    if not isinstance(operator, str) or operator not in _OPERATORS:
        known = ", ".join(_OPERATORS)
        raise Invalid(f"operator {shown(operator)} is none of {known} (capital and small letters count)")
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Sequence):
        raise Invalid(f"values {shown(values)} are no list")
    return _checked_expression(Expression(key, _OPERATORS[operator], json_text("values", values)))


def json_text(what: str, value: object) -> str:
    """Texts, numbers, booleans, lists and mappings as one canonical JSON text. Raises `Invalid`, naming `what`."""
    _Walk().check(what, value, DEPTH_MAX)
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def shown(value: object) -> str:
    """A value for a message: short, also where it is deep or endless."""
    if isinstance(value, Mapping):
        return f"a mapping of {len(value)}"
    if isinstance(value, list | tuple | set):
        return f"a list of {len(value)}"
    if isinstance(value, int) and value.bit_length() > NUMBER_BITS_MAX:
        return "a huge number"
    return f"{value!r:.60}"


# --- what is well formed ------------------------------------------------------------------------------------------


def check_all(claims: Iterable[Claim]) -> tuple[Claim, ...]:
    """The claims of one task. Raises `Invalid`, naming the claim and its class, unless all are well formed."""
    found = tuple(claims)
    if len(found) > CLAIMS_MAX:
        raise Invalid(f"{len(found)} claims: a task has at most {CLAIMS_MAX}")
    names: set[str] = set()
    for claim in found:
        check(claim)
        if claim.name in names:
            raise Invalid(f"{claim}: another claim of the task has that name")
        names.add(claim.name)
    if sum(claim.count for claim in found) > COUNT_MAX:
        raise Invalid(f"the claims of a task count {sum(claim.count for claim in found)} devices, at most {COUNT_MAX}")
    return found


def check(claim: Claim) -> None:
    """Raises `Invalid`, naming the claim and its class, unless it is well formed. No device is looked at."""
    try:
        _check(claim)
    except Invalid as error:
        raise Invalid(f"{claim}: {error}") from None


@lru_cache(maxsize=512)  # a claim is checked at every step of its way
def values_of(found: Expression) -> list[object]:
    """What a filter compares with, for reading only. Raises `Invalid` if that is no list."""
    values = _read(f"values of {found.key[:80]!r}", found.values)
    if not isinstance(values, list):
        raise Invalid(f"values {found.values:.80} of {found.key[:80]!r} are no list")
    return values


_OPERATORS: Mapping[str, Operator] = {operator.value: operator for operator in Operator}


def _check(claim: Claim) -> None:
    _check_text("the name of a claim", claim.name, NAME_BYTES_MAX)
    _check_text("the class of a claim", claim.type, NAME_BYTES_MAX)
    if claim.type in MESOS_RESOURCES:
        raise Invalid(f"{claim.type} is no class of devices: ask for it among the task's resources")
    if isinstance(claim.count, bool) or not isinstance(claim.count, int) or not 0 <= claim.count <= COUNT_MAX:
        raise Invalid(f"{shown(claim.count)} is no number of devices from 0 to {COUNT_MAX}")
    if len(claim.expressions) > EXPRESSIONS_MAX:
        raise Invalid(f"{len(claim.expressions)} matchExpressions, at most {EXPRESSIONS_MAX} are allowed")
    for one in claim.expressions:
        _checked_expression(one)
    if utf8_bytes(claim.config) > CONFIG_BYTES_MAX:
        raise Invalid(f"config has {utf8_bytes(claim.config)} bytes, at most {CONFIG_BYTES_MAX} are allowed")
    if claim.config and not isinstance(_read("config", claim.config), dict):
        raise Invalid(f"config {claim.config:.80} is no mapping")


def _checked_expression(found: Expression) -> Expression:
    _check_text("key", found.key, KEY_BYTES_MAX)
    if not isinstance(found.operator, Operator):
        raise Invalid(f"operator {shown(found.operator)} is none of {', '.join(_OPERATORS)}")
    if not isinstance(found.values, str) or utf8_bytes(found.values) > VALUES_BYTES_MAX:
        raise Invalid(f"values of {found.key[:80]!r} have more than {VALUES_BYTES_MAX} bytes, or are no JSON list")
    if len(values_of(found)) > VALUES_MAX:
        raise Invalid(f"values of {found.key[:80]!r} are more than {VALUES_MAX}")
    return found


def _check_text(what: str, text: object, max_bytes: int) -> None:
    if not isinstance(text, str) or not text:
        raise Invalid(f"{what} is {shown(text)}: it must be a text that is not empty")
    if utf8_bytes(text) > max_bytes or not text.isprintable():
        raise Invalid(f"{what} is {text[:40]!r}…: at most {max_bytes} bytes, and no control characters")


def _read(what: str, text: str) -> object:
    try:
        value: object = _READER.decode(text)
        _Walk().check(what, value, DEPTH_MAX)
    except (ValueError, RecursionError) as error:
        if isinstance(error, Invalid):
            raise
        raise Invalid(f"{what} {text:.80} is no JSON: {error}") from None
    return value


def _no_number(text: str) -> object:
    raise Invalid(f"{text} is no number")


_READER = json.JSONDecoder(parse_constant=_no_number)  # one for all: making one takes longer than what it reads


_SCALARS = (str, int, float)


class _Walk:
    """Goes through a value that may be deep, endless, or not for JSON."""

    def __init__(self) -> None:
        self._left = PARTS_MAX

    def check(self, what: str, value: object, depth: int) -> None:
        """Raises `Invalid`, naming `what`, for the first part that does not do."""
        self._left -= len(value) + 1 if isinstance(value, list | tuple) else 1
        if depth < 0 or self._left < 0:
            raise Invalid(f"{what}: nested deeper than {DEPTH_MAX}, or more than {PARTS_MAX} parts")
        if isinstance(value, _SCALARS):
            self._check_scalar(what, value)
        elif isinstance(value, list | tuple):
            for inner in value:
                if isinstance(inner, _SCALARS):  # most are
                    self._check_scalar(what, inner)
                else:
                    self._left += 1  # it counts itself
                    self.check(what, inner, depth - 1)
        elif isinstance(value, Mapping):
            for key, inner in value.items():
                if not isinstance(key, str):
                    raise Invalid(f"{what}: key {shown(key)} is no text; write it in quotes")
                self._check_scalar(what, key)
                self.check(f"{what}.{key[:40]}", inner, depth - 1)
        else:
            raise Invalid(f"{what}: {shown(value)} is no text, number, boolean, list or mapping; put it in quotes")

    @staticmethod
    def _check_scalar(what: str, value: str | int | float) -> None:
        if isinstance(value, str):
            if not value.isascii() and any("\ud800" <= sign <= "\udfff" for sign in value):
                raise Invalid(f"{what}: {value[:40]!r} is no Unicode text")
        elif isinstance(value, float):
            if not math.isfinite(value):
                raise Invalid(f"{what}: {value} is no number")
        elif value.bit_length() > NUMBER_BITS_MAX:
            raise Invalid(f"{what}: a number of {value.bit_length()} bits; at most {NUMBER_BITS_MAX} are allowed")
