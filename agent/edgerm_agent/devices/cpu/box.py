"""The CPUs of the box as /sys shows them: which there are, which run, which share a core, which are faster.

Sources: Documentation/ABI/testing/sysfs-devices-system-cpu, Documentation/admin-guide/cputopology.rst.
What does not live here: which of them a task may have (`cores`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from edgerm.core import cpulists
from edgerm.plugin.device import HostFiles

CPUS = "/sys/devices/system/cpu"


@dataclass(frozen=True, slots=True)
class Box:
    """Comparable: as long as two of them are equal, nothing about the CPUs has changed."""

    present: frozenset[int] = frozenset()
    online: frozenset[int] = frozenset()
    isolated: frozenset[int] = frozenset()  # by the kernel (isolcpus=, isolated cpusets)
    allowed: frozenset[int] = frozenset()  # the agent itself may run on them
    siblings: Mapping[int, tuple[int, ...]] = field(
        default_factory=dict
    )  # of each that is online; itself is among them
    fast: frozenset[int] = frozenset()  # the performance cores of a hybrid CPU; empty: it is none
    capacities: Mapping[int, int] = field(default_factory=dict)  # 1024: as fast as the fastest; not on every box
    nodes: Mapping[int, tuple[int, ...]] = field(default_factory=dict)  # NUMA
    smt: str = ""  # whether hyper-threading is on: "on", "off", "forceoff", "notsupported" …


def look(host: HostFiles) -> Box:
    """How it is now; blocks for some reads per CPU. What the kernel does not tell is empty, what it garbles raises
    `Invalid`.
    """
    online = _list(host, f"{CPUS}/online")
    present = _list(host, f"{CPUS}/present") or online
    return Box(
        present=present,
        online=online,
        isolated=_list(host, f"{CPUS}/isolated"),
        allowed=_allowed(_text(host, "/proc/self/status")) or online,
        siblings={cpu: _siblings(host, cpu) for cpu in sorted(online)},
        fast=_list(host, "/sys/devices/cpu_core/cpus"),
        capacities=dict(_capacities(host, online)),
        nodes={cpu: _nodes(host, cpu) for cpu in sorted(present)},
        smt=_text(host, f"{CPUS}/smt/control"),
    )


def _text(host: HostFiles, path: str) -> str:
    try:
        return host.read(path).strip()
    except OSError:
        return ""


def _list(host: HostFiles, path: str) -> frozenset[int]:
    return frozenset(cpulists.parse(_text(host, path)))


def _allowed(status: str) -> frozenset[int]:
    """Of /proc/self/status (proc(5))."""
    lists = (line.partition(":")[2].strip() for line in status.splitlines() if line.startswith("Cpus_allowed_list:"))
    return frozenset(cpulists.parse(next(lists, "")))


def _siblings(host: HostFiles, cpu: int) -> tuple[int, ...]:
    """`core_cpus_list` since Linux 5.3, before that `thread_siblings_list`."""
    place = f"{CPUS}/cpu{cpu}/topology"
    found = _list(host, f"{place}/core_cpus_list") or _list(host, f"{place}/thread_siblings_list")
    return tuple(sorted(found | {cpu}))


def _capacities(host: HostFiles, cpus: frozenset[int]) -> list[tuple[int, int]]:
    texts = ((cpu, _text(host, f"{CPUS}/cpu{cpu}/cpu_capacity")) for cpu in sorted(cpus))
    return [(cpu, int(text)) for cpu, text in texts if text.isascii() and text.isdigit() and len(text) < 10]


def _nodes(host: HostFiles, cpu: int) -> tuple[int, ...]:
    try:
        names = host.names(f"{CPUS}/cpu{cpu}")
    except OSError:
        return ()
    return tuple(sorted(int(name[4:]) for name in names if name.startswith("node") and name[4:].isdecimal()))
