"""Devices that the operator declares (`[[devices.declared]]`): what is wrong with them, which are there, their gifts.

They are a plugin whose classes are the names that the operator gives. What does not live here: how settings are read
(`edgerm_agent.config`), who has a device.
"""

from __future__ import annotations

import asyncio
import posixpath
import re
from collections.abc import AsyncIterator, Sequence
from typing import NoReturn

from edgerm.core.devices import Device, DeviceClass, Inventory
from edgerm.core.errors import Conflict, Invalid
from edgerm.core.resources import MESOS_RESOURCES, Resources
from edgerm.plugin.checking import id_fits, name_fits
from edgerm.plugin.device import DeviceNode, Grant, HostFiles, Mount, Setup, join
from edgerm.wire.codec.containers import SANDBOX
from edgerm_agent.config import Declared
from edgerm_agent.devices.hostfs import problem_of_node, problem_of_volume

DEVICES_MAX = 256
PARTS_MAX = 64  # nodes, volumes and variables of one device, each
LOOK_S = 10.0
OURS = "EDGERM_"  # variables that begin so are the agent's own

_RIGHTS = re.compile(r"(?!.*(.).*\1)[rwm]{1,3}")


# --- what may be declared: pure ---------------------------------------------------------------------------------


def check(declared: Sequence[Declared], resources: Resources) -> None:
    """Raises `Invalid`, naming the entry, for devices that cannot be offered beside these plain resources."""
    if len(declared) > DEVICES_MAX:
        raise Invalid(f"{len(declared)} devices are declared, at most {DEVICES_MAX} are allowed")
    ids: set[str] = set()
    kinds: dict[str, bool] = {}
    for number, device in enumerate(declared):
        where = f"devices.declared[{number}]"
        _check_name(where, device, resources)
        if device.id in ids:
            _refuse(f"{where}.id", device.id, "stands twice; an id is unique on its agent")
        ids.add(device.id)
        if kinds.setdefault(device.name, device.shared) != device.shared:
            _refuse(f"{where}.shared", device.shared, f"all devices named {device.name!r} are shared, or none is")
        _check_gifts(where, device)


def _refuse(what: str, value: object, why: str) -> NoReturn:
    raise Invalid(f"{what} = {str(value)[:80]!r}: {why}")


def _check_name(where: str, device: Declared, resources: Resources) -> None:
    if device.name in MESOS_RESOURCES:
        _refuse(f"{where}.name", device.name, "Mesos has a resource of this name; choose another")
    if not name_fits(device.name):
        _refuse(f"{where}.name", device.name, "begin with a letter, then letters, digits and any of _.-/")
    if any(key.name == device.name for key in resources):
        _refuse(f"{where}.name", device.name, "the setting resources gives something of this name already")
    if not id_fits(device.id):
        _refuse(f"{where}.id", device.id, "1 to 255 printable ASCII characters, without blanks, quotes and , ; { }")


def _check_gifts(where: str, device: Declared) -> None:
    for what, parts in (
        ("device_nodes", device.device_nodes),
        ("volumes", device.volumes),
        ("environment", device.environment),
    ):
        if len(parts) > PARTS_MAX:
            raise Invalid(f"{where}.{what}: {len(parts)} of them, at most {PARTS_MAX} are allowed")
    taken: set[str] = set()
    for number, node in enumerate(device.device_nodes):
        _check_paths(f"{where}.device_nodes[{number}]", node.host_path, node.container_path, taken)
        if not _RIGHTS.fullmatch(node.permissions):
            _refuse(f"{where}.device_nodes[{number}].permissions", node.permissions, "write some of r, w and m")
    for number, volume in enumerate(device.volumes):
        _check_paths(f"{where}.volumes[{number}]", volume.host_path, volume.container_path, taken)
    for name, value in device.environment.items():
        if not name or "=" in name or "\0" in name + value:
            _refuse(f"{where}.environment", name, "a variable's name is not empty, has no =, and nothing has a NUL")
        if name.startswith(OURS):
            _refuse(f"{where}.environment", name, f"variables that begin with {OURS} are the agent's own")


def _check_paths(where: str, host_path: str, container_path: str, taken: set[str]) -> None:
    for name, path in (("host_path", host_path), ("container_path", container_path or host_path)):
        if not path.startswith("/") or ".." in path.split("/") or not path.isprintable():
            _refuse(f"{where}.{name}", path, "write an absolute path without '..'")
    inside = _normal(container_path or host_path)
    if inside in ("/", SANDBOX) or inside.startswith(f"{SANDBOX}/"):
        _refuse(f"{where}.container_path", inside, f"neither / nor what is in {SANDBOX} can be taken")
    if inside in taken:
        _refuse(f"{where}.container_path", inside, "two things of the device are at one place")
    taken.add(inside)


def _normal(path: str) -> str:
    return "/" + posixpath.normpath(path).lstrip("/")


def setup_of(device: Declared) -> Setup:
    """What a task gets that has the device."""
    return Setup(
        env=tuple(device.environment.items()),
        mounts=tuple(
            Mount(
                _normal(volume.container_path or volume.host_path), _normal(volume.host_path), volume.read_only, False
            )
            for volume in device.volumes
        ),
        nodes=tuple(
            DeviceNode(_normal(node.host_path), _normal(node.container_path or node.host_path), node.permissions)
            for node in device.device_nodes
        ),
    )


def gifts(setup: Setup) -> tuple[str, ...]:
    """The same in words, a line each."""
    nodes = (f"node {_arrow(node.host_path, node.container_path)} {node.permissions}" for node in setup.nodes)
    volumes = (
        f"volume {_arrow(mount.source, mount.container_path)} {'ro' if mount.read_only else 'rw'}"
        for mount in setup.mounts
    )
    return (*nodes, *volumes, *(f"variable {name}" for name, _ in setup.env))


def _arrow(outside: str, inside: str) -> str:
    return outside if outside == inside else f"{outside} as {inside}"


# --- which of them are there ------------------------------------------------------------------------------------


def look(declared: Sequence[Declared]) -> tuple[Device, ...]:
    """How the declared devices are now; blocks as long as the file system does."""
    setups = ((device, setup_of(device)) for device in declared)
    return tuple(Device(each.name, each.id, each.shared, _problem(setup), gifts(setup)) for each, setup in setups)


def create(settings: Sequence[Declared], host: HostFiles) -> DeclaredDevices:
    """The plugin; `check` has seen to the declarations. It notes nothing."""
    return DeclaredDevices(settings)


class DeclaredDevices:
    """The operator's devices (`DevicePlugin`); nothing of the box is changed for a task."""

    name = "declared"

    def __init__(self, declared: Sequence[Declared]) -> None:
        self._declared = declared
        self._setups = {(device.name, device.id): setup_of(device) for device in declared}
        pools = {device.name: device.shared for device in declared}
        self._classes = tuple(DeviceClass(name, shared) for name, shared in pools.items())

    async def watch(self) -> AsyncIterator[Inventory]:
        """A look every 10 s."""
        before = None
        while True:
            found = await asyncio.to_thread(look, self._declared)
            if found != before:
                yield Inventory(self._classes, found)
            before = found
            await asyncio.sleep(LOOK_S)

    async def prepare(self, grant: Grant) -> Setup:
        """Raises `Conflict` for a device that is not declared any more, or whose node or volume is missing now."""
        setups = []
        for device in grant.devices:
            setup = self._setups.get((device.name, device.id))
            if setup is None:
                raise Conflict(f"device {device.id!r} of {device.name!r} is not declared on this agent any more")
            if problem := _problem(setup):
                raise Conflict(f"device {device.id!r} of {device.name!r} cannot be had: {problem}")
            setups.append(setup)
        return join(setups)

    async def release(self, grant: Grant) -> None:
        """Nothing was done."""


def _problem(setup: Setup) -> str:
    problems = [
        *(problem_of_node(node.host_path) for node in setup.nodes),
        *(problem_of_volume(mount.source) for mount in setup.mounts),
    ]
    return next(filter(None, problems), "")
