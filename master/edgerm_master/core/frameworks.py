"""A framework as the master sees it: the machine, and what is known of one framework."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import NamedTuple

from edgerm.core.constraints import NO_CONSTRAINTS, Constraints
from edgerm.core.errors import IllegalMove
from edgerm.core.ids import AgentId, FrameworkId, OfferId, StreamId, TaskId, TaskKey
from edgerm.core.resources import Resources
from edgerm.core.scheduler import Capability, FrameworkSpec, Status, Waiting
from edgerm.core.tasks import TaskState
from edgerm_master.core.records import RunRecord, TaskRecord
from edgerm_master.core.verdicts import Verdicts

COMPLETED_TASKS_MAX = 1000


class FrameworkState(Enum):
    """How a framework stands."""

    ACTIVE = "active"  # it has an open stream
    DISCONNECTED = "disconnected"  # its stream broke, or the master was restarted; its tasks run on
    COMPLETED = "completed"  # it was torn down or stayed away for too long; never comes back


class FrameworkSignal(Enum):
    """What can happen to a framework."""

    SUBSCRIBE = "subscribe"  # it opened a stream
    DISCONNECT = "disconnect"  # its stream broke
    EXPIRE = "expire"  # its failover timeout passed
    TEARDOWN = "teardown"  # it, or an operator, ended it


FRAMEWORK_MOVES: Mapping[FrameworkState, Mapping[FrameworkSignal, FrameworkState]] = MappingProxyType(
    {
        FrameworkState.ACTIVE: {
            FrameworkSignal.SUBSCRIBE: FrameworkState.ACTIVE,  # failed over to another scheduler
            FrameworkSignal.DISCONNECT: FrameworkState.DISCONNECTED,
            FrameworkSignal.TEARDOWN: FrameworkState.COMPLETED,
        },
        FrameworkState.DISCONNECTED: {
            FrameworkSignal.SUBSCRIBE: FrameworkState.ACTIVE,
            FrameworkSignal.EXPIRE: FrameworkState.COMPLETED,
            FrameworkSignal.TEARDOWN: FrameworkState.COMPLETED,
        },
        FrameworkState.COMPLETED: {},
    }
)


class Filter(NamedTuple):
    """An offer of this or less is withheld until then."""

    resources: Resources
    until_s: float


class Completed(NamedTuple):
    """A task that has ended, for people."""

    record: TaskRecord
    run: RunRecord
    statuses: tuple[Status, ...] = ()


class Asked(NamedTuple):
    """Something to tell a framework: a task's state, or (`owed`) the oldest update that it has not acknowledged."""

    task_id: TaskId
    agent_id: AgentId | None = None
    owed: TaskKey | None = None


@dataclass(slots=True)
class Framework:
    """What the master knows of one framework."""

    framework_id: FrameworkId
    spec: FrameworkSpec
    state: FrameworkState = FrameworkState.DISCONNECTED
    stream: StreamId | None = None
    suppressed: set[str] = field(default_factory=set)
    constraints: Mapping[str, Constraints] = field(default_factory=lambda: NO_CONSTRAINTS)  # by role; see `constrain`
    verdicts: Verdicts = field(default_factory=Verdicts)  # of these constraints, which are of its present subscription
    filters: dict[tuple[str, AgentId], tuple[Filter, ...]] = field(default_factory=dict)  # by role and agent
    asked: deque[Asked] = field(default_factory=deque)  # what is still to be told, in slices
    waiting: tuple[Waiting, ...] = ()  # tasks of which it told that they wait for devices; for `explain` alone
    offers: dict[OfferId, None] = field(default_factory=dict)  # outstanding, oldest first
    invited: dict[OfferId, AgentId] = field(default_factory=dict)  # inverse offers, of agents that are drained
    tasks: dict[TaskId, TaskKey] = field(default_factory=dict)  # whose end it has not acknowledged
    completed: deque[Completed] = field(default_factory=lambda: deque(maxlen=COMPLETED_TASKS_MAX))
    subscribed_wall_s: float = 0.0
    resubscribed_wall_s: float = 0.0
    ended_wall_s: float = 0.0

    def move(self, signal: FrameworkSignal) -> None:
        """Follow the table; raises `IllegalMove`."""
        try:
            self.state = FRAMEWORK_MOVES[self.state][signal]
        except KeyError:
            raise IllegalMove("framework", self.state.name, signal.name, self.framework_id) from None

    def constrain(self, constraints: Mapping[str, Constraints]) -> None:
        """From now on only such agents may be offered, by role."""
        self.constraints, self.verdicts = constraints, Verdicts(constraints)

    def shown(self, state: TaskState) -> TaskState:
        """`state` as this framework may see it: finer states only if it said that it knows them."""
        if state in _PARTITION_STATES and not self.spec.partition_aware:
            return TaskState.LOST
        if state is TaskState.KILLING and Capability.TASK_KILLING_STATE not in self.spec.capabilities:
            return TaskState.RUNNING
        return state


_PARTITION_STATES = frozenset(
    {
        TaskState.DROPPED,
        TaskState.UNREACHABLE,
        TaskState.GONE,
        TaskState.GONE_BY_OPERATOR,
        TaskState.UNKNOWN,
    }
)
