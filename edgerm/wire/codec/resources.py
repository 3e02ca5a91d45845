"""`Resource` messages and `Resources`.

What is read: both forms of reservations (`role` with `reservation`; `reservations` without `role`), whatever the
client's capabilities. What is written: the form that the client speaks. `allocation_info` and `provider_id` are not
part of what makes two resources the same and are ignored on input (mesos-v1 6.4).
"""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache
from typing import Literal, TypeAlias

from edgerm.core.errors import Invalid
from edgerm.core.resources import ITEMS_MAX, MILLI, Amount, Reservation, ResourceKey, Resources, coalesce, milli
from edgerm.wire.codec.roles import check_role
from edgerm.wire.v1.basics_pb2 import Labels
from edgerm.wire.v1.resources_pb2 import Resource, Value

ENTRIES_MAX = 10_000
NAME_CHARACTERS_MAX = 255
REMEMBERED_BYTES = 256
_Body: TypeAlias = Literal["scalar", "ranges", "set"]
_BODIES: dict[Value.Type.ValueType, _Body] = {Value.SCALAR: "scalar", Value.RANGES: "ranges", Value.SET: "set"}


def resources_from_messages(messages: Collection[Resource]) -> Resources:
    """The sum of `messages`; raises `Invalid`, naming the resource, for whatever Mesos refuses."""
    if len(messages) > ENTRIES_MAX:
        raise Invalid(f"{len(messages)} resources, at most {ENTRIES_MAX} are allowed")
    return Resources([_pair(message) for message in messages])


def _pair(message: Resource) -> tuple[ResourceKey, Amount]:
    data = message.SerializeToString()
    return _remembered(data) if len(data) <= REMEMBERED_BYTES else (_key(message), _amount(message))


@lru_cache(maxsize=4096)
def _remembered(data: bytes) -> tuple[ResourceKey, Amount]:
    """The same few resources come in every offer and task; to take one apart costs ten times the look-up."""
    message = Resource.FromString(data)
    return _key(message), _amount(message)


def _key(message: Resource) -> ResourceKey:
    name = message.name
    if not 0 < len(name) <= NAME_CHARACTERS_MAX:
        raise Invalid(f"a resource's name must have 1 to {NAME_CHARACTERS_MAX} characters: {name[:40]!r}")
    return ResourceKey(
        name,
        _reservations(message),
        message.disk.SerializeToString(deterministic=True) if message.HasField("disk") else b"",
        message.HasField("revocable"),
        message.HasField("shared"),
    )


def _reservations(message: Resource) -> tuple[Reservation, ...]:
    role = message.role
    if message.reservations:
        if message.HasField("reservation") or (message.HasField("role") and role != "*"):
            raise Invalid(f"resource {message.name!r} has reservations; then role and reservation must be unset")
        return tuple(_refined(message.name, part) for part in message.reservations)
    if role == "*":
        if message.HasField("reservation"):
            raise Invalid(f"resource {message.name!r} has a reservation, but its role is '*'")
        return ()
    check_role(role)
    if not message.HasField("reservation"):
        return (Reservation(role),)
    return (_reservation(message.reservation, role, dynamic=True),)


def _refined(name: str, message: Resource.ReservationInfo) -> Reservation:
    if message.type not in (Resource.ReservationInfo.STATIC, Resource.ReservationInfo.DYNAMIC):
        raise Invalid(f"resource {name!r}: type of a reservation must be STATIC or DYNAMIC")
    role = check_role(message.role)
    if role == "*":
        raise Invalid(f"resource {name!r}: nothing can be reserved for role '*'")
    return _reservation(message, role, dynamic=message.type == Resource.ReservationInfo.DYNAMIC)


def _reservation(message: Resource.ReservationInfo, role: str, *, dynamic: bool) -> Reservation:
    labels = message.labels.SerializeToString(deterministic=True) if message.HasField("labels") else b""
    return Reservation(role, dynamic, message.principal, labels)


def _amount(message: Resource) -> Amount:
    wanted = _BODIES.get(message.type)
    if wanted is None:
        raise Invalid(f"resource {message.name!r} has type TEXT; use SCALAR, RANGES or SET")
    if [body for body in _BODIES.values() if message.HasField(body)] != [wanted]:
        raise Invalid(f"resource {message.name!r} has type {wanted.upper()}: set {wanted!r} and no other value")
    if wanted == "scalar":
        return milli(message.scalar.value)
    if wanted == "ranges":
        return coalesce((part.begin, part.end) for part in message.ranges.range)
    return _items(message.name, message.set.item)


def _items(name: str, listed: Collection[str]) -> frozenset[str]:
    if len(listed) > ITEMS_MAX:
        raise Invalid(f"resource {name!r} has {len(listed)} items, at most {ITEMS_MAX} are allowed")
    items = frozenset(listed)
    if len(items) < len(listed):
        raise Invalid(f"resource {name!r} lists an item twice")
    return items


def resources_to_messages(resources: Resources, *, role: str | None = None, refined: bool = True) -> list[Resource]:
    """One message per amount, sorted by key.

    `role`: what the resources are allocated to, told to MULTI_ROLE frameworks only. `refined`: whether the reader
    has RESERVATION_REFINEMENT; without it a reservation below another raises `Invalid`, for it cannot be said.
    """
    return [resource_to_message(key, resources[key], role, refined) for key in sorted(resources)]


def resource_to_message(key: ResourceKey, amount: Amount, role: str | None, refined: bool) -> Resource:
    """One amount; see `resources_to_messages`."""
    message = Resource(name=key.name)
    _set_amount(message, amount)
    if refined:
        message.reservations.extend(map(_to_reservation, key.reservations))
    else:
        _set_old_reservation(message, key)
    if key.disk:
        message.disk.ParseFromString(key.disk)
    if key.revocable:
        message.revocable.SetInParent()
    if key.shared:
        message.shared.SetInParent()
    if role is not None:
        message.allocation_info.role = role
    return message


def _set_amount(message: Resource, amount: Amount) -> None:
    if isinstance(amount, int):
        message.type = Value.SCALAR
        message.scalar.value = amount / MILLI
    elif isinstance(amount, tuple):
        message.type = Value.RANGES
        for begin, end in amount:
            message.ranges.range.add(begin=begin, end=end)
    else:
        message.type = Value.SET
        message.set.item.extend(sorted(amount))


def _to_reservation(reservation: Reservation) -> Resource.ReservationInfo:
    kind = Resource.ReservationInfo.DYNAMIC if reservation.dynamic else Resource.ReservationInfo.STATIC
    message = Resource.ReservationInfo(type=kind, role=reservation.role)
    _set_owner(message, reservation)
    return message


def _set_owner(message: Resource.ReservationInfo, reservation: Reservation) -> None:
    if reservation.principal:
        message.principal = reservation.principal
    if reservation.labels:
        message.labels.CopyFrom(Labels.FromString(reservation.labels))


def _set_old_reservation(message: Resource, key: ResourceKey) -> None:
    if len(key.reservations) > 1:
        raise Invalid(f"resource {key.name!r} has a refined reservation; it is told with RESERVATION_REFINEMENT only")
    message.role = "*"
    for reservation in key.reservations:
        message.role = reservation.role
        if reservation.dynamic:
            message.reservation.SetInParent()
            _set_owner(message.reservation, reservation)
