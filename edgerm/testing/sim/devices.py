"""The devices of a simulated box, and the plugins that make them ready: slow, failing now and then, not clean at first.

What was prepared survives the agent's crash, as it does on a box, and is gone with the power. Every step checks what
must always hold: nobody gets what another has, nothing is prepared that the journal does not know, nothing is taken
from a task that runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random
from typing import Final, NamedTuple

from edgerm.core.devices import Device, DeviceClass, Inventory
from edgerm.core.ids import TaskKey
from edgerm_agent.core.effects import Choose
from edgerm_agent.core.grants import devices_of
from edgerm_agent.core.inventory import DeviceKey
from edgerm_agent.core.records import GrantRecord

CORE, USB, ACCEL, MEMORY = "sim/core", "sim/usb", "sim/accel", "sim/memory"
CLASSES: Final[Mapping[str, DeviceClass]] = {
    "cores": DeviceClass(CORE),
    "usb": DeviceClass(USB, config_keys=("on_loss",)),
    "accel": DeviceClass(ACCEL, chooses=True),
    "memories": DeviceClass(MEMORY, shared=True),
}
"""By plugin."""
COUNTS = {CORE: 2, USB: 2, ACCEL: 3, MEMORY: 1}
STEP_MAX_S = 0.3  # for each device
FAILS = 0.05  # of the devices cannot be prepared
DIRTY = 0.3  # of the grants of a class leave something behind
DIRTY_MAX = 6  # times, before that is gone

Later = Callable[[float, Callable[[], None]], None]


class Journaled(NamedTuple):
    """What the check needs to know of the rest of the box."""

    grant: Callable[[str], GrantRecord | None]  # the durable record, by its key
    runs: Callable[[TaskKey], bool]


class SimDevices:
    """`later`: as `Node.later`, so that nothing is done by an agent that is dead."""

    def __init__(self, random: Random, later: Later, box: Journaled) -> None:
        self._random = random
        self._later = later
        self._box = box
        self.absent: set[DeviceKey] = set()  # unplugged
        self.away: set[str] = set()  # plugins that are gone
        self.prepared: dict[DeviceKey, set[TaskKey]] = {}
        self._dirt: dict[tuple[TaskKey, str], int] = {}

    def inventory(self, plugin: str) -> Inventory:
        """What the plugin has now."""
        known = CLASSES[plugin]
        if plugin in self.away:
            return Inventory((DeviceClass(known.name, known.shared, problem="its plugin is gone"),))
        devices = (Device(known.name, f"d{number}", known.shared) for number in range(COUNTS[known.name]))
        return Inventory((known,), tuple(d for d in devices if (d.name, d.id) not in self.absent))

    def change(self) -> str:
        """Something is unplugged or plugged in, or a plugin goes or comes; answers which plugin tells of it."""
        plugin = self._random.choice(list(CLASSES))
        if plugin == "usb":
            self.absent ^= {(USB, f"d{self._random.randrange(COUNTS[USB])}")}
        else:
            self.away ^= {plugin}
        return plugin

    def calm(self) -> None:
        """All is there."""
        self.absent.clear()
        self.away.clear()

    def cut_power(self) -> None:
        """What was prepared is gone, and all dirt with it."""
        self.prepared.clear()
        self._dirt.clear()

    def leftovers(self) -> list[str]:
        """What is prepared for somebody."""
        return [f"{device} is prepared for {key}" for device, keys in self.prepared.items() for key in sorted(keys)]

    def plugs(self, key: TaskKey) -> list[DeviceKey]:
        """What the task has that can be unplugged."""
        return [device for device, keys in self.prepared.items() if key in keys and device[0] == USB]

    # --- prepare ---

    def prepare(self, key: TaskKey, grants: tuple[GrantRecord, ...], done: Callable[[str], None]) -> None:
        """One device after another; `done` is told why it failed, or nothing."""
        self._next(key, list(devices_of(grants)), done)

    def _next(self, key: TaskKey, left: list[DeviceKey], done: Callable[[str], None]) -> None:
        if not left:
            done("")
            return

        def step() -> None:
            device = left.pop(0)
            self._mark(key, device)
            if device in self.absent or self._random.random() < FAILS:
                done(f"{device} cannot be prepared")
            else:
                self._next(key, left, done)

        self._later(self._random.uniform(0.0, STEP_MAX_S), step)

    def _mark(self, key: TaskKey, device: DeviceKey) -> None:
        record = self._box.grant(f"{key} {device[0]}")
        assert record is not None and device in devices_of([record]), f"{device} is prepared for {key}, with no grant"
        others = self.prepared.setdefault(device, set()) - {key}
        assert device[0] == MEMORY or not others, f"{device} is given to {key}, and was to {others}"
        self.prepared[device].add(key)

    # --- release ---

    def release(self, key: TaskKey, grants: tuple[GrantRecord, ...], done: Callable[[Mapping[str, str]], None]) -> None:
        """Take everything back; `done` is told what was found, by class."""
        assert not self._box.runs(key), f"the devices of {key} are taken back while it runs"
        evidence: dict[str, str] = {}

        def look() -> None:
            for record in grants:
                found = self._found(record)
                if found:
                    evidence[record.name] = found
                else:
                    for device in devices_of([record]):
                        self.prepared.get(device, set()).discard(key)
            done(evidence)

        self._later(self._random.uniform(0.0, STEP_MAX_S), look)

    def _found(self, record: GrantRecord) -> str:
        if any(CLASSES[plugin].name == record.name for plugin in self.away):
            return "its plugin is gone"
        if not any(record.key in self.prepared.get(device, ()) for device in devices_of([record])):
            return ""
        place = (record.key, record.name)
        if place not in self._dirt:
            self._dirt[place] = self._random.randint(1, DIRTY_MAX) if self._random.random() < DIRTY else 0
        self._dirt[place] -= 1
        return "somebody is still there" if self._dirt[place] >= 0 else ""

    # --- preferences ---

    def choose(self, asked: Choose) -> dict[str, tuple[str, ...]]:
        """A choice by chance, sometimes one that cannot be."""
        free = list(asked.free)
        self._random.shuffle(free)
        if self._random.random() < 0.1:
            free = ["d9", *free]
        found = {}
        for one in asked.grant.granted:
            found[one.claim] = tuple(free[: len(one.ids)])
            free = free[len(one.ids) :]
        return found
