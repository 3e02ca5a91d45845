"""What a task gets of a device: values that every executor translates in its own way.

What does not live here: which device a task gets (the ledger), what the operator declares (`edgerm_agent.devices`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from edgerm.core.errors import Conflict


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
class Setup:
    """What preparing a grant yields. Containers get all of it; what others get is said by their executors."""

    env: tuple[tuple[str, str], ...] = ()
    mounts: tuple[Mount, ...] = ()
    nodes: tuple[DeviceNode, ...] = ()


NO_SETUP = Setup()


def join(setups: Iterable[Setup]) -> Setup:
    """All of them together; what two of them have alike is there once.

    Raises `Conflict` where two want different things under one name or at one place.
    """
    env: dict[str, str] = {}
    mounts: dict[str, Mount] = {}
    nodes: dict[str, DeviceNode] = {}
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
    return Setup(tuple(env.items()), tuple(mounts.values()), tuple(nodes.values()))
