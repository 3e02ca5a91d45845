"""Attributes: what the operator says of a box, and what it enforces by itself. Pure.

How an attribute's value becomes a scalar, ranges, a set or text is known to `edgerm.wire.codec.infos`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from edgerm.core.errors import Invalid

OURS = "edgerm."
ATTRIBUTES_MAX = 100
VALUE_CHARACTERS_MAX = 1000
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.\-/]{0,254}")


def parse(text: str) -> dict[str, str]:
    """`zone:a;line:7;floors:[1-3];caps:{gpio,can}` by name; raises `Invalid`, naming the part that is wrong."""
    found: dict[str, str] = {}
    for part in filter(None, (piece.strip() for piece in text.split(";"))):
        name, colon, value = (piece.strip() for piece in part.partition(":"))
        if not colon or not _NAME.fullmatch(name) or not value:
            raise Invalid(f"attribute {part[:80]!r} is not NAME:VALUE, as in zone:a or line:7")
        if name.startswith(OURS):
            raise Invalid(f"attribute {name!r}: names that begin with {OURS!r} are the agent's own: choose another")
        if name in found:
            raise Invalid(f"attribute {name!r} is given twice")
        if len(value) > VALUE_CHARACTERS_MAX or not value.isprintable():
            raise Invalid(f"attribute {name!r} has a value that is too long or not printable: {value[:40]!r}")
        found[name] = value
    if len(found) > ATTRIBUTES_MAX:
        raise Invalid(f"{len(found)} attributes, at most {ATTRIBUTES_MAX} are allowed")
    return found


def told(
    given: Mapping[str, str], enforced: Mapping[str, Mapping[str, str]], box: Mapping[str, str] = MappingProxyType({})
) -> dict[str, str]:
    """What the box says of itself, the operator's attributes, the executors, and what holds their tasks to each limit.

    `box`: such as `arch`; the operator's word counts more.
    `enforced`: by executor, by resource ("cpus", "mem", "disk"), as `Inspection.enforced` says it.
    """
    ours = {f"{OURS}executors": "{" + ",".join(sorted(enforced)) + "}"}
    for executor, limits in enforced.items():
        for resource, holder in limits.items():
            ours[f"{OURS}limit.{executor}.{resource}"] = holder
    return {**box, **given, **dict(sorted(ours.items()))}
