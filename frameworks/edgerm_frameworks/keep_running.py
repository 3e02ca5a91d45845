"""Keep N tasks running, whatever happens to tasks, agents, the master, and to this program. Start `edgerm up`, then

    python -m edgerm_frameworks.keep_running [URL of a master] [N] [FILE for the framework's id]

It says how many run. Ctrl-C ends the program and not its tasks: start it again and it goes on with them. With N = 0 it
ends them.
"""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable

from edgerm.core.ids import FrameworkId, TaskId
from edgerm.sdk import (
    Conflict,
    Driver,
    IdFile,
    Offer,
    Scheduler,
    Session,
    Status,
    Task,
    TaskState,
    Unavailable,
    framework,
    wasm_task,
    watch_tasks,
)
from edgerm.sdk.resuming import REMOVED
from edgerm_frameworks.modules import SENSOR
from edgerm_frameworks.program import run, start

MASTER = "http://127.0.0.1:5050"
ID_FILE = "keep_running.id"
PAUSE_S = 2.0  # after a task that failed, so that one that always fails is not launched in a tight circle


class KeepRunning(Scheduler):
    """The scheduler. It has no clock, no chance, no network and no files, so it runs in the simulator as it is.

    What it keeps in mind is how many tasks there should be. Which there are the session knows (`driver.tasks`). `make`
    makes the n-th task, with an id that no task had before; `changed` is told when there may be more or fewer.
    """

    def __init__(self, make: Callable[[int], Task], changed: Callable[[Session], None] = lambda driver: None) -> None:
        self.count = 0
        self._make = make
        self._changed = changed
        self._launched = 0
        self._not_before_s = 0.0
        self._quiet = False

    # 1. How many are there? A task whose agent cannot be reached may still run, but nobody can use it: it does not
    #    count. Nor does one that we asked to end.
    @staticmethod
    def alive(driver: Session) -> list[TaskId]:
        """The tasks that count, oldest first."""
        tasks = driver.tasks.values()
        return [task.task_id for task in tasks if task.state is not TaskState.UNREACHABLE and task.kill is None]

    # 2. Too few: ask for offers. Too many (an agent came back, or fewer are wanted): end the latest. As it should be:
    #    ask for no offers, so that others get them.
    def scale(self, driver: Session, count: int) -> None:
        """So many from now on."""
        self.count = count
        self._adjust(driver)

    def _adjust(self, driver: Session) -> None:
        alive = self.alive(driver)
        for task_id in alive[self.count :]:
            driver.kill(task_id)
        if len(alive) < self.count and self._quiet:
            driver.revive()
        elif len(alive) >= self.count and not self._quiet:
            driver.suppress()
        self._quiet = len(alive) >= self.count
        self._changed(driver)

    # 3. An offer is used for as many tasks as are missing and as it has room for. What it leaves goes back.
    def offers(self, driver: Session, offers: tuple[Offer, ...]) -> None:
        """Launch what is missing."""
        pause_s = self._not_before_s - driver.now.steady_s
        if pause_s > 0:
            driver.decline(offers, refuse_s=pause_s)  # they come again when it is over
            return
        for offer in offers:
            left, tasks = offer.resources, []
            for _ in range(self.count - len(self.alive(driver))):
                try:
                    task = self._make(self._launched).on(offer, left)
                except Conflict:  # no room, or not on this agent
                    break
                self._launched += 1
                left = left - task.resources
                tasks.append(task)
            if tasks:
                driver.accept([offer], tasks)
            else:
                driver.decline([offer])
        self._adjust(driver)

    # 4. A task ended, went out of sight, or came back: look again.
    def update(self, driver: Session, status: Status) -> None:
        """Replace what is lost."""
        if status.state is TaskState.FAILED:
            self._not_before_s = driver.now.steady_s + PAUSE_S
        self._adjust(driver)

    # 5. A subscription begins with all offers, except for what this session asked for before.
    def subscribed(self, driver: Session, framework_id: FrameworkId) -> None:
        """Make it fit."""
        self._quiet = False
        self._adjust(driver)


async def keep_running(master: str, count: int, id_file: IdFile, framework_id: FrameworkId | None) -> int:
    """Run the scheduler against a master until it is ended."""

    def make(number: int) -> Task:
        return wasm_task(f"{process}-{number}", module, ["1", "0", "1", "1000"], name="keep", cpus=0.1, mem=32)

    process = secrets.token_hex(4)  # the next process must not make the same ids
    told = 0

    def tell(driver: Session) -> None:
        nonlocal told
        states = [task.state for task in driver.tasks.values()]
        if (now := states.count(TaskState.RUNNING)) != told:
            told = now
            print(f"{now} of {scheduler.count} run", flush=True)

    scheduler = KeepRunning(make, tell)
    spec = framework("keep-running")  # its tasks outlive it by ten minutes
    async with Driver(scheduler, master, spec, framework_id=framework_id, patient=False) as driver:
        # 6. Keep the id before anything is launched: it is what lets the next process come back.
        id_file.write(await driver.subscribed())
        module = await driver.keep(SENSOR)
        # 7. What did a process before this one launch? Until that is known the scheduler wants no tasks at all.
        found = await watch_tasks(driver)
        print(f"framework {driver.framework_id}, {len(found)} tasks of before", flush=True)
        scheduler.scale(driver.session, count)
        if not count:
            driver.session.teardown()  # the framework ends for good, with all its tasks
        await driver.ended()
    return 0


async def begin(master: str, count: int, id_file: IdFile) -> int:
    """As the framework of before, if there was one and the master still has it; else as a new one."""
    framework_id = id_file.read()
    try:
        return await keep_running(master, count, id_file, framework_id)
    except Unavailable as error:
        if framework_id is None or str(error) != REMOVED:
            raise
    return await keep_running(master, count, id_file, None)


def main(master: str = MASTER, count: str = "3", id_file: str = ID_FILE) -> int:
    """Keep them running; the exit status: 1 the master is away or refused, 2 wrong arguments, 130 after Ctrl-C."""
    if not count.isdecimal():
        sys.stderr.write(f"keep_running: how many? {count!r} is no number\n")
        return 2
    return run("keep_running", begin(master, int(count), IdFile(id_file)))


if __name__ == "__main__":
    raise SystemExit(start(main, __doc__, sys.argv[1:]))
