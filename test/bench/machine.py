"""The machine that a bench runs on, and what the kernel says of a process: CPU time, memory."""

from __future__ import annotations

import os
import platform
import sqlite3
from importlib.metadata import version
from pathlib import Path
from time import process_time
from typing import Any

LIBRARIES = ("aiohttp", "protobuf", "wasmtime", "msgspec")


def describe() -> dict[str, Any]:
    """What a reader must know of this machine, and how busy it is now."""
    names = [f"{name} {version(name)}" for name in LIBRARIES]
    return {
        "cpu": _cpu_model(),
        "cpus": os.cpu_count(),
        "usable_cpus": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "libraries": ", ".join([*names, f"SQLite {sqlite3.sqlite_version}"]),
        "python_loop_ns": round(_loop_ns(), 1),
        "load_average": load_average(),
    }


def _loop_ns() -> float:
    """CPU time of one turn of a bare Python loop: how fast this machine is just now."""
    turns, total, began = 1_000_000, 0, process_time()
    for number in range(turns):
        total += number
    return 1e9 * (process_time() - began) / turns


def load_average() -> str:
    """Of 1, 5 and 15 minutes."""
    return " ".join(f"{value:.2f}" for value in os.getloadavg())


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith(("model name", "Model")):
            return line.partition(":")[2].strip()
    return platform.machine()


def two_cores() -> tuple[set[int], set[int]] | None:
    """A core for the server and the others for the load; None if there is only one."""
    first, *others = sorted(os.sched_getaffinity(0))
    return ({first}, set(others)) if others else None


def cpu_s(pid: int) -> float:
    """CPU time of the living threads of a process, exact to the nanosecond."""
    total_ns = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        total_ns += int((thread / "schedstat").read_text().split()[0])
    return total_ns / 1e9


def pss_mib(pid: int) -> float:
    """Memory of a process; pages shared with others count in part (`Pss` of smaps_rollup)."""
    return _smaps(pid, "Pss:")


def rss_mib(pid: int) -> float:
    """Memory of a process, shared pages in full."""
    return _smaps(pid, "Rss:")


def _smaps(pid: int, name: str) -> float:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) / 1024
    raise LookupError(f"smaps_rollup of {pid} has no {name}")


def file_system(path: Path) -> str:
    """The type of the file system that holds `path`: commits on a tmpfs cost nothing."""
    best, kind = "", "unknown"
    for line in Path("/proc/mounts").read_text().splitlines():
        _, mount, this, *_ = line.split()
        if path.is_relative_to(mount) and len(mount) >= len(best):
            best, kind = mount, this
    return kind
