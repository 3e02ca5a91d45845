"""Devices as values, and the resources that they are offered as: each is one item of a set named as its class.

What does not live here: where devices come from (`edgerm_agent.devices`), what a task gets of one
(`edgerm.plugin.device`), what a task asks for (`claims`), who fits (`matching`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from edgerm.core.claims import Granted
from edgerm.core.resources import Amount, ResourceKey, Resources

DEVICES_MAX = 2000  # of one agent
CLASSES_MAX = 256  # likewise
INVENTORY_BYTES_MAX = 512 * 1024  # of all that an agent says of its devices, encoded: a join and a row hold it


@dataclass(frozen=True, slots=True)
class Device:
    """One instance of a class of devices."""

    name: str  # of its class, and of the resource: several devices share it
    id: str  # unique within its class on its agent, the same after a restart
    shared: bool = False  # its pool: several tasks may have it at once, or one
    problem: str = ""  # why nobody can have it now; empty: it is healthy
    gives: tuple[str, ...] = ()  # what its holder gets, in words
    metadata: str = ""  # a JSON object as `metadata.to_text` writes it; empty: it has none
    fake: bool = False  # stands in for hardware that is not there
    quarantine: str = ""  # why it is held back: what was found when its last holder gave it back
    held_by: str = ""  # the local grant that has it, of which the master knows no task
    numa_nodes: tuple[int, ...] = ()  # that it is near to

    @property
    def key(self) -> ResourceKey:
        """The resource of which it is an item."""
        return ResourceKey(self.name, shared=self.shared)

    @property
    def offered(self) -> bool:
        """Whether the master may promise it to somebody."""
        return not (self.problem or self.quarantine or self.held_by)


@dataclass(frozen=True, slots=True)
class DeviceClass:
    """What holds for all devices of one class, as its plugin says."""

    name: str
    shared: bool = False  # the pool that a claim means which names none
    config_keys: tuple[str, ...] = ()  # what a claim's config may set
    unambiguous: bool = False  # a claim that fits more devices than it counts is refused
    chooses: bool = False  # the plugin states preferences: a launch carries the count, the agent takes the devices
    schema: str = ""  # JSON Schema of the metadata, as text; empty: any metadata
    problem: str = ""  # why nothing of the class can be claimed; empty: its plugin runs


@dataclass(frozen=True, slots=True)
class Inventory:
    """All devices of a plugin, or of an agent, in order of preference: the ones to be given first come first."""

    classes: tuple[DeviceClass, ...] = ()
    devices: tuple[Device, ...] = ()
    generation: int = 0  # of an agent's: higher after every change; a plugin's has none


def resources_of(devices: Iterable[Device]) -> Resources:
    """What is offered of these devices."""
    return Resources((device.key, frozenset([device.id])) for device in devices if device.offered)


def resources_granted(granted: Iterable[Granted]) -> Resources:
    """What was given to a task's claims, as resources."""
    return Resources((ResourceKey(one.type, shared=one.shared), frozenset(one.ids)) for one in granted if one.ids)


def without_items(resources: Resources, given: Resources) -> Resources:
    """The resources less these items; also of shared ones, which are not used up."""
    return Resources((key, _less(amount, given.get(key))) for key, amount in resources.items())


def _less(amount: Amount, given: Amount | None) -> Amount:
    return amount - given if isinstance(amount, frozenset) and isinstance(given, frozenset) else amount


def devices_in(inventory: Inventory, resources: Resources) -> tuple[Device, ...]:
    """The devices that are items of these resources, in the inventory's order."""
    return tuple(device for device in inventory.devices if _has(resources, device))


def _has(resources: Resources, device: Device) -> bool:
    amount = resources.get(device.key)
    return isinstance(amount, frozenset) and device.id in amount


NO_INVENTORY = Inventory()


def items(resources: Resources) -> Iterator[tuple[str, str]]:
    """Every item of every set: (name of the resource, item), in order."""
    for key in sorted(resources):
        amount = resources[key]
        if isinstance(amount, frozenset):
            yield from ((key.name, item) for item in sorted(amount))
