"""The pace of what may be sent, on virtual time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edgerm.core.pace import Pace

STEPS = st.lists(
    st.tuples(st.floats(-1.0, 10.0), st.integers(0, 20_000), st.integers(1, 5_000)), min_size=1, max_size=50
)


@given(st.floats(10.0, 1e6), st.integers(1, 10_000), STEPS)
def test_no_more_than_burst_and_rate(bytes_s: float, burst_bytes: int, steps: list[tuple[float, int, int]]) -> None:
    """Whatever is asked when, all that was given is at most the burst and the rate's share of the time that passed."""
    pace = Pace(bytes_s, burst_bytes, 5.0)
    now_s = latest_s = 5.0
    given_bytes = 0
    for wait_s, wanted, least in steps:
        now_s += wait_s  # a clock that goes back gives nothing twice
        latest_s = max(latest_s, now_s)
        part = pace.take(wanted, least, now_s)
        given_bytes += part
        assert part == 0 or min(wanted, least, burst_bytes) <= part <= wanted
        assert given_bytes <= burst_bytes + bytes_s * (latest_s - 5.0) + 1e-3


@given(st.floats(10.0, 1e6), st.integers(1, 10_000), STEPS, st.integers(1, 20_000))
def test_the_wait_suffices(
    bytes_s: float, burst_bytes: int, steps: list[tuple[float, int, int]], least_bytes: int
) -> None:
    """After `wait_s` so many bytes, or the burst, may go: nobody waits for ever."""
    pace = Pace(bytes_s, burst_bytes, 0.0)
    now_s = 0.0
    for wait_s, wanted, least in steps:
        now_s += max(0.0, wait_s)
        pace.take(wanted, least, now_s)
    now_s += pace.wait_s(least_bytes, now_s) + 1e-6
    assert pace.take(least_bytes, least_bytes, now_s) >= min(least_bytes, burst_bytes)


def test_a_pace_on_a_clock() -> None:
    """Eight kilobytes a second, four of them at once."""
    pace = Pace(8192, 4096, 100.0)
    assert pace.take(10_000, 2048, 100.0) == 4096
    assert pace.take(10_000, 2048, 100.1) == 0
    assert abs(pace.wait_s(2048, 100.1) - 0.15) < 1e-9
    assert pace.take(10_000, 2048, 100.25) == 2048
    assert pace.take(10_000, 2048, 1000.0) == 4096
