"""What a claim's filters mean: the truth table of `In`, `NotIn`, `Contains`, `NotContains` (docs/devices.md).

Nothing is converted: the number 4 is 4.0 but not "4", and no boolean is a number. What does not live here: which filter
is well formed (`claims`), who gets the devices that pass (`matching`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, TypeAlias

from edgerm.core.claims import Expression, Operator, values_of
from edgerm.core.errors import Invalid
from edgerm.core.metadata import read


class _Missing:
    """What is at a key that is not there."""


MISSING: Final = _Missing()
_PLAIN = frozenset({str, int, float})  # and bool is none of them
Predicate: TypeAlias = Callable[[object], bool]
"""Whether a filter holds of what is at its key; raises `Invalid` if it cannot be asked of that."""


@dataclass(frozen=True, slots=True)
class _Listed:
    """A list of metadata, ready to be searched many times."""

    whole: list[object]
    plain: frozenset[object]  # its texts and numbers, whose 4 is 4.0
    others: tuple[object, ...]


def evaluate(expression: Expression, metadata: str) -> bool:
    """Whether the filter holds of a device's metadata, as the text that it is kept as.

    Raises `Invalid` where it cannot be asked: Contains and NotContains of what is neither a list nor an object, or of
    an object with entries that are neither texts nor objects.
    """
    return predicate(expression)(_at(read(metadata), expression.key.split(".")))


class Table:
    """Metadata of many devices, for many filters: each different text is a row, in which a key is looked up once."""

    def __init__(self, texts: Iterable[str]) -> None:
        """One text for each device."""
        rows: dict[str, int] = {}
        self.rows = [rows.setdefault(text, len(rows)) for text in texts]
        """By device: its row."""
        self._metadata = [read(text) for text in rows]
        self._columns: dict[str, tuple[list[object], list[int]]] = {}  # by key: the values, and by row: which of them

    def passing(self, who: str, expressions: Iterable[Expression]) -> list[bool]:
        """By row: whether all filters hold. All are asked of all, so that an error does not hang on their order.

        Raises `Invalid` as `evaluate`, naming `who` asks.
        """
        passing = [True] * len(self._metadata)
        for expression in expressions:
            values, by_row = self._column(expression.key)
            try:
                found = [*map(predicate(expression), values)]
            except Invalid as error:
                raise Invalid(f"{who}: {error}") from None
            if False in found:
                passing = [before and found[value] for before, value in zip(passing, by_row, strict=True)]
        return passing

    def _column(self, key: str) -> tuple[list[object], list[int]]:
        column = self._columns.get(key)
        if column is None:
            segments = key.split(".")
            numbers: dict[object, int] = {}
            values: list[object] = []
            by_row = []
            for metadata in self._metadata:
                value = _at(metadata, segments)
                number = numbers.setdefault(_name(value), len(values))
                if number == len(values):
                    values.append(value)
                by_row.append(number)
            column = self._columns[key] = (values, by_row)
        return column


def _at(metadata: Mapping[str, object], segments: Iterable[str]) -> object:
    found: object = metadata
    for segment in segments:
        if not isinstance(found, Mapping) or segment not in found:
            return MISSING
        found = found[segment]
    return _Listed(found, *_sorted_out(found)) if isinstance(found, list) else found


def _name(value: object) -> object:
    """The same for what is the same: a value itself, or a text for one that cannot be a key."""
    if isinstance(value, _Listed):
        return list, repr(value.whole)
    return (dict, repr(value)) if isinstance(value, dict) else value


@lru_cache(maxsize=512)
def predicate(expression: Expression) -> Predicate:
    """The filter, ready to be asked of many values."""
    values = values_of(expression)
    if expression.operator in (Operator.IN, Operator.NOT_IN):
        return _in(values, expression.operator is Operator.IN)
    return _contains(expression, values)


def _in(values: list[object], wanted: bool) -> Predicate:
    """Whether it is `wanted` that the whole value is one of these."""
    plain, others = _sorted_out(values)

    def holds(value: object) -> bool:
        if type(value) in _PLAIN:
            return (value in plain) is wanted
        if not others:
            return not wanted
        whole = value.whole if isinstance(value, _Listed) else value
        return any(same(whole, other) for other in others) is wanted

    return holds


def _contains(expression: Expression, values: list[object]) -> Predicate:
    """Whether every one of these is in the value, or, for NotContains, whether none is."""
    all_of_them = expression.operator is Operator.CONTAINS
    plain, others = _sorted_out(values)

    def in_list(value: _Listed) -> bool:
        holds = plain <= value.plain if all_of_them else plain.isdisjoint(value.plain)
        if not (holds and others):
            return holds
        found = (any(same(one, part) for part in value.others) for one in others)
        return all(found) if all_of_them else not any(found)

    def in_map(value: Mapping[str, object]) -> bool:
        found = []
        for entry in values:
            if isinstance(entry, str):
                found.append(entry in value)
            elif isinstance(entry, dict):
                found.append(all(key in value and same(value[key], inner) for key, inner in entry.items()))
            else:
                told = f"{_kind(entry)} {entry!r:.40}"
                raise Invalid(_refusal(expression, f"an object, which holds no {told} but keys and pairs"))
        return all(found) if all_of_them else not any(found)

    def holds(value: object) -> bool:
        if isinstance(value, _Listed):
            return in_list(value)
        if isinstance(value, dict):
            return in_map(value)
        if value is MISSING:
            return not all_of_them
        raise Invalid(_refusal(expression, f"the {_kind(value)} {value!r:.40}, neither a list nor an object"))

    return holds


def _refusal(expression: Expression, there: str) -> str:
    return f"{expression.operator.value} cannot be asked of {expression.key[:80]!r}: there is {there}"


def _sorted_out(values: list[object]) -> tuple[frozenset[object], tuple[object, ...]]:
    """Texts and numbers as a set, whose 4 is 4.0; lists, objects, and what no metadata has, as they are."""
    if _PLAIN.issuperset(map(type, values)):
        return frozenset(values), ()
    plain: list[object] = []
    others: list[object] = []
    for value in values:
        (plain if type(value) in _PLAIN else others).append(value)
    return frozenset(plain), tuple(others)


def same(one: object, other: object) -> bool:
    """Whether two values are equal, down to their last parts; a boolean equals nothing, for it is no metadata."""
    if isinstance(one, bool) or isinstance(other, bool):
        return False
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    return one is not None and one == other


def _kind(value: object) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, str):
        return "text"
    return "list" if isinstance(value, list) else "object" if isinstance(value, dict) else "number"
