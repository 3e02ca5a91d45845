"""What must survive the master, as values; `edgerm_master.registry` turns them into blobs and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from edgerm.core.blobs import Digest
from edgerm.core.devices import Inventory
from edgerm.core.ids import AgentId, FrameworkId, TaskKey
from edgerm.core.scheduler import AgentSpec, FrameworkSpec, Status, TaskSpec
from edgerm.core.tasks import TaskState
from edgerm_master.core.agents import DrainPlan, Duty


@dataclass(frozen=True, slots=True)
class FrameworkRecord:
    """A framework that may come back. Kind `framework`, key: its id."""

    framework_id: FrameworkId
    spec: FrameworkSpec


@dataclass(frozen=True, slots=True)
class RemovedRecord:
    """A framework that may never come back. Kind `removed`, key: its id."""

    framework_id: FrameworkId
    name: str
    number: int  # counts the removals


@dataclass(frozen=True, slots=True)
class AgentRecord:
    """An agent that has joined. Kind `agent`, key: its id."""

    agent_id: AgentId
    spec: AgentSpec
    incarnation: int
    duty: Duty = Duty.ACTIVE
    drain: DrainPlan | None = None
    inventory: Digest | None = None  # its devices have a record of their own, of this name; None: they are in `spec`


@dataclass(frozen=True, slots=True)
class InventoryRecord:
    """The devices of one or more agents, of generation 0. Kind `inventory`, key: its name."""

    digest: Digest
    inventory: Inventory


@dataclass(frozen=True, slots=True)
class GoneRecord:
    """An agent that an operator marked gone. Kind `gone`, key: its id."""

    agent_id: AgentId
    name: str
    wall_s: float
    number: int  # counts those that were marked gone


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """What a task is; it changes only where its agent took other devices. Kind `task`, key: the task's key as text."""

    key: TaskKey
    role: str
    task: TaskSpec


@dataclass(frozen=True, slots=True)
class RunRecord:
    """How far a task has come. Kind `run`, key: the task's key as text."""

    key: TaskKey
    state: TaskState
    seq: int = 0  # of the latest update taken over from the agent
    owed: tuple[Status, ...] = ()  # updates that the framework has not acknowledged, oldest first
    kill_asked: bool = False
    kill_grace_s: float | None = None
    settled: bool = False  # terminal and acknowledged; kept until the agent has seen the forget
    drained: bool = False  # the kill was asked for because its agent is drained


Record: TypeAlias = (
    FrameworkRecord | RemovedRecord | AgentRecord | InventoryRecord | GoneRecord | TaskRecord | RunRecord
)
