"""Tasks as people name them: by an id, or by its beginning."""

from __future__ import annotations

from collections.abc import Iterator

from edgerm.core.ids import TaskKey
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
