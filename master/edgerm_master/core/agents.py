"""An agent as the master sees it: the machine, and what is known of one agent.

The theory: an agent the registry knows is waited for after a master start; one that has joined is trusted as long as it
beats. One that is silent for too long is unreachable, which ends nothing: whatever runs there may come back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType

from edgerm.core.errors import IllegalMove
from edgerm.core.ids import AgentId, OfferId, TaskKey
from edgerm.core.link import MasterHalf
from edgerm.core.resources import NOTHING, Resources
from edgerm.core.scheduler import AgentSpec


class AgentState(Enum):
    """How an agent stands."""

    RECOVERING = "recovering"  # known from the registry, not heard since this master started
    JOINED = "joined"  # it has a session and is offered
    UNREACHABLE = "unreachable"  # silent for too long; what runs there may come back


class AgentSignal(Enum):
    """What can happen to an agent."""

    JOIN = "join"  # it gave its inventory and got a session
    MISS = "miss"  # it was silent for too long


AGENT_MOVES: Mapping[AgentState, Mapping[AgentSignal, AgentState]] = MappingProxyType(
    {
        AgentState.RECOVERING: {
            AgentSignal.JOIN: AgentState.JOINED,
            AgentSignal.MISS: AgentState.UNREACHABLE,
        },
        AgentState.JOINED: {
            AgentSignal.JOIN: AgentState.JOINED,  # a new incarnation
            AgentSignal.MISS: AgentState.UNREACHABLE,
        },
        AgentState.UNREACHABLE: {AgentSignal.JOIN: AgentState.JOINED},
    }
)


@dataclass(slots=True)
class Agent:
    """What the master knows of one agent."""

    agent_id: AgentId
    spec: AgentSpec
    incarnation: int
    state: AgentState = AgentState.RECOVERING
    half: MasterHalf | None = None  # the session, while there is one
    heard_s: float = 0.0
    joined_wall_s: float = 0.0
    silent_wall_s: float | None = None  # when it became unreachable
    free: Resources = NOTHING  # neither used by a task nor offered
    short: bool = False  # it came back with less than is in use
    offers: set[OfferId] = field(default_factory=set)
    tasks: dict[TaskKey, None] = field(default_factory=dict)  # all that are not forgotten, oldest first

    def move(self, signal: AgentSignal) -> None:
        """Follow the table; raises `IllegalMove`."""
        try:
            self.state = AGENT_MOVES[self.state][signal]
        except KeyError:
            raise IllegalMove("agent", self.state.name, signal.name, self.agent_id) from None

    @property
    def joined(self) -> bool:
        return self.state is AgentState.JOINED
