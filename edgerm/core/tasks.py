"""The task machine: every state a task may be in, and every way from one to another.

The theory: a task is staged by the master, then reported on by its agent until one terminal state. The agent alone
knows what runs, so the master moves a task only on the agent's reports, with two exceptions: it may end a task that
never reached an agent, and it may call a task unreachable, or gone, when its agent is. An unreachable task comes back
in whatever state the agent reports. Nothing leaves a terminal state.

What lives here: the table. What does not: who is told, and what it frees.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from types import MappingProxyType

from edgerm.core.errors import IllegalMove


class TaskState(IntEnum):
    """Mesos' `TaskState`, with its numbers."""

    STARTING = 0  # its agent prepares it
    RUNNING = 1  # it runs
    FINISHED = 2  # it ended well
    FAILED = 3  # it ended badly, or could not be started
    KILLED = 4  # it ended because it was asked to
    LOST = 5  # how a framework without PARTITION_AWARE is told DROPPED, UNREACHABLE, GONE and UNKNOWN
    STAGING = 6  # accepted; its agent has not reported on it yet
    ERROR = 7  # its description was refused
    KILLING = 8  # it was asked to end and has not yet
    DROPPED = 9  # it never started, and never will
    UNREACHABLE = 10  # its agent has not been heard of for too long; it may still run
    GONE = 11  # its agent is there and has no such task
    GONE_BY_OPERATOR = 12  # an operator declared its agent gone
    UNKNOWN = 13  # nobody knows such a task

    @property
    def terminal(self) -> bool:
        """Whether a task in this state has ended for good (`mesos-v1` 4.4)."""
        return self in TERMINAL


TERMINAL = frozenset(
    {
        TaskState.FINISHED,
        TaskState.FAILED,
        TaskState.KILLED,
        TaskState.LOST,
        TaskState.ERROR,
        TaskState.DROPPED,
        TaskState.GONE,
        TaskState.GONE_BY_OPERATOR,
    }
)


class Source(IntEnum):
    """Who made a status update (`TaskStatus.Source`)."""

    MASTER = 0
    AGENT = 1
    EXECUTOR = 2


class Reason(IntEnum):
    """Why (`TaskStatus.Reason`); the ones that edgerm gives, with Mesos' numbers."""

    COMMAND_EXECUTOR_FAILED = 0
    EXECUTOR_TERMINATED = 1
    FRAMEWORK_REMOVED = 3
    INVALID_OFFERS = 6
    CONTAINER_LIMITATION_MEMORY = 8
    RECONCILIATION = 9
    AGENT_REMOVED = 11
    AGENT_RESTARTED = 12
    TASK_INVALID = 14
    RESOURCES_UNKNOWN = 18
    CONTAINER_LIMITATION = 19
    CONTAINER_LIMITATION_DISK = 20
    CONTAINER_LAUNCH_FAILED = 21
    TASK_KILLED_DURING_LAUNCH = 30
    AGENT_REMOVED_BY_OPERATOR = 31
    AGENT_REREGISTERED = 32
    MAX_COMPLETION_TIME_REACHED = 33
    AGENT_DRAINING = 34


class TaskSignal(IntEnum):
    """What can happen to a task."""

    STARTING = 0  # the agent prepares it
    RUNNING = 1  # it runs
    KILLING = 2  # it was asked to end
    FINISHED = 3  # ended well
    FAILED = 4  # ended badly
    KILLED = 5  # ended because it was asked to
    DROPPED = 6  # it never started, and never will
    PARTED = 7  # its agent has not been heard of for too long
    GONE = 8  # its agent is there and has no such task
    BACK = 9  # its agent is there again and has not started it yet
    DISMISSED = 10  # an operator declared its agent gone


_S, _T = TaskState, TaskSignal
_ENDS: dict[TaskSignal, TaskState] = {
    _T.FINISHED: _S.FINISHED,
    _T.FAILED: _S.FAILED,
    _T.KILLED: _S.KILLED,
    _T.GONE: _S.GONE,
    _T.DISMISSED: _S.GONE_BY_OPERATOR,
    _T.PARTED: _S.UNREACHABLE,
}
_ALIVE: dict[TaskSignal, TaskState] = {_T.KILLING: _S.KILLING, **_ENDS}

MOVES: Mapping[TaskState, Mapping[TaskSignal, TaskState]] = MappingProxyType(
    {
        _S.STAGING: {_T.STARTING: _S.STARTING, _T.RUNNING: _S.RUNNING, _T.DROPPED: _S.DROPPED, **_ALIVE},
        _S.STARTING: {_T.STARTING: _S.STARTING, _T.RUNNING: _S.RUNNING, _T.DROPPED: _S.DROPPED, **_ALIVE},
        _S.RUNNING: {_T.RUNNING: _S.RUNNING, **_ALIVE},
        _S.KILLING: {_T.KILLING: _S.KILLING, **_ENDS},
        _S.UNREACHABLE: {
            _T.STARTING: _S.STARTING,
            _T.RUNNING: _S.RUNNING,
            _T.DROPPED: _S.DROPPED,
            _T.BACK: _S.STAGING,
            **_ALIVE,
        },
        **{state: {} for state in sorted(TERMINAL)},
    }
)
"""State → signal → next state; a pair without an entry is a bug.

STARTING and RUNNING again carry news, such as how far an image is pulled, and health.
"""

SIGNAL_OF: Mapping[TaskState, TaskSignal] = MappingProxyType(
    {
        _S.STARTING: _T.STARTING,
        _S.RUNNING: _T.RUNNING,
        _S.KILLING: _T.KILLING,
        _S.FINISHED: _T.FINISHED,
        _S.FAILED: _T.FAILED,
        _S.KILLED: _T.KILLED,
        _S.DROPPED: _T.DROPPED,
        _S.GONE: _T.GONE,
    }
)
"""The signal that an agent's report of a state is."""


def advance(state: TaskState, signal: TaskSignal, story: object = ()) -> TaskState:
    """The state after `signal`; raises `IllegalMove` with `story` if the table has no entry."""
    try:
        return MOVES[state][signal]
    except KeyError:
        raise IllegalMove("task", state.name, signal.name, story) from None


def may(state: TaskState, signal: TaskSignal) -> bool:
    """Whether the table has this move: the check for reports that come from outside."""
    return signal in MOVES.get(state, {})
