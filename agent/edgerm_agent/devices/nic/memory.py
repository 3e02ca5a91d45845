"""What is remembered of an interface while a task has it, so that a later agent can undo everything. Pure.

What does not live here: where notes are kept (`hostfs`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from edgerm.core.ids import FrameworkId, LaunchId, TaskId, TaskKey
from edgerm.core.schedstrings import Policy, Scheduling
from edgerm_agent.devices.nic.asking import Threads, Tuning
from edgerm_agent.devices.nic.plan import Identity


@dataclass(frozen=True, slots=True)
class Before:
    """A thread as it was."""

    pid: int
    name: str
    policy: int
    priority: int
    cpus: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Note:
    """Of one interface: whose it is, how it is known again, where it went, and how all that was changed had been."""

    task: TaskKey
    home: str  # its name on the box
    identity: Identity
    mac: str
    mtu: int
    path: str  # of the task's namespace
    namespace: int  # the kernel's number of that
    card_name: str  # of the card inside
    boot: str = ""  # the kernel's name for the time since the boot: after another one numbers mean other things
    device: str = ""  # of the card in /sys
    metadata: str = ""  # as the inventory had it
    tuning: Tuning = field(default_factory=Tuning)
    ready: bool = False  # the way in was gone to its end
    napi: str = ""  # what `threaded` was; empty: it was left alone
    irqs: Mapping[int, tuple[int, ...]] = field(default_factory=dict)  # where they were
    threads: tuple[Before, ...] = ()
    strangers: tuple[int, ...] = ()  # NAPI threads with its name inside that are another interface's

    def with_irqs(self, found: Mapping[int, tuple[int, ...]]) -> Note:
        """These too, unless they are known already: they may have been changed since."""
        return replace(self, irqs={**found, **self.irqs})

    def with_threads(self, found: tuple[Before, ...]) -> Note:
        """Likewise."""
        known = {(each.pid, each.name) for each in self.threads}
        fresh = tuple(each for each in found if (each.pid, each.name) not in known)
        return replace(self, threads=self.threads + fresh)


def to_json(note: Note) -> dict[str, object]:
    """A small JSON object."""
    return asdict(note) | {"task": list(note.task), "irqs": {str(each): cpus for each, cpus in note.irqs.items()}}


def from_json(found: Mapping[str, Any]) -> Note:
    """What `to_json` made. Raises `LookupError`, `TypeError` or `ValueError` for anything else."""
    framework_id, task_id, launch_id = found["task"]
    return Note(
        **{
            **found,
            "task": TaskKey(FrameworkId(framework_id), TaskId(task_id), LaunchId(launch_id)),
            "identity": Identity(**found["identity"]),
            "tuning": _tuning(found["tuning"]),
            "irqs": {int(each): tuple(cpus) for each, cpus in found["irqs"].items()},
            "threads": tuple(Before(**{**each, "cpus": tuple(each["cpus"])}) for each in found["threads"]),
            "strangers": tuple(found["strangers"]),
        }
    )


def _tuning(found: Mapping[str, Any]) -> Tuning:
    return Tuning(
        tuple(found["irq_cpus"]), _threads(found["irq_threads"]), _threads(found["napi_threads"]), found["napi"]
    )


def _threads(found: Mapping[str, Any]) -> Threads:
    scheduling = found["scheduling"]
    return Threads(
        tuple(found["cpus"]),
        None if scheduling is None else Scheduling(Policy(scheduling["policy"]), scheduling["priority"]),
    )
