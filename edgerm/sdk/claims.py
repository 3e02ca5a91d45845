"""Claims as people write them: `siemens.com/isolated_core=2`, mappings as in `x-resources` of a compose file.

What does not live here: YAML (`claimfile`), which claims are well formed (`edgerm.core.claims`), which devices fit.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from difflib import get_close_matches
from typing import Any, TypeAlias

from edgerm.core.claims import COUNT_MAX, EXPRESSIONS_MAX, Claim, Expression, check_all, expression, json_text, shown
from edgerm.core.errors import Invalid

Claims: TypeAlias = "Mapping[str, Any] | Iterable[str | Claim | Mapping[str, Any]]"
"""Texts `CLASS` or `CLASS=COUNT`, `Claim` values, definitions with a `name` and a `count` beside what those of
`x-resources` have; or one mapping `{"definitions": …, "limits": …}`."""

FORMS = "write CLASS=COUNT, such as siemens.com/isolated_core=2"
DEFINITIONS_MAX = 256
_PARTS = ("definitions", "limits")
_OF_DEFINITION = ("type", "matchExpressions", "shared", "optional", "config")
_OF_EXPRESSION = ("key", "operator", "values")
_COUNT = re.compile(r"[0-9]{1,9}")


def claims_from(given: Claims) -> tuple[Claim, ...]:
    """The claims of a task, from any of the forms. Raises `Invalid`, naming the claim."""
    if isinstance(given, Mapping):
        return x_resources(given)
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise Invalid(f"claims are a list, or a mapping with limits, not {shown(given)}")
    return check_all(map(_claim, given))


def parse_claim(text: str) -> tuple[str, int]:
    """`NAME=COUNT`, or `NAME` for one. Raises `Invalid`."""
    name, equals, count = text.rpartition("=")
    if not equals:
        name, count = text, "1"
    if not name or not _COUNT.fullmatch(count):
        raise Invalid(f"{text[:80]!r} is no claim: {FORMS}")
    return name, int(count)


def x_resources(given: object, more: Mapping[str, int] | None = None) -> tuple[Claim, ...]:
    """The claims of an `x-resources` mapping: one for each of its limits, in their order.

    `more`: further limits; of a name that both have, these count. Raises `Invalid`, naming the place and the value.
    """
    parts = _mapping("x-resources", given, _PARTS)
    definitions = _named("definitions", parts.get("definitions"))
    limits = {**_named("limits", parts.get("limits")), **(more or {})}
    if len(definitions) > DEFINITIONS_MAX:
        raise Invalid(f"definitions: {len(definitions)} of them, at most {DEFINITIONS_MAX} are allowed")
    known = {name: _definition(f"definitions.{name[:80]}", name, found) for name, found in definitions.items()}
    return check_all(_limited(name, count, known) for name, count in limits.items())


def _limited(name: str, count: object, known: Mapping[str, Claim]) -> Claim:
    if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count <= COUNT_MAX:
        raise Invalid(f"limits.{name[:80]}: {shown(count)} is no whole number from 0 to {COUNT_MAX}")
    found = known.get(name) or Claim(name, name)
    return Claim(name, found.type, count, found.expressions, found.shared, found.optional, found.config)


def _claim(given: object) -> Claim:
    if isinstance(given, Claim):
        return given
    if isinstance(given, str):
        text, count = parse_claim(given)
        return Claim(text, text, count)
    if not isinstance(given, Mapping):
        raise Invalid(f"{shown(given)} is no claim: {FORMS}, or a mapping with a type")
    name = given.get("name") or given.get("type")
    if not isinstance(name, str):
        raise Invalid(f"claim {shown(name)}: its name is no text")
    own = {key: value for key, value in given.items() if key not in ("name", "count")}
    return _limited(name, given.get("count", 1), {name: _definition(f"claim {shown(name)}", name, own)})


def _definition(place: str, name: str, given: object) -> Claim:
    found = _mapping(place, given, _OF_DEFINITION)
    kind = found.get("type")
    if not isinstance(kind, str) or not kind:
        raise Invalid(f"{place}.type: {shown(kind)} is no class of devices")
    config = found.get("config")
    if config is not None and not isinstance(config, Mapping):
        raise Invalid(f"{place}.config: {shown(config)} is no mapping")
    return Claim(
        name,
        kind,
        expressions=_expressions(f"{place}.matchExpressions", found.get("matchExpressions")),
        shared=_switch(f"{place}.shared", found.get("shared")),
        optional=bool(_switch(f"{place}.optional", found.get("optional"))),
        config=json_text(f"{place}.config", config) if config else "",
    )


def _expressions(place: str, given: object) -> tuple[Expression, ...]:
    if given is None:
        return ()
    if not isinstance(given, list | tuple) or len(given) > EXPRESSIONS_MAX:
        raise Invalid(f"{place}: {shown(given)} is no list of at most {EXPRESSIONS_MAX} expressions")
    found = []
    for number, one in enumerate(given):
        here = f"{place}[{number}]"
        parts = _mapping(here, one, _OF_EXPRESSION)
        try:
            found.append(expression(parts.get("key"), parts.get("operator"), parts.get("values")))
        except Invalid as error:
            raise Invalid(f"{here}: {error}") from None
    return tuple(found)


def _switch(place: str, given: object) -> bool | None:
    if given is not None and not isinstance(given, bool):
        raise Invalid(f"{place}: {shown(given)} is neither true nor false")
    return given


def _mapping(place: str, given: object, known: Collection[str]) -> Mapping[str, object]:
    found = _named(place, given)
    for name in found:
        if name not in known:
            near = get_close_matches(name[:40], known, 1)
            meant = f"is {near[0]!r} meant?" if near else f"there are {', '.join(known)}"
            raise Invalid(f"{place}: there is no {name[:40]!r}; {meant}")
    return found


def _named(place: str, given: object) -> Mapping[str, object]:
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise Invalid(f"{place}: {shown(given)} is no mapping")
    for name in given:
        if not isinstance(name, str) or not name:
            raise Invalid(f"{place}: {shown(name)} is no name; a name is a text, in quotes if need be")
    return given
