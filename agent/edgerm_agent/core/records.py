"""What an agent must remember, as values; `edgerm_agent.journal` turns them into blobs and back."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from edgerm.core.claims import Granted
from edgerm.core.ids import TaskKey
from edgerm.core.link import Update
from edgerm.core.scheduler import TaskSpec
from edgerm.core.tasks import TaskState
from edgerm.plugin.executor import Handle


class Phase(Enum):
    """How far the agent has come with a task; finer than Mesos' states, and what recovery goes by."""

    FETCHING = "fetching"  # accepted; something it needs is not here yet, or its executor sleeps
    STARTING = "starting"  # the executor was, or is about to be, asked to start it
    RUNNING = "running"  # the executor has started it
    ENDED = "ended"  # its end is journaled; waits for the forget


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """What a task is; never changes. Kind `task`, key: the task's key as text."""

    key: TaskKey
    role: str
    task: TaskSpec


@dataclass(frozen=True, slots=True)
class RunRecord:
    """How far a task has come. Kind `run`, key: the task's key as text."""

    key: TaskKey
    phase: Phase
    state: TaskState
    instance: str = ""  # of the executor that was asked to start it
    handle: Handle | None = None
    seq: int = 0  # of the latest update
    owed: tuple[Update, ...] = ()  # updates that the master has not persisted, oldest first
    kill_asked: bool = False
    kill_grace_s: float | None = None
    expired: bool = False  # killed because it took longer than it may


@dataclass(frozen=True, slots=True)
class GrantRecord:
    """Devices of one class that a task was given, until they are verified clean. Kind `grant`, key: `grant_key`.

    It is written before anything is prepared, and outlives its task if something is left on a device.
    """

    key: TaskKey
    name: str  # of the class
    granted: tuple[Granted, ...]  # every claim of that class that got devices
    executor: str
    app: str = ""
    evidence: str = ""  # what was found when they were given back; empty: nothing, so far

    @property
    def grant_key(self) -> str:
        return f"{self.key} {self.name}"


Record: TypeAlias = TaskRecord | RunRecord | GrantRecord


def executors_of(records: Iterable[Record]) -> frozenset[str]:
    """The executors that may still hold tasks of the journal."""
    kept = list(records)
    live = {record.key for record in kept if isinstance(record, RunRecord) and record.phase is not Phase.ENDED}
    return frozenset(record.task.executor for record in kept if isinstance(record, TaskRecord) and record.key in live)
