"""A fleet in the simulator: many boxes, tasks on half of them, a master that dies. `make sim` runs a greater one."""

from __future__ import annotations

import pytest

from edgerm.testing.sim.fleet import run_fleet
from edgerm.testing.sim.simulation import Plan, Simulation
from edgerm_master.core import invariants
from edgerm_master.core.world import World


def test_a_fleet_survives_its_masters_death() -> None:
    """Two hundred boxes, a hundred tasks, a crash and a recovery: every task has one end, and all invariants hold."""
    outcome = run_fleet(1, 200)
    assert outcome.problem == ""
    assert outcome.tasks > 50


def test_a_fleet_that_breaks_a_rule_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Invariants are checked seldom, but they are: at the latest at the end."""
    checked = []

    def broken(world: World) -> list[str]:
        checked.append(len(world.agents))
        return ["a planted breach"] if len(checked) > 3 else invariants.broken(world)

    monkeypatch.setattr("edgerm.testing.sim.master.broken", broken)
    assert "a planted breach" in run_fleet(1, 20).problem


def test_checks_can_be_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    """With `check_every` the master is looked at after so many events, and at the end."""
    counts = []
    for every in (1, 50):
        seen: list[World] = []
        monkeypatch.setattr("edgerm.testing.sim.master.broken", lambda world, seen=seen: seen.append(world) or [])
        Simulation(3, Plan(agents=2, events=200, crash=0.0, check_every=every)).run()
        counts.append(len(seen))
    assert counts[1] < counts[0] / 10
