"""An agent as the master sees it: its two machines, and what is known of one agent.

The theory: an agent the registry knows is waited for after a master start; one that has joined is trusted as long as it
beats. One that is silent for too long is unreachable, which ends nothing: whatever runs there may come back. Only an
operator may call one gone for good.

Beside how it stands there is what it is used for, its duty: an operator's will, which outlives links and masters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType

from edgerm.core.errors import IllegalMove
from edgerm.core.ids import AgentId, FrameworkId, OfferId, TaskKey
from edgerm.core.link import MasterHalf
from edgerm.core.resources import NOTHING, Resources
from edgerm.core.scheduler import AgentSpec, InverseOffer


class AgentState(Enum):
    """How an agent stands."""

    RECOVERING = "recovering"  # known from the registry, not heard since this master started
    JOINED = "joined"  # it has a session
    UNREACHABLE = "unreachable"  # silent for too long; what runs there may come back
    GONE = "gone"  # an operator marked it gone: it may never join again


class AgentSignal(Enum):
    """What can happen to an agent."""

    JOIN = "join"  # it gave its inventory and got a session
    MISS = "miss"  # it was silent for too long
    DISMISS = "dismiss"  # an operator marked it gone


AGENT_MOVES: Mapping[AgentState, Mapping[AgentSignal, AgentState]] = MappingProxyType(
    {
        AgentState.RECOVERING: {
            AgentSignal.JOIN: AgentState.JOINED,
            AgentSignal.MISS: AgentState.UNREACHABLE,
            AgentSignal.DISMISS: AgentState.GONE,
        },
        AgentState.JOINED: {
            AgentSignal.JOIN: AgentState.JOINED,  # a new incarnation
            AgentSignal.MISS: AgentState.UNREACHABLE,
            AgentSignal.DISMISS: AgentState.GONE,
        },
        AgentState.UNREACHABLE: {AgentSignal.JOIN: AgentState.JOINED, AgentSignal.DISMISS: AgentState.GONE},
        AgentState.GONE: {},
    }
)


class Duty(Enum):
    """What an agent is used for."""

    ACTIVE = "active"  # it is offered
    DEACTIVATED = "deactivated"  # it is not offered; its tasks run on
    DRAINING = "draining"  # it is not offered; its tasks end by themselves, or are killed at the deadline
    DRAINED = "drained"  # all its tasks have ended, and their frameworks know, as far as they are there


class DutySignal(Enum):
    """What can happen to an agent's duty."""

    DEACTIVATE = "deactivate"  # by an operator
    DRAIN = "drain"  # by an operator; again: perhaps with a shorter deadline
    EMPTY = "empty"  # the last end was acknowledged, or who has still to do that is away
    FILL = "fill"  # it brought a task along that nobody knew of
    REACTIVATE = "reactivate"  # by an operator


_D, _G = Duty, DutySignal
DUTY_MOVES: Mapping[Duty, Mapping[DutySignal, Duty]] = MappingProxyType(
    {
        _D.ACTIVE: {_G.DEACTIVATE: _D.DEACTIVATED, _G.DRAIN: _D.DRAINING, _G.REACTIVATE: _D.ACTIVE},
        _D.DEACTIVATED: {_G.DEACTIVATE: _D.DEACTIVATED, _G.DRAIN: _D.DRAINING, _G.REACTIVATE: _D.ACTIVE},
        _D.DRAINING: {
            _G.DEACTIVATE: _D.DRAINING,
            _G.DRAIN: _D.DRAINING,
            _G.EMPTY: _D.DRAINED,
            _G.REACTIVATE: _D.ACTIVE,
        },
        _D.DRAINED: {
            _G.DEACTIVATE: _D.DRAINED,
            _G.DRAIN: _D.DRAINED,
            _G.FILL: _D.DRAINING,
            _G.REACTIVATE: _D.ACTIVE,
        },
    }
)


@dataclass(frozen=True, slots=True)
class DrainPlan:
    """How an agent is drained; part of its record."""

    deadline_s: float  # its tasks may end by themselves for so long
    max_grace_s: float | None  # a task is killed with its own grace, or this if that is less
    mark_gone: bool  # once it is drained
    asked_wall_s: float
    left_s: float  # until the deadline, when this was stored


@dataclass(slots=True)
class Invitation:
    """What a framework was told of a draining, and what it said: "accepted", "declined" or nothing yet."""

    offer: InverseOffer
    answer: str = ""


@dataclass(slots=True)
class Drain:
    """An agent's draining, also when it is done."""

    plan: DrainPlan
    due_s: float  # the deadline, in steady seconds
    invited: dict[FrameworkId, Invitation] = field(default_factory=dict)

    def left_s(self, now_s: float) -> float:
        """Seconds until the deadline, by the steady clock; 0.0 from then on, and never more than it was set."""
        return min(max(self.due_s - now_s, 0.0), self.plan.deadline_s)


_NO_TASKS: dict[TaskKey, None] = {}  # of all agents without any


@dataclass(slots=True)
class Agent:
    """What the master knows of one agent."""

    agent_id: AgentId
    spec: AgentSpec
    incarnation: int
    state: AgentState = AgentState.RECOVERING
    half: MasterHalf | None = None  # the session, while there is one
    heard_s: float = 0.0
    joined_wall_s: float = 0.0  # first, in this master's life
    rejoined_wall_s: float = 0.0  # last, since then
    silent_wall_s: float | None = None  # when it became unreachable
    free: Resources = NOTHING  # neither used by a task nor offered
    short: bool = False  # it came back with less than is in use
    offers: tuple[OfferId, ...] = ()  # outstanding; few, and an empty set would weigh more than all the rest of it
    tasks: dict[TaskKey, None] = field(default_factory=lambda: _NO_TASKS)  # all that are not forgotten, oldest first
    duty: Duty = Duty.ACTIVE
    drain: Drain | None = None  # while its duty is DRAINING or DRAINED

    def hold(self, key: TaskKey) -> None:
        """The task is this agent's."""
        if self.tasks is _NO_TASKS:
            self.tasks = {}
        self.tasks[key] = None

    def let_go(self, key: TaskKey) -> None:
        """The task is forgotten, or was never held."""
        if key in self.tasks:
            del self.tasks[key]
            self.tasks = self.tasks or _NO_TASKS

    def move(self, signal: AgentSignal) -> None:
        """Follow the table; raises `IllegalMove`."""
        try:
            self.state = AGENT_MOVES[self.state][signal]
        except KeyError:
            raise IllegalMove("agent", self.state.name, signal.name, self.agent_id) from None

    def serve(self, signal: DutySignal) -> None:
        """Follow the table of duties; raises `IllegalMove`."""
        try:
            self.duty = DUTY_MOVES[self.duty][signal]
        except KeyError:
            raise IllegalMove("duty", self.duty.name, signal.name, self.agent_id) from None

    @property
    def takes_tasks(self) -> bool:
        """Whether it may be offered."""
        return self.state is AgentState.JOINED and self.duty is Duty.ACTIVE

    @property
    def joined(self) -> bool:
        return self.state is AgentState.JOINED
