"""Tasks that wait for their claims to be met: what each lacks, and what the master is told of them.

What does not live here: placing them (`placing`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import islice

from edgerm.core.granting import unclaimable
from edgerm.core.ids import TaskId
from edgerm.core.matching import Mismatch
from edgerm.core.scheduler import WAITING_MAX, AgentSpec, Waiting
from edgerm.sdk.core.session import Session
from edgerm.sdk.needs import Needs
from edgerm.sdk.tasks import Task


class WaitingClaims:
    """The tasks with claims among those that wait."""

    def __init__(self) -> None:
        self._tasks: dict[TaskId, Task] = {}
        self._why: dict[TaskId, Mismatch] = {}  # as of the latest offers
        self._told: tuple[Waiting, ...] = ()

    def add(self, task: Task) -> None:
        """It waits."""
        if any(build.needs.claims for build in task.choices):
            self._tasks[task.task_id] = task

    def drop(self, task_id: TaskId) -> None:
        """It waits no more."""
        self._tasks.pop(task_id, None)
        self._why.pop(task_id, None)

    def look_at(self, agents: Sequence[AgentSpec], unmet: Mapping[Needs, Mismatch]) -> None:
        """These agents made offers, on which the claims of `unmet` did not fit."""
        for task_id, task in self._tasks.items():
            whys = (unmet.get(build.needs) for build in task.choices)
            why = next(filter(None, whys), None)
            if why is None and agents and task_id not in self._why:
                whys = (unclaimable(build.needs.claims, agents[0]) for build in task.choices)
                why = next(filter(None, whys), None)
            if why is not None:
                self._why[task_id] = why

    def hopeless(self, agents: Collection[AgentSpec]) -> dict[TaskId, str]:
        """Tasks that wait in vain, and why: their class's plugin is gone, or their claims are wrong for who has it."""
        gone = any(known.problem for agent in agents for known in agent.inventory.classes)
        found = {}
        for task_id, task in self._tasks.items():
            why = self._why.get(task_id)
            if not gone and (why is None or not why.problem):
                continue
            whys = [unclaimable(build.needs.claims, agent) for build in task.choices for agent in agents]
            problems = [why.reason for why in whys if why is not None and why.problem]
            if problems and all(whys):
                found[task_id] = problems[0]
        return found

    def lacking(self, task: Task) -> str | None:
        """What the task waits for, in words that name the class; None: it has no claims."""
        why = self._why.get(task.task_id)
        if why is not None:
            return f"it waits for {why.type or 'its claims'}: {why.reason}"
        wanted = dict.fromkeys(f"{one.count} of {one.type}" for build in task.choices for one in build.needs.claims)
        return f"it waits for an offer with {', '.join(wanted)}" if wanted else None

    def forget_told(self) -> None:
        """A new subscription begins: the master knows nothing of us."""
        self._told = ()

    def tell(self, driver: Session) -> None:
        """Let the master know who waits, if that has changed: it is asked why a task does not start."""
        waiting = tuple(
            Waiting(task.task_id, task.message.name, task.choices[0].needs.claims)
            for task in islice(self._tasks.values(), WAITING_MAX)
        )
        if waiting != self._told:
            self._told = waiting
            driver.request(waiting=waiting)
