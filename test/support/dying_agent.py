"""`edgerm agent` that is killed (SIGKILL) at a step of its own: `EDGERM_CUT='after nic apply *' python THIS FLAG…`.

A step is something that outlives the agent: a row of its journal, a note, a thread of the kernel, an interface, a
task. It has a name, told before and after it: "before journal +grant", "after process start". The cut is a pattern
(fnmatch) of such words; the first that fits is the agent's end. All go to the file `EDGERM_TRACE`.

What does not live here: which cuts there are (`support.survival`).
"""

from __future__ import annotations

import functools
import inspect
import os
import signal
import sys
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from edgerm.core.effects import Put
from edgerm_agent import netns
from edgerm_agent.core.records import GrantRecord
from edgerm_agent.devices.gpio.safety import Safety
from edgerm_agent.devices.hostfs import FileNotes, Host
from edgerm_agent.devices.manager import Devices
from edgerm_agent.devices.nic.links import Netlink
from edgerm_agent.executors.docker.executor import DockerExecutor
from edgerm_agent.executors.process import ProcessExecutor
from edgerm_agent.journal import Journal

CUT = os.environ.get("EDGERM_CUT", "")
TRACE = os.environ.get("EDGERM_TRACE", os.devnull)


def step(name: str) -> None:
    """It is here: go on, or never."""
    with Path(TRACE).open("a") as trace:
        trace.write(f"{name}\n")
    if CUT and fnmatchcase(name, CUT):
        os.kill(os.getpid(), signal.SIGKILL)


def watch(owner: Any, attribute: str, name: Callable[..., str]) -> None:
    """Tell what this function does, before and after it; `name` is given its arguments."""
    inner = getattr(owner, attribute)

    @functools.wraps(inner)
    def call(*args: Any, **more: Any) -> Any:
        called = name(*args)
        step(f"before {called}")
        result = inner(*args, **more)
        step(f"after {called}")
        return result

    @functools.wraps(inner)
    async def call_later(*args: Any, **more: Any) -> Any:
        called = name(*args)
        step(f"before {called}")
        result = await inner(*args, **more)
        step(f"after {called}")
        return result

    setattr(owner, attribute, call_later if inspect.iscoroutinefunction(inner) else call)


def plugin_of(notes: Any) -> str:
    """Whose notes these are."""
    return str(notes._directory.name)


def rows(changes: Sequence[Any]) -> str:
    """What is put (+) and dropped (-); evidence is something else than a grant."""
    found = [f"{'+' if isinstance(each, Put) else '-'}{_kind(each)}" for each in changes]
    return " ".join(dict.fromkeys(found))


def _kind(change: Any) -> str:
    record = getattr(change, "record", None)
    return "evidence" if isinstance(record, GrantRecord) and record.evidence else str(change.kind)


def thread_name(pid: int) -> str:
    """As the kernel calls it."""
    return netns.name_of_process(pid)


def watch_all() -> None:
    """Every step."""
    watch(Journal, "write", lambda self, changes: f"journal {rows(changes)}")
    watch(FileNotes, "put", lambda self, key, note: f"{plugin_of(self)} note {key}")
    watch(FileNotes, "drop", lambda self, key: f"{plugin_of(self)} forgets {key}")
    watch(Host, "write", lambda self, path, text: f"{plugin_of(self.notes)} write {path}")
    watch(os, "sched_setscheduler", lambda pid, *_: f"schedule {thread_name(pid)}")
    watch(Netlink, "apply", lambda self, path, steps: f"nic apply {'inside' if path else 'outside'}")
    watch(netns, "make", lambda name: "netns make")
    watch(netns, "remove", lambda name: "netns remove")
    watch(Safety, "apply", lambda self, chip, path: f"gpio drive {len(self.levels(chip))}")
    watch(Devices, "prepare", lambda *_: "prepare")
    watch(Devices, "_release", lambda *_: "release")
    for executor in (ProcessExecutor, DockerExecutor):
        for verb in ("start", "stop", "network", "drop_network"):
            watch(executor, verb, lambda self, *_, verb=verb: f"{self.name} {verb}")


if __name__ == "__main__":
    watch_all()
    from edgerm.cli.agent import command

    sys.argv[0] = "edgerm agent"
    command()
