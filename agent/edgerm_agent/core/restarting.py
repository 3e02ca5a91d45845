"""Stopped, and started anew: a task that lost a device goes on when it is back, if its claim says so.

The theory: such a task is stopped like one that is killed, and its devices are taken back; then it waits, RUNNING for
the master, until all its devices are here and clean and its executor has forgotten it. What does not live here: which
loss counts (`losing`), how a task starts and ends (`way`).
"""

from __future__ import annotations

from edgerm.core.ids import TaskKey
from edgerm.core.link import AgentHalf
from edgerm.core.scheduler import KILL_GRACE_S
from edgerm.core.tasks import TaskState
from edgerm.plugin.executor import Handle
from edgerm_agent.core.effects import Fetch, Release, Stop
from edgerm_agent.core.grants import GrantState
from edgerm_agent.core.holding import gone
from edgerm_agent.core.ledger import Ledger
from edgerm_agent.core.losing import Rule, lacking, loss
from edgerm_agent.core.records import Phase
from edgerm_agent.core.stock import Stock
from edgerm_agent.core.task import Task


class Restarts(Ledger):
    """Tasks that lose devices."""

    def __init__(self, half: AgentHalf, stock: Stock) -> None:
        super().__init__(half, stock)
        self._releasing: set[TaskKey] = set()  # what waits, and its executor has not forgotten yet

    def stop(self, task: Task) -> None:
        """End what runs, with the grace that it has."""
        if task.run.handle is not None and task.ending is None:
            self.out.append(Stop(task.run.handle, self._grace_s(task)))

    def _grace_s(self, task: Task) -> float:
        for grace_s in (task.run.kill_grace_s, task.record.task.grace_s):
            if grace_s is not None:
                return grace_s
        return KILL_GRACE_S

    def _mind_loss(self, task: Task) -> None:
        """Stop the task if it has lost a device and its claim says so."""
        if task.run.phase is not Phase.RUNNING or task.ending is not None or task.run.kill_asked or task.run.lost:
            return
        found = loss(self.stock.grants.records(task.key), self.stock.picture)
        if found is not None:
            self._change(task, lost=found.words, again=found.rule is Rule.RESTART)
            self.stop(task)

    def _goes_on(self, task: Task) -> bool:
        """Whether the task, of which nothing is left, is to start again when its devices are back."""
        if task.run.kill_asked or not task.live:
            return False
        if task.run.phase is Phase.WAITING:
            return task.ending is None
        if task.run.again:
            return True
        failed = task.ending is not None and task.ending.state is TaskState.FAILED
        if not failed or task.run.state is not TaskState.RUNNING or task.run.lost:
            return False
        # It may have noticed before we did.
        found = loss(self.stock.grants.records(task.key), self.stock.picture)
        return found is not None and found.rule is Rule.RESTART

    def _wait(self, task: Task, why: str = "") -> None:
        """The task starts anew when all its devices are back, and its executor has forgotten it."""
        handle = task.run.handle
        records = self.stock.grants.records(task.key)
        why = why or task.run.lost or lacking(records, self.stock.picture)
        task.ending = task.exited = None
        self._change(task, phase=Phase.WAITING, handle=None, lost=why, again=True)
        self._tell(task, f"it was stopped, and waits: {why}")
        if handle is not None:
            self._releasing.add(task.key)
            self.out.append(Release(task.key, handle))

    def _lacks(self, task: Task) -> str:
        """Which of its devices are not here any more; empty: they all are."""
        records = self.stock.grants.records(task.key)
        if message := lacking(records, self.stock.picture):
            return message
        names = {record.name for record in records}
        return gone(task.record.task.resources.only(lambda key: key.name not in names), self.stock.spec.resources)

    def try_again(self, task: Task) -> None:
        """Start the task anew if nothing is in the way any more."""
        key = task.key
        holding = self.stock.grants.of(key)
        if task.run.phase is not Phase.WAITING or task.ending is not None or key in self._releasing:
            return
        if task.executor in self.awaited or (holding is not None and holding.state is not GrantState.GIVEN):
            return
        if not self._lacks(task):
            self._change(task, phase=Phase.FETCHING, lost="", again=False)
            self.out.append(Fetch(key, task.record.task.needs, self.sleeping(task.executor)))

    def stop_stranger(self, handle: Handle) -> None:
        """The executor holds what shall not run; a task that waits is started anew only after that is gone."""
        self.out += (Stop(handle, 0.0), Release(handle.key, handle))
        self._releasing.add(handle.key)

    def released(self, key: TaskKey) -> None:
        """Its executor has forgotten it."""
        self._releasing.discard(key)
        if (task := self.tasks.get(key)) is not None:
            self.try_again(task)
