"""What a task asks for of devices: claims, and what it was given.

What does not live here: which device fits (`matching`), how claims are written in YAML (`edgerm.sdk`) and protobuf
(`edgerm.wire.codec.claims`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

CLAIMS_MAX = 64  # of one task
COUNT_MAX = 1000  # devices of one claim
EXPRESSIONS_MAX = 32  # of one claim
VALUES_MAX = 256  # of one expression
CONFIG_BYTES_MAX = 16 * 1024


class Operator(Enum):
    """How a filter compares; written exactly so."""

    IN = "In"
    NOT_IN = "NotIn"
    CONTAINS = "Contains"
    NOT_CONTAINS = "NotContains"


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


@dataclass(frozen=True, slots=True)
class Granted:
    """The devices given to one of a task's claims. A claim that was skipped has none."""

    claim: str  # its name
    type: str  # the class
    ids: tuple[str, ...]
    shared: bool = False  # the pool that they are of
    config: str = ""  # as the claim has it
