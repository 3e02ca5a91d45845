"""A device plugin that says it is a fake: it keeps in a ledger what it prepared, and fails as it is told.

What does not live here: the suite that every plugin passes (`conformance.device`), recorded boards (`hostfs`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from edgerm.core.devices import Device, DeviceClass, Inventory
from edgerm.core.errors import Conflict, Invalid
from edgerm.core.ids import TaskKey
from edgerm.plugin.device import Grant, HostFiles, Setup
from edgerm.testing.hostfs import RecordedHost

NAME = "example.org/fake"


def fakes(*ids: str, name: str = NAME, metadata: str = "") -> tuple[Device, ...]:
    """Devices that call themselves fakes."""
    return tuple(Device(name, each, gives=("variable FAKE_DEVICES",), metadata=metadata, fake=True) for each in ids)


@dataclass
class Failures:
    """What goes wrong next, and stays so until it is set back."""

    watch: Exception | None = None  # the plugin becomes useless
    prepare: Exception | None = None
    release: Exception | None = None
    hold: asyncio.Event | None = None  # prepare and release wait for it


@dataclass
class FakeDevices:
    """One class of devices whose tasks get a variable with their ids, and a line of the fake box that says who has it.

    Its state is what `host` has: another one with the same host is the plugin after a restart of the agent.
    """

    inventory: Inventory = field(default_factory=lambda: Inventory((DeviceClass(NAME),), fakes("one", "two")))
    host: HostFiles = field(default_factory=RecordedHost)
    name: str = "fake"
    failures: Failures = field(default_factory=Failures)
    calls: list[tuple[str, TaskKey, tuple[str, ...]]] = field(default_factory=list)  # verb, task, ids
    prefers: Callable[[tuple[str, ...]], Iterable[str]] = sorted  # which devices `choose` takes first
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def set(self, *devices: Device, classes: Iterable[DeviceClass] | None = None) -> None:
        """This is what is here now."""
        kept = self.inventory.classes if classes is None else tuple(classes)
        self.inventory = Inventory(kept, devices)
        self.wake()

    def set_problem(self, device_id: str, problem: str) -> None:
        """The device is ill, or with an empty problem well again."""
        devices = (replace(each, problem=problem) if each.id == device_id else each for each in self.inventory.devices)
        self.set(*devices)

    def fail(self, error: Exception | None) -> None:
        """The plugin becomes useless, or works again."""
        self.failures.watch = error
        self.wake()

    def wake(self) -> None:
        """Whoever watches looks again."""
        self._changed.set()

    async def watch(self) -> AsyncIterator[Inventory]:
        """See `DevicePlugin.watch`."""
        while True:
            self._changed.clear()
            if self.failures.watch is not None:
                raise self.failures.watch
            yield self.inventory
            await self._changed.wait()

    async def prepare(self, grant: Grant) -> Setup:
        """See `DevicePlugin.prepare`; noted before it is done."""
        await self._called("prepare", grant)
        known = {(device.name, device.id) for device in self.inventory.devices}
        for device in grant.devices:
            if (device.name, device.id) not in known:
                raise Conflict(f"device {device.id!r} of {device.name!r} is not there")
        for given in grant.given:
            for key, value in given.config.items():
                if not isinstance(value, str):
                    raise Invalid(f"claim {given.claim!r}: {key} = {value!r} is no text")
        if self.failures.prepare is not None:
            raise self.failures.prepare
        ids = tuple(device.id for device in grant.devices)
        self.host.notes.put(f"{grant.task} {grant.name}", {"ids": list(ids)})
        return Setup(env=(("FAKE_DEVICES", ",".join(ids)),))

    async def release(self, grant: Grant) -> None:
        """See `DevicePlugin.release`."""
        await self._called("release", grant)
        if self.failures.release is not None:
            raise self.failures.release
        self.host.notes.drop(f"{grant.task} {grant.name}")

    async def choose(self, name: str, free: tuple[str, ...], count: int) -> tuple[str, ...]:
        """See `Chooses.choose`."""
        return tuple(self.prefers(free))[:count]

    @property
    def held(self) -> Mapping[str, tuple[str, ...]]:
        """Task and class → ids of what is prepared and not released; the ledger."""
        notes = {key: self.host.notes.get(key) or {} for key in self.host.notes.keys()}  # noqa: SIM118 - no mapping
        return {key: tuple(str(each) for each in _list(note.get("ids"))) for key, note in notes.items()}

    async def _called(self, verb: str, grant: Grant) -> None:
        self.calls.append((verb, grant.task, tuple(device.id for device in grant.devices)))
        if self.failures.hold is not None:
            await self.failures.hold.wait()


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def create(config: Mapping[str, object], host: HostFiles) -> FakeDevices:
    """The entry point, as a plugin's author has it: `ids` are the devices."""
    ids = config.get("ids", ["one", "two"])
    if not isinstance(ids, list) or not all(isinstance(each, str) for each in ids):
        raise Invalid(f"ids = {ids!r}: write a list of texts")
    return FakeDevices(Inventory((DeviceClass(NAME),), fakes(*ids)), host)
