"""Every task of an agent as its journal has it, what the master is owed of it, and what the log gets.

What does not live here: what happens to a task (`way`, `restarting`).
"""

from __future__ import annotations

from dataclasses import replace

from edgerm.core.claims import Granted
from edgerm.core.effects import Put
from edgerm.core.ids import TaskKey
from edgerm.core.instant import BEGINNING, Instant
from edgerm.core.link import AgentHalf, Update
from edgerm.core.resources import Resources
from edgerm.core.scheduler import Status
from edgerm.core.tasks import SIGNAL_OF, Reason, TaskState, advance
from edgerm.plugin.executor import Exit
from edgerm_agent.core.choosing import chooses
from edgerm_agent.core.effects import Effect, Noted, What
from edgerm_agent.core.records import is_local
from edgerm_agent.core.stock import Stock
from edgerm_agent.core.task import Task
from edgerm_agent.core.verdicts import Ending, status_of


class Ledger:
    """Who calls sets `now` and takes what is in `out`, and then in `notes` (for the log)."""

    def __init__(self, half: AgentHalf, stock: Stock) -> None:
        self.tasks: dict[TaskKey, Task] = {}
        self.instances: dict[str, str] = {}
        self.awaited: dict[str, str] = {}  # executors that may hold tasks, and why they do not answer
        self.stock = stock
        self.out: list[Effect] = []
        self.notes: list[Noted] = []
        self.now: Instant = BEGINNING
        self._half = half
        self._news: dict[TaskKey, str] = {}  # the latest of a task, while the master has not got the one before
        self._left: Resources | None = None  # by tasks that have not ended; None: to be worked out anew

    def redraw(self) -> None:
        """What is held back may have changed: tell of it if it has."""
        if self.stock.draw():
            self.described()

    def described(self) -> None:
        """What the agent says of itself is another now."""
        self._left = None
        self._half.describe(self.stock.spec)

    def sleeping(self, executor: str) -> str:
        """The executor if it sleeps, else nothing."""
        return executor if self.instances.get(executor) == "" else ""

    def _tell(self, task: Task, message: str) -> None:
        """Tell it; while the master lacks what was told before, only the latest is kept, and not on the disk."""
        if task.run.kill_asked or task.ending is not None or not task.live or is_local(task.key):
            return
        if task.run.owed:
            self._news[task.key] = message
        else:
            state = TaskState.RUNNING if task.run.state is TaskState.RUNNING else TaskState.STARTING
            self._change_and_report(task, state, message=message)

    def persisted(self, update: Update) -> None:
        """Owe it no more. Not journaled: after a crash it is sent again, and the master drops what it has."""
        task = self.tasks.get(update.key)
        if task is not None:
            task.run = replace(task.run, owed=tuple(owed for owed in task.run.owed if owed.seq > update.seq))
            if not task.run.owed and (message := self._news.pop(update.key, None)) is not None:
                self._tell(task, message)

    def note(self, what: What, key: TaskKey, executor: str, request: str = "", status: Status | None = None) -> None:
        self.notes.append(Noted(what, key, executor, request, status))

    def _change(self, task: Task, **changes: object) -> None:
        task.run = replace(task.run, **changes)  # type: ignore[arg-type]
        self.out.append(Put("run", str(task.key), task.run))

    def _change_and_report(
        self,
        task: Task,
        state: TaskState,
        reason: Reason | None = None,
        message: str = "",
        exited: Exit | None = None,
        **changes: object,
    ) -> None:
        """Move the task and owe the master an update about it, in one record. Of local grants it hears nothing."""
        state = advance(task.run.state, SIGNAL_OF[state], task.run)
        if is_local(task.key):
            self._change(task, state=state, **changes)
            return
        seq, told = task.run.seq + 1, Ending(state, reason, message)
        status = status_of(self._half.agent_id, task.key, seq, told, exited, self.now.wall_s)
        if state is TaskState.RUNNING:
            status = replace(status, granted=self._took(task))
        update = Update(task.key, seq, status)
        self._change(task, state=state, seq=update.seq, owed=(*task.run.owed, update), **changes)
        self._half.report(update)

    def _took(self, task: Task) -> tuple[Granted, ...]:
        """What the agent took where a plugin chooses."""
        names = {one.name for one in self.stock.grants.records(task.key) if chooses(one, self.stock.picture)}
        return tuple(one for one in task.record.task.granted if one.type in names)
