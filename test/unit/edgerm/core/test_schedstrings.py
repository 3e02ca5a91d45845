"""Scheduling strings: which are ones, and what the kernel is told."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgerm.core import schedstrings
from edgerm.core.errors import Invalid
from edgerm.core.schedstrings import Policy, Scheduling


@given(st.sampled_from(Policy), st.integers(0, 99), st.integers(0, 4))
def test_a_string_is_read_back(policy: Policy, priority: int, zeros: int) -> None:
    """Every policy with every priority is written and read, with leading zeros too."""
    text = str(Scheduling(policy, priority))
    assert schedstrings.parse(text[0] + "0" * zeros + text[1:]) == Scheduling(policy, priority)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "f100",
            "F51",
            "51",
            "f",
            " f51",
            "f51\n",
            "f51 ",
            "d5",
            "",
            "f-1",
            "f+1",
            "f1_0",
            "f٣",
            "f5f",
            "ff5",
            51,
            None,
        ),
        pytest.param("f" + "9" * 5000, id="many digits"),
    ],
)
def test_what_is_none(text: object) -> None:
    """Everything else is refused, whatever Python would take as a number."""
    with pytest.raises(Invalid):
        schedstrings.parse(text)


@given(st.text(max_size=6) | st.from_regex(r"[fbroidFB][0-9]{0,4}", fullmatch=True))
def test_a_text_is_one_or_refused(text: str) -> None:
    """What is read has a priority of 0 to 99 and begins with its policy's letter; all else is refused."""
    try:
        found = schedstrings.parse(text)
    except Invalid:
        return
    assert 0 <= found.priority <= 99
    assert str(found)[0] == text[0]


@pytest.mark.parametrize(
    ("text", "applied"), [("f51", "f51"), ("r99", "r99"), ("o7", "o0"), ("b3", "b0"), ("i1", "i0"), ("o0", "o0")]
)
def test_the_kernel_takes_priority_0_where_it_means_nothing(text: str, applied: str) -> None:
    """Only FIFO and RR keep their priority."""
    assert str(schedstrings.parse(text).applied) == applied


@pytest.mark.parametrize("text", ["f0", "r0", "f00"])
def test_no_real_time_without_priority(text: str) -> None:
    """`f0` and `r0` are strings, but cannot be applied."""
    scheduling = schedstrings.parse(text)
    with pytest.raises(Invalid, match="1 to 99"):
        _ = scheduling.applied


def test_the_numbers_are_the_kernels() -> None:
    """The policies have the numbers that this system has for them."""
    assert [int(policy) for policy in Policy] == [
        os.SCHED_OTHER,
        os.SCHED_FIFO,
        os.SCHED_RR,
        os.SCHED_BATCH,
        os.SCHED_IDLE,
    ]
