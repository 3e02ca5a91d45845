"""All that can happen to the master."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from edgerm.core.constraints import Constraints
from edgerm.core.ids import AgentId, FrameworkId, StreamId
from edgerm.core.link import HTTP, Beat, Carrier, Frame, Join
from edgerm.core.scheduler import Call, FrameworkSpec


@dataclass(frozen=True, slots=True)
class Subscribe:
    """A framework opened a stream; with an id it comes back."""

    stream: StreamId
    spec: FrameworkSpec
    framework_id: FrameworkId | None = None
    suppressed_roles: tuple[str, ...] = ()
    constraints: Mapping[str, Constraints] = field(default_factory=dict)  # which agents it takes offers of, by role
    cause: str = ""  # the id of the request, for logs


@dataclass(frozen=True, slots=True)
class StreamClosed:
    """A framework's stream broke, or its reader was too slow."""

    stream: StreamId


@dataclass(frozen=True, slots=True)
class Called:
    """A framework (or an operator in its name) made a call; `request` is answered once all of it is durable."""

    request: int
    framework_id: FrameworkId
    call: Call
    cause: str = ""  # the id of the request, for logs


@dataclass(frozen=True, slots=True)
class Joined:
    """An agent asks to join."""

    request: int
    join: Join
    carrier: Carrier = HTTP


@dataclass(frozen=True, slots=True)
class Beaten:
    """An agent's beat."""

    request: int
    beat: Beat
    carrier: Carrier = HTTP


@dataclass(frozen=True, slots=True)
class SendFrame:
    """A frame for an agent, from somebody who follows a stream."""

    agent_id: AgentId
    frame: Frame


@dataclass(frozen=True, slots=True)
class Watch:
    """Somebody wants to be told of all changes from now on; answered by Watching."""

    stream: StreamId


@dataclass(frozen=True, slots=True)
class WatchEnded:
    """A watcher has gone."""


@dataclass(frozen=True, slots=True)
class DrainAgent:
    """DRAIN_AGENT: no more offers; what runs there may end by itself until the deadline, then it is killed."""

    agent_id: AgentId
    deadline_s: float = 0.0
    max_grace_s: float | None = None
    mark_gone: bool = False


@dataclass(frozen=True, slots=True)
class DeactivateAgent:
    """DEACTIVATE_AGENT: no more offers."""

    agent_id: AgentId


@dataclass(frozen=True, slots=True)
class ReactivateAgent:
    """REACTIVATE_AGENT: offers again; a draining ends."""

    agent_id: AgentId


@dataclass(frozen=True, slots=True)
class MarkAgentGone:
    """MARK_AGENT_GONE: its tasks are over, and it may never join again."""

    agent_id: AgentId


Maintenance: TypeAlias = DrainAgent | DeactivateAgent | ReactivateAgent | MarkAgentGone


@dataclass(frozen=True, slots=True)
class Maintained:
    """An operator says what an agent is to be used for; `request` is answered once that is durable.

    One that is not known is left out: whoever asks looks before.
    """

    request: int
    call: Maintenance
    cause: str = ""  # the id of the request, for logs


@dataclass(frozen=True, slots=True)
class Tick:
    """A deadline has come, or there is work left over: see `Master.due_s`."""


Event: TypeAlias = (
    Subscribe | StreamClosed | Called | Maintained | Joined | Beaten | SendFrame | Watch | WatchEnded | Tick
)
