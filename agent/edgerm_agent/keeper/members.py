"""Which processes belong to a task, found without cgroups too, and how to signal them all.

Every process of a task carries the task's tag: the limit RLIMIT_LOCKS, which the kernel stores, hands to children
and has ignored since Linux 2.4 (getrlimit(2)); without privilege it can only be lowered. Sessions, groups and
parents change when a task daemonises, the tag does not. The agent chooses it, so that it can clean up after a keeper
that died: `place_of` its data directory in the upper bits, the task in the lower. A keeper that starts, and so is
the only one on its data directory, finds what an earlier one left by the upper bits alone (`sweep`).
"""

from __future__ import annotations

import os
import resource
import signal
import time
from binascii import crc32
from collections.abc import Iterable
from contextlib import suppress

TASK_BITS = 38
PLACE_BITS = 23

RLIMIT_TAG = 10  # RLIMIT_LOCKS, the same on all architectures; Python does not name it

CLOCK_TICK_HZ = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def place_of(directory: str) -> int:
    """The upper part of the tags of all tasks of the agent with this data directory; never 0."""
    found = os.stat(directory)  # noqa: PTH116
    return 1 + crc32(f"{found.st_dev}:{found.st_ino}".encode()) % ((1 << PLACE_BITS) - 1)


def own_limit() -> int:
    """Tags must be below this: infinity, unless this process is part of a task itself."""
    own = resource.getrlimit(RLIMIT_TAG)[1]
    return 1 << (TASK_BITS + PLACE_BITS) if own == resource.RLIM_INFINITY else max(own, 2)


def sweep(directory: str, timeout_s: float) -> None:
    """Kill all tasks that an earlier keeper of this data directory left; blocks until none is seen, or so long."""
    place = place_of(directory)
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        found = tagged()
        left = [pid for tag, pids in found.items() if tag >> TASK_BITS == place for pid in pids]
        if not left:
            return
        kill(left)
        time.sleep(0.01)


def tagged() -> dict[int, list[int]]:
    """The living processes that we may signal, by tag; those without one are not in it."""
    own = resource.getrlimit(RLIMIT_TAG)[1]
    found: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):  # noqa: PTH208 - pathlib is a large import
        if name.isdigit():
            with suppress(OSError):
                tag = resource.prlimit(int(name), RLIMIT_TAG)[1]
                if tag != own and is_alive(int(name)):
                    found.setdefault(tag, []).append(int(name))
    return found


def in_cgroups(procs: Iterable[str]) -> set[int]:
    """The living processes in these `cgroup.procs` files; those of another PID namespace are not seen."""
    pids: set[int] = set()
    for path in procs:
        with suppress(OSError), open(path) as file:  # noqa: PTH123
            pids.update(int(line) for line in file)
    return {pid for pid in pids if pid > 0 and pid != os.getpid() and is_alive(pid)}


def stat_of(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on (proc(5), field 3). Raises `OSError` if there is none."""
    with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123
        return file.read().rpartition(")")[2].split()


def is_alive(pid: int) -> bool:
    """Whether any thread of the process still runs."""
    try:
        fields = stat_of(pid)
    except OSError:
        return False
    return fields[0] not in "ZX" or int(fields[17]) > 1  # a dead first thread among living ones looks like a zombie


def send(pids: Iterable[int], number: int) -> None:
    """Signal the processes, and at once the process groups they form: a fork cannot slip through a group's signal."""
    pids = set(pids)
    groups = set()
    for pid in pids:
        with suppress(OSError):
            groups.add(os.getpgid(pid))
    groups -= {0, 1, os.getpgrp()}
    for group in groups:
        with suppress(OSError):
            os.killpg(group, number)
    for pid in pids:
        with suppress(OSError):
            if os.getpgid(pid) not in groups:
                os.kill(pid, number)


def kill(pids: Iterable[int], procs: Iterable[str] = ()) -> None:
    """SIGKILL the processes, and the whole cgroups where the kernel can (cgroup v2 since Linux 5.14)."""
    for path in procs:
        with suppress(OSError), open(path.removesuffix("procs") + "kill", "r+") as file:  # noqa: PTH123
            file.write("1")
    send(pids, signal.SIGKILL)


def use(pids: Iterable[int]) -> tuple[float, int]:
    """CPU seconds and resident bytes of the processes and of the children they have waited for."""
    cpu_s, pages = 0.0, 0
    for pid in pids:
        with suppress(OSError):
            fields = stat_of(pid)
            cpu_s += sum(map(int, fields[11:15])) / CLOCK_TICK_HZ
            pages += int(fields[21])
    return cpu_s, pages * PAGE_BYTES
