"""Attributes: what an agent says of its box, as values. Frameworks choose by them; nothing is used up.

What does not live here: how messages become attributes (`edgerm.wire.codec.infos`), how one chooses (`constraints`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import NamedTuple, TypeAlias

AttributeValue: TypeAlias = str | float | tuple[str | tuple[int, int], ...]
"""TEXT, SCALAR; RANGES as pairs, first and last; SET as its items in order."""


class Attribute(NamedTuple):
    """One thing that an agent says of itself. A name may stand several times; then the first one counts (Mesos)."""

    name: str
    value: AttributeValue


@lru_cache(maxsize=16384)
def attribute(name: str, value: AttributeValue) -> Attribute:
    """The attribute; equal ones are one object, for a fleet says the same few things thousands of times."""
    return Attribute(name, value)


def by_name(attributes: Iterable[Attribute]) -> Mapping[str, AttributeValue]:
    """The value of each name; of a name that stands several times the first counts."""
    return MappingProxyType(dict(reversed(tuple(attributes))))


def texts(value: AttributeValue) -> tuple[str, ...]:
    """What a person would write for it: a text or a number, each item of a set, each range as `1-3`."""
    if isinstance(value, str):
        return (value,)
    if isinstance(value, float):
        return (number_text(value),)
    return tuple(part if isinstance(part, str) else f"{part[0]}-{part[1]}" for part in value)


def number_text(value: float) -> str:
    """The shortest text of a scalar, with three decimals at most: `7`, `0.5`."""
    return f"{value:.3f}".rstrip("0").rstrip(".")
