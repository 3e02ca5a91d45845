"""One seed, one outcome: what `make sim`, the tests and the replay of a failure all run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from edgerm.core.claims import Granted
from edgerm.core.devices import resources_granted
from edgerm.core.ids import AgentId, ExecutorId, FrameworkId, TaskId
from edgerm.core.resources import Resources
from edgerm.core.scheduler import Offer, Status, TaskSpec
from edgerm.core.tasks import TaskState
from edgerm.sdk.core.session import Session
from edgerm.testing.sim.devices import COUNTS, USB
from edgerm.testing.sim.simulation import Simulation, draw
from edgerm.testing.sim.talk import Talk
from edgerm_agent.core.losing import Rule
from edgerm_master.core.master import Master

NEED = Resources.of(cpus=0.5, mem=64)
DEVICE = 0.3  # chance, per task and class, that it wants a device


class Launcher:
    """A scheduler that launches a number of tasks, declines at random, sits on some offers and kills some tasks."""

    def __init__(self, random: Random, tasks: int, name: str) -> None:
        self._random = random
        self.talk = Talk()
        self.todo = [TaskId(f"{name}-{number}") for number in range(tasks)]

    def done(self) -> bool:
        """Whether all tasks were launched."""
        return not self.todo

    def subscribed(self, driver: Session, framework_id: FrameworkId, /) -> None:
        driver.reconcile()

    def offers(self, driver: Session, offers: tuple[Offer, ...], /) -> None:
        for offer in offers:
            roll = self._random.random()
            if roll < 0.8 and self.todo:
                driver.accept([offer], self._tasks(offer), refuse_s=self._random.choice((0.0, 1.0, 5.0)))
            elif roll < 0.9:
                driver.decline([offer], refuse_s=self._random.choice((0.0, 5.0, 60.0)))

    def _tasks(self, offer: Offer) -> list[TaskSpec]:
        left = offer.resources
        tasks: list[TaskSpec] = []
        while self.todo and left.covers(NEED) and len(tasks) < 3:
            granted = self._granted(left)
            need = NEED + resources_granted(granted)
            left = left - need
            tasks.append(TaskSpec(self.todo.pop(), offer.agent_id, need, executor="wasm", granted=granted))
        return tasks

    def _granted(self, left: Resources) -> tuple[Granted, ...]:
        """Devices by chance, from none to one of each class."""
        wanted = [name for name in COUNTS if self._random.random() < DEVICE]
        return tuple(
            Granted(
                f"my {key.name}", key.name, (self._random.choice(sorted(items)),), key.shared, self._config(key.name)
            )
            for key, items in sorted(left.items())
            if key.name in wanted and isinstance(items, frozenset)
        )

    def _config(self, name: str) -> str:
        rule = self._random.choice(["", *(f'{{"on_loss": "{rule.value}"}}' for rule in Rule)])
        return rule if name == USB else ""

    def rescinded(self, driver: Session, offer: Offer, /) -> None: ...

    def update(self, driver: Session, status: Status, /) -> None:
        if status.state is TaskState.RUNNING and status.agent_id is not None:
            for _ in range(self._random.randrange(4)):
                words = self.talk.say(status.task_id)
                driver.message(status.agent_id, ExecutorId(status.task_id), words)
        if not status.state.terminal and self._random.random() < 0.1:
            driver.kill(status.task_id, grace_s=self._random.choice((None, 0.0, 10.0)))

    def message(self, driver: Session, agent_id: AgentId, executor_id: ExecutorId, data: bytes, /) -> None:
        self.talk.hear(executor_id, data)

    def agent_lost(self, driver: Session, agent_id: AgentId, /) -> None: ...

    def draining(self, driver: Session, agent_id: AgentId, in_s: float | None, /) -> None: ...

    def disconnected(self, driver: Session, why: str, /) -> None: ...

    def error(self, driver: Session, message: str, /) -> None:
        raise AssertionError(f"the master ended the framework: {message}")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a seed. `problem` is empty when everything held."""

    seed: int
    events: int
    virtual_s: float
    tasks: int
    problem: str = ""
    output_bytes: int = 0  # of tasks, read at the master
    messages: int = 0  # that were heard, by tasks and by frameworks

    def __str__(self) -> str:
        told = f"seed {self.seed}: {self.tasks} tasks, {self.events} events, {self.virtual_s:.0f} s of virtual time"
        if not self.problem:
            return told + ", all held"
        return f"{told}\n{self.problem}\nreplay: python -m edgerm.testing.sim --seed {self.seed}"


def run_seed(seed: int, make_master: Callable[..., Master] = Master) -> Outcome:
    """Run one seed to its end."""
    simulation = Simulation(seed, draw(seed), make_master)
    random = simulation.clock.random
    launchers = [Launcher(random, random.randint(1, 5), f"f{number}") for number in range(random.randint(1, 2))]
    for launcher in launchers:
        simulation.add(launcher, launcher.done)
    problem = ""
    try:
        simulation.run()
    except AssertionError as error:
        problem = str(error)
    tasks = len(simulation.started())
    output_bytes = sum(reader.offset for reader in simulation.master.readers.all)
    talks = [*(launcher.talk for launcher in launchers), *(box.talk for box in simulation.boxes)]
    messages = sum(talk.heard for talk in talks)
    return Outcome(seed, simulation.clock.happened, simulation.clock.now_s, tasks, problem, output_bytes, messages)
