"""What filters mean, row by row."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgerm.core import metadata
from edgerm.core.claims import Expression, Operator, expression
from edgerm.core.errors import Invalid
from edgerm.core.filters import Table, evaluate

ERROR = "error"
OPERATORS = ("In", "NotIn", "Contains", "NotContains")
LISTED = ["avx512f", "sse"]
OBJECT = {"foo": 123, "foobar": 42}

ROWS: list[tuple[str, object, list[object], tuple[object, object, object, object]]] = [
    ("text among texts", "x86_64", ["x86_64", "i386"], (True, False, ERROR, ERROR)),
    ("text not among texts", "arm", ["x86_64", "i386"], (False, True, ERROR, ERROR)),
    ("text: its case counts", "X86_64", ["x86_64"], (False, True, ERROR, ERROR)),
    ("text: no part of it", "x86_64", ["x86"], (False, True, ERROR, ERROR)),
    ("text and numbers", "4", [4], (False, True, ERROR, ERROR)),
    ("number", 4, [3, 4], (True, False, ERROR, ERROR)),
    ("number: whole or not", 4, [4.0], (True, False, ERROR, ERROR)),
    ("number: not or whole", 4.0, [4], (True, False, ERROR, ERROR)),
    ("number: another", 4.5, [4], (False, True, ERROR, ERROR)),
    ("number and texts", 4, ["4"], (False, True, ERROR, ERROR)),
    ("0 and false", 0, [False], (False, True, ERROR, ERROR)),
    ("1 and true", 1, [True], (False, True, ERROR, ERROR)),
    ("texts: all of them there", LISTED, ["sse", "avx512f"], (False, True, True, False)),
    ("texts: one of two there", LISTED, ["sse", "mmx"], (False, True, False, False)),
    ("texts: none there", LISTED, ["mmx"], (False, True, False, True)),
    ("texts: an element is compared whole", LISTED, ["avx512"], (False, True, False, True)),
    ("numbers", [2, 3], [3.0], (False, True, True, False)),
    ("numbers: another", [2, 3], [4], (False, True, False, True)),
    ("numbers: 1 is not true", [0, 1], [True], (False, True, False, True)),
    ("texts and numbers", ["2", "3"], [3], (False, True, False, True)),
    ("numbers and texts", [2, 3], ["3"], (False, True, False, True)),
    ("list and lists: equal", [2, 3], [[2, 3.0]], (True, False, False, True)),
    ("list and lists: in order", [2, 3], [[3, 2]], (False, True, False, True)),
    ("list of lists", [[1], [2, 3]], [[2, 3]], (False, True, True, False)),
    ("list of maps: there", [{"a": 1}, {"b": 2}], [{"b": 2.0}], (False, True, True, False)),
    ("list of maps: no sub-map", [{"a": 1, "b": 2}], [{"b": 2}], (False, True, False, True)),
    ("map and texts: a key", OBJECT, ["foo"], (False, True, True, False)),
    ("map and texts: one of two keys", OBJECT, ["foo", "bar"], (False, True, False, False)),
    ("map and texts: no key", OBJECT, ["bar", "__class__", "keys"], (False, True, False, True)),
    ("map and maps: equal", OBJECT, [{"foobar": 42, "foo": 123}], (True, False, True, False)),
    ("map and maps: a sub-map", OBJECT, [{"foo": 123}], (False, True, True, False)),
    ("map and maps: another value", OBJECT, [{"foo": 124}], (False, True, False, True)),
    ("map and maps: a text for a number", OBJECT, [{"foo": "123"}], (False, True, False, True)),
    ("map and maps: one pair of two", OBJECT, [{"foo": 123, "bar": 1}], (False, True, False, True)),
    ("map and maps: a nested value is whole", {"a": {"b": 1, "c": 2}}, [{"a": {"b": 1}}], (False, True, False, True)),
    ("map and a number", OBJECT, [123], (False, True, ERROR, ERROR)),
    ("map and a list", OBJECT, [["foo"]], (False, True, ERROR, ERROR)),
    ("map: a number among texts", OBJECT, ["bar", 123], (False, True, ERROR, ERROR)),
    ("map, mixed: all hold", OBJECT, ["foo", {"foobar": 42}], (False, True, True, False)),
    ("map, mixed: one holds", OBJECT, ["bar", {"foobar": 42}], (False, True, False, False)),
    ("map, mixed: none holds", OBJECT, ["bar", {"foobar": 43}], (False, True, False, True)),
    ("no values: text", "a", [], (False, True, ERROR, ERROR)),
    ("no values: number", 1, [], (False, True, ERROR, ERROR)),
    ("no values: list", ["a"], [], (False, True, True, True)),
    ("no values: map", OBJECT, [], (False, True, True, True)),
]
CELLS = [
    pytest.param(value, values, operator, cell, id=f"{name}, {operator}")
    for name, value, values, cells in ROWS
    for operator, cell in zip(OPERATORS, cells, strict=True)
]


def asked(key: str, operator: str, values: list[object], known: dict[str, Any]) -> bool:
    """What becomes of a filter as people write it."""
    return evaluate(expression(key, operator, values), metadata.to_text(known))


@pytest.mark.parametrize(("value", "values", "operator", "cell"), CELLS)
def test_the_truth_table(value: object, values: list[object], operator: str, cell: object) -> None:
    """Each cell of the table is as it says; what cannot be asked is refused with the key and the operator."""
    if cell == ERROR:
        with pytest.raises(Invalid, match=f"{operator} .*'k'"):
            asked("k", operator, values, {"k": value})
    else:
        assert asked("k", operator, values, {"k": value}) is cell


@pytest.mark.parametrize("values", [["a"], [4], [{"a": 1}], [["a"]], []])
@pytest.mark.parametrize(("operator", "cell"), [*zip(OPERATORS, (False, True, False, True), strict=True)])
def test_a_key_that_is_missing(operator: str, cell: bool, values: list[object]) -> None:
    """Whatever the values are, nothing is in what is not there."""
    assert asked("k", operator, values, {"other": 1}) is cell
    assert asked("other.k", operator, values, {"other": 1}) is cell
    assert asked("other.k", operator, values, {"other": ["k"]}) is cell
    assert asked("k", operator, values, {}) is cell


@pytest.mark.parametrize(
    ("key", "operator", "values"),
    [
        ("lscpu.CPU max MHz", "In", ["4800.0000"]),
        ("cpuinfo.core id", "In", [3]),
        ("lscpu", "Contains", ["CPU max MHz"]),
        ("lscpu", "In", [{"CPU max MHz": "4800.0000"}]),
        ("a.b.c", "Contains", ["d"]),
    ],
)
def test_dotted_keys(key: str, operator: str, values: list[object]) -> None:
    """Dots go into objects, a segment may hold blanks, and a key may end at an object."""
    known = {"lscpu": {"CPU max MHz": "4800.0000"}, "cpuinfo": {"core id": 3}, "a": {"b": {"c": ["d"]}}}
    assert asked(key, operator, values, known)


@pytest.mark.parametrize("key", ["lscpu.", ".lscpu", "lscpu..Architecture", "lscpu.architecture", "lscpu Architecture"])
def test_keys_that_lead_nowhere(key: str) -> None:
    """A key is taken as it is written: no case is changed, no empty segment left out."""
    assert not asked(key, "In", ["x86_64"], {"lscpu": {"Architecture": "x86_64"}})


VALUES = st.recursive(
    st.booleans() | st.integers(-2, 2) | st.sampled_from([0.0, 1.0, 1.5]) | st.sampled_from(["", "a", "b", "1"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=5,
)
KNOWN = st.recursive(
    st.integers(-2, 2) | st.sampled_from([0.0, 1.0, 1.5]) | st.sampled_from(["", "a", "b", "1"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=5,
)


def canonical(value: object) -> object:
    """A value as something that only its equals equal: numbers apart from booleans, 4 and 4.0 alike."""
    if isinstance(value, bool):
        return ("boolean", object())
    if isinstance(value, list):
        return ("list", tuple(map(canonical, value)))
    if isinstance(value, dict):
        return ("map", tuple(sorted((key, canonical(inner)) for key, inner in value.items())))
    return ("text", value) if isinstance(value, str) else ("number", float(value))  # type: ignore[arg-type]


def reference(operator: str, value: object, values: list[object]) -> object:
    """The table once more, without a thought of speed."""
    if operator == "In":
        return canonical(value) in [canonical(one) for one in values]
    if operator == "NotIn":
        return not reference("In", value, values)
    if isinstance(value, list):
        found = [canonical(one) in [canonical(part) for part in value] for one in values]
    elif isinstance(value, dict) and all(isinstance(one, str | dict) for one in values):
        found = [
            one in value
            if isinstance(one, str)
            else all(key in value and canonical(value[key]) == canonical(inner) for key, inner in one.items())  # type: ignore[attr-defined]
            for one in values
        ]
    else:
        return ERROR
    return all(found) if operator == "Contains" else not any(found)


@given(KNOWN, st.lists(VALUES, max_size=3), st.sampled_from(OPERATORS))
def test_filters_are_as_a_plain_reading_of_the_table(value: object, values: list[object], operator: str) -> None:
    """For any metadata and any values the answer is the table's."""
    try:
        found: object = asked("k", operator, values, {"k": value})
    except Invalid:
        found = ERROR
    assert found == reference(operator, value, values)


@given(st.lists(st.dictionaries(st.sampled_from("kl"), st.integers(0, 2), max_size=2), max_size=6))
def test_a_table_says_what_evaluate_says(devices: list[dict[str, int]]) -> None:
    """All devices at once, several filters at once: as one by one."""
    texts = list(map(metadata.to_text, devices))
    filters = [expression("k", "In", [0, 1]), expression("l", "NotIn", [1])]
    table = Table(texts)
    passing = table.passing("we", filters)
    assert [passing[row] for row in table.rows] == [all(evaluate(one, text) for one in filters) for text in texts]


def test_an_error_does_not_hang_on_the_order_of_filters() -> None:
    """A filter that cannot be asked is refused although another one fails on the same device."""
    wrong, fails = expression("k", "Contains", ["a"]), expression("k", "In", ["b"])
    for filters in ([wrong, fails], [fails, wrong]):
        with pytest.raises(Invalid, match=r"^claim 'c': Contains cannot be asked of 'k'"):
            Table([json.dumps({"k": "a"})]).passing("claim 'c'", filters)


def test_large_numbers_are_not_rounded() -> None:
    """A whole number that no double holds is itself, and not its neighbour."""
    assert not evaluate(Expression("k", Operator.IN, "[9007199254740993]"), '{"k":9007199254740992.0}')
    assert evaluate(Expression("k", Operator.IN, "[9007199254740993]"), '{"k":9007199254740993}')
