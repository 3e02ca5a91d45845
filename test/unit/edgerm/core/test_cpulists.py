"""CPU lists: read as the kernel writes them, and nothing else is."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edgerm.core import cpulists
from edgerm.core.errors import Invalid

NUMBERS = st.sets(st.integers(0, cpulists.CPUS_MAX - 1), max_size=64)


@given(NUMBERS)
def test_a_list_is_read_back(numbers: set[int]) -> None:
    """What `to_text` writes, `parse` reads: the same numbers, ascending."""
    assert cpulists.parse(cpulists.to_text(numbers)) == tuple(sorted(numbers))


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 300)).map(sorted), max_size=12))
def test_ranges_may_overlap_and_come_in_any_order(ranges: list[list[int]]) -> None:
    """Every number of every range is there once, whatever the order of the ranges."""
    text = ",".join(f"{first}-{last}" for first, last in ranges)
    assert cpulists.parse(text) == tuple(sorted({n for first, last in ranges for n in range(first, last + 1)}))


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("", ()), ("0", (0,)), ("0,2-4", (0, 2, 3, 4)), ("3-3", (3,)), ("2,1,1", (1, 2)), ("007", (7,))],
)
def test_lists(text: str, numbers: tuple[int, ...]) -> None:
    """Numbers and ranges with commas between."""
    assert cpulists.parse(text) == numbers


@pytest.mark.parametrize(("numbers", "text"), [((), ""), ((6, 2, 3), "2-3,6"), ((0, 1, 2), "0-2"), ((1, 3), "1,3")])
def test_texts(numbers: tuple[int, ...], text: str) -> None:
    """The shortest list is written: ranges where numbers follow each other."""
    assert cpulists.to_text(numbers) == text


@pytest.mark.parametrize(
    "text",
    [
        *("4-2", "1,", ",1", "1,,2", "+1", "-1", " 1", "1 ", "1\n", "1_0", "1-", "-", "a", "0x1", "1-2-3", "٣", "*"),
        *("0-7:2/4", "8192", "0-999999999", "0-99999999999999999999"),
        pytest.param("9" * 5000, id="many digits"),
        pytest.param("," * 70_000, id="many commas"),
    ],
)
def test_what_is_no_list(text: str) -> None:
    """Descending, empty, signed, blank, foreign digits, and numbers too high: refused, before anything grows."""
    with pytest.raises(Invalid, match="CPU list"):
        cpulists.parse(text)


@given(st.text(st.characters(codec="utf-8"), max_size=12) | st.text("0123456789,- +_", max_size=12))
@example("1\n")
def test_a_text_is_a_list_or_refused(text: str) -> None:
    """Any text is read as numbers, or refused with `Invalid`; what is read is made of digits, commas and dashes."""
    try:
        numbers = cpulists.parse(text)
    except Invalid:
        return
    assert set(text) <= set("0123456789,-")
    assert numbers == tuple(sorted(set(numbers)))


def test_many_overlapping_ranges_cost_little() -> None:
    """A text of thousands of whole ranges is not expanded thousands of times."""
    text = ",".join(["0-8191"] * 9000)
    assert len(cpulists.parse(text)) == cpulists.CPUS_MAX


def test_indices_mean_the_tasks_cpus() -> None:
    """An index counts the task's isolated CPUs from 0."""
    assert cpulists.pick("0,2-3", (4, 6, 9, 11)) == (4, 9, 11)


@pytest.mark.parametrize(
    ("text", "why"), [("4", "beyond the 4"), ("0-4", "beyond"), ("", "empty"), ("3-2", "descends")]
)
def test_indices_beyond_are_refused(text: str, why: str) -> None:
    """An index that the task has no CPU for is refused, and so is no index at all."""
    with pytest.raises(Invalid, match=why):
        cpulists.pick(text, (4, 6, 9, 11))
