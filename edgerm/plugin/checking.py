"""What an inventory must be before anybody hears of it, and a setup before a task gets it: names, ids, bounds. Pure.

What does not live here: what is done with one that is refused, and whether metadata keep to their schema, which takes
a library (`edgerm_agent.devices`, `edgerm.testing.conformance`).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import NoReturn

from edgerm.core.devices import (
    CLASSES_MAX,
    DEVICES_MAX,
    INVENTORY_BYTES_MAX,
    Device,
    DeviceClass,
    Inventory,
)
from edgerm.core.errors import Invalid
from edgerm.core.metadata import read, to_text
from edgerm.core.resources import MESOS_RESOURCES
from edgerm.plugin.device import DeviceNode, Mount, Setup

KEYS_MAX = 64  # of a class's config
GIVES_MAX = 256  # of a device
WORDS_MAX = 300  # characters of a problem, and of each thing that a device gives
PARTS_MAX = 1024  # of a setup: variables, mounts and so on, each
VALUE_MAX = 64 << 10  # characters of a variable's value, and of a label's
PATH_MAX = 4095  # bytes (limits.h)

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.\-/]{0,127}")
_ID = re.compile(r"[!-~]{1,255}")
_APART = frozenset(",;{}\"'")  # they would end an id where it is written in a text
_KEY = re.compile(r"[!-~]{1,128}")
_RIGHTS = re.compile(r"(?!.*(.).*\1)[rwm]{1,3}")
_CDI = re.compile(r"[A-Za-z0-9_.\-]{1,128}/[A-Za-z0-9_.\-]{1,128}=[A-Za-z0-9_.:\-]{1,255}")


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
    if (said := sum(len(device.metadata) for device in devices)) > INVENTORY_BYTES_MAX:
        raise Invalid(f"metadata of {said} characters in all; at most {INVENTORY_BYTES_MAX} are allowed")
    return Inventory(tuple(classes.values()), tuple(devices), inventory.generation)


def nameable(inventory: Inventory, taken: Collection[str] = ()) -> Inventory:
    """Of one that is refused its classes that can be told, by their names alone."""
    names = dict.fromkeys(each.name for each in inventory.classes[:CLASSES_MAX])
    known = (name for name in names if name_fits(name) and name not in MESOS_RESOURCES and name not in taken)
    return Inventory(tuple(map(DeviceClass, known)))


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


# --- setups -------------------------------------------------------------------------------------------------------


def check_setup(setup: Setup) -> None:
    """Raises `Invalid` for a part that no task can have, naming it."""
    parts = (setup.env, setup.mounts, setup.nodes, setup.cpus, setup.chips, setup.annotations, setup.cdi_names)
    if (most := max(map(len, parts))) > PARTS_MAX:
        raise Invalid(f"{most} things of one kind; at most {PARTS_MAX} are allowed")
    for name, value in setup.env:
        if not name or "=" in name or "\0" in name + value or len(value) > VALUE_MAX:
            raise Invalid(
                f"variable {name[:80]!r}: a name without '=', a value of at most {VALUE_MAX}, both without NUL"
            )
    for name, value in setup.annotations:
        if not name or "\0" in name + value or len(value) > VALUE_MAX:
            raise Invalid(f"label {name[:80]!r}: a name, and a value of at most {VALUE_MAX}, both without NUL")
    for mount in setup.mounts:
        _check_mount(mount)
    for node in setup.nodes:
        _check_node(node)
    for cdi_name in setup.cdi_names:
        if not _CDI.fullmatch(cdi_name):
            raise Invalid(f"CDI name {cdi_name[:80]!r}: write VENDOR/CLASS=NAME")
    if any(cpu < 0 for cpu in setup.cpus) or list(setup.cpus) != sorted({*setup.cpus}):
        raise Invalid(f"CPUs {str(setup.cpus)[:80]}: each once, ascending")


def _check_mount(mount: Mount) -> None:
    wrong = _no_path(mount.container_path) or ("" if mount.named else _no_path(mount.source))
    if wrong or not mount.source or mount.container_path.strip("/") == "":
        why = wrong or "it has no source, or would hide all that the task has"
        raise Invalid(f"mount {mount.source[:80]!r} at {mount.container_path[:80]!r}: {why}")


def _check_node(node: DeviceNode) -> None:
    wrong = _no_path(node.host_path) or _no_path(node.container_path)
    if not wrong and not _RIGHTS.fullmatch(node.permissions):
        wrong = f"permissions {node.permissions[:20]!r}: some of r, w and m, each once"
    if wrong:
        raise Invalid(f"device node {node.host_path[:80]!r} at {node.container_path[:80]!r}: {wrong}")


def _no_path(path: str) -> str:
    """Why this is none that leads to one place; empty: it is."""
    if not path.startswith("/"):
        return f"{path[:80]!r} is no absolute path"
    if "\0" in path or ".." in path.split("/") or len(path.encode(errors="replace")) > PATH_MAX:
        return f"a path of at most {PATH_MAX} bytes, without NUL and .."
    return ""
