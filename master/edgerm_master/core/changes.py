"""What operators are told of: changes of agents, frameworks and tasks, each as it was when it happened.

The values outlive the state that they came from: they are told once the change is durable, and the core has gone on by
then. What does not live here: when a change is told (`World.notice` and its callers), and how it is shown (`api/`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from edgerm.core.ids import AgentId, TaskKey
from edgerm.core.scheduler import AgentSpec, Status
from edgerm.core.tasks import TaskState
from edgerm_master.core.agents import Agent, Duty
from edgerm_master.core.frameworks import Framework
from edgerm_master.core.records import RunRecord, TaskRecord


@dataclass(frozen=True, slots=True)
class TaskAdded:
    """A task was launched, or came with its agent; its framework was told of before."""

    record: TaskRecord
    run: RunRecord


@dataclass(frozen=True, slots=True)
class TaskUpdated:
    """A task has news: `status` is the update itself, `state` the latest state."""

    key: TaskKey
    status: Status
    state: TaskState
    ended: bool = False  # by this update


@dataclass(frozen=True, slots=True)
class AgentAdded:
    """An agent has joined that was not there, or has brought another inventory: then AgentRemoved went before."""

    agent: Agent  # a copy


@dataclass(frozen=True, slots=True)
class AgentRemoved:
    """An agent is not there any more: unreachable, gone, or about to come with another inventory."""

    agent_id: AgentId
    spec: AgentSpec
    why: str = ""


@dataclass(frozen=True, slots=True)
class DutyChanged:
    """An agent is used for something else than before: an operator's will, or its draining is done."""

    agent_id: AgentId
    spec: AgentSpec
    duty: Duty


@dataclass(frozen=True, slots=True)
class FrameworkAdded:
    """A framework that was not known has subscribed."""

    framework: Framework  # a copy


@dataclass(frozen=True, slots=True)
class FrameworkUpdated:
    """A framework came back, changed what it says of itself, or lost its stream."""

    framework: Framework  # a copy
    why: str = ""


@dataclass(frozen=True, slots=True)
class FrameworkRemoved:
    """A framework has ended."""

    framework: Framework  # a copy
    why: str = ""


@dataclass(frozen=True, slots=True)
class KillAsked:
    """A task is to end; its agent will be told, or will have been."""

    key: TaskKey
    agent_id: AgentId
    why: str = ""


Change: TypeAlias = (
    TaskAdded
    | TaskUpdated
    | AgentAdded
    | AgentRemoved
    | DutyChanged
    | FrameworkAdded
    | FrameworkUpdated
    | FrameworkRemoved
    | KillAsked
)
