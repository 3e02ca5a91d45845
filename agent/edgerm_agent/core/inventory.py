"""What is on this box: one picture made of what every plugin reports and of what is held back here. Pure.

The theory: a plugin replaces all that it reported before, and is believed; a class that no plugin has reported is not
there. Over that lie two things that only the agent knows: the devices that were not clean when they were given back,
and those that somebody on the box has, of which the master knows no task. Both leave the offer. A plugin that is gone
says nothing about its devices: they stay in the picture, with its problem, and leave the offer too.

Whenever the picture changes it gets a higher generation, so that whoever decides on one can say on which. What does not
live here: who holds what (`grants`), what a loss means for a task (`losing`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TypeAlias

from edgerm.core.devices import NO_INVENTORY, Device, DeviceClass, Inventory

DeviceKey: TypeAlias = tuple[str, str]
"""A class's name, and the id of a device of it."""


class Picture:
    """`generation`: all of an earlier process of this agent were lower."""

    def __init__(self, generation: int) -> None:
        self.told = NO_INVENTORY
        self._first = self._generation = generation
        self._plugins: dict[str, Inventory] = {}
        self._classes: dict[str, DeviceClass] = {}
        self._devices: dict[DeviceKey, Device] = {}
        self._held_back: tuple[Mapping[DeviceKey, str], Mapping[DeviceKey, str]] | None = None  # None: look again
        self._since: dict[DeviceKey, int] = {}  # the generation in which a device became another

    def report(self, plugin: str, inventory: Inventory) -> frozenset[str]:
        """Take what a plugin has now; answers the classes that can be claimed again."""
        self._held_back = None
        ill = {name for name, known in self._classes.items() if known.problem}
        before = self._plugins.get(plugin, NO_INVENTORY)
        self._plugins[plugin] = replace(inventory, devices=tuple(_kept(inventory, before)))
        return frozenset(known.name for known in inventory.classes if known.name in ill and not known.problem)

    def draw(self, quarantine: Mapping[DeviceKey, str], local: Mapping[DeviceKey, str]) -> bool:
        """Make `told` anew; whether it is another. `quarantine`: why, `local`: who has it."""
        held_back = (dict(quarantine), dict(local))
        if held_back == self._held_back:
            return False
        self._held_back = held_back
        classes, found = self._merged()
        devices = {key: _held(device, quarantine.get(key, ""), local.get(key, "")) for key, device in found.items()}
        if (classes, list(devices.items())) == (self._classes, list(self._devices.items())):
            return False
        self._generation += 1
        for key, device in devices.items():
            if _nature(self._devices.get(key)) != _nature(device):
                self._since[key] = self._generation
        self._classes, self._devices = classes, devices
        self.told = Inventory(tuple(classes.values()), tuple(devices.values()), self._generation)
        return True

    def _merged(self) -> tuple[dict[str, DeviceClass], dict[DeviceKey, Device]]:
        """A class that two plugins report is the one's that runs, else the first one's."""
        owners: dict[str, tuple[bool, str]] = {}
        for plugin, inventory in self._plugins.items():
            for known in inventory.classes:
                rank = (bool(known.problem), plugin)
                owners[known.name] = min(owners.get(known.name, rank), rank)
        classes: dict[str, DeviceClass] = {}
        devices: dict[DeviceKey, Device] = {}
        for plugin in sorted(self._plugins):
            inventory = self._plugins[plugin]
            own = {known.name: known for known in inventory.classes if owners[known.name][1] == plugin}
            classes |= own
            devices |= {(device.name, device.id): device for device in inventory.devices if device.name in own}
        return classes, devices

    def device(self, name: str, device_id: str) -> Device | None:
        """The device, if it is on this box."""
        return self._devices.get((name, device_id))

    def device_class(self, name: str) -> DeviceClass | None:
        """The class, if a plugin has reported it."""
        return self._classes.get(name)

    @property
    def classes(self) -> frozenset[str]:
        return frozenset(self._classes)

    def of_class(self, name: str) -> Iterator[Device]:
        """The class's devices, in order of preference."""
        return (device for device in self._devices.values() if device.name == name)

    def is_another(self, device: Device, generation: int) -> bool:
        """Whether the device is not any more what it was in that generation, if it is one of this process."""
        return self._first < generation < self._since[(device.name, device.id)]


def _kept(inventory: Inventory, before: Inventory) -> Iterator[Device]:
    """The reported devices, and those of classes whose plugin is gone as they were, with its problem."""
    gone = {known.name: known.problem for known in inventory.classes if known.problem}
    yield from inventory.devices
    gone = {name: problem for name, problem in gone.items() if not _has(inventory.devices, name)}
    yield from (replace(device, problem=gone[device.name]) for device in before.devices if device.name in gone)


def _has(devices: Iterable[Device], name: str) -> bool:
    return any(device.name == name for device in devices)


def _held(device: Device, quarantine: str, local: str) -> Device:
    return replace(device, quarantine=quarantine, held_by=local) if quarantine or local else device


def _nature(device: Device | None) -> tuple[bool, str] | None:
    """What a claim was matched against; whether it can be had now is no part of it."""
    return None if device is None else (device.shared, device.metadata)
