"""A whole fleet in one process: faults for a while, then calm, then what must be true at the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from edgerm.core.ids import AgentId, TaskKey
from edgerm.core.link import COAP, HTTP, LinkState
from edgerm.core.resources import Resources
from edgerm.core.scheduler import AgentSpec
from edgerm.sdk.core.session import Callbacks
from edgerm.testing.sim.box import SimBox
from edgerm.testing.sim.clock import Clock
from edgerm.testing.sim.framework import SimFramework
from edgerm.testing.sim.master import SimMaster
from edgerm.testing.sim.network import Faults, Network
from edgerm.testing.sim.node import Node
from edgerm_master.core.master import Master, Settings

CALM_LIMIT_S = 4000.0  # of virtual time, for everything to come to rest


ROUGH = Faults(lose=0.1, double=0.1, delay_max_s=1.0)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run is like; drawn from its seed by `draw`, or written by hand."""

    agents: int = 2
    events: int = 300
    faults: Faults = ROUGH
    crash: float = 0.02  # chance, per event, that something breaks
    wrong_clocks: bool = True
    coap: float = 0.5  # chance, per box, that its messages must fit a datagram
    read: float = 0.2  # chance, per task, that somebody reads its output
    beat_interval_s: float = 15.0
    offer_timeout_s: float = 30.0  # short, so that offers expire and are rescinded


def draw(seed: int) -> Plan:
    """A plan for this seed: from calm to very rough."""
    random = Clock(seed).random
    faults = Faults(random.choice((0.0, 0.05, 0.3)), random.choice((0.0, 0.1, 0.5)), random.choice((0.02, 0.5, 5.0)))
    return Plan(random.randint(1, 3), 300, faults, random.choice((0.0, 0.01, 0.05)))


class Simulation:
    """Master, boxes and frameworks on one clock, from one seed."""

    def __init__(self, seed: int, plan: Plan | None = None, make_master: Callable[..., Master] = Master) -> None:
        self.seed = seed
        self.plan = plan or draw(seed)
        self.clock = Clock(seed)
        self.network = Network(self.clock, self.plan.faults)
        settings = Settings(self.plan.beat_interval_s, offer_timeout_s=self.plan.offer_timeout_s)
        self.master = SimMaster(self.clock, settings, make_master)
        self.boxes = [self._box(number) for number in range(self.plan.agents)]
        self.frameworks: list[SimFramework] = []
        self.master.ring = self._ring

    def _box(self, number: int) -> SimBox:
        agent_id = AgentId(f"{number + 1:032x}")
        spec = AgentSpec(f"box{number + 1}", resources=Resources.of(cpus=2, mem=1024))
        carrier = COAP if self.clock.random.random() < self.plan.coap else HTTP
        box = SimBox(self.clock, self.network, self.master, agent_id, spec, carrier)
        box.on_start = lambda key: self._maybe_read(agent_id, key)
        return box

    def _maybe_read(self, agent_id: AgentId, key: TaskKey) -> None:
        if self.clock.random.random() < self.plan.read:
            wait_s = self.clock.random.uniform(0.0, 5.0)
            self.clock.after(wait_s, lambda: self.master.readers.follow(agent_id, key))

    def _ring(self, agent_id: AgentId, session: int) -> None:
        box = self.boxes[int(agent_id, 16) - 1]
        self.network.carry(agent_id, session, box.rang)

    def add(self, scheduler: Callbacks, done: Callable[[], bool] = lambda: True) -> SimFramework:
        """Let `scheduler` take part; `done` says whether it has launched all that it wants to."""
        framework = SimFramework(self.clock, self.master, scheduler, done)
        self.frameworks.append(framework)
        return framework

    def run(self) -> None:
        """The whole story; raises AssertionError, with what is wrong, at the first thing that must not be."""
        if self.plan.wrong_clocks:
            nodes: list[Node[Any]] = [self.master, *self.boxes]
            for node in nodes:
                node.wall_offset_s = self.clock.random.uniform(-1e6, 1e6)
        self.master.start()
        for box in self.boxes:
            box.start()
        for framework in self.frameworks:
            framework.start()
        while self.clock.happened < self.plan.events and self.clock.step():
            if self.clock.random.random() < self.plan.crash:
                self._break_something()
        self.settle()

    def _break_something(self) -> None:
        random = self.clock.random
        match random.randrange(5):
            case 0 if self.master.alive:
                self.master.crash()
                self.clock.after(random.uniform(0.1, 60.0), self.master.start)
            case 1:
                box = random.choice(self.boxes)
                if box.alive:
                    box.crash()
                    self.clock.after(random.uniform(0.1, 120.0), box.start)
            case 2:
                box = random.choice(self.boxes)
                if box.alive:
                    box.cut_power()
                    self.clock.after(random.uniform(1.0, 300.0), box.start)
            case 3:
                end = AgentId(f"{random.randrange(len(self.boxes)) + 1:032x}")
                self.network.cut.add(end)
                self.clock.after(random.uniform(1.0, 200.0), lambda: self.network.cut.discard(end))
            case 4 if self.frameworks:
                random.choice(self.frameworks).crash()

    def settle(self) -> None:
        """No more faults: run on until nothing is left to do, then look at the end."""
        self.network.faults = self.network.faults.calm()
        self.network.cut.clear()
        self.plan = replace(self.plan, crash=0.0)
        limit_s = self.clock.now_s + CALM_LIMIT_S
        while not self.at_rest():
            assert self.clock.now_s < limit_s, f"no rest after {CALM_LIMIT_S:.0f} s of calm: {self.unrest()}"
            self.clock.run_until(self.clock.now_s + 5.0)
        problems = self.problems()
        assert not problems, "\n".join(problems)

    def at_rest(self) -> bool:
        """Whether every part lives, is joined, and has nothing left to do."""
        return not self.unrest()

    def unrest(self) -> list[str]:
        """What is still going on."""
        going = [] if self.master.alive else ["the master is down"]
        for box in self.boxes:
            if not box.alive or box.core.link_state is not LinkState.JOINED:
                going.append(f"{box.core.spec.hostname} has not joined")
            going += [f"{box.core.spec.hostname} has task {key}" for key in box.core.tasks]
        going += [f"the master has task {task.run}" for task in self.master.core.tasks.values()]
        going += [f"framework {number} is not at rest" for number, f in enumerate(self.frameworks) if not f.at_rest()]
        for reader in self.master.readers.all:
            if not reader.ended:
                going.append(f"the output of task {reader.key} has come as far as byte {reader.offset}")
        return going

    def problems(self) -> list[str]:
        """What must not be at the end."""
        found = []
        told = {task: state for framework in self.frameworks for task, state in framework.ends().items()}
        for key, state in {key: state for box in self.boxes for key, state in box.ended.items()}.items():
            heard = told.get((key.framework_id, key.task_id))
            if heard is not state:
                found.append(f"task {key} ended {state.name}, its framework heard {heard and heard.name}")
        for key, times in self.started().items():
            if times > 1:
                found.append(f"task {key} was started {times} times")
        found += [f"{key} was never released" for box in self.boxes for key in box.executor]
        return found

    def started(self) -> dict[TaskKey, int]:
        """The ledger of all boxes: how often each task was started."""
        counts: dict[TaskKey, int] = {}
        for box in self.boxes:
            for key, times in box.started.items():
                counts[key] = counts.get(key, 0) + times
        return counts
