"""The real cores under faults: every seed must hold."""

from __future__ import annotations

import pytest

from edgerm.testing.sim.suite import Outcome, run_seed

SEEDS = 400  # `make sim` plays more
EVENTS_MIN = 300


@pytest.mark.parametrize("first", range(0, SEEDS, 100))
def test_seeds_hold(first: int) -> None:
    """Whatever is lost, cut or crashed, a task ends once, its framework knows, output comes whole, no
    message comes twice or too late, nothing leaks."""
    outcomes = [run_seed(seed) for seed in range(first, first + 100)]
    assert [str(outcome) for outcome in outcomes if outcome.problem] == []
    assert all(outcome.events >= EVENTS_MIN for outcome in outcomes)
    assert sum(outcome.tasks for outcome in outcomes) > 200
    assert sum(outcome.output_bytes for outcome in outcomes) > 50_000
    assert sum(outcome.messages for outcome in outcomes) > 200


def test_same_seed_same_story() -> None:
    """A seed tells the same story each time: that is what makes a failure reproducible."""
    assert run_seed(7) == run_seed(7)


def test_outcome_tells_replay() -> None:
    """A failing seed prints the command that plays it again."""
    told = str(Outcome(42, 300, 60.0, 3, "task t was started 2 times"))
    assert "task t was started 2 times" in told
    assert "python -m edgerm.testing.sim --seed 42" in told
