"""A task of this agent as its core has it: its two records, and what is not worth a record."""

from __future__ import annotations

from dataclasses import dataclass, field

from edgerm.core.ids import TaskKey
from edgerm.plugin.executor import Exit
from edgerm_agent.core.records import Phase, RunRecord, TaskRecord
from edgerm_agent.core.verdicts import Ending


@dataclass(slots=True)
class Task:
    """One task: what it is, and how far it has come."""

    record: TaskRecord
    run: RunRecord
    ending: Ending | None = None  # nothing of it is left; told when its devices were taken back
    exited: Exit | None = None  # likewise; None: it never ran
    unseen: str = ""  # what no plugin has spoken of since the agent's start, for which its start waits
    chosen: set[str] = field(default_factory=set)  # classes whose plugins have chosen

    @property
    def key(self) -> TaskKey:
        return self.record.key

    @property
    def live(self) -> bool:
        return self.run.phase is not Phase.ENDED

    @property
    def executor(self) -> str:
        return self.record.task.executor
