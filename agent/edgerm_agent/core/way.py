"""A task's way on this box: launched, started, ended, each step journaled before it is taken.

The theory: a task goes through the phases of `records.Phase`. With devices two steps more are taken: before anything
else they are journaled as given (`grants`), and when nothing of the task is left they are taken back before its end is
journaled and told. Until then the end is known here only: after a crash its executor tells it again.

What does not live here: the link, and when a master is told (`agent`); what a restart finds (`resuming`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from edgerm.core.blobs import Digest
from edgerm.core.effects import Drop, Put
from edgerm.core.ids import TaskKey
from edgerm.core.link import AgentHalf, Launch
from edgerm.core.resources import Resources
from edgerm.core.scheduler import TaskSpec
from edgerm.core.tasks import Reason, TaskState
from edgerm.core.timers import Timers
from edgerm.plugin.executor import Exit, Handle
from edgerm_agent.core.choosing import candidates, chooses, chosen, instead, task_with
from edgerm_agent.core.effects import (
    Abandon,
    Choose,
    Discard,
    Fetch,
    GiveBack,
    LocalEnded,
    LocalRefused,
    Release,
    Start,
    Stop,
    What,
)
from edgerm_agent.core.grants import GrantState, grants_of
from edgerm_agent.core.holding import refusal
from edgerm_agent.core.losing import unseen
from edgerm_agent.core.records import GrantRecord, Phase, RunRecord, TaskRecord, is_local
from edgerm_agent.core.refusing import refusal as device_refusal
from edgerm_agent.core.rest import Rest
from edgerm_agent.core.restarting import Restarts
from edgerm_agent.core.stock import Stock
from edgerm_agent.core.task import Task
from edgerm_agent.core.verdicts import Ending, ending

RUNS_AGAIN = "it runs again"
PLUGIN_S = 60.0  # a plugin for Kubernetes registers within seconds of the agent's start


class Way(Restarts):
    """All tasks of an agent. Who calls sets `now` and takes what is in `out`, and then in `notes` (for the log)."""

    def __init__(self, half: AgentHalf, stock: Stock, rest: Rest) -> None:
        super().__init__(half, stock)
        self._rest = rest
        self._timers: Timers[TaskKey] = Timers()  # when a task has run for as long as it may
        self._patience: Timers[TaskKey] = Timers()  # when it has waited long enough for a plugin

    # --- launch ---

    def launch(self, order: Launch, present: frozenset[Digest]) -> None:
        """Take the task, whose key is new; `present`: blobs that are here."""
        spec, grants = self._given(order.key, order.task)
        executor = spec.executor
        awaited = self.awaited.get(executor)
        wakes = self.sleeping(executor)
        missing = bool(wakes) or any(ref.digest not in present for ref in spec.needs)
        asks = any(chooses(record, self.stock.picture) for record in grants)
        phase = Phase.FETCHING if missing or asks or awaited is not None else Phase.STARTING
        record = TaskRecord(order.key, order.role, spec)
        task = Task(record, RunRecord(order.key, phase, TaskState.STAGING, self.instances.get(executor, "")))
        if (fault := self._fault(spec, grants)) is not None:
            self._refuse(task, fault)
            return
        self.tasks[order.key] = task
        self._left = self._left.less(spec.resources) if self._left is not None else None
        # A batch may end between any two. Grants first: a task that is known has all of them, and grants alone are
        # given back. Then the run: a task without one would be a promise half made.
        self.out += self.stock.grants.give(order.key, grants)
        self.out += (Put("run", str(order.key), task.run), Put("task", str(order.key), record))
        self.redraw()
        if missing:
            self.out.append(Fetch(order.key, spec.needs, wakes))
        elif awaited is not None:
            self.preparing(order.key, awaited)
        elif not self._choose(task):
            self.out.append(Start(order.key, spec, self.stock.grants.use(order.key)))

    def _given(self, key: TaskKey, task: TaskSpec) -> tuple[TaskSpec, tuple[GrantRecord, ...]]:
        """The task and its grants; where their plugin chooses anyway, what is taken already is no hindrance."""
        picture, grants = self.stock.picture, self.stock.grants
        records: list[GrantRecord] = []
        for asked in grants_of(key, task, picture.classes):
            record = instead(asked, picture, grants) if chooses(asked, picture) else asked
            task = task_with(task, asked, record) if record != asked else task
            records.append(record)
        return task, tuple(records)

    def _fault(self, task: TaskSpec, grants: tuple[GrantRecord, ...]) -> Ending | None:
        """Why this agent does not even try; it is the authority on what it has."""
        if task.fault:  # a newer master's task may ask for what this agent does not know
            return Ending(TaskState.FAILED, Reason.CONTAINER_LAUNCH_FAILED, task.fault)
        if task.executor not in self.instances and task.executor not in self.awaited:
            have = ", ".join(sorted(self.instances)) or "none"
            message = f"this agent has no {task.executor!r} executor (it has: {have}); see: edgerm doctor on the agent"
            return Ending(TaskState.FAILED, Reason.CONTAINER_LAUNCH_FAILED, message)
        if message := device_refusal(grants, self.stock.picture, self.stock.grants, task.generation):
            return Ending(TaskState.DROPPED, Reason.RESOURCES_UNKNOWN, message)
        left = self._left = self._left if self._left is not None else self._spare()
        if left.covers(task.resources):
            return None
        holders = ((task.key, task.record.task.resources) for task in self.tasks.values() if task.live)
        message = refusal(task.resources, self.stock.spec.resources, left, holders)
        return Ending(TaskState.DROPPED, Reason.RESOURCES_UNKNOWN, message)

    def _refuse(self, task: Task, fault: Ending) -> None:
        if is_local(task.key):
            self.out.append(LocalRefused(task.key, fault.message))
            return
        self.tasks[task.key] = task
        self._end(task, fault)
        self.out.append(Put("task", str(task.key), task.record))

    def _spare(self) -> Resources:
        left = self.stock.spec.resources
        for task in self.tasks.values():
            if task.live:
                left = left.less(task.record.task.resources)
        return left

    # --- start ---

    def fetched(self, key: TaskKey) -> None:
        task = self.tasks.get(key)
        if task is not None and task.run.phase is Phase.FETCHING:
            self._start(task)

    def _start(self, task: Task) -> None:
        executor = task.executor
        if executor in self.awaited:  # it stays here until it is found
            self.preparing(task.key, self.awaited[executor])
            return
        instance = self.instances.get(executor)
        if instance is None:
            self._fail(task, f"this agent has no {executor!r} executor any more")
            return
        if self._awaits_plugin(task):
            return
        if message := self._lacks(task):
            if task.run.state is TaskState.RUNNING:  # it ran before, and lost a device
                self._wait(task, message)
            else:
                self._fail(task, message)
            return
        if not instance:
            self.out.append(Fetch(task.key, task.record.task.needs, executor))
        elif not self._choose(task):
            self._change(task, phase=Phase.STARTING, instance=instance)
            self.out.append(Start(task.key, task.record.task, self.stock.grants.use(task.key)))

    def _awaits_plugin(self, task: Task) -> bool:
        """Whether no plugin has spoken yet of a device of the task, for which it waits a while."""
        task.unseen = unseen(self.stock.grants.records(task.key), self.stock.picture)
        if not task.unseen:
            self._patience.cancel(task.key)
        elif self._patience.due_s(task.key) is None:
            self._patience.set(task.key, self.now.steady_s + PLUGIN_S)
            self.preparing(task.key, task.unseen)
        return bool(task.unseen)

    def give_up(self) -> None:
        """End what has waited for a plugin for so long that none is to be expected; what ran before waits on."""
        while (key := self._patience.pop(self.now.steady_s)) is not None:
            task = self.tasks.get(key)
            if task is None or task.run.phase is not Phase.FETCHING or task.ending is not None:
                continue
            why, task.unseen = task.unseen, ""
            if task.run.state is TaskState.RUNNING:
                self._wait(task, why)
            else:
                self._fail(task, f"{why}, and none has come within {PLUGIN_S:.0f} s")

    def _fail(self, task: Task, message: str) -> None:
        self._end(task, Ending(TaskState.FAILED, Reason.CONTAINER_LAUNCH_FAILED, message))

    def _choose(self, task: Task) -> bool:
        """Ask the plugins that prefer some devices to others; whether there are any that have not answered."""
        picture, grants = self.stock.picture, self.stock.grants
        asked = [record for record in grants.records(task.key) if chooses(record, picture)]
        asked = [record for record in asked if record.name not in task.chosen]
        self.out += (Choose(task.key, record, candidates(record, picture, grants)) for record in asked)
        return bool(asked)

    def chosen(self, key: TaskKey, name: str, ids: Mapping[str, tuple[str, ...]]) -> None:
        """A plugin's choice. The grant first: what a crash leaves of it is put right by the task, which then waits."""
        task = self.tasks.get(key)
        grants = self.stock.grants
        record = next((one for one in grants.records(key) if one.name == name), None)
        if task is None or record is None or task.run.phase is not Phase.FETCHING or task.ending is not None:
            return
        task.chosen.add(name)
        picked = chosen(record, ids, self.stock.picture, candidates(record, self.stock.picture, grants))
        if picked != record:
            records = tuple(picked if one is record else one for one in grants.records(key))
            self.out += grants.give(key, records)
            task.record = replace(task.record, task=task_with(task.record.task, record, picked))
            self.out.append(Put("task", str(key), task.record))
            self._left = None
            self.redraw()
        self._start(task)

    def preparing(self, key: TaskKey, message: str) -> None:
        """Its start takes long."""
        task = self.tasks.get(key)
        if task is not None and task.run.phase in (Phase.FETCHING, Phase.STARTING):
            self._tell(task, message)

    def started(self, key: TaskKey, handle: Handle) -> None:
        task = self.tasks.get(key)
        if task is None or task.run.phase is not Phase.STARTING or task.ending is not None:
            return
        self._news.pop(key, None)
        again = task.run.state is TaskState.RUNNING
        if again:
            self._change(task, phase=Phase.RUNNING, handle=handle, instance=handle.instance)
            self._tell(task, RUNS_AGAIN)
        else:
            instance = handle.instance
            self._change_and_report(task, TaskState.RUNNING, phase=Phase.RUNNING, handle=handle, instance=instance)
        self.note(What.RUNNING, key, handle.executor)
        self.watch_over(task)
        if task.run.kill_asked:
            self.out.append(Stop(handle, self._grace_s(task)))

    def watch_over(self, task: Task) -> None:
        """It runs from now on: for as long as it may, and while it has its devices."""
        if task.record.task.completion_s is not None:
            self._timers.set(task.key, self.now.steady_s + task.record.task.completion_s)
        self._mind_loss(task)

    # --- kill ---

    def expire(self) -> None:
        """End what has run for as long as it may."""
        while (key := self._timers.pop(self.now.steady_s)) is not None:
            task = self.tasks.get(key)
            if task is not None and task.run.handle is not None and task.live and not task.run.kill_asked:
                self._change(task, kill_asked=True, expired=True)
                self.stop(task)

    def kill(self, task: Task, grace_s: float | None) -> None:
        if not task.live:
            return
        if task.ending is not None:  # its devices are being taken back
            self._change(task, kill_asked=True)
            if task.run.again:
                task.ending = Ending(TaskState.KILLED, None, f"killed after it was stopped: {task.run.lost}")
            return
        if task.run.phase is Phase.FETCHING:
            why = "killed before it was started"
            self._end(task, Ending(TaskState.KILLED, Reason.TASK_KILLED_DURING_LAUNCH, why))
        elif task.run.phase is Phase.WAITING:
            self._end(task, Ending(TaskState.KILLED, None, f"killed while it waited: {task.run.lost}"))
        elif task.run.handle is None:
            self._change(task, kill_asked=True, kill_grace_s=grace_s)
            self.out.append(Abandon(task.key, task.executor))
        else:
            self._kill_running(task, grace_s)

    def _kill_running(self, task: Task, grace_s: float | None) -> None:
        if not task.run.kill_asked:
            self._change_and_report(task, TaskState.KILLING, kill_asked=True, kill_grace_s=grace_s)
        elif grace_s != task.run.kill_grace_s:
            self._change(task, kill_grace_s=grace_s)
        self.stop(task)

    # --- end ---

    def not_started(self, key: TaskKey, why: str) -> None:
        task = self.tasks.get(key)
        if task is None or task.run.phase not in (Phase.FETCHING, Phase.STARTING):
            return
        if task.run.kill_asked:
            self._end(task, Ending(TaskState.KILLED, Reason.TASK_KILLED_DURING_LAUNCH, why))
        else:
            self._fail(task, why)

    def ended(self, key: TaskKey, exited: Exit) -> None:
        task = self.tasks.get(key)
        if task is None or task.run.phase not in (Phase.STARTING, Phase.RUNNING):
            return
        end = ending(exited, task.run.kill_asked, task.run.expired)
        if task.run.lost and not task.run.kill_asked:
            end = Ending(TaskState.FAILED, Reason.RESOURCES_UNKNOWN, f"stopped: {task.run.lost}; {end.message}")
        self._end(task, end, exited)

    def _end(self, task: Task, end: Ending, exited: Exit | None = None) -> None:
        """Nothing of the task is left; what it had of devices is taken back before anybody is told."""
        if task.ending is not None:
            return
        task.ending, task.exited = end, exited
        self._timers.cancel(task.key)
        self._patience.cancel(task.key)
        grants = self.stock.grants
        if records := grants.end(task.key):
            self.out.append(GiveBack(task.key, records))
            return
        holding = grants.of(task.key)
        if holding is None or holding.state is not GrantState.RETURNING:  # else it was asked for already
            self._finish(task, end)

    def given_back(self, key: TaskKey, evidence: Mapping[str, str]) -> None:
        """The plugins have looked at what the task had."""
        grants = self.stock.grants
        holding = grants.of(key)
        if holding is None or not holding.returning:
            return
        task = self.tasks.get(key)
        keep = task is not None and self._goes_on(task)
        changes = grants.given_back(key, evidence, keep, self.now.steady_s)
        if task is not None and task.ending is not None and task.live:
            if keep:
                self._wait(task)
            else:
                self._finish(task, task.ending)
        self.out += changes  # after its end: a task that may still be started by a crash has all its grants
        self.redraw()
        if task is not None:
            self.try_again(task)

    def _finish(self, task: Task, end: Ending) -> None:
        """Its end is journaled, and told."""
        handle, began = task.run.handle, task.run.state not in (TaskState.STAGING, TaskState.STARTING)
        self._left = None
        self._rest.used(task.executor, self.now.steady_s)
        self._news.pop(task.key, None)
        if is_local(task.key):
            self._forget_local(task, end, began)
        else:
            state, reason, message = end
            self._change_and_report(task, state, reason, message, task.exited, phase=Phase.ENDED, handle=None)
            self.note(What.ENDED, task.key, task.executor, status=task.run.owed[-1].status)
        self.out += self.stock.grants.leave(task.key)
        self.redraw()
        if handle is not None:
            self.out.append(Release(task.key, handle))

    def forget(self, task: Task) -> None:
        """Nobody will ask for it any more."""
        del self.tasks[task.key]
        self.out += (Drop("task", str(task.key)), Drop("run", str(task.key)), Discard(task.key))

    def _forget_local(self, task: Task, end: Ending, began: bool) -> None:
        self.forget(task)
        if began or end.state is TaskState.KILLED:
            self.out.append(LocalEnded(task.key, "" if end.state is TaskState.KILLED else end.message))
        else:
            self.out.append(LocalRefused(task.key, end.message))

    # --- a device is lost ---

    def inventoried(self, back: frozenset[str]) -> None:
        """The picture of the devices is another; the plugins of the classes `back` are there again."""
        self.redraw()
        self.stock.grants.hasten(back, self.now.steady_s)
        for task in list(self.tasks.values()):
            self._mind_loss(task)
            self.try_again(task)
            if task.unseen and task.run.phase is Phase.FETCHING:
                self._start(task)

    def retry(self) -> None:
        """Take back again what was not clean."""
        grants = self.stock.grants
        while (key := grants.pop(self.now.steady_s)) is not None:
            self.out.append(GiveBack(key, grants.records(key)))

    def due_s(self) -> float | None:
        """When to `expire`, `retry` and `give_up` next, or None."""
        dues = (self._timers.next_s(), self._patience.next_s(), self.stock.grants.next_s())
        return min((due for due in dues if due is not None), default=None)
