"""What an agent must remember, as values; `edgerm_agent.journal` turns them into blobs and back."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Final, TypeAlias

from edgerm.core.claims import Granted
from edgerm.core.ids import FrameworkId, TaskKey
from edgerm.core.link import Update
from edgerm.core.scheduler import TaskSpec
from edgerm.core.tasks import TaskState
from edgerm.plugin.executor import Handle

LOCAL: Final = FrameworkId("local")
"""The framework of local grants: tasks that somebody on this box asked for, of which no master is told."""


def is_local(key: TaskKey) -> bool:
    """Whether the task is a local grant."""
    return key.framework_id == LOCAL


class Phase(Enum):
    """How far the agent has come with a task; finer than Mesos' states, and what recovery goes by."""

    FETCHING = "fetching"  # accepted; something it needs is not here yet, or its executor sleeps
    STARTING = "starting"  # the executor was, or is about to be, asked to start it
    RUNNING = "running"  # the executor has started it
    WAITING = "waiting"  # stopped, for it lost a device; fetched and started anew when all its devices are back
    ENDED = "ended"  # its end is journaled; waits for the forget


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """What a task is. Kind `task`, key: the task's key as text.

    It changes only before its start, where a plugin chooses among its devices.
    """

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
    lost: str = ""  # the device that it lost, for which it is, or was, stopped
    again: bool = False  # it starts anew when that is back


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


def kind_of(record: Record) -> str:
    """Under which kind it is stored."""
    return _KINDS[type(record)]


_KINDS: dict[type, str] = {TaskRecord: "task", RunRecord: "run", GrantRecord: "grant"}


def halves(records: Iterable[Record]) -> list[Record]:
    """Tasks' records without the other one: promises half made, or half forgotten, when a crash came.

    Nobody was told of a task before both are durable, and the second goes only after it was forgotten. Grants are no
    halves: without their task they are given back.
    """
    kept = list(records)
    known = {kind: {r.key for r in kept if isinstance(r, kind)} for kind in (TaskRecord, RunRecord)}
    whole = known[TaskRecord] & known[RunRecord]
    return [record for record in kept if record.key not in whole and not isinstance(record, GrantRecord)]


def executors_of(records: Iterable[Record]) -> frozenset[str]:
    """The executors that may still hold tasks of the journal."""
    kept = list(records)
    live = {record.key for record in kept if isinstance(record, RunRecord) and record.phase is not Phase.ENDED}
    return frozenset(record.task.executor for record in kept if isinstance(record, TaskRecord) and record.key in live)
