"""What a session takes in and gives out, as values. What becomes of them is in `session`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from edgerm.core.constraints import Constraints
from edgerm.core.ids import AgentId, FrameworkId, TaskId
from edgerm.core.scheduler import Call, Event, FrameworkSpec, Kill
from edgerm.core.tasks import TaskState


@dataclass(frozen=True, slots=True)
class Heard:
    """An event arrived on a stream."""

    stream: int
    event: Event


@dataclass(frozen=True, slots=True)
class Broke:
    """A stream ended, or could not be opened; `final`: the master refused it, and would again."""

    stream: int
    why: str
    final: bool = False


@dataclass(frozen=True, slots=True)
class Refused:
    """A call changed nothing: the master said no, or it was never sent."""

    stream: int
    call: Call
    why: str


Happening: TypeAlias = Heard | Broke | Refused


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Open a stream, under this number of ours."""

    stream: int
    framework_id: FrameworkId | None
    suppressed_roles: tuple[str, ...] = ()
    constraints: Mapping[str, Constraints] = field(default_factory=dict)
    spec: FrameworkSpec | None = None  # what the framework says of itself by now; None: as at first


@dataclass(frozen=True, slots=True)
class Make:
    """Make a call on a stream. Calls keep their order, but acknowledgements may overtake."""

    stream: int
    call: Call


@dataclass(frozen=True, slots=True)
class Leave:
    """Close a stream; calls made before go out first."""

    stream: int


Effect: TypeAlias = Subscribe | Make | Leave


@dataclass(slots=True)
class Awaited:
    """A task that was launched and has not ended, as far as we were told."""

    task_id: TaskId
    agent_id: AgentId | None
    state: TaskState = TaskState.STAGING
    kill: Kill | None = None  # asked for, and repeated until the task has ended
