"""How a task's end is told: from an executor's `Exit` to a Mesos state, a reason and a message."""

from __future__ import annotations

from typing import NamedTuple

from edgerm.core.ids import AgentId, TaskKey
from edgerm.core.link import update_uuid
from edgerm.core.scheduler import Status
from edgerm.core.tasks import Reason, Source, TaskState
from edgerm.plugin.executor import Exit, ExitReason


class Ending(NamedTuple):
    """The state that a task gets, a terminal one mostly, and what is said of it."""

    state: TaskState
    reason: Reason | None
    message: str


_FAILURES: dict[ExitReason, tuple[Reason, str]] = {
    ExitReason.MEMORY: (Reason.CONTAINER_LIMITATION_MEMORY, "it reached its memory limit"),
    ExitReason.DISK: (Reason.CONTAINER_LIMITATION_DISK, "its sandbox is over its disk quota"),
    ExitReason.LAUNCH_FAILED: (Reason.CONTAINER_LAUNCH_FAILED, "it could not be started"),
    ExitReason.EXECUTOR_DIED: (Reason.EXECUTOR_TERMINATED, "the process that held it is gone"),
}


def ending(end: Exit, killed: bool, expired: bool) -> Ending:
    """The terminal state for `end`; `killed`: it was asked to end, `expired`: because it took too long.

    A task that was asked to end is TASK_KILLED even when it then exits with 0 (mesos-v1 6.5).
    """
    told = end.message or describe(end)
    if expired:
        return Ending(TaskState.FAILED, Reason.MAX_COMPLETION_TIME_REACHED, f"it took longer than it may; {told}")
    if killed:
        return Ending(TaskState.KILLED, None, told)
    if end.reason in _FAILURES:
        reason, why = _FAILURES[end.reason]
        return Ending(TaskState.FAILED, reason, f"{why}: {told}" if told else why)
    if end.code == 0:
        return Ending(TaskState.FINISHED, None, told)
    return Ending(TaskState.FAILED, Reason.COMMAND_EXECUTOR_FAILED, told)


def describe(end: Exit) -> str:
    """The bare facts in a few words."""
    if end.trap is not None:
        return f"trap: {end.trap}"
    if end.signal is not None:
        return f"ended by signal {end.signal}"
    if end.code is not None:
        return f"exit code {end.code}"
    return ""


def status_of(agent_id: AgentId, key: TaskKey, seq: int, told: Ending, exited: Exit | None, wall_s: float) -> Status:
    """The task's update number `seq`: its state, be it an end or not, and how it ended if it ran."""
    return Status(
        key.task_id,
        told.state,
        agent_id,
        Source.AGENT if told.state is TaskState.DROPPED else Source.EXECUTOR,
        told.reason,
        told.message,
        update_uuid(key, seq),
        wall_s,
        key.launch_id,
        exited.code if exited else None,
        exited.signal if exited else None,
        (exited.trap or "") if exited else "",
        exited.tail if exited else "",
    )
