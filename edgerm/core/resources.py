"""Amounts of resources and their arithmetic: fixed point with three decimals, ranges, sets. Never floats.

What lives here: `Resources`, an immutable bag keyed by `ResourceKey`, and its text form. What does not: who has them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple, TypeAlias

from edgerm.core.errors import Invalid

Ranges: TypeAlias = tuple[tuple[int, int], ...]
"""Inclusive ranges, sorted, neither overlapping nor touching."""
Amount: TypeAlias = "int | Ranges | frozenset[str]"
"""Thousandths of a unit (a scalar), ranges, or a set of items."""

MESOS_RESOURCES = frozenset({"cpus", "mem", "disk", "ports", "gpus"})
"""Names that have a meaning of their own: no device may be called so."""
MILLI = 1000
SCALAR_MAX_MILLI = 2**50  # up to here thousandths come back from a double of whole units as they were
RANGES_MAX = 10_000
ITEMS_MAX = 10_000


class Reservation(NamedTuple):
    """One level of a reservation (Mesos `ReservationInfo`)."""

    role: str
    dynamic: bool = False
    principal: str = ""
    labels: bytes = b""  # canonical Labels


class ResourceKey(NamedTuple):
    """What makes two amounts the same resource; amounts of different keys never mix."""

    name: str
    reservations: tuple[Reservation, ...] = ()
    disk: bytes = b""  # canonical DiskInfo
    revocable: bool = False
    shared: bool = False  # a shared resource is not used up by an allocation


def milli(value: float) -> int:
    """A scalar as thousandths, rounded half away from zero as Mesos does; `Invalid` for NaN, infinite or negative."""
    if math.isnan(value) or math.isinf(value):
        raise Invalid(f"a resource amount must be a finite number, not {value}")
    if value < 0:
        raise Invalid(f"a resource amount must not be negative: {value}")
    if value > SCALAR_MAX_MILLI / MILLI:
        raise Invalid(f"a resource amount is too large: {value}")
    scaled = value * MILLI
    whole = math.floor(scaled)
    return whole + (scaled - whole >= 0.5)


def coalesce(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """Ranges sorted and merged; `Invalid` where one ends before it begins or is negative, and for too many."""
    result = _merge(ranges)
    if len(result) > RANGES_MAX:
        raise Invalid(f"{len(result)} ranges, at most {RANGES_MAX} are allowed")
    return result


def _merge(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """As `coalesce`, of any number: what is left of an allowed amount may be in more pieces than one may send."""
    result: list[tuple[int, int]] = []
    for begin, end in sorted(ranges):
        if begin < 0 or end < begin:
            raise Invalid(f"a range must not end before it begins: {begin}-{end}")
        if result and begin <= result[-1][1] + 1:
            result[-1] = (result[-1][0], max(end, result[-1][1]))
        else:
            result.append((begin, end))
    return tuple(result)


def _without(ranges: Ranges, taken: Ranges) -> Ranges:
    """One walk along both: they are sorted, and a framework may send thousands."""
    result: list[tuple[int, int]] = []
    at = 0
    for begin, end in ranges:
        start = begin
        while at < len(taken) and taken[at][0] <= end:
            if taken[at][0] > start:
                result.append((start, taken[at][0] - 1))
            start = max(start, taken[at][1] + 1)
            if taken[at][1] > end:
                break  # it reaches into the next range
            at += 1
        if start <= end:
            result.append((start, end))
    return tuple(result)


def _add(left: Amount, right: Amount, key: ResourceKey) -> Amount:
    if isinstance(left, int) and isinstance(right, int):
        return max(left, right) if key.shared else left + right
    if isinstance(left, tuple) and isinstance(right, tuple):
        return _merge(left + right)
    if isinstance(left, frozenset) and isinstance(right, frozenset):
        return left | right
    raise Invalid(f"resource {key.name!r} is used with two types")


def _subtract(left: Amount, right: Amount) -> Amount:
    if isinstance(left, int) and isinstance(right, int):
        return left - right
    if isinstance(left, tuple) and isinstance(right, tuple):
        return _without(left, right)
    assert isinstance(left, frozenset) and isinstance(right, frozenset)
    return left - right


def _covers(left: Amount | None, right: Amount) -> bool:
    if isinstance(right, int):
        return isinstance(left, int) and left >= right
    if isinstance(right, tuple):
        return isinstance(left, tuple) and not _without(right, left)
    return isinstance(left, frozenset) and left >= right


class Resources(Mapping[ResourceKey, Amount]):
    """An immutable bag of amounts; a zero or empty amount is the same as none.

    `+` and `-` give new bags; `-` raises `Invalid` unless the left side `covers` the right one. A resource whose
    key says `shared` is checked but not used up by `-`, nor doubled by `+`.
    """

    __slots__ = ("_amounts",)
    _amounts: dict[ResourceKey, Amount]

    def __init__(self, amounts: Mapping[ResourceKey, Amount] | Iterable[tuple[ResourceKey, Amount]] = ()) -> None:
        pairs = amounts.items() if isinstance(amounts, Mapping) else amounts
        collected: dict[ResourceKey, Amount] = {}
        for key, amount in pairs:
            have = collected.get(key)
            collected[key] = amount if have is None else _add(have, amount, key)
        self._amounts = {key: amount for key, amount in collected.items() if amount}

    @classmethod
    def of(cls, **scalars: float) -> Resources:
        """Unreserved scalars by name: `Resources.of(cpus=0.5, mem=64)`."""
        return cls({ResourceKey(name): milli(value) for name, value in scalars.items()})

    @classmethod
    def _wrap(cls, amounts: dict[ResourceKey, Amount]) -> Resources:
        result = cls.__new__(cls)
        result._amounts = amounts
        return result

    def __getitem__(self, key: ResourceKey) -> Amount:
        return self._amounts[key]

    def __iter__(self) -> Iterator[ResourceKey]:
        return iter(self._amounts)

    def __len__(self) -> int:
        return len(self._amounts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Resources) and self._amounts == other._amounts

    def __hash__(self) -> int:
        return hash(frozenset(self._amounts.items()))

    def __repr__(self) -> str:
        return f"Resources({to_text(self)!r})"

    def __add__(self, other: Resources) -> Resources:
        if not other._amounts:
            return self
        if not self._amounts:
            return other
        amounts = dict(self._amounts)
        for key, amount in other._amounts.items():
            have = amounts.get(key)
            amounts[key] = amount if have is None else _add(have, amount, key)
        return Resources._wrap(amounts)

    def __sub__(self, other: Resources) -> Resources:
        if other is self and not any(key.shared for key in self._amounts):
            return NOTHING
        if not self.covers(other):
            raise Invalid(f"{to_text(other)} is not part of {to_text(self)}")
        amounts = dict(self._amounts)
        for key, amount in other._amounts.items():
            if key.shared:
                continue
            left = _subtract(amounts[key], amount)
            if left:
                amounts[key] = left
            else:
                del amounts[key]
        return Resources._wrap(amounts)

    def less(self, other: Resources) -> Resources:
        """What is left after `other`, as far as it is here: for an agent that came back with less than is in use."""
        amounts: dict[ResourceKey, Amount] = {}
        for key, amount in self._amounts.items():
            taken = other._amounts.get(key)
            if key.shared or type(taken) is not type(amount):  # of another type: none of it is here
                amounts[key] = amount
            elif isinstance(amount, int) and isinstance(taken, int):
                amounts[key] = max(amount - taken, 0)
            else:
                amounts[key] = _subtract(amount, taken)
        return Resources(amounts)

    def covers(self, other: Resources) -> bool:
        """Whether every amount of `other` is available here."""
        have = self._amounts
        return all(_covers(have.get(key), amount) for key, amount in other._amounts.items())

    def scalar_milli(self, name: str) -> int:
        """Thousandths of a scalar over all its keys (reserved, revocable and plain ones)."""
        return sum(amount for key, amount in self._amounts.items() if key.name == name and isinstance(amount, int))

    def only(self, keep: Callable[[ResourceKey], bool]) -> Resources:
        """The resources whose keys `keep` wants."""
        kept = {key: amount for key, amount in self._amounts.items() if keep(key)}
        return self if len(kept) == len(self._amounts) else Resources._wrap(kept)

    def for_role(self, role: str) -> Resources:
        """What may be offered to `role`: the unreserved, and what is reserved for it or for a role above it."""
        return self.only(
            lambda key: (
                not key.reservations
                or role == key.reservations[-1].role
                or role.startswith(key.reservations[-1].role + "/")
            )
        )


NOTHING = Resources()

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.\-/]*\Z")
_SHARED = "<SHARED>"  # behind a name, as Mesos writes it
_NUMBER = re.compile(r"[0-9]{1,15}(\.[0-9]{1,9})?\Z")
_RANGE = re.compile(r"\s*([0-9]{1,19})\s*-\s*([0-9]{1,19})\s*\Z")


def parse(text: str) -> Resources:
    """Resources from `cpus:4;mem:2048;ports:[31000-32000];names:{a,b}`, the form of Mesos' `--resources`.

    `names<SHARED>:{a}` is not used up by who has it. Raises `Invalid`, naming the part that is wrong. A name may stand
    once only.
    """
    amounts: dict[ResourceKey, Amount] = {}
    for part in filter(None, (piece.strip() for piece in text.split(";"))):
        told, colon, value = (piece.strip() for piece in part.partition(":"))
        name = told.removesuffix(_SHARED)
        if not colon or not _NAME.match(name):
            raise Invalid(f"resource {part!r} is not NAME:VALUE, as in cpus:4 or ports:[31000-32000]")
        key = ResourceKey(name, shared=name != told)
        if key in amounts:
            raise Invalid(f"resource {name!r} is given twice")
        amounts[key] = parse_amount(name, value)
    return Resources(amounts)


def parse_amount(name: str, value: str) -> Amount:
    """One amount: `4`, `0.5`, `[1-3,7-9]` or `{a,b}`; raises `Invalid`, naming `name` and the value."""
    if _NUMBER.match(value):
        return milli(float(value))
    inner = value[1:-1]
    if value.startswith("[") and value.endswith("]"):
        found = [_RANGE.match(piece) for piece in inner.split(",")] if inner.strip() else []
        if all(found):
            return coalesce((int(match[1]), int(match[2])) for match in found if match)
    elif value.startswith("{") and value.endswith("}"):
        items = [piece.strip() for piece in inner.split(",")] if inner.strip() else []
        if all(items) and len(items) <= ITEMS_MAX:
            return frozenset(items)
    raise Invalid(f"resource {name!r} has no amount in {value!r}; write 4, [31000-32000] or {{a,b}}")


def to_text(resources: Resources) -> str:
    """The text that `parse` reads; reservations and the like are shown after the name, in parentheses."""
    parts = []
    for key in sorted(resources):
        role = f"({key.reservations[-1].role})" if key.reservations else ""
        shared = _SHARED if key.shared else ""
        parts.append(f"{key.name}{role}{shared}:{_amount_text(resources[key])}")
    return ";".join(parts)


def _amount_text(amount: Amount) -> str:
    if isinstance(amount, int):
        whole, rest = divmod(amount, MILLI)
        return str(whole) + (f".{rest:03d}".rstrip("0") if rest else "")
    if isinstance(amount, tuple):
        return "[" + ",".join(f"{begin}-{end}" for begin, end in amount) + "]"
    return "{" + ",".join(sorted(amount)) + "}"
