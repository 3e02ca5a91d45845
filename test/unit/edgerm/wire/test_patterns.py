"""Regular expressions of strangers: bounded, and linear in the text."""

from __future__ import annotations

import pytest

from edgerm.core.errors import Invalid
from edgerm.wire.patterns import check, matches


def test_the_whole_text_is_matched() -> None:
    """As Mesos does (FullMatch)."""
    assert matches("zone-[a-z]+", "zone-ab")
    assert not matches("zone-[a-z]", "zone-ab")
    assert not matches("one-ab", "zone-ab")


def test_no_expression_stalls_the_master() -> None:
    """What takes a backtracking engine years is answered at once: this test ends."""
    check("(a+)+$")
    assert not matches("(a+)+$", "a" * 20_000 + "b")


@pytest.mark.parametrize("regex", ["(", r"(a)\1", "(?=a)", "a" * 2000, "((a{10}){10}){10}", r"\w+\p{L}*"])
def test_what_costs_too_much_is_refused(regex: str) -> None:
    """What RE2 does not take, or only beyond Mesos' bounds of memory and program size, is refused in words."""
    with pytest.raises(Invalid, match="regex"):
        check(regex)


def test_mesos_own_example_is_taken() -> None:
    """The expression that Mesos documents its default bounds with."""
    regex = "192.168.(1[0-9]|3[4-7]|[1-9]|4[2-9]|[1-4][0-9]|5[3-8]|20[4-7]|53[0-5]).1"
    check(regex)
    assert matches(regex, "192.168.204.1") and not matches(regex, "192.168.209.1")
