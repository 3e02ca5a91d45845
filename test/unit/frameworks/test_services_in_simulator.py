"""The samples that run for ever, on virtual time: after faults of every kind there is again what there should be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from edgerm.core.blobs import Digest
from edgerm.core.ids import AgentId
from edgerm.core.scheduler import BlobRef
from edgerm.sdk import Task, wasm_task
from edgerm.sdk.core.session import Callbacks
from edgerm.testing.sim import Simulation
from edgerm.testing.sim.framework import SimFramework
from edgerm.testing.sim.simulation import CALM_LIMIT_S, ROUGH, Plan
from edgerm_frameworks.everywhere import Everywhere
from edgerm_frameworks.greedy import Greedy
from edgerm_frameworks.keep_running import KeepRunning

BOXES = 3
SEEDS = range(12)
WATCH_S = 700.0  # past the next reconciliation
STORMY = Plan(agents=BOXES, events=1500, crash=0.02)
CALM = Plan(agents=BOXES, faults=ROUGH.calm(), crash=0.0, read=0.0)


def make(number: int) -> Task:
    """Small enough for a box to have all of them."""
    return wasm_task(f"t{number}", BlobRef(Digest("0" * 64), 1), cpus=0.1, mem=32)


class Services(Simulation):
    """Tasks end by faults only. When these are over `good` must come about, and stay; then `stop` ends all tasks."""

    good: Callable[[], bool]
    stop: Callable[[], None]

    def __init__(self, seed: int, plan: Plan = STORMY) -> None:
        super().__init__(seed, plan)
        for box in self.boxes:
            box.duration_s = lambda _key: 1e9

    def counts(self) -> list[int]:
        """How many tasks each box runs, whoever knows of them."""
        return [sum(task.exit is None for task in box.executor.values()) for box in self.boxes]

    def begin(self) -> None:
        """Everything starts, and two minutes pass."""
        self.master.start()
        for box in self.boxes:
            box.start()
        for framework in self.frameworks:
            framework.start()
        self.clock.run_until(120.0)

    def settle(self) -> None:
        """No more faults; look, end everything, look again."""
        self.network.faults = self.network.faults.calm()
        self.network.cut.clear()
        limit_s = self.clock.now_s + CALM_LIMIT_S
        while not self.good():
            assert self.clock.now_s < limit_s, f"after {CALM_LIMIT_S:.0f} s of calm the boxes run {self.counts()}"
            self.clock.run_until(self.clock.now_s + 5.0)
        self.clock.run_until(self.clock.now_s + WATCH_S)
        assert self.good(), self.counts()
        self.stop()
        super().settle()


def lost(seed: int, scheduler: Callbacks, count: int, prepare: Callable[[Services, SimFramework], None]) -> int:
    """How many tasks were launched in place of others in a whole story."""
    simulation = Services(seed)
    prepare(simulation, simulation.add(scheduler))
    try:
        simulation.run()
    except AssertionError as error:
        error.add_note(f"seed {seed}")
        raise
    return len(simulation.started()) - count


def test_as_many_run_as_are_wanted() -> None:
    """After crashes, power cuts, lost links and a lost master exactly N tasks run, and with N = 0 none."""

    def story(seed: int) -> int:
        scheduler = KeepRunning(make)
        scheduler.count = 5

        def prepare(simulation: Services, framework: SimFramework) -> None:
            simulation.good = lambda: sum(simulation.counts()) == 5
            simulation.stop = lambda: scheduler.scale(framework.session, 0)

        return lost(seed, scheduler, 5, prepare)

    assert sum(map(story, SEEDS)) > len(SEEDS), "hardly anything was lost: these seeds show nothing"


def test_tasks_out_of_reach_are_replaced_and_ended_when_they_come_back() -> None:
    """Behind a line that is cut tasks run on; others take their place, and when the line is back there are not more."""
    simulation = Services(1, CALM)
    scheduler = KeepRunning(make)
    scheduler.count = 5
    simulation.add(scheduler)
    simulation.begin()
    number, behind = next((number, count) for number, count in enumerate(simulation.counts()) if count)
    simulation.network.cut.add(AgentId(f"{number + 1:032x}"))
    simulation.clock.run_until(simulation.clock.now_s + 300.0)
    assert sum(simulation.counts()) == 5 + behind
    simulation.network.cut.clear()
    simulation.clock.run_until(simulation.clock.now_s + 300.0)
    assert sum(simulation.counts()) == 5


def test_a_box_that_lost_power_gets_its_task_again() -> None:
    """Long before the filter of its offers ends."""
    simulation = Services(1, CALM)
    scheduler = Everywhere()
    scheduler.make = make
    simulation.add(scheduler)
    simulation.begin()
    assert simulation.counts() == [1] * BOXES
    simulation.boxes[1].cut_power()
    simulation.clock.after(5.0, simulation.boxes[1].start)
    simulation.clock.run_until(simulation.clock.now_s + 180.0)
    assert simulation.counts() == [1] * BOXES


def test_a_busy_box_gets_another_task_for_one_that_ended() -> None:
    """It has less to offer than when it was declined for long, and is asked for all the same."""
    simulation = Services(1, CALM)
    scheduler, other = Everywhere(), KeepRunning(make)
    scheduler.make = make
    framework, busy = simulation.add(scheduler), simulation.add(other)
    simulation.begin()
    other.scale(busy.session, 9)  # all on one box
    simulation.clock.run_until(simulation.clock.now_s + 60.0)
    number = simulation.counts().index(10)
    ours = {task.agent_id: task.task_id for task in framework.session.tasks.values()}
    framework.session.kill(ours[AgentId(f"{number + 1:032x}")])
    simulation.clock.run_until(simulation.clock.now_s + 180.0)
    assert simulation.counts()[number] == 10


def test_each_box_runs_one() -> None:
    """After crashes, power cuts, lost links and a lost master each box runs one task, and only one."""

    def story(seed: int) -> int:
        scheduler = Everywhere()
        scheduler.make = make

        def prepare(simulation: Services, framework: SimFramework) -> None:
            def stop() -> None:
                scheduler.make = None
                for task_id in list(framework.session.tasks):
                    framework.session.kill(task_id)

            simulation.good = lambda: simulation.counts() == [1] * BOXES
            simulation.stop = stop

        return lost(seed, scheduler, BOXES, prepare)

    assert sum(map(story, SEEDS)) > len(SEEDS), "hardly anything was lost: these seeds show nothing"


@pytest.mark.parametrize("seed", SEEDS)
def test_whoever_hoards_offers_starves_nobody(seed: int) -> None:
    """Beside a framework that takes every offer and uses none, another one gets its tasks, on a calm fleet too."""
    simulation = Services(seed)
    simulation.plan = replace(simulation.plan, events=50, crash=0.0)
    simulation.add(Greedy())
    scheduler = KeepRunning(make)
    framework = simulation.add(scheduler)
    scheduler.count = 5
    simulation.good = lambda: sum(simulation.counts()) == 5
    simulation.stop = lambda: scheduler.scale(framework.session, 0)
    simulation.run()
