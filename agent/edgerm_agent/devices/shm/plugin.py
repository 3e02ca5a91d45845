"""The plugin of shared memories: which there are, and where a task sees the ones that it claims."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

from edgerm.core.devices import Device, Inventory
from edgerm.core.errors import Conflict, Invalid
from edgerm.plugin.device import Grant, HostFiles, Mount, Setup
from edgerm_agent.config import Shm as Settings
from edgerm_agent.devices.shm.memories import Entry, Memories
from edgerm_agent.devices.shm.memory import RW, SHM_CLASS, Wish, check_all, checked, parse_config

BASE = "/dev/iedge"
POSIX = "/dev/shm"
LOOK_S = 30.0
INSIDE = ("process", "wasm")  # executors whose tasks have no /dev/shm of their own


def create(settings: Settings, host: HostFiles) -> SharedMemories:
    """The plugin, with its memories where applications look for them. Raises `Invalid` for a wrong setting."""
    return SharedMemories(settings, host)


class SharedMemories:
    """Class `siemens.com/shared_memory`. `memories` is for the operator: create, resize, delete at run time."""

    name = "shm"

    def __init__(self, settings: Settings, host: HostFiles, base: str = BASE, look_s: float = LOOK_S) -> None:
        configured = [
            checked(f"devices.shm.memories[{number}]", each.name, each.size, each.labels, each.permissions)
            for number, each in enumerate(settings.memories)
        ]
        check_all(configured)
        self.memories = Memories(configured, host, base)
        self._look_s = look_s

    async def watch(self) -> AsyncIterator[Inventory]:
        """At once, and when the operator or the box changes something."""
        told: Inventory | None = None
        while True:
            self.memories.changed.clear()
            await self.memories.mend()
            found = Inventory((SHM_CLASS,), self.memories.devices())
            if found != told:
                yield found
                told = found
            with suppress(TimeoutError):
                await asyncio.wait_for(self.memories.changed.wait(), self._look_s if found.devices else None)

    async def prepare(self, grant: Grant) -> Setup:
        """See `DevicePlugin`; what the operator allows the app is checked here."""
        wanted = [
            (device, parse_config(given.claim, given.config)) for given in grant.given for device in given.devices
        ]
        _check_posix(wanted, grant.executor)
        entries = await self.memories.hold(grant.task, [device.id for device, _ in wanted])
        for entry, (_, wish) in zip(entries, wanted, strict=True):
            _check_permission(entry, wish, grant)
        return self._setup(list(zip(entries, (wish for _, wish in wanted), strict=True)))

    async def release(self, grant: Grant) -> None:
        """Nothing of a memory is left at a task that ended: its mounts end with it, its files stay."""
        self.memories.let_go(grant.task)

    def _setup(self, given: list[tuple[Entry, Wish]]) -> Setup:
        read_only = {self.memories.path(entry): True for entry, _ in given}
        for entry, wish in given:  # of a memory that is claimed twice one mount is enough
            read_only[self.memories.path(entry)] &= wish.read_only
        mounts = [Mount(path, path, fixed, named=False) for path, fixed in read_only.items()]
        mounts += [
            Mount(POSIX, self.memories.path(entry), wish.read_only, named=False)
            for entry, wish in given
            if wish.posix_mount
        ]
        env = (
            ("IEDGE_SHM_MOUNTPOINTS", ",".join(self.memories.path(entry) for entry, _ in given)),
            ("IEDGE_SHM_IDS", ",".join(wish.id for _, wish in given)),
        )
        return Setup(env=env, mounts=tuple(mounts))


def _check_posix(wanted: list[tuple[Device, Wish]], executor: str) -> None:
    posix = [device.id for device, wish in wanted if wish.posix_mount]
    if len(posix) > 1:
        raise Invalid(f"posix_mount is true for {', '.join(posix)}: a task has one {POSIX}, so one memory can be that")
    if posix and executor in INSIDE:
        what = "process" if executor == "process" else "module"
        raise Invalid(f"posix_mount = true: a {what} has no {POSIX} of its own; run the task in a container")


def _check_permission(entry: Entry, wish: Wish, grant: Grant) -> None:
    """What the operator allows the app; a process cannot be kept from more."""
    name, allowed = entry.memory.name, entry.memory.allows(grant.app)
    app = f"app {grant.app!r}"
    if not allowed:
        raise Conflict(f"the operator lets {app} not have the shared memory {name!r}")
    if allowed != RW and not wish.read_only:
        raise Conflict(f"permissions: {app} asks for 'rw' of the shared memory {name!r}, the operator allows it 'ro'")
    if allowed != RW and grant.executor == "process":
        raise Conflict(
            f"the operator allows {app} only 'ro' of the shared memory {name!r}, and a process cannot be kept from "
            "writing: run the task in a container, or as a module"
        )
