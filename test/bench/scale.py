"""What a change costs the master's core with ever more agents and frameworks; what a sweep costs, in which slices.

CPU time of the core alone, in this process. A change touches one agent; each is repeated over agents in no order, and
the rounds of all sizes take turns, so that what disturbs one size disturbs all.
"""

from __future__ import annotations

import gc
import json
import subprocess
from collections import defaultdict
from itertools import count
from random import Random
from typing import TYPE_CHECKING, Any

from bench import scale_holds, scale_sweeps
from bench.fleet import APART_S, FOREVER_S, Fleet, agent_id, make_spec
from bench.programs import ours
from bench.report import Report

from edgerm.core.ids import OfferId
from edgerm.core.instant import Instant
from edgerm.core.scheduler import Decline
from edgerm_master.core import joining
from edgerm_master.core.events import Tick
from edgerm_master.core.world import Settings

if TYPE_CHECKING:
    from bench.suite import Options

SUBJECT = "scale"
AGENTS = (10, 100, 1000, 10_000)
FRAMEWORKS = (1, 10, 100)
GROWTH_MOST = 1.3  # from 1,000 to 10,000 agents
CHANGES = ("idle beat", "launch", "task's end", "join", "loss", "decline", "expiry")
GATED = ("task's end", "join", "decline", "expiry")
IDLE_BYTES_MOST = 1000.0
ROUNDS_AGENTS = 200
ROLES = 5  # over which frameworks are spread


class Bench:
    """One fleet in a steady state: every agent is offered to some framework, and what is taken comes back."""

    def __init__(self, agents: int, frameworks: int, seed: int = 1) -> None:
        self.agents = agents
        self.random = Random(seed)
        self.fleet = Fleet(Settings(FOREVER_S, offer_timeout_s=APART_S * agents + 1000.0))
        for number in range(frameworks):
            self.fleet.subscribe(number, role=f"role{number % ROLES}")
        for number in range(agents):
            self.fleet.join(number)
            self.fleet.now_s += APART_S
        self.fleet.settle()
        self._extra = count(agents)

    def _some(self) -> int:
        return self.random.randrange(self.agents)

    def _offer_of(self, number: int) -> OfferId:
        """An offer of the agent; it may have expired just now, and comes back in a moment."""
        agent = self.fleet.master.agents[agent_id(number)]
        while not agent.offers:
            self.fleet.wait(0.5)
        return agent.offers[0]

    def measure(self, times: int) -> dict[str, float]:
        """Mean CPU time in µs of each change, over so many."""
        spent: dict[str, int] = defaultdict(int)
        for _ in range(times):
            spent["idle beat"] += self.fleet.beat(self._some())
        for _ in range(times):
            self._task(spent)
        for _ in range(times):
            self._join_and_loss(spent)
        for _ in range(times):
            self._decline(spent)
        for _ in range(times):
            self._expiry(spent)
        return {name: spent[name] / times / 1000 for name in CHANGES}

    def _task(self, spent: dict[str, int]) -> None:
        fleet, number = self.fleet, self._some()
        fleet.wait(2.0)  # refusals of the turn before have ended
        offer_id = self._offer_of(number)
        took, key = fleet.launch(offer_id)
        fleet.settle()
        spent["launch"] += took
        fleet.start(number, key)
        spent["task's end"] += fleet.finish(number, key)
        fleet.acknowledge()
        fleet.forget(number)
        for offer_id in list(fleet.master.agents[agent_id(number)].offers):  # one offer of the whole again
            offer = fleet.master.offers[offer_id]
            fleet.call(offer.framework_id, Decline((offer_id,), 1.0))
        fleet.wait(2.0)

    def _join_and_loss(self, spent: dict[str, int]) -> None:
        number = next(self._extra)
        spec = make_spec(number)
        spent["join"] += self.fleet.join(number, spec)
        agent = self.fleet.master.agents[agent_id(number)]
        agent.heard_s = -100 * FOREVER_S
        world = self.fleet.master.world
        world.now = Instant(self.fleet.now_s, 0.0)
        world.timers.set(agent.agent_id, self.fleet.now_s)
        spent["loss"] += self.fleet.do(Tick())
        assert not agent.joined
        joining.forget_agent(world, agent)

    def _decline(self, spent: dict[str, int]) -> None:
        fleet, number = self.fleet, self._some()
        offer_id = self._offer_of(number)
        offer = fleet.master.offers[offer_id]
        spent["decline"] += fleet.call(offer.framework_id, Decline((offer_id,), 1.0))
        fleet.wait(2.0)

    def _expiry(self, spent: dict[str, int]) -> None:
        fleet = self.fleet
        offer_id = min(fleet.master.offers, key=fleet.master.world.offered_s.__getitem__)
        due_s = fleet.master.world.offered_s[offer_id] + fleet.master.settings.offer_timeout_s
        fleet.wait(max(0.0, due_s - fleet.now_s - 0.001))
        fleet.now_s = max(due_s, fleet.now_s)
        spent["expiry"] += fleet.do(Tick())
        assert offer_id not in fleet.master.offers
        fleet.wait(2.0)


async def measure(report: Report, options: Options) -> None:
    """All changes at all sizes, and their growth."""
    sizes = AGENTS[:3] if options.quick else AGENTS
    rounds, times = options.pick(12, 2), options.pick(30, 10)
    for frameworks in FRAMEWORKS:
        _changes(report, sizes, frameworks, rounds, times)
    scale_sweeps.measure(report, options)
    await scale_holds.measure(report, options)
    _memory(report, options)


def _memory(report: Report, options: Options) -> None:
    """What an agent and an offer weigh, and whether rounds of offers leave anything behind; in fresh processes."""
    agents, rounds = options.pick(10_000, 1000), options.pick(1000, 50)
    traced, resident = _weighed("traced", agents, 0), _weighed("resident", agents, 0)
    for name, found in (("tracemalloc", traced), ("RSS", resident)):
        idle = report.add(SUBJECT, f"memory of an idle agent, {name}", "B", [found["beaten_bytes"]])
        report.gate(idle, IDLE_BYTES_MOST)
        report.add(SUBJECT, f"memory of an outstanding offer, {name}", "B", [found["offer_bytes"]])
    weights = _weighed("resident", ROUNDS_AGENTS, rounds)["rounds"]
    begin, end = weights[len(weights) // 10], weights[-1]
    grown = (end[1] - begin[1]) / ROUNDS_AGENTS / (end[0] - begin[0])
    what = f"rounds of offers to {ROUNDS_AGENTS} agents, {rounds:,} of them: growth (RSS) for each offer made"
    report.gate(report.add(SUBJECT, what, "B", [grown]), 1.0)


def _weighed(kind: str, agents: int, rounds: int) -> dict[str, Any]:
    argv = ours("scale_memory", kind, str(agents), str(rounds))
    found: dict[str, Any] = json.loads(subprocess.run(argv, check=True, capture_output=True).stdout)
    return found


def _changes(report: Report, sizes: tuple[int, ...], frameworks: int, rounds: int, times: int) -> None:
    benches = [Bench(agents, frameworks) for agents in sizes]
    gc.collect()
    gc.freeze()
    found: dict[tuple[int, str], list[float]] = defaultdict(list)
    for _ in range(rounds):
        for bench in benches:
            for name, taken_us in bench.measure(times).items():
                found[bench.agents, name].append(taken_us)
    gc.unfreeze()
    for name in CHANGES:
        figures = [
            report.add(SUBJECT, f"{name}, {agents:,} agents, {frameworks} frameworks", "µs", found[agents, name])
            for agents in sizes
        ]
        least, before = min(figures[-1].values), min(figures[-2].values)  # other work only ever adds
        growth = report.add(SUBJECT, f"{name}, {frameworks} frameworks: the last step", "x", [least / before])
        if name in GATED:
            report.gate(growth, GROWTH_MOST)
