"""After a start: what was promised, set against what is found running. Pure: recorded and found in, a verdict out."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from edgerm.core.ids import TaskKey
from edgerm.plugin.executor import Handle
from edgerm_agent.core.records import Phase, RunRecord


class Verdict(Enum):
    """What becomes of a task that the journal knows."""

    FETCH = "fetch"  # go on where it stopped
    START = "start"  # it was never started: its executor is still the same and does not hold it
    ADOPT = "adopt"  # its executor holds it
    LOST = "lost"  # whatever held it is gone, and it with it
    WAIT = "wait"  # what may hold it does not answer yet, and nobody else knows
    KEEP = "keep"  # it has ended, or waits for a device: nothing holds it


def judge(run: RunRecord, instance: str | None, held: Mapping[TaskKey, Handle], *, awaited: bool = False) -> Verdict:
    """The verdict on one task; `instance` is its executor's present one, None if the executor is not there.

    The instance of an executor that sleeps is empty. Nothing was ever started by that: whoever was asked to is gone.

    While an executor is `awaited` it is not known what it holds: then nothing is started, and nothing is lost.

    An executor keeps a task's exit until the journal has it. So a task that is not held has either never been started
    (same instance, start not known to have happened) or been lost with an older instance.
    """
    if run.phase in (Phase.ENDED, Phase.WAITING):
        return Verdict.KEEP
    if run.phase is Phase.FETCHING:
        return Verdict.FETCH
    if awaited:
        return Verdict.WAIT
    if run.key in held:
        return Verdict.ADOPT
    if run.phase is Phase.STARTING and instance and instance == run.instance:
        return Verdict.START
    return Verdict.LOST
