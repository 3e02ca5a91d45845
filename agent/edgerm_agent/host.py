"""What this box is: its name, its present boot, and what it has when nobody says otherwise."""

from __future__ import annotations

import os
import platform
import re
import shutil
from collections.abc import Collection
from pathlib import Path

from edgerm.core.resources import MILLI, Amount, ResourceKey, Resources, parse

MEMORY_SHARE = 0.8  # of what the box has; the rest is for the system and the agent
DISK_RESERVE_BYTES = 1 << 30
DISK_RESERVE_SHARE = 0.05  # of the file system; a full disk would end the agent, not only a task
PORTS = ((31000, 32000),)
MIB = 1 << 20
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "armv6l": "arm", "i686": "386", "i386": "386"}
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def hostname() -> str:
    """The name under which others may find the box."""
    return platform.node() or "localhost"


def boot_id() -> str:
    """The kernel's name for the time since this boot; empty if it does not tell."""
    try:
        return BOOT_ID.read_text().strip()
    except OSError:
        return ""


def kind() -> dict[str, str]:
    """What builds of a task differ by: `arch` (amd64, arm64, …, as container images name it), `os`, `distribution`."""
    machine = platform.machine().lower()
    found = {"arch": ARCHITECTURES.get(machine, machine), "os": platform.system().lower()}
    try:
        release = platform.freedesktop_os_release()
        found["distribution"] = "-".join(filter(None, (release["ID"], release.get("VERSION_ID"))))
    except (OSError, KeyError):
        pass
    return {name: value for name, value in found.items() if value}


def detect(data_dir: Path, plain_cpus: Collection[int] = ()) -> Resources:
    """The CPUs that we may use, a share of the memory, the free space beside `data_dir` less a reserve, ports.

    `plain_cpus`: those that no device is made of; none: all of them.
    """
    cpus = os.sched_getaffinity(0)
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    disk = shutil.disk_usage(data_dir)
    free_bytes = disk.free - max(DISK_RESERVE_BYTES, int(disk.total * DISK_RESERVE_SHARE))
    amounts: dict[ResourceKey, Amount] = {
        ResourceKey("cpus"): len(cpus.intersection(plain_cpus) or cpus) * MILLI,
        ResourceKey("mem"): int(memory_bytes * MEMORY_SHARE) // MIB * MILLI,
        ResourceKey("disk"): max(free_bytes, 0) // MIB * MILLI,
        ResourceKey("ports"): PORTS,
    }
    return Resources(amounts)


def resources(text: str, detected: Resources) -> Resources:
    """What `text` says (`cpus:4;ports:[31000-32000]`), completed by what was detected; `cpus:0` means none.

    Raises `Invalid`, naming the part that is wrong.
    """
    given = parse(text)
    named = {part.partition(":")[0].strip() for part in text.split(";")}
    rest = Resources({key: amount for key, amount in detected.items() if key.name not in named})
    return given + rest


def mount_points() -> list[str]:
    """Where something is mounted (proc_pid_mountinfo(5): the fifth field, with blanks as \\040)."""
    lines = Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()
    return [re.sub(r"\\(\d{3})", lambda match: chr(int(match[1], 8)), line.split(" ")[4]) for line in lines]
