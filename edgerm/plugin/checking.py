"""What an inventory must be before anybody hears of it: names, ids, bounds. Pure.

What does not live here: what is done with one that is refused, and whether metadata keep to their schema, which takes
a library (`edgerm_agent.devices`, `edgerm.testing.conformance`).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import NoReturn

from edgerm.core.devices import MESOS_RESOURCES, Device, DeviceClass, Inventory
from edgerm.core.errors import Invalid
from edgerm.core.metadata import read, to_text

CLASSES_MAX = 256  # of a plugin
DEVICES_MAX = 4096  # likewise
KEYS_MAX = 64  # of a class's config
GIVES_MAX = 256  # of a device
WORDS_MAX = 300  # characters of a problem, and of each thing that a device gives

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.\-/]{0,127}")
_ID = re.compile(r"[!-~]{1,255}")
_APART = frozenset(",;{}\"'")  # they would end an id where it is written in a text
_KEY = re.compile(r"[!-~]{1,128}")


def name_fits(name: str) -> bool:
    """Whether a class may be called so: a letter, then letters, digits and any of _.-/"""
    return _NAME.fullmatch(name) is not None


def id_fits(text: str) -> bool:
    """Whether a device may be called so: printable ASCII without blanks, quotes and , ; { }"""
    return _ID.fullmatch(text) is not None and _APART.isdisjoint(text)


def checked(inventory: Inventory, taken: Collection[str] = ()) -> Inventory:
    """The inventory as others may see it; `taken`: names that stand for something else on this agent.

    Raises `Invalid` for what is wrong.
    """
    if len(inventory.classes) > CLASSES_MAX or len(inventory.devices) > DEVICES_MAX:
        raise Invalid(
            f"{len(inventory.classes)} classes and {len(inventory.devices)} devices; at most {CLASSES_MAX} and "
            f"{DEVICES_MAX} are allowed"
        )
    classes: dict[str, DeviceClass] = {}
    for each in inventory.classes:
        if each.name in classes:
            raise Invalid(f"class {each.name!r} stands twice")
        classes[each.name] = _class(each, taken)
    ids: set[tuple[str, str]] = set()
    devices = []
    for device in inventory.devices:
        if device.name not in classes:
            raise Invalid(f"device {device.id[:80]!r} is of class {device.name[:80]!r}, which is not among its classes")
        if (device.name, device.id) in ids:
            _refuse(device, "its id stands twice; it is unique within its class")
        ids.add((device.name, device.id))
        devices.append(_device(device))
    return Inventory(tuple(classes.values()), tuple(devices), inventory.generation)


def _class(found: DeviceClass, taken: Collection[str]) -> DeviceClass:
    if not name_fits(found.name):
        raise Invalid(f"class {found.name[:80]!r}: begin with a letter, then letters, digits and any of _.-/")
    if found.name in MESOS_RESOURCES:
        raise Invalid(f"class {found.name!r}: Mesos has a resource of this name")
    if found.name in taken:
        raise Invalid(f"class {found.name!r}: the setting resources gives something of this name already")
    if len(found.config_keys) > KEYS_MAX or not all(_KEY.fullmatch(key) for key in found.config_keys):
        raise Invalid(f"class {found.name!r}: at most {KEYS_MAX} config keys of printable ASCII without blanks")
    return replace(found, problem=line(found.problem))


def _device(found: Device) -> Device:
    if not id_fits(found.id):
        _refuse(found, "an id is 1 to 255 printable ASCII characters, without blanks, quotes and , ; { }")
    if len(found.gives) > GIVES_MAX:
        _refuse(found, f"it gives {len(found.gives)} things, at most {GIVES_MAX} are allowed")
    try:
        metadata = to_text(read(found.metadata))
    except (ValueError, AttributeError, RecursionError) as error:  # no JSON, no object, or no metadata
        _refuse(found, str(error))
    return replace(found, problem=line(found.problem), gives=tuple(map(line, found.gives)), metadata=metadata)


def _refuse(device: Device, why: str) -> NoReturn:
    raise Invalid(f"device {device.id[:80]!r} of {device.name!r}: {why}")


def line(text: str) -> str:
    """One line that is not too long."""
    return " ".join(text.split())[:WORDS_MAX]


def gone(inventory: Inventory, problem: str) -> Inventory:
    """What a plugin has that is away: its classes, each with this problem, and no devices."""
    return Inventory(tuple(replace(each, problem=line(problem)) for each in inventory.classes))


def check_config(its: DeviceClass, claim: str, config: Mapping[str, object]) -> None:
    """Raises `Invalid` for a key that the class does not know."""
    for key in config:
        if key not in its.config_keys:
            known = f"it knows {', '.join(its.config_keys)}" if its.config_keys else "it has no config"
            raise Invalid(f"claim {claim!r}: {its.name} does not know the config key {str(key)[:80]!r}; {known}")
