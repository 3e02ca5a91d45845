"""All that can happen to the master."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

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
class Tick:
    """A deadline has come, or there is work left over: see `Master.due_s`."""


Event: TypeAlias = Subscribe | StreamClosed | Called | Joined | Beaten | SendFrame | Tick
