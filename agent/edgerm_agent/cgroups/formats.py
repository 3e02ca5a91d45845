"""Cgroup numbers and texts: what to write for a limit, and what the kernel's files say. Pure.

No file is opened here. Sources: Documentation/admin-guide/cgroup-v1/ and cgroup-v2.rst, proc(5), sched-bwc.rst.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

from edgerm.core.errors import Invalid
from edgerm.plugin.executor import Limits

PIDS_MAX = 4096
"""Processes and threads of one task: far above any honest task, far below what makes a box unusable."""

_PERIOD_US = 100_000
_LONG_PERIOD_US = 1_000_000
_QUOTA_MIN_US = 1_000


@dataclass(frozen=True, slots=True)
class Setting:
    """One value for one file of a group; `optional`: not every kernel has the file."""

    controller: str
    file: str
    value: str
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Mount:
    """A mounted cgroup hierarchy. `controllers` is empty for v2 and for v1's named hierarchies."""

    point: str
    root: str  # which group of the hierarchy stands at `point`; not "/" inside some containers
    unified: bool
    controllers: frozenset[str]


def cpu_quota(cpus_milli: int) -> tuple[int, int]:
    """(quota, period) in µs, exactly `cpus_milli` thousandths of a CPU.

    The kernel takes quotas from 1 ms on, so a very small share gets a longer period. Raises `Invalid` below 1.
    """
    if cpus_milli < 1:
        raise Invalid(f"a CPU limit of {cpus_milli} thousandths is too small, at least 1 is needed")
    period_us = _PERIOD_US if cpus_milli * _PERIOD_US // 1000 >= _QUOTA_MIN_US else _LONG_PERIOD_US
    return cpus_milli * period_us // 1000, period_us


def cpu_shares(cpus_milli: int) -> int:
    """v1's cpu.shares: 1024 for one CPU, within the kernel's 2 to 262144."""
    return min(max(cpus_milli * 1024 // 1000, 2), 262_144)


def cpu_weight(cpus_milli: int) -> int:
    """v2's cpu.weight: the default 100 for one CPU, within the kernel's 1 to 10000."""
    return min(max(cpus_milli // 10, 1), 10_000)


def v1_settings(limits: Limits, pids_max: int = PIDS_MAX) -> list[Setting]:
    """What to write, in this order. Swap counts as memory where the kernel accounts for it."""
    settings = [Setting("pids", "pids.max", str(pids_max)), Setting("freezer", "freezer.state", "THAWED")]
    if limits.cpus_milli is not None:
        quota_us, period_us = cpu_quota(limits.cpus_milli)
        settings += [
            Setting("cpu", "cpu.cfs_quota_us", "-1"),  # so that any period is accepted when a limit changes
            Setting("cpu", "cpu.cfs_period_us", str(period_us)),
            Setting("cpu", "cpu.cfs_quota_us", str(quota_us)),
            Setting("cpu", "cpu.shares", str(cpu_shares(limits.cpus_milli))),
        ]
    if limits.memory_bytes is not None:
        memory = str(_checked_memory(limits.memory_bytes))
        settings += [
            # The kernel keeps memory <= memory+swap at each step, so the second is lifted first.
            Setting("memory", "memory.memsw.limit_in_bytes", "-1", optional=True),
            Setting("memory", "memory.limit_in_bytes", memory),
            Setting("memory", "memory.memsw.limit_in_bytes", memory, optional=True),
        ]
    return settings


def v2_settings(limits: Limits, pids_max: int = PIDS_MAX) -> list[Setting]:
    """What to write, in this order. No swap; at the memory limit the whole task dies, not a random part of it."""
    settings = [Setting("pids", "pids.max", str(pids_max)), Setting("", "cgroup.freeze", "0")]
    if limits.cpus_milli is not None:
        quota_us, period_us = cpu_quota(limits.cpus_milli)
        settings += [
            Setting("cpu", "cpu.max", f"{quota_us} {period_us}"),
            Setting("cpu", "cpu.weight", str(cpu_weight(limits.cpus_milli))),
        ]
    if limits.memory_bytes is not None:
        settings += [
            Setting("memory", "memory.max", str(_checked_memory(limits.memory_bytes))),
            Setting("memory", "memory.swap.max", "0", optional=True),
            Setting("memory", "memory.oom.group", "1", optional=True),
        ]
    return settings


def _checked_memory(memory_bytes: int) -> int:
    if memory_bytes < 1:
        raise Invalid(f"a memory limit of {memory_bytes} bytes is too small")
    return memory_bytes


def parse_keyed(text: str) -> dict[str, int]:
    """The lines "name number" of memory.events, cpu.stat, memory.stat, cgroup.events or memory.oom_control."""
    pairs = (line.split() for line in text.splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and _is_number(pair[1])}


def parse_number(text: str) -> int | None:
    """A file with one number, such as cpuacct.usage; None if it is anything else."""
    word = text.strip()
    return int(word) if _is_number(word) else None


def parse_pids(text: str) -> set[int]:
    """cgroup.procs or tasks. The kernel may repeat an id; 0 stands for one of another PID namespace and is left out."""
    return {int(word) for word in text.split() if _is_number(word)} - {0}


def _is_number(word: str) -> bool:
    return word.isascii() and word.isdigit() and len(word) <= 20


def parse_own_path(text: str) -> str | None:
    """Where this process is in the v2 hierarchy, from /proc/self/cgroup; None if there is no v2."""
    for line in text.splitlines():
        if line.startswith("0::/"):
            return line[len("0::") :]
    return None


def parse_mounts(mountinfo: str) -> list[Mount]:
    """The cgroup hierarchies in /proc/self/mountinfo, in its order."""
    found = []
    for line in mountinfo.splitlines():
        before, separator, after = line.partition(" - ")
        place, kind = before.split(), after.split()
        if not separator or len(place) < 5 or len(kind) < 3 or kind[0] not in ("cgroup", "cgroup2"):
            continue
        unified = kind[0] == "cgroup2"
        options = frozenset() if unified else frozenset(kind[2].split(",")) - {"rw", "ro"}
        found.append(Mount(_unescape(place[4]), _unescape(place[3]), unified, options))
    return found


def _unescape(text: str) -> str:
    """Space, tab, newline and backslash are written as three octal digits."""
    return re.sub(r"\\([0-3][0-7]{2})", lambda match: chr(int(match[1], 8)), text)


def v2_bases(mount: Mount, own_path: str) -> list[PurePosixPath]:
    """The folders from the mount point down to this process's own group: where groups might be made, best first.

    A process may only be moved below a group that its mover may write, so candidates are its ancestors.
    """
    bases = [PurePosixPath(mount.point)]
    own = PurePosixPath(own_path)
    if ".." in own.parts or not own.is_relative_to(mount.root):
        return bases
    for part in own.relative_to(mount.root).parts:
        bases.append(bases[-1] / part)
    return bases
