"""Exit statuses of `edgerm run`, and lists as tables and JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest

from edgerm.cli.attending import exit_status
from edgerm.cli.tables import show
from edgerm.core.ids import TaskId
from edgerm.core.scheduler import Status
from edgerm.core.tasks import Reason, TaskState


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (Status(TaskId("t"), TaskState.FINISHED, exit_code=0), 0),
        (Status(TaskId("t"), TaskState.FINISHED), 0),
        (Status(TaskId("t"), TaskState.FAILED, exit_code=7), 7),
        (Status(TaskId("t"), TaskState.FAILED, signal=9), 137),
        (Status(TaskId("t"), TaskState.KILLED, signal=15), 143),
        (Status(TaskId("t"), TaskState.KILLED), 137),
        (Status(TaskId("t"), TaskState.FAILED, trap="unreachable"), 134),
        (Status(TaskId("t"), TaskState.FAILED, reason=Reason.MAX_COMPLETION_TIME_REACHED), 124),
        (Status(TaskId("t"), TaskState.FAILED, signal=15, reason=Reason.MAX_COMPLETION_TIME_REACHED), 124),
        (Status(TaskId("t"), TaskState.FAILED, reason=Reason.CONTAINER_LIMITATION_MEMORY), 137),
        (Status(TaskId("t"), TaskState.FAILED, reason=Reason.EXECUTOR_TERMINATED), 125),
        (Status(TaskId("t"), TaskState.DROPPED), 125),
        (Status(TaskId("t"), TaskState.ERROR), 125),
    ],
)
def test_the_exit_status_tells_how_a_task_ended(status: Status, code: int) -> None:
    """128+N for a signal, the task's own code, and 125 where edgerm failed."""
    assert exit_status(status) == code


ROWS: list[dict[str, Any]] = [{"a": "x", "used": 0.5, "all": 2.0}, {"a": "longer", "used": None, "all": 4.0}]


def test_a_table_has_aligned_columns(capsys: pytest.CaptureFixture[str]) -> None:
    """Two keys in one column are shown with a slash; what is unknown is a dash."""
    show(ROWS, {"a": "NAME", "used/all": "CPUS"}, as_json=False, empty="none")
    assert capsys.readouterr().out == "NAME    CPUS\nx       0.5/2\nlonger  -/4\n"


def test_json_has_every_key(capsys: pytest.CaptureFixture[str]) -> None:
    """Programs get the rows as they are, and an empty list for none."""
    show(ROWS, {"a": "NAME"}, as_json=True, empty="none")
    assert json.loads(capsys.readouterr().out) == ROWS
    show([], {"a": "NAME"}, as_json=True, empty="none")
    assert json.loads(capsys.readouterr().out) == []


def test_an_empty_table_says_so_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    """A pipe gets nothing, a person a word."""
    show([], {"a": "NAME"}, as_json=False, empty="none here")
    assert tuple(capsys.readouterr()) == ("", "none here\n")
