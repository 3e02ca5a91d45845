"""What a device plugin is: its verbs, and the values that cross its border.

A plugin answers three questions: what is here, how does a task get it, how is it given back. It never decides who gets
it. All values are frozen and plain, so that a plugin may live in another process. What does not live here: which device
a task gets (`edgerm.core.matching`), what the operator declares (`edgerm_agent.devices`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

from edgerm.core.devices import Device, Inventory
from edgerm.core.errors import Conflict
from edgerm.core.ids import TaskKey


@dataclass(frozen=True, slots=True)
class Mount:
    """What a task sees at `container_path`."""

    container_path: str  # absolute
    source: str  # an absolute path of the box; when `named`, the name of a volume that the engine keeps
    read_only: bool
    named: bool


@dataclass(frozen=True, slots=True)
class DeviceNode:
    """A device node of the box, and where a container finds it."""

    host_path: str  # absolute
    container_path: str  # absolute
    permissions: str = "rwm"  # of the device cgroup: some of r (read), w (write), m (make nodes)


@dataclass(frozen=True, slots=True)
class GpioChip:
    """A chip whose lines a module may read and write through host functions."""

    id: str  # as the claim's config calls it
    path: str  # of its character device on the box


@dataclass(frozen=True, slots=True)
class Setup:
    """What preparing a grant yields. Containers get all of it; what others get is said by their executors."""

    env: tuple[tuple[str, str], ...] = ()
    mounts: tuple[Mount, ...] = ()
    nodes: tuple[DeviceNode, ...] = ()
    cpus: tuple[int, ...] = ()  # the task runs on these CPUs alone, ascending; none: it is not bound
    network: str = ""  # path of the network namespace that the task runs in; empty: as it asks
    chips: tuple[GpioChip, ...] = ()
    annotations: tuple[tuple[str, str], ...] = ()  # labels of the container
    cdi_names: tuple[str, ...] = ()  # devices of the engine's Container Device Interface
    runtime: str = ""  # OCI runtime of the container; empty: the engine's default


NO_SETUP = Setup()


@dataclass(frozen=True, slots=True)
class Given:
    """A claim of a task, and the devices that it was given, in the inventory's order."""

    claim: str
    config: Mapping[str, object]
    devices: tuple[Device, ...]


@dataclass(frozen=True, slots=True)
class Grant:
    """The devices of one class that a task was given: all its claims of that class. One per task and class."""

    task: TaskKey
    name: str  # of the class
    given: tuple[Given, ...]
    executor: str  # the kind that runs the task: "docker", "process", "wasm", "local"
    app: str = ""  # whose task it is: the framework's name, or the Compose project
    cpus: tuple[int, ...] = ()  # the task's isolated CPUs, ascending: prepared before all else
    network: str = ""  # path of the task's network namespace, where its executor can make one before the task

    @property
    def devices(self) -> tuple[Device, ...]:
        """All of them."""
        return tuple(device for given in self.given for device in given.devices)


class NotClean(Exception):
    """A device is not as it was before: `str()` is the evidence, a line."""


class Notes(Protocol):
    """What a plugin must remember to undo its work after a crash: durable when `put` returns. Small JSON objects."""

    def get(self, key: str) -> Mapping[str, object] | None:
        """What was noted last; None: nothing."""
        ...

    def put(self, key: str, note: Mapping[str, object]) -> None:
        """Note this in place of what was there."""
        ...

    def drop(self, key: str) -> None:
        """Forget it; nothing is there to forget: no error."""
        ...

    def keys(self) -> tuple[str, ...]:
        """All that something is noted under."""
        ...


class HostFiles(Protocol):
    """The box's /sys, /proc and /dev, and what plugins note: the only door. Paths are absolute. Raises `OSError`."""

    @property
    def notes(self) -> Notes:
        """Of this plugin alone."""
        ...

    def read(self, path: str) -> str:
        """A file's text."""
        ...

    def write(self, path: str, text: str) -> None:
        """Write to a file that is there, in one call."""
        ...

    def names(self, path: str) -> tuple[str, ...]:
        """What a directory holds, sorted."""
        ...

    def exists(self, path: str) -> bool:
        """Whether something is there."""
        ...

    def link(self, path: str) -> str:
        """What a symbolic link leads to, resolved to an absolute path of the box."""
        ...

    async def run(self, *argv: str) -> str:
        """The standard output of a program; `OSError` with its last words if it fails."""
        ...


class DevicePlugin(Protocol):
    """Carries one kind of devices. It is asked to prepare or to release one grant at a time; `watch` runs beside that.

    The entry point (`edgerm.devices`) is `create(config: Mapping[str, object], host: HostFiles) -> DevicePlugin`.
    """

    name: str  # "gpio": config table, entry point

    def watch(self) -> AsyncIterator[Inventory]:
        """The whole inventory, at once and after each change. Ends never; raises what makes it useless.

        Ids stay the same across restarts. A device that is ill is there with its problem.
        """
        ...

    async def prepare(self, grant: Grant) -> Setup:
        """Make the devices ready; what the task gets. Idempotent: also after a crash of the agent half way.

        Raises `Invalid` for a config that is wrong, naming its key, and `Conflict` for what cannot be had as asked;
        then `release` follows.
        """
        ...

    async def release(self, grant: Grant) -> None:
        """Take the devices back and verify that they are clean. Idempotent: an unknown grant is already released.

        Raises `NotClean` with the evidence; it is called again later.
        """
        ...


@runtime_checkable
class Chooses(Protocol):
    """What a plugin has beside `DevicePlugin` if it prefers some devices of a class (`DeviceClass.chooses`)."""

    async def choose(self, name: str, free: tuple[str, ...], count: int) -> tuple[str, ...]:
        """So many of the `free` devices of the class `name`, by id: the ones that go best together."""
        ...


def join(setups: Iterable[Setup]) -> Setup:
    """All of them together; what two of them have alike is there once.

    Raises `Conflict` where two want different things under one name or at one place.
    """
    env: dict[str, str] = {}
    mounts: dict[str, Mount] = {}
    nodes: dict[str, DeviceNode] = {}
    whole = NO_SETUP
    for setup in setups:
        for name, value in setup.env:
            if env.setdefault(name, value) != value:
                raise Conflict(f"two devices of the task set the variable {name} to different values")
        for mount in setup.mounts:
            if mounts.setdefault(mount.container_path, mount) != mount:
                raise Conflict(f"two devices of the task mount different things at {mount.container_path}")
        for node in setup.nodes:
            if nodes.setdefault(node.container_path, node) != node:
                raise Conflict(f"two devices of the task have different nodes at {node.container_path}")
        whole = _joined(whole, setup)
    return replace(whole, env=tuple(env.items()), mounts=tuple(mounts.values()), nodes=tuple(nodes.values()))


def _joined(one: Setup, other: Setup) -> Setup:
    """What simply adds up, and what there can be one of only."""
    for what, mine, its in (("network", one.network, other.network), ("runtime", one.runtime, other.runtime)):
        if mine and its and mine != its:
            raise Conflict(f"two devices of the task want a different {what}: {mine} and {its}")
    return Setup(
        cpus=tuple(sorted({*one.cpus, *other.cpus})),
        network=one.network or other.network,
        chips=one.chips + other.chips,
        annotations=tuple(dict([*one.annotations, *other.annotations]).items()),
        cdi_names=tuple(dict.fromkeys([*one.cdi_names, *other.cdi_names])),
        runtime=one.runtime or other.runtime,
    )
