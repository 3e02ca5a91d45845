"""A great fleet in one process: thousands of boxes, tasks on many of them, and a master that dies and comes back.

What does not live here: the rough runs of a few boxes over many seeds (`suite`). Invariants look at everything, so here
they are checked now and then, after the recovery and at the end.
"""

from __future__ import annotations

from edgerm.testing.sim.network import Faults
from edgerm.testing.sim.simulation import Plan, Simulation
from edgerm.testing.sim.suite import Launcher, Outcome

FAULTS = Faults(lose=0.001, double=0.001, delay_max_s=0.5)
CHECKS = 20  # of the invariants, for about ten events of each agent
UNTIL_CRASH_S = 20.0  # all have joined and most tasks run
DOWN_S = 10.0
TASKS_EACH_S = 30.0
LAUNCHERS = 4


def run_fleet(seed: int, agents: int, tasks: int | None = None) -> Outcome:
    """One run with `tasks` tasks, by default half as many as agents, shared by four schedulers."""
    plan = Plan(agents, 0, FAULTS, read=0.0, offer_timeout_s=60.0, check_every=max(1, 10 * agents // CHECKS))
    simulation = Simulation(seed, plan)
    random = simulation.clock.random
    for box in simulation.boxes:
        box.duration_s = lambda _key: random.uniform(0.0, TASKS_EACH_S)
    share = (agents // 2 if tasks is None else tasks) // LAUNCHERS
    for number in range(LAUNCHERS):
        launcher = Launcher(random, share, f"f{number}")
        simulation.add(launcher, launcher.done)
    problem = ""
    try:
        _live(simulation)
    except AssertionError as error:
        problem = f"{error}\n(a fleet: python -m edgerm.testing.sim --agents {agents} --seed {seed})"
    clock = simulation.clock
    return Outcome(seed, clock.happened, clock.now_s, len(simulation.started()), problem)


def _live(simulation: Simulation) -> None:
    simulation.begin()
    simulation.clock.run_until(UNTIL_CRASH_S)
    simulation.master.crash()
    simulation.clock.run_until(simulation.clock.now_s + DOWN_S)
    simulation.master.start()
    simulation.settle()
