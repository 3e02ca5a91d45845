"""One task on every agent: on those that are there, on those that join later, again where it ended. `edgerm up`, then

    python -m edgerm_frameworks.everywhere [URL of a master]

Ctrl-C ends it and its tasks.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from edgerm.core.ids import AgentId
from edgerm.sdk import Conflict, Driver, Offer, Scheduler, Session, Status, Task, TaskState, framework, wasm_task
from edgerm_frameworks.modules import SENSOR
from edgerm_frameworks.program import run, start

MASTER = "http://127.0.0.1:5050"
SERVED_S = 3600.0  # an agent that has its task is not offered again for so long, unless we ask
PAUSE_S = 5.0  # before the next try on an agent where there was no room, or where the task failed


class Everywhere(Scheduler):
    """The scheduler. An agent is served when it has a task of ours: one glance at `driver.tasks` tells."""

    def __init__(self) -> None:
        self.make: Callable[[int], Task] | None = None  # makes the n-th task
        self._launched = 0
        self._not_before_s: dict[AgentId, float] = {}

    def begin(self, driver: Session, make: Callable[[int], Task]) -> None:
        """From now on agents are served. `revive` brings back what was declined before."""
        self.make = make
        driver.revive()

    # 1. What we decline for long is withheld for as long. So offers come from agents that have no task yet: from all at
    #    first, later from those that join.
    def offers(self, driver: Session, offers: tuple[Offer, ...]) -> None:
        """Each agent gets a task, if it has none and is fit for it."""
        served = {task.agent_id for task in driver.tasks.values()}
        for offer in offers:
            pause_s = self._not_before_s.get(offer.agent_id, 0.0) - driver.now.steady_s
            if self.make is None or offer.agent_id in served:
                driver.decline([offer], refuse_s=SERVED_S)
            elif pause_s > 0:
                driver.decline([offer], refuse_s=pause_s)
            elif self._serve(driver, offer, self.make):
                served.add(offer.agent_id)

    def _serve(self, driver: Session, offer: Offer, make: Callable[[int], Task]) -> bool:
        try:
            task = make(self._launched).on(offer)
        except Conflict:  # no room, or it does not run such tasks
            driver.decline([offer], refuse_s=PAUSE_S)
            return False
        self._launched += 1
        self._not_before_s.pop(offer.agent_id, None)
        driver.accept([offer], [task], refuse_s=SERVED_S)
        return True

    # 2. A task ended: its agent, if it is there, is to be offered again, even if it has less to offer now than when we
    #    declined. A task that is only out of reach still counts: it comes back with its agent, or both are gone.
    def update(self, driver: Session, status: Status) -> None:
        """Serve the agent again."""
        if status.state.terminal:
            if status.state is TaskState.FAILED and status.agent_id is not None:
                self._not_before_s[status.agent_id] = driver.now.steady_s + PAUSE_S
            driver.revive()


class Telling(Everywhere):
    """The same, telling a person what happens."""

    def update(self, driver: Session, status: Status) -> None:
        """Print it."""
        if status.state is TaskState.RUNNING or status.state.terminal:
            print(f"{status.state.name} on {status.agent_id}: {status.message}".rstrip(": "), flush=True)
        super().update(driver, status)


async def everywhere(master: str) -> int:
    """Run the scheduler against a master until it is ended."""

    def make(number: int) -> Task:
        return wasm_task(f"everywhere-{number}", module, ["1", "0", "1", "1000"], cpus=0.1, mem=32)

    scheduler = Telling()
    async with Driver(scheduler, master, framework("everywhere"), patient=False) as driver:
        try:
            await driver.subscribed()
            # 3. A task names its module; the master must have that before. Until then no agent is served.
            module = await driver.keep(SENSOR)
            scheduler.begin(driver.session, make)
            await driver.ended()
        finally:
            driver.session.teardown()  # the framework ends, with all its tasks
    return 0


def main(master: str = MASTER) -> int:
    """Serve every agent; the exit status: 1 the master is away or refused, 130 after Ctrl-C."""
    return run("everywhere", everywhere(master))


if __name__ == "__main__":
    raise SystemExit(start(main, __doc__, sys.argv[1:]))
