"""A whole fleet in one process: faults for a while, then calm, then what must be true at the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import starmap
from typing import Any

from edgerm.core.attributes import AttributeValue, attribute
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
from edgerm_agent.core.records import is_local
from edgerm_master.core.events import DrainAgent, ReactivateAgent
from edgerm_master.core.master import Master, Settings

CALM_LIMIT_S = 4000.0  # of virtual time, for everything to come to rest
OPERATOR_RETRY_S = 5.0
LAST_DEADLINE_S, LAST_GRACE_S = 30.0, 5.0  # of the draining that is looked at in the end
START_MAX_S = 50.0  # a start under way cannot be cut short, nor the end of what had devices


ROUGH = Faults(lose=0.1, double=0.1, delay_max_s=1.0)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run is like; drawn from its seed by `draw`, or written by hand."""

    agents: int = 2
    events: int = 300
    faults: Faults = ROUGH
    crash: float = 0.02  # chance, per event, that something breaks
    handled: float = 0.0  # chance, per event, that somebody lays hands on devices of a box
    wrong_clocks: bool = True
    coap: float = 0.5  # chance, per box, that its messages must fit a datagram
    read: float = 0.2  # chance, per task, that somebody reads its output
    beat_interval_s: float = 15.0
    offer_timeout_s: float = 30.0  # short, so that offers expire and are rescinded
    attributes: tuple[Mapping[str, AttributeValue], ...] = ()  # what the boxes say of themselves, in turn
    check_every: int = 1  # of the master's events; a check looks at everything, so a great fleet has it seldom


def draw(seed: int) -> Plan:
    """A plan for this seed: from calm to very rough."""
    random = Clock(seed).random
    faults = Faults(random.choice((0.0, 0.05, 0.3)), random.choice((0.0, 0.1, 0.5)), random.choice((0.02, 0.5, 5.0)))
    crash, handled = random.choice((0.0, 0.01, 0.05)), random.choice((0.0, 0.01, 0.03))
    return Plan(random.randint(1, 3), 400, faults, crash, handled)


class Simulation:
    """Master, boxes and frameworks on one clock, from one seed."""

    def __init__(self, seed: int, plan: Plan | None = None, make_master: Callable[..., Master] = Master) -> None:
        self.seed = seed
        self.plan = plan or draw(seed)
        self.clock = Clock(seed)
        self.network = Network(self.clock, self.plan.faults)
        settings = Settings(self.plan.beat_interval_s, offer_timeout_s=self.plan.offer_timeout_s)
        self.master = SimMaster(self.clock, settings, make_master, self.plan.check_every)
        self.boxes = [self._box(number) for number in range(self.plan.agents)]
        self.frameworks: list[SimFramework] = []
        self.master.ring = self._ring
        self._drained: dict[AgentId, int] = {}  # how often an operator spoke of it

    def _box(self, number: int) -> SimBox:
        agent_id = AgentId(f"{number + 1:032x}")
        said = self.plan.attributes[number % len(self.plan.attributes)] if self.plan.attributes else {}
        attributes = tuple(starmap(attribute, said.items()))
        spec = AgentSpec(f"box{number + 1}", resources=Resources.of(cpus=2, mem=1024), attributes=attributes)
        carrier = COAP if self.clock.random.random() < self.plan.coap else HTTP
        box = SimBox(self.clock, self.network, self.master, agent_id, spec, carrier)
        box.on_start = lambda key: self._maybe_read(agent_id, key)
        return box

    def drain(self, agent_id: AgentId, deadline_s: float = 0.0, max_grace_s: float | None = None) -> None:
        """An operator has the agent drained; asks again until the master has taken it down."""
        self._insist(agent_id, DrainAgent(agent_id, deadline_s, max_grace_s))

    def reactivate(self, agent_id: AgentId) -> None:
        """An operator ends the draining."""
        self._insist(agent_id, ReactivateAgent(agent_id))

    def _relent(self, agent_id: AgentId) -> None:
        if self.plan.crash > 0.0:  # in the calm at the end other things are asked for
            self.reactivate(agent_id)

    def _insist(self, agent_id: AgentId, call: DrainAgent | ReactivateAgent) -> None:
        number = self._drained[agent_id] = self._drained.get(agent_id, 0) + 1
        taken = False

        def done() -> None:
            nonlocal taken
            taken = True

        def speak() -> None:
            if not taken and self._drained[agent_id] == number:
                if agent_id in self.master.core.agents:
                    self.master.maintain(call, done)
                self.clock.after(OPERATOR_RETRY_S, speak)

        speak()

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
        self.begin()
        while self.clock.happened < self.plan.events and self.clock.step():
            if self.clock.random.random() < self.plan.crash:
                self._break_something()
            if self.clock.random.random() < self.plan.handled:
                self._handle_devices()
        self.settle()

    def begin(self) -> None:
        """Start every part."""
        if self.plan.wrong_clocks:
            nodes: list[Node[Any]] = [self.master, *self.boxes]
            for node in nodes:
                node.wall_offset_s = self.clock.random.uniform(-1e6, 1e6)
        self.master.start()
        for box in self.boxes:
            box.start()
        for framework in self.frameworks:
            framework.start()

    def _break_something(self) -> None:
        random = self.clock.random
        match random.randrange(6):
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
            case 5:
                agent_id = AgentId(f"{random.randrange(len(self.boxes)) + 1:032x}")
                self.drain(agent_id, random.choice((0.0, 20.0, 200.0)), random.choice((None, 0.0, 5.0)))
                self.clock.after(random.uniform(1.0, 300.0), lambda: self._relent(agent_id))

    def _handle_devices(self) -> None:
        box = self.clock.random.choice(self.boxes)
        if self.clock.random.random() < 0.5:
            box.change_devices()
        else:
            box.claim_locally()

    def settle(self) -> None:
        """No more faults: run on until nothing is left to do, then look at the end."""
        self.network.faults = self.network.faults.calm()
        self.network.cut.clear()
        self.plan = replace(self.plan, crash=0.0)
        for box in self.boxes:
            box.calm_devices()
        if self._drained:
            self._drain_in_calm(next(iter(self._drained)))
        self._run_until_not(self.unrest)
        self.master.check("the end")
        problems = self.problems()
        assert not problems, "\n".join(problems)

    def _run_until_not(self, reasons: Callable[[], list[str]]) -> None:
        limit_s = self.clock.now_s + CALM_LIMIT_S
        while reasons():
            assert self.clock.now_s < limit_s, f"no rest after {CALM_LIMIT_S:.0f} s of calm: {reasons()}"
            self.clock.run_until(self.clock.now_s + 5.0)

    def _drain_in_calm(self, agent_id: AgentId) -> None:
        """When nothing is in the way, every task of an agent that is drained has ended in time."""
        self._run_until_not(self._absent)
        self.drain(agent_id, LAST_DEADLINE_S, LAST_GRACE_S)
        self.clock.run_until(self.clock.now_s + LAST_DEADLINE_S + LAST_GRACE_S + START_MAX_S)
        core = self.boxes[int(agent_id, 16) - 1].core
        late = [str(key) for key, task in core.tasks.items() if task.live and not is_local(key)]
        assert not late, f"{core.spec.hostname} was drained, and these did not end in time: {late}"
        for drained in self._drained:
            self.reactivate(drained)

    def at_rest(self) -> bool:
        """Whether every part lives, is joined, and has nothing left to do."""
        return not self.unrest()

    def unrest(self) -> list[str]:
        """What is still going on."""
        going = self._absent()
        for box in self.boxes:
            going += [f"{box.core.spec.hostname} has task {key}" for key in box.core.tasks]
            going += [f"{box.core.spec.hostname} holds the devices of {key}" for key in box.core.grants]
        going += [f"the master has task {task.run}" for task in self.master.core.tasks.values()]
        going += [f"framework {number} is not at rest" for number, f in enumerate(self.frameworks) if not f.at_rest()]
        for reader in self.master.readers.all:
            if not reader.ended:
                going.append(f"the output of task {reader.key} has come as far as byte {reader.offset}")
        return going

    def _absent(self) -> list[str]:
        """What does not live, or has not joined."""
        absent = [] if self.master.alive else ["the master is down"]
        for box in self.boxes:
            if not box.alive or box.core.link_state is not LinkState.JOINED:
                absent.append(f"{box.core.spec.hostname} has not joined")
        return absent

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
        for box in self.boxes:
            found += [f"at the end {told}" for told in box.devices.leftovers()]
            found += [f"{row} is in the journal at the end" for kind, row in box.disk.rows if kind == "grant"]
            found += [
                f"{device} is not offered at the end"
                for device in box.core.spec.inventory.devices
                if not device.offered
            ]
        return found

    def started(self) -> dict[TaskKey, int]:
        """The ledger of all boxes: how often each task was started."""
        counts: dict[TaskKey, int] = {}
        for box in self.boxes:
            for key, times in box.started.items():
                counts[key] = counts.get(key, 0) + times
        return counts
