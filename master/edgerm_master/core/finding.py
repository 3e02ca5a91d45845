"""Tasks as people name them: by an id, by its beginning, or by the name that the task was given."""

from __future__ import annotations

from collections.abc import Iterator

from edgerm.core.ids import TaskKey
from edgerm.core.scheduler import Waiting
from edgerm_master.core.frameworks import Framework
from edgerm_master.core.world import World


def find_tasks(world: World, task_id: str, framework_id: str | None) -> list[TaskKey]:
    """Keys of the tasks whose id is, else begins with, `task_id`; those that still matter before completed ones."""
    for exact in (True, False):
        live = [key for key in _task_keys(world, framework_id) if _names(key, task_id, exact)]
        if live:
            return live
        old = [key for key in _completed_keys(world, framework_id) if _names(key, task_id, exact)]
        if old:
            return old
    return []


def find_named(world: World, name: str, framework_id: str | None) -> list[TaskKey]:
    """Keys of the tasks of this name; those that still matter before completed ones."""
    live = [key for key in _task_keys(world, framework_id) if world.tasks[key].record.task.name == name]
    frameworks = (*world.frameworks.values(), *world.completed)
    return live or [
        task.record.key
        for framework in frameworks
        if framework_id in (None, framework.framework_id)
        for task in framework.completed
        if task.record.task.name == name
    ]


def find_waiting(world: World, framework_id: str | None, task_id: str, name: str) -> list[tuple[Framework, Waiting]]:
    """Tasks without a place yet that have this name, or, without a name, this id or a beginning of it."""
    told = [
        (framework, waiting)
        for framework in world.frameworks.values()
        if framework_id in (None, framework.framework_id)
        for waiting in framework.waiting
        if waiting.task_id not in framework.tasks
    ]
    if name:
        return [(framework, waiting) for framework, waiting in told if waiting.name == name]
    exact = [(framework, waiting) for framework, waiting in told if waiting.task_id == task_id]
    return exact or [(framework, waiting) for framework, waiting in told if waiting.task_id.startswith(task_id)]


def _task_keys(world: World, framework_id: str | None) -> Iterator[TaskKey]:
    for key, task in world.tasks.items():
        if not task.run.settled and framework_id in (None, key.framework_id):
            yield key


def _completed_keys(world: World, framework_id: str | None) -> Iterator[TaskKey]:
    for framework in (*world.frameworks.values(), *world.completed):
        if framework_id in (None, framework.framework_id):
            yield from (task.record.key for task in framework.completed)


def _names(key: TaskKey, task_id: str, exact: bool) -> bool:
    return key.task_id == task_id if exact else key.task_id.startswith(task_id)
