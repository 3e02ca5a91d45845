"""What the device plugins of these settings find, for a look only: nothing of the box or of an agent's data changes.

What a running agent has it tells itself: its tasks have devices that nobody else can look at. What does not live here:
how the answers are shown (`edgerm_agent.doctor`).
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from edgerm.core.devices import Device, Inventory
from edgerm.plugin.checking import checked
from edgerm.plugin.device import DevicePlugin, HostFiles, Notes
from edgerm_agent import config
from edgerm_agent.devices import loader
from edgerm_agent.devices.hostfs import Host, doors
from edgerm_agent.devices.inventories import KeepsCpus, watching
from edgerm_agent.devices.outside import NO_PACKAGE
from edgerm_agent.devices.schemas import keeping_schemas

LOOK_S = 10.0  # of one plugin
READERS = ("lscpu",)  # programs that only tell something
NOTED = ("nic",)  # whose notes tell of devices that tasks have; the others' would make a plugin act
MADE_BY_AGENT = ("shm",)  # whose devices are there when an agent runs


@dataclass(frozen=True, slots=True)
class Survey:
    """What there is. `problems`: of a plugin as a whole, by its name."""

    inventory: Inventory
    problems: Mapping[str, str]
    plain_cpus: tuple[int, ...] = ()  # the CPUs that no device is made of; none: all of them


class NoNotes:
    """Nothing was noted, and nothing is (`Notes`)."""

    def get(self, key: str) -> Mapping[str, object] | None:
        """Nothing."""
        return None

    def put(self, key: str, note: Mapping[str, object]) -> None:
        """It is not kept."""

    def drop(self, key: str) -> None:
        """It is not there."""

    def keys(self) -> tuple[str, ...]:
        """None."""
        return ()


class ReadOnly(NoNotes):
    """Notes that an agent keeps."""

    def __init__(self, notes: Notes) -> None:
        self._notes = notes

    def get(self, key: str) -> Mapping[str, object] | None:
        """As noted."""
        return self._notes.get(key)

    def keys(self) -> tuple[str, ...]:
        """All."""
        return self._notes.keys()


class Window:
    """A door through which one only looks (`HostFiles`)."""

    def __init__(self, host: Host, notes: Notes) -> None:
        self.notes: Notes = notes
        self.read, self.names, self.exists, self.link = host.read, host.names, host.exists, host.link
        self._run = host.run

    def write(self, path: str, text: str) -> None:
        """Never."""
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)

    async def run(self, *argv: str) -> str:
        """What only tells something."""
        if argv[0] not in READERS:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), argv[0])
        return await self._run(*argv)


async def survey(settings: config.Devices, data_path: Path) -> Survey:
    """Look once. Raises `Invalid` for settings that cannot be."""
    real = doors(data_path / "devices")

    def window(name: str) -> HostFiles:
        host = real(name)
        return Window(host, ReadOnly(host.notes) if name in NOTED else NoNotes())

    problems = dict(_missing(settings))
    found: list[Inventory] = []
    plain_cpus: tuple[int, ...] = ()
    for made in loader.make(settings, window):
        if made.plugin is None:
            problems[made.name] = made.problem
        elif made.name not in MADE_BY_AGENT:
            if isinstance(made.plugin, KeepsCpus):
                plain_cpus = made.plugin.plain_cpus()
            try:
                found.append(await _first(made.plugin))
            except Exception as error:  # a plugin may raise whatever it likes
                problems[made.name] = f"its plugin failed: {str(error) or type(error).__name__}"
    classes = tuple(each for inventory in found for each in inventory.classes)
    return Survey(Inventory(classes, tuple(_devices(found))), problems, plain_cpus)


def _missing(settings: config.Devices) -> Iterator[tuple[str, str]]:
    """Libraries without which something works less well, or not at all, that no plugin tells itself."""
    if settings.hotplug.enabled and settings.hotplug.devices and find_spec("pyudev") is None:
        yield "hotplug", "the kernel's events are not heard, it looks every few seconds: pip install 'edgerm[hotplug]'"
    if (settings.sockets or settings.kubelet_dir) and find_spec("grpc") is None:
        yield "sockets, kubelet_dir", NO_PACKAGE


async def _first(plugin: DevicePlugin) -> Inventory:
    """What it says at once."""
    async with asyncio.timeout(LOOK_S), watching(plugin) as inventories:
        return keeping_schemas(checked(await anext(inventories)))


def _devices(found: list[Inventory]) -> Iterator[Device]:
    """Of a class that is ill no device is well."""
    for inventory in found:
        ill = {each.name: each.problem for each in inventory.classes if each.problem}
        for device in inventory.devices:
            yield replace(device, problem=device.problem or ill.get(device.name, ""))
