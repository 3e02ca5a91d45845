"""Why a task cannot have the devices that it was decided to get. Pure.

The agent is the authority on its devices: a launch was decided on what it said earlier, and may come too late. It names
the claim, the class, what stands in the way and what there is; it never gives anything else instead. What does not
live here: other resources (`holding`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from edgerm.core.claims import Granted
from edgerm.core.devices import Device
from edgerm.core.ids import TaskKey
from edgerm_agent.core.grants import Grants, devices_of
from edgerm_agent.core.inventory import Picture
from edgerm_agent.core.records import GrantRecord, is_local


def refusal(records: Iterable[GrantRecord], picture: Picture, grants: Grants, generation: int) -> str:
    """The reason in one line; empty: the task may have them. `generation`: what it was decided on; 0: not known."""
    asked = tuple(records)
    told = [*_twice(asked)]
    for record in asked:
        told += _of_class(record, picture, grants, generation)
    now = picture.told.generation
    if told and generation not in (0, now):
        told.append(f"it was decided on inventory {generation}, this is {now}")
    return "; ".join(told)


def free(picture: Picture, grants: Grants) -> tuple[Device, ...]:
    """The devices that a task could be given now, in order of preference."""
    return tuple(
        device
        for device in picture.told.devices
        if device.offered and grants.holder((device.name, device.id), shared=device.shared) is None
    )


def _of_class(record: GrantRecord, picture: Picture, grants: Grants, generation: int) -> Iterator[str]:
    known = picture.device_class(record.name)
    if known is None:
        yield f"{_claims(record)}this agent has no class {record.name}"
        return
    if known.problem:
        yield f"{_claims(record)}nothing of class {record.name} can be had: {known.problem}"
        return
    for one in record.granted:
        problems = [why for device_id in one.ids if (why := _why_not(one, device_id, picture, grants, generation))]
        if problems:
            count = sum(device.name == record.name for device in free(picture, grants))
            there = f"it asks for {len(one.ids)}, {count} of {_count(picture, record.name)} can be had"
            yield f"{_claim(one)}{', '.join(problems)} ({there})"


def _why_not(one: Granted, device_id: str, picture: Picture, grants: Grants, generation: int) -> str:
    called = f"{one.type} {device_id!r}"
    device = picture.device(one.type, device_id)
    if device is None:
        return f"this agent has no {called}"
    holder = grants.holder((one.type, device_id), shared=one.shared)
    reasons = {
        f"{called} is {'shared' if device.shared else 'not shared'} here": device.shared != one.shared,
        f"{called} is in quarantine: {device.quarantine}": bool(device.quarantine),
        f"{called} is not healthy: {device.problem}": bool(device.problem),
        f"{called} is held by {holder and named(holder)}": holder is not None,
        f"{called} has changed": picture.is_another(device, generation),
    }
    return next((reason for reason, holds in reasons.items() if holds), "")


def named(key: TaskKey) -> str:
    """Who holds something, in words."""
    if is_local(key):
        return f"local grant {key.task_id!r}"
    return f"task {key.task_id!r} of framework {key.framework_id}"


def _twice(records: tuple[GrantRecord, ...]) -> Iterator[str]:
    """Devices that the launch itself gives to two claims."""
    seen: set[tuple[str, str]] = set()
    for device in devices_of(records):
        if device in seen:
            yield f"{device[0]} {device[1]!r} is given to two claims of the task"
        seen.add(device)


def _count(picture: Picture, name: str) -> int:
    return sum(1 for _ in picture.of_class(name))


def _claims(record: GrantRecord) -> str:
    return "".join(map(_claim, record.granted[:1]))


def _claim(one: Granted) -> str:
    """Names the claim, if it is not just called as its class."""
    return "" if one.claim == one.type else f"claim {one.claim!r}: "
