"""The sample framework's own parts: its series, its progress, its table."""

from __future__ import annotations

import pytest

from edgerm_frameworks.sensor_fan_out import Row, main, series, show_progress, show_table


def test_a_series_is_always_the_same_and_fits_the_module() -> None:
    """Results can be compared between runs, and every sample has at most nine digits."""
    assert series(3, 500) == series(3, 500)
    assert series(3, 500) != series(4, 500)
    assert all(0 < value < 10**9 for value in series(5, 5000))


def test_progress_away_from_a_terminal_is_a_few_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """A log gets no bar, and always the last count."""
    for done in range(1, 101):
        show_progress(done, 100)
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["  25/100 sensors", "  50/100 sensors", "  75/100 sensors", "  100/100 sensors"]


def test_a_wrong_result_stands_out(capsys: pytest.CaptureFixture[str]) -> None:
    """The table says which sensor is wrong and what its task said."""
    good = Row("sensor00", 10, 2, "1.0", "2.0", True, 0.1, "agent", "unused")
    show_table([good, Row("sensor01", 10, 0, "-", "-", False, 0.1, "agent", "out of memory")])
    _, first, second = capsys.readouterr().out.splitlines()
    assert "right" in first and "unused" not in first
    assert "WRONG" in second and "out of memory" in second


def test_without_a_master_it_fails_with_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """No traceback for what a person can mend."""
    assert main("http://127.0.0.1:1") == 1
    assert capsys.readouterr().err.splitlines()[0].startswith("sensor_fan_out: cannot reach http://127.0.0.1:1")
