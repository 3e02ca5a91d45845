"""The first events of an agent's life: what the journal promised is gone on with, undone, or lost. Pure.

What does not live here: the verdict on one task (`recovery`), the steps that follow (`way`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from edgerm.core.effects import Put
from edgerm.core.ids import TaskKey
from edgerm.plugin.executor import Exit, ExitReason, Handle
from edgerm_agent.core.effects import Effect, Fetch, GiveBack, Start, Watch
from edgerm_agent.core.grants import GrantState, grants_of
from edgerm_agent.core.records import GrantRecord, Phase, Record, RunRecord, TaskRecord
from edgerm_agent.core.recovery import Verdict, judge
from edgerm_agent.core.task import Task
from edgerm_agent.core.way import Way

_STATES: Mapping[Phase, GrantState] = {
    Phase.FETCHING: GrantState.GIVEN,
    Phase.STARTING: GrantState.IN_USE,
    Phase.RUNNING: GrantState.IN_USE,
    Phase.WAITING: GrantState.RETURNING,  # they were clean or not: whoever looked may not have come to say so
    Phase.ENDED: GrantState.RETURNING,
}


def load(way: Way, records: Iterable[Record]) -> list[Effect]:
    """Take the journal's records; what is to be put right in it."""
    kept = list(records)
    runs = {record.key: record for record in kept if isinstance(record, RunRecord)}
    for record in kept:
        if isinstance(record, TaskRecord):
            way.tasks[record.key] = Task(record, runs[record.key])
    given: dict[TaskKey, list[GrantRecord]] = {}
    for record in kept:
        if isinstance(record, GrantRecord):
            given.setdefault(record.key, []).append(record)
    return [effect for key, grants in given.items() for effect in _load(way, key, tuple(grants))]


def _load(way: Way, key: TaskKey, stored: tuple[GrantRecord, ...]) -> list[Effect]:
    task = way.tasks.get(key)
    records = tuple(sorted(stored, key=lambda record: record.name))
    if task is not None and task.run.phase is Phase.FETCHING:  # what was chosen was half written, and not prepared
        records = grants_of(key, task.record.task, {record.name for record in records})
    state = GrantState.RETURNING if task is None else _STATES[task.run.phase]
    way.stock.grants.load(key, records, state, over=task is None or not task.live)
    return [Put("grant", record.grant_key, record) for record in records if record not in stored]


def recover(way: Way, held: Mapping[TaskKey, Handle]) -> None:
    """Judge every task; give back what is nobody's any more."""
    returning = [key for key, holding in way.stock.grants.all.items() if holding.returning]
    way.redraw()
    for task in list(way.tasks.values()):
        _resume(way, task, held)
    _end_strangers(way, held)
    way.out += (GiveBack(key, way.stock.grants.records(key)) for key in returning)


def found(way: Way, executor: str, held: Mapping[TaskKey, Handle], *, was_awaited: bool) -> None:
    """Judge the tasks of an executor that was awaited; what was started since is none of this event's business."""
    if was_awaited:
        for task in list(way.tasks.values()):
            if task.executor == executor:
                _resume(way, task, held)
    _end_strangers(way, held)
    for task in list(way.tasks.values()):
        way.try_again(task)


def _end_strangers(way: Way, held: Mapping[TaskKey, Handle]) -> None:
    for key, handle in held.items():
        task = way.tasks.get(key)
        if task is None or task.run.phase in (Phase.ENDED, Phase.WAITING):
            way.stop_stranger(handle)


def _resume(way: Way, task: Task, held: Mapping[TaskKey, Handle]) -> None:
    if task.ending is not None:
        return
    instance = way.instances.get(task.executor)
    match judge(task.run, instance, held, awaited=task.executor in way.awaited):
        case Verdict.FETCH:
            way.out.append(Fetch(task.key, task.record.task.needs, way.sleeping(task.executor)))
        case Verdict.START if task.run.kill_asked:
            way.not_started(task.key, "killed before it was started")
        case Verdict.START:
            way.out.append(Start(task.key, task.record.task, way.stock.grants.use(task.key)))
        case Verdict.ADOPT:
            _adopt(way, task, held[task.key])
        case Verdict.LOST:
            message = "the agent was restarted and what held the task is gone"
            way.ended(task.key, Exit(ExitReason.EXECUTOR_DIED, message=message))


def _adopt(way: Way, task: Task, handle: Handle) -> None:
    way.out.append(Watch(handle))
    if task.run.phase is Phase.STARTING:
        way.started(task.key, handle)
        return
    if task.run.kill_asked or task.run.lost:
        way.stop(task)
    way.watch_over(task)  # its time begins anew: how long the agent was away is not known
