"""Two tables: how an end is told, and what a restart makes of each task."""

from __future__ import annotations

from itertools import product

import pytest

from edgerm.core.ids import FrameworkId, LaunchId, TaskId, TaskKey
from edgerm.core.tasks import Reason, TaskState
from edgerm.plugin.executor import Exit, ExitReason, Handle
from edgerm_agent.core.records import Phase, RunRecord
from edgerm_agent.core.recovery import Verdict, judge
from edgerm_agent.core.verdicts import ending

KEY = TaskKey(FrameworkId("f"), TaskId("t"), LaunchId("l"))
FINISHED, FAILED, KILLED = TaskState.FINISHED, TaskState.FAILED, TaskState.KILLED


@pytest.mark.parametrize(
    ("exited", "state", "reason", "message"),
    [
        (Exit(code=0), FINISHED, None, "exit code 0"),
        (Exit(code=3), FAILED, Reason.COMMAND_EXECUTOR_FAILED, "exit code 3"),
        (Exit(signal=11), FAILED, Reason.COMMAND_EXECUTOR_FAILED, "ended by signal 11"),
        (Exit(trap="unreachable"), FAILED, Reason.COMMAND_EXECUTOR_FAILED, "trap: unreachable"),
        (
            Exit(ExitReason.MEMORY, signal=9),
            FAILED,
            Reason.CONTAINER_LIMITATION_MEMORY,
            "memory limit: ended by signal 9",
        ),
        (Exit(ExitReason.DISK), FAILED, Reason.CONTAINER_LIMITATION_DISK, "disk quota"),
        (
            Exit(ExitReason.LAUNCH_FAILED, message="no such file"),
            FAILED,
            Reason.CONTAINER_LAUNCH_FAILED,
            "no such file",
        ),
        (Exit(ExitReason.EXECUTOR_DIED), FAILED, Reason.EXECUTOR_TERMINATED, "is gone"),
    ],
)
def test_how_an_end_is_told(exited: Exit, state: TaskState, reason: Reason | None, message: str) -> None:
    """Each kind of exit has its state, reason and words."""
    told = ending(exited, killed=False, expired=False)
    assert (told.state, told.reason) == (state, reason)
    assert message in told.message


@pytest.mark.parametrize("why", list(ExitReason))
@pytest.mark.parametrize("code", [None, 0, 1])
def test_a_kill_is_told_as_a_kill(why: ExitReason, code: int | None) -> None:
    """What was asked to end is TASK_KILLED however it ended; what took too long is TASK_FAILED with that reason."""
    assert ending(Exit(why, code), killed=True, expired=False).state is KILLED
    told = ending(Exit(why, code), killed=True, expired=True)
    assert (told.state, told.reason) == (FAILED, Reason.MAX_COMPLETION_TIME_REACHED)


# phase, its executor is (same | another | absent), held → verdict
TABLE: dict[tuple[Phase, str, bool], Verdict] = {
    **{(Phase.ENDED, who, held): Verdict.KEEP for who in ("same", "other", "absent") for held in (True, False)},
    **{(Phase.WAITING, who, held): Verdict.KEEP for who in ("same", "other", "absent") for held in (True, False)},
    **{(Phase.FETCHING, who, held): Verdict.FETCH for who in ("same", "other", "absent") for held in (True, False)},
    **{
        (phase, who, True): Verdict.ADOPT
        for phase in (Phase.STARTING, Phase.RUNNING)
        for who in ("same", "other", "absent")
    },
    (Phase.STARTING, "same", False): Verdict.START,
    (Phase.STARTING, "other", False): Verdict.LOST,
    (Phase.STARTING, "absent", False): Verdict.LOST,
    (Phase.RUNNING, "same", False): Verdict.LOST,
    (Phase.RUNNING, "other", False): Verdict.LOST,
    (Phase.RUNNING, "absent", False): Verdict.LOST,
}


@pytest.mark.parametrize(("phase", "who", "held"), list(product(Phase, ("same", "other", "absent"), (True, False))))
def test_the_table_of_recovery(phase: Phase, who: str, held: bool) -> None:
    """Every combination of phase, executor and what it holds has one verdict."""
    run = RunRecord(KEY, phase, TaskState.STAGING, "i1")
    instance = {"same": "i1", "other": "i2", "absent": None}[who]
    found = judge(run, instance, {KEY: Handle(KEY, "wasm", "i1")} if held else {})
    assert found is TABLE[(phase, who, held)]
