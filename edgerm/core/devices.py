"""Devices as values, and the resources that they are offered as: each is one item of a set named as its class.

What does not live here: where devices come from (`edgerm_agent.devices`), what a task gets of one
(`edgerm.plugin.device`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from edgerm.core.resources import ResourceKey, Resources

MESOS_RESOURCES = frozenset({"cpus", "mem", "disk", "ports", "gpus"})
"""Names that have a meaning of their own: no device may be called so."""


@dataclass(frozen=True, slots=True)
class Device:
    """One instance of a class of devices."""

    name: str  # of its class, and of the resource: several devices share it
    id: str  # unique on its agent, the same after a restart
    shared: bool = False  # several tasks may have it at once
    problem: str = ""  # why nobody can have it now; empty: it is healthy
    gives: tuple[str, ...] = ()  # what its holder gets, in words

    @property
    def key(self) -> ResourceKey:
        """The resource of which it is an item."""
        return ResourceKey(self.name, shared=self.shared)


def resources_of(devices: Iterable[Device]) -> Resources:
    """What is offered of these devices: the healthy ones."""
    return Resources((device.key, frozenset([device.id])) for device in devices if not device.problem)


def items(resources: Resources) -> Iterator[tuple[str, str]]:
    """Every item of every set: (name of the resource, item), in order."""
    for key in sorted(resources):
        amount = resources[key]
        if isinstance(amount, frozenset):
            yield from ((key.name, item) for item in sorted(amount))
