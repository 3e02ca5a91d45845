"""All that the master's core may ask for, beside `Put` and `Drop` of records."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import TypeAlias

from edgerm.core.effects import Drop, Put, Spoken, Volatile
from edgerm.core.ids import AgentId, StreamId
from edgerm.core.link import BeatAnswer, Frame, JoinAnswer
from edgerm.core.scheduler import Event
from edgerm_master.core.changes import Change


@dataclass(frozen=True, slots=True)
class Tell(Spoken):
    """An event for a framework that depends on what was stored before it."""

    stream: StreamId
    event: Event

    @property
    def lane(self) -> Hashable:
        return self.stream


@dataclass(frozen=True, slots=True)
class TellSoon(Volatile):
    """An event for a framework that promises nothing durable: offers, rescinds, heartbeats."""

    stream: StreamId
    event: Event

    @property
    def lane(self) -> Hashable:
        return self.stream


@dataclass(frozen=True, slots=True)
class CloseStream(Spoken):
    """No more events on this stream; what was told before is still sent."""

    stream: StreamId

    @property
    def lane(self) -> Hashable:
        return self.stream


@dataclass(frozen=True, slots=True)
class Accepted(Spoken):
    """The call is carried out and durable: 202."""

    request: int


@dataclass(frozen=True, slots=True)
class AnswerAgent(Spoken):
    """The answer to a join or a beat."""

    request: int
    answer: JoinAnswer | BeatAnswer


@dataclass(frozen=True, slots=True)
class Ring(Volatile):
    """Ring the agent's doorbell. Harmless when early: the orders' own answer waits for the disk."""

    agent_id: AgentId
    session: int

    @property
    def lane(self) -> Hashable:
        return self.agent_id


@dataclass(frozen=True, slots=True)
class FramesIn(Volatile):
    """Frames from an agent, for those who follow its streams."""

    agent_id: AgentId
    frames: tuple[Frame, ...]

    @property
    def lane(self) -> Hashable:
        return self.agent_id


@dataclass(frozen=True, slots=True)
class SessionEnded(Volatile):
    """The session is void, and with it all its streams and its doorbell."""

    agent_id: AgentId
    session: int

    @property
    def lane(self) -> Hashable:
        return self.agent_id


@dataclass(frozen=True, slots=True)
class Noticed(Spoken):
    """A change that operators are told of, once it is durable; all of them in the order in which they happened.

    `request` names what caused it, if that was a request with an id.
    """

    change: Change
    request: str = ""


@dataclass(frozen=True, slots=True)
class Watching(Spoken):
    """What was noticed before this is part of what the watcher saw when it began; what follows is news to it."""

    stream: StreamId


Speech: TypeAlias = (
    Tell | TellSoon | CloseStream | Accepted | AnswerAgent | Ring | FramesIn | SessionEnded | Noticed | Watching
)
Effect: TypeAlias = Put | Drop | Speech
