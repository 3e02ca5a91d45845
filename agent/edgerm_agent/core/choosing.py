"""Devices of a class whose plugin prefers some to others: which may be taken instead of those that were decided. Pure.

A launch gives devices of such a class only so that there are as many as it counts: before the start the plugin is asked
among those that are free. A device may stand for another only if no filter can tell them apart: it is of the same class
and pool and has the same metadata. What does not live here: how the plugin is asked (`edgerm_agent.devices`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from edgerm.core.claims import Granted
from edgerm.core.devices import Device, resources_granted
from edgerm.core.resources import Resources
from edgerm.core.scheduler import TaskSpec
from edgerm_agent.core.grants import Grants
from edgerm_agent.core.inventory import Picture
from edgerm_agent.core.records import GrantRecord
from edgerm_agent.core.refusing import free


def chooses(record: GrantRecord, picture: Picture) -> bool:
    """Whether the plugin of the grant's class is to be asked."""
    known = picture.device_class(record.name)
    return known is not None and known.chooses and not known.problem


def candidates(record: GrantRecord, picture: Picture, grants: Grants) -> tuple[str, ...]:
    """The devices that the grant may be of: its own, and the free ones that are like one of its own."""
    own = {device_id for one in record.granted for device_id in one.ids}
    like = {_kind(device) for device in picture.of_class(record.name) if device.id in own}
    can_be_had = {device.id for device in free(picture, grants) if device.name == record.name} | own
    return tuple(d.id for d in picture.of_class(record.name) if d.id in can_be_had and _kind(d) in like)


def chosen(
    record: GrantRecord, ids: Mapping[str, tuple[str, ...]], picture: Picture, among: Iterable[str]
) -> GrantRecord:
    """The grant with what the plugin chose; as it was, if that does not do."""
    granted = tuple(replace(one, ids=tuple(ids.get(one.claim, one.ids))) for one in record.granted)
    taken = [device_id for one in granted for device_id in one.ids]
    fits = len(set(taken)) == len(taken) and set(taken) <= set(among)
    alike = all(_kinds(was, picture) == _kinds(one, picture) for was, one in zip(record.granted, granted, strict=True))
    return replace(record, granted=granted) if fits and alike else record


def instead(record: GrantRecord, picture: Picture, grants: Grants) -> GrantRecord:
    """The grant with others of their kind for those that are not free any more, as far as there are any."""
    own = {device_id for one in record.granted for device_id in one.ids}
    left = [device for device in free(picture, grants) if device.name == record.name]
    available = {device.id for device in left}
    spare = [device for device in left if device.id not in own]

    def other(device_id: str) -> str:
        device = picture.device(record.name, device_id)
        if device_id in available or device is None:
            return device_id
        like = next((one for one in spare if _kind(one) == _kind(device)), None)
        if like is None:
            return device_id
        spare.remove(like)
        return like.id

    granted = tuple(replace(one, ids=tuple(map(other, one.ids))) for one in record.granted)
    return replace(record, granted=granted)


def task_with(task: TaskSpec, was: GrantRecord, now: GrantRecord) -> TaskSpec:
    """The task, given these devices of a class and not those."""
    given = iter(now.granted)  # of the claims first, in their order
    before = {device_id for one in was.granted for device_id in one.ids}
    kept = Resources(
        (key, amount - before if key.name == was.name and isinstance(amount, frozenset) else amount)
        for key, amount in task.resources.items()
    )
    granted = tuple(
        replace(one, ids=next(given).ids) if one.type == was.name and one.ids else one for one in task.granted
    )
    return replace(task, resources=kept + resources_granted(now.granted), granted=granted)


def _kind(device: Device) -> tuple[bool, str]:
    return device.shared, device.metadata


def _kinds(one: Granted, picture: Picture) -> list[tuple[bool, str]]:
    devices = (picture.device(one.type, device_id) for device_id in one.ids)
    return sorted(_kind(device) for device in devices if device is not None)
