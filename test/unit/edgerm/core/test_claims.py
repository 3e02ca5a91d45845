"""Which claims are well formed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgerm.core.claims import (
    CLAIMS_MAX,
    COUNT_MAX,
    Claim,
    Expression,
    Operator,
    check,
    check_all,
    expression,
    json_text,
    shown,
    values_of,
)
from edgerm.core.errors import Invalid

CLAIM = Claim("fast", "siemens.com/isolated_core")


@pytest.mark.parametrize(
    ("key", "operator", "values", "words"),
    [
        ("k", "in", [], "'in' is none of In, NotIn, Contains, NotContains"),
        ("k", "IN", [], "'IN' is none of"),
        ("k", " In", [], "none of"),
        ("k", None, [], "operator None"),
        ("k", ["In"], [], "operator a list of 1"),
        ("k", "In", None, "values None are no list"),
        ("k", "In", "ab", "values 'ab' are no list"),
        ("k", "In", {"a": 1}, "values a mapping of 1 are no list"),
        ("k", "In", [None], "None is no text, number, boolean, list or mapping"),
        ("k", "In", [float("nan")], "nan is no number"),
        ("k", "In", [{1: 2}], "key 1 is no text"),
        ("k", "In", ["\ud800"], "no Unicode text"),
        ("k", "In", [1 << 2000], "a number of 2001 bits"),
        ("k", "In", ["a"] * 257, "more than 256"),
        ("k", "In", ["a" * 17000], "more than 16384 bytes"),
        (None, "In", [], "key None"),
        ("", "In", [], "key ''"),
        (5, "In", [], "key 5"),
        ("k\n", "In", [], "control characters"),
    ],
)
def test_malformed_expressions(key: object, operator: object, values: object, words: str) -> None:
    """Each is refused with what is wrong in it."""
    with pytest.raises(Invalid) as caught:
        expression(key, operator, values)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"count": -1}, "-1 is no number of devices from 0 to 1000"),
        ({"count": COUNT_MAX + 1}, "1001 is no number"),
        ({"count": True}, "True is no number"),
        ({"count": 1.0}, "1.0 is no number"),
        ({"type": ""}, "the class of a claim is ''"),
        ({"type": "a\x00"}, "no control characters"),
        ({"type": "cpus"}, "cpus is no class of devices"),
        ({"name": "n" * 256}, "at most 255 bytes"),
        ({"config": "[]"}, "config [] is no mapping"),
        ({"config": "{"}, "is no JSON"),
        ({"config": '{"a":' * 20 + "1" + "}" * 20}, "nested deeper"),
        ({"config": "{" + " " * 20000 + "}"}, "at most 16384"),
        ({"expressions": (Expression("k", Operator.IN, "{}"),)}, "are no list"),
        ({"expressions": (Expression("k", Operator.IN, "[NaN]"),)}, "NaN is no number"),
        ({"expressions": (Expression("", Operator.IN),)}, "key is ''"),
        ({"expressions": (Expression("k", Operator.IN),) * 33}, "at most 32"),
    ],
)
def test_malformed_claims(changes: dict[str, Any], words: str) -> None:
    """Each is refused with its name, its class and what is wrong."""
    wrong = replace(CLAIM, **changes)
    with pytest.raises(Invalid) as caught:
        check(wrong)
    assert words in str(caught.value)
    assert str(caught.value).startswith(f"claim {wrong.name[:80]!r} of {wrong.type}")


def test_the_claims_of_one_task() -> None:
    """Their names differ, they are bounded, and so are the devices that they count."""
    assert check_all([CLAIM, replace(CLAIM, name="b")])[1].name == "b"
    with pytest.raises(Invalid, match=r"claim 'fast' of siemens\.com/isolated_core: another claim"):
        check_all([CLAIM, CLAIM])
    with pytest.raises(Invalid, match=f"{CLAIMS_MAX + 1} claims"):
        check_all(replace(CLAIM, name=str(number)) for number in range(CLAIMS_MAX + 1))
    with pytest.raises(Invalid, match="count 1001 devices"):
        check_all([replace(CLAIM, count=COUNT_MAX), replace(CLAIM, name="b")])


PARTS = st.recursive(
    st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)


@given(st.lists(PARTS, max_size=4))
def test_values_come_back_as_they_were(values: list[Any]) -> None:
    """What people write and what is compared with is the same."""
    try:
        found = expression("k", "In", values)
    except Invalid as error:
        assert "Unicode" in str(error)
    else:
        assert values_of(found) == values


def test_what_is_endless_is_refused() -> None:
    """YAML can write lists that hold themselves, and small texts that stand for huge values."""
    endless: list[Any] = []
    endless.append(endless)
    huge: list[Any] = ["x"]
    for _ in range(30):
        huge = [huge] * 2 if len(huge) < 3 else huge
    wide: list[Any] = [["x"] * 200] * 200
    for value in (endless, huge, wide):
        with pytest.raises(Invalid, match="nested deeper than 16, or more than 10000 parts"):
            json_text("config", {"a": value})
        assert len(shown(value)) < 100
