"""A task's agent took other devices than the master had given: the agent is the truth, so the books follow.

That happens where a plugin states preferences (`DeviceClass.chooses`). What does not live here: when it is told
(`updating`).
"""

from __future__ import annotations

from dataclasses import replace

from edgerm.core.claims import Granted
from edgerm.core.devices import resources_granted, without_items
from edgerm.core.effects import Put
from edgerm.core.resources import Resources
from edgerm.core.scheduler import Status, TaskSpec
from edgerm_master.core import offers
from edgerm_master.core.world import Task, World


def rebook(world: World, task: Task, status: Status) -> None:
    """Take over which devices the task has; offers that hold one of them are rescinded."""
    before = task.record.task
    now = _with(before, status.granted)
    if now == before:
        return
    task.record = replace(task.record, task=now)
    world.out.append(Put("task", str(task.key), task.record))
    agent = world.agents.get(task.agent_id)
    if agent is None:
        return
    taken = resources_granted(now.granted)
    for offer_id in agent.offers:
        if _touches(world.offers[offer_id].resources, taken):
            offers.rescind(world, offer_id)
    offers.settle_free(world, agent)
    world.dirty[agent.agent_id] = None


def _with(task: TaskSpec, told: tuple[Granted, ...]) -> TaskSpec:
    """The task with the devices that it is told to have; what is told of other claims or classes is passed over."""
    ids = {(one.claim, one.type, one.shared): one.ids for one in told}
    granted = tuple(replace(one, ids=ids.get((one.claim, one.type, one.shared), one.ids)) for one in task.granted)
    if granted == task.granted:
        return task
    old, new = resources_granted(task.granted), resources_granted(granted)
    return replace(task, granted=granted, resources=without_items(task.resources, old) + new)


def _touches(resources: Resources, taken: Resources) -> bool:
    """Whether both have an item that only one may have."""
    return any(
        not key.shared and isinstance(amount, frozenset) and not amount.isdisjoint(items)
        for key, items in taken.items()
        if isinstance(items, frozenset) and (amount := resources.get(key)) is not None
    )
