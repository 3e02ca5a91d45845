"""Threads of the kernel as /proc shows them, and how one is scheduled.

What does not live here: which of them belong to a device, and what is remembered of how they were (the plugins).
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from edgerm.core.errors import Invalid
from edgerm.plugin.device import HostFiles

PF_KTHREAD = 0x0020_0000  # include/linux/sched.h; a process can take any name, but not this flag


@dataclass(frozen=True, slots=True)
class Thread:
    """A process, or a thread of the kernel, by its /proc/PID/stat (proc(5))."""

    pid: int
    name: str
    kernel: bool
    policy: int  # a number of the kernel's: `edgerm.core.schedstrings.Policy` has most of them
    priority: int  # 1 to 99 if the policy is FIFO or RR, else 0


class SetScheduler(Protocol):
    """How a thread's policy is changed; raises `OSError`."""

    def __call__(self, pid: int, policy: int, priority: int) -> None:
        """Now and until somebody changes it again."""
        ...


def set_scheduler(pid: int, policy: int, priority: int) -> None:
    """The kernel's own (sched_setscheduler(2)). Raises `PermissionError` where only root may, `ProcessLookupError`."""
    os.sched_setscheduler(pid, policy, os.sched_param(priority))


def kernel_threads(host: HostFiles) -> tuple[Thread, ...]:
    """All threads of the kernel that there are now; blocks for a read per process of the box."""
    found = []
    for name in host.names("/proc"):
        if name.isdigit():
            with suppress(OSError, Invalid):  # it ended meanwhile
                thread = parse_stat(host.read(f"/proc/{name}/stat"))
                if thread.kernel:
                    found.append(thread)
    return tuple(found)


def parse_stat(text: str) -> Thread:
    """/proc/PID/stat; raises `Invalid` for what is none. A name may hold blanks and parentheses."""
    head, _, tail = text.rpartition(")")
    pid, _, name = head.partition(" (")
    fields = tail.split()
    try:
        flags, priority, policy = int(fields[6]), int(fields[37]), int(fields[38])
        return Thread(int(pid), name, bool(flags & PF_KTHREAD), policy, priority)
    except (IndexError, ValueError) as error:
        raise Invalid(f"{text[:40]!r} is no stat of a process") from error
