"""Which devices of an agent a framework cannot have now, and why: for people, one sentence for each class."""

from __future__ import annotations

from collections.abc import Iterator

from edgerm.core.devices import Device, devices_in
from edgerm.core.scheduler import Capability, TaskSpec
from edgerm.core.texts import cut
from edgerm_master.core.agents import Agent
from edgerm_master.core.frameworks import Framework
from edgerm_master.core.world import World

DEVICES_SHOWN = 10  # of a class
WORDS_BYTES_MAX = 200  # of why one cannot be had


def short_of(world: World, framework: Framework, agent: Agent) -> list[str]:
    """The classes of which it cannot have every device, in the agent's order; none: it can have all there are."""
    inventory = agent.spec.inventory
    away = [
        f"nothing of {each.name} can be claimed: {cut(each.problem, WORDS_BYTES_MAX)}"
        for each in inventory.classes
        if each.problem
    ]
    taken = dict(_taken(world, framework, agent))
    by_class: dict[str, list[tuple[Device, str]]] = {}
    for device in inventory.devices:
        why = _why_not(framework, device) or taken.get(device, "")
        by_class.setdefault(device.name, []).append((device, why))
    return away + [_of_class(name, some) for name, some in by_class.items() if any(why for _, why in some)]


def _of_class(name: str, some: list[tuple[Device, str]]) -> str:
    short = [f"{device.id} {why}" for device, why in some if why]
    shown = [*short[:DEVICES_SHOWN], *([f"{len(short) - DEVICES_SHOWN} more"] if len(short) > DEVICES_SHOWN else [])]
    return f"{len(some) - len(short)} of {len(some)} {name} can be had: {', '.join(shown)}"


def _why_not(framework: Framework, device: Device) -> str:
    """What speaks against it whoever asks, or this framework."""
    if device.quarantine:
        return f"is in quarantine ({cut(device.quarantine, WORDS_BYTES_MAX)})"
    if device.problem:
        return f"is not well ({cut(device.problem, WORDS_BYTES_MAX)})"
    if device.held_by:
        return f"is held by {cut(device.held_by, WORDS_BYTES_MAX)}"
    if device.shared and Capability.SHARED_RESOURCES not in framework.spec.capabilities:
        return "is shared, which only frameworks with SHARED_RESOURCES know"
    return ""


def _taken(world: World, framework: Framework, agent: Agent) -> Iterator[tuple[Device, str]]:
    """Exclusive ones that tasks and other frameworks' offers hold."""
    inventory = agent.spec.inventory
    for offer_id in agent.offers:
        offer = world.offers[offer_id]
        if offer.framework_id != framework.framework_id:
            for device in devices_in(inventory, offer.resources):
                if not device.shared:
                    yield device, "is offered to another framework"
    for key in agent.tasks:
        task = world.tasks[key]
        if task.live:
            for device in devices_in(inventory, task.record.task.resources):
                if not device.shared:
                    yield device, f"is held by task {key.task_id}"


def devices_of(task: TaskSpec) -> str:
    """What the task was given, in words; empty: no devices."""
    some = [f"{one.type} {', '.join(one.ids)}" for one in task.granted if one.ids]
    return f", with {'; '.join(some)}" if some else ""
