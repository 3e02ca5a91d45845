"""Devices, their classes and whole inventories as messages, and as values.

What is alike in many boxes (names, metadata) is one object in memory. What does not live here: how an inventory comes
to the master (`edgerm.core.link`), what a plugin may say (`edgerm_agent.devices`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from functools import lru_cache
from sys import intern

from edgerm.core.blobs import Digest, digest_of
from edgerm.core.devices import (
    CLASSES_MAX,
    DEVICES_MAX,
    INVENTORY_BYTES_MAX,
    NO_INVENTORY,
    Device,
    DeviceClass,
    Inventory,
    devices_in,
)
from edgerm.core.errors import Invalid, TooLarge
from edgerm.core.metadata import read, to_text
from edgerm.core.scheduler import Offer
from edgerm.core.texts import utf8_bytes
from edgerm.wire.content import from_protobuf
from edgerm.wire.v1 import infos_pb2 as pb

NAME_BYTES_MAX = 255  # of a class, and of a device's id
REMEMBERED_BYTES = 4096  # of one device


def inventory_of(classes: Collection[pb.DeviceClass], devices: Collection[pb.Device], generation: int = 0) -> Inventory:
    """An inventory of its parts. Raises `Invalid` for what is too much, named twice or no metadata."""
    if not classes and not devices and not generation:
        return NO_INVENTORY
    for what, count, most in (("classes", len(classes), CLASSES_MAX), ("devices", len(devices), DEVICES_MAX)):
        if count > most:
            raise TooLarge(f"an inventory of {count} {what}; at most {most} are allowed")
    found = Inventory(tuple(map(_class, classes)), tuple(map(_device, devices)), generation)
    if len({each.name for each in found.classes}) < len(found.classes):
        raise Invalid("an inventory names a class twice")
    if len({(each.name, each.id) for each in found.devices}) < len(found.devices):
        raise Invalid("an inventory names a device twice")
    return found


def encode_inventory(inventory: Inventory) -> bytes:
    """Its bytes, which a join names by their SHA-256; raises `TooLarge`.

    Without the generation, which tells of a change and not of a device: the AgentInfo has it.
    """
    message = pb.Inventory(
        classes=classes_to_messages(inventory.classes),
        devices=devices_to_messages(inventory.devices),
    )
    data = message.SerializeToString(deterministic=True)
    if len(data) > INVENTORY_BYTES_MAX:
        raise TooLarge(f"an inventory of {len(data)} bytes; at most {INVENTORY_BYTES_MAX} are allowed")
    return data


def decode_inventory(data: bytes, digest: Digest) -> Inventory:
    """The inventory in these bytes, of generation 0; raises `Invalid`, also if they have another name."""
    if len(data) > INVENTORY_BYTES_MAX:
        raise TooLarge(f"an inventory of {len(data)} bytes; at most {INVENTORY_BYTES_MAX} are allowed")
    if digest_of(data) != digest:
        raise Invalid(f"the inventory has the SHA-256 {digest_of(data)}, and was named {digest}")
    message = from_protobuf(pb.Inventory, data)
    return inventory_of(message.classes, message.devices)


# --- devices ----------------------------------------------------------------------------------------------------


def _device(message: pb.Device) -> Device:
    data = message.SerializeToString(deterministic=True)
    return _remembered(data) if len(data) <= REMEMBERED_BYTES else _read_device(message)


@lru_cache(maxsize=4096)
def _remembered(data: bytes) -> Device:
    """The same few devices come in every offer of an agent."""
    return _read_device(pb.Device.FromString(data))


def _read_device(message: pb.Device) -> Device:
    if not all(0 < utf8_bytes(text) <= NAME_BYTES_MAX for text in (message.name, message.id)):
        raise Invalid(f"device {message.id[:80]!r} of class {message.name[:80]!r}: a name has 1 to 255 bytes")
    return Device(
        name=intern(message.name),
        id=intern(message.id),
        shared=message.shared,
        problem=message.problem,
        gives=tuple(map(intern, message.gives)),
        metadata=intern(_metadata(message)),
        fake=message.fake,
        quarantine=message.quarantine,
        held_by=message.held_by,
        numa_nodes=tuple(message.numa_nodes),
    )


def _metadata(message: pb.Device) -> str:
    """Its canonical text: whoever matches claims relies on that."""
    what = f"device {message.id!r} of class {message.name!r}: metadata {message.metadata[:40]!r}"
    try:
        metadata = read(message.metadata)
        if not isinstance(metadata, dict):
            raise Invalid("no object")
        text = to_text(metadata)
        text.encode()  # no halves of characters
    except (ValueError, RecursionError) as error:
        raise Invalid(f"{what}: {str(error)[:200]}") from None
    return text


def devices_to_messages(devices: Iterable[Device]) -> list[pb.Device]:
    """The messages, in order; what is as if left out is left out."""
    return list(map(device_to_message, devices))


def device_to_message(device: Device) -> pb.Device:
    """One device."""
    return pb.Device(
        name=device.name,
        id=device.id,
        shared=device.shared or None,
        problem=device.problem or None,
        gives=device.gives,
        metadata=device.metadata or None,
        fake=device.fake or None,
        quarantine=device.quarantine or None,
        held_by=device.held_by or None,
        numa_nodes=device.numa_nodes,
    )


def offered_devices(offer: Offer) -> tuple[Device, ...]:
    """What an offer tells of the devices among its resources: not what their holders get, which is for people."""
    inventory = offer.agent.inventory
    if inventory is NO_INVENTORY:
        return ()
    return tuple(replace(device, gives=()) for device in devices_in(inventory, offer.resources))


# --- classes ----------------------------------------------------------------------------------------------------


def _class(message: pb.DeviceClass) -> DeviceClass:
    if not 0 < utf8_bytes(message.name) <= NAME_BYTES_MAX:
        raise Invalid(f"class {message.name[:80]!r}: a name has 1 to {NAME_BYTES_MAX} bytes")
    return DeviceClass(
        name=intern(message.name),
        shared=message.shared,
        config_keys=tuple(map(intern, message.config_keys)),
        unambiguous=message.unambiguous,
        chooses=message.chooses,
        schema=intern(message.schema),
        problem=message.problem,
    )


def classes_to_messages(classes: Iterable[DeviceClass], *, schema: bool = True) -> list[pb.DeviceClass]:
    """The messages, in order; without `schema` for whom it does not matter."""
    return [
        pb.DeviceClass(
            name=each.name,
            shared=each.shared or None,
            config_keys=each.config_keys,
            unambiguous=each.unambiguous or None,
            chooses=each.chooses or None,
            schema=(schema and each.schema) or None,
            problem=each.problem or None,
        )
        for each in classes
    ]
