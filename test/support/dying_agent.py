"""Real agents, one after another, each killed (SIGKILL) at a step of its own: `python THIS TRACE FLAG…`.

A line on the input starts an agent with these flags; the line is its cut. Lines of the output are `started PID`, what
the agent says itself (`ready …`), and `ended STATUS`. Agents are forked from this process, which has imported all that
they need: on an emulated CPU that takes longer than everything else.

A step is something that outlives the agent: a row of its journal, a note, a thread of the kernel, an interface, a
task. It has a name, told before and after it: "before journal +grant", "after process start". A cut is a pattern
(fnmatch) of such words, and the first that fits is the agent's end; one that is empty fits none. All words go to the
file TRACE.

What does not live here: which cuts there are (`support.survival`).
"""

from __future__ import annotations

import functools
import inspect
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from edgerm.cli.agent import command
from edgerm.core.effects import Put
from edgerm_agent import main as _main  # noqa: F401 - so that no agent has to import it
from edgerm_agent import netns
from edgerm_agent.core.records import GrantRecord
from edgerm_agent.devices.gpio.safety import Safety
from edgerm_agent.devices.hostfs import FileNotes, Host
from edgerm_agent.devices.manager import Devices
from edgerm_agent.devices.nic.links import Netlink
from edgerm_agent.executors.docker.executor import DockerExecutor
from edgerm_agent.executors.process import ProcessExecutor
from edgerm_agent.journal import Journal

NEEDED = ("aiohttp", "gpiod", "pyroute2", *(f"edgerm_agent.devices.{each}" for each in ("cpu", "gpio", "gpu", "nic")))


@dataclass
class Fate:
    """When this agent ends, and where it tells how far it has come."""

    cut: str = ""
    trace: Path = Path(os.devnull)


FATE = Fate()


def step(name: str) -> None:
    """It is here: go on, or never."""
    with FATE.trace.open("a") as trace:
        trace.write(f"{name}\n")
    if FATE.cut and fnmatchcase(name, FATE.cut):
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


def agent(cut: str) -> NoReturn:
    """`edgerm agent`, in a process of its own."""
    FATE.cut = cut
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    command(sys.argv[2:], "edgerm agent")
    raise AssertionError("a command does not return")


def say(line: str) -> None:
    """To whoever started this."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    """Until the end of the input."""
    FATE.trace = Path(sys.argv[1])
    watch_all()
    for line in sys.stdin:
        if (pid := os.fork()) == 0:
            agent(line.rstrip("\n"))
        say(f"started {pid}")
        _, status = os.waitpid(pid, 0)
        say(f"ended {os.waitstatus_to_exitcode(status)}")


if __name__ == "__main__":
    for needed in NEEDED:
        with suppress(ModuleNotFoundError):
            import_module(needed)
    main()
