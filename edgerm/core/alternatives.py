"""One task, several builds: which of them is taken. The one rule, for whoever holds offers: the SDK, or the master.

The first in order that fits: its executor is there, its constraints hold, its resources are left, and devices for its
claims. Pure. What does not
live here: how a build becomes a task (`edgerm.wire.codec.tasks`, `edgerm.sdk.tasks`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace

from edgerm.core.constraints import Constraint, Matcher, fulfils, match_whole
from edgerm.core.errors import Invalid
from edgerm.core.granting import grant
from edgerm.core.ids import AgentId
from edgerm.core.resources import Resources, to_text
from edgerm.core.scheduler import AgentSpec, TaskSpec

ALTERNATIVES_MAX = 16
EXECUTORS = "edgerm.executors"  # the attribute, a set, in which an agent says what it runs


@dataclass(frozen=True, slots=True)
class Alternative:
    """One build of a task."""

    name: str
    task: TaskSpec  # as if there were only this one
    constraints: tuple[Constraint, ...] = ()


@dataclass(frozen=True, slots=True)
class UndecidedTask(TaskSpec):
    """A task of which no build is taken yet; no agent is ever given one."""

    alternatives: tuple[Alternative, ...] = ()


def undecided(task: TaskSpec, alternatives: tuple[Alternative, ...]) -> UndecidedTask:
    """What all builds of a task have in common, with those builds."""
    common = {field.name: getattr(task, field.name) for field in fields(task)}
    return UndecidedTask(**common, alternatives=alternatives)


def executors_of(agent: AgentSpec) -> tuple[str, ...] | None:
    """The kinds of tasks that the agent says it runs; None: it does not say."""
    for name, value in agent.attributes:
        if name == EXECUTORS and isinstance(value, tuple):
            return tuple(part for part in value if isinstance(part, str))
    return None


def misfit(
    executor: str,
    constraints: Iterable[Constraint],
    agent: AgentSpec,
    agent_id: AgentId,
    matcher: Matcher = match_whole,
) -> str:
    """Why such a task cannot run on the agent, whatever is free there; empty: it can."""
    executors = executors_of(agent)
    if executors is not None and executor not in executors:
        return f"the agent runs no {executor} tasks"
    try:
        for constraint in constraints:
            if not fulfils(constraint, agent, agent_id, matcher):
                return f"{constraint} does not hold"
    except Invalid as error:  # an expression that the matcher does not take
        return str(error)
    return ""


def resolve(
    task: TaskSpec, left: Resources, agent: AgentSpec, agent_id: AgentId, matcher: Matcher = match_whole
) -> TaskSpec:
    """The task as its first alternative that fits, with its devices; with a `fault` that says why of each if none does.

    Any other task, and one that is wrong as a whole, stays as it is.
    """
    if task.fault or not isinstance(task, UndecidedTask):
        return task
    reasons = []
    for alternative in task.alternatives:
        found = _placed(alternative, left, agent, agent_id, matcher)
        if not found.fault:
            return found
        reasons.append(f"{alternative.name}: {found.fault}")
    return replace(task, fault=f"no alternative fits: {'; '.join(reasons)}")


def _placed(
    alternative: Alternative, left: Resources, agent: AgentSpec, agent_id: AgentId, matcher: Matcher
) -> TaskSpec:
    """The alternative as the task, or its task with a fault."""
    task = alternative.task
    if task.fault:
        return task
    why = misfit(task.executor, alternative.constraints, agent, agent_id, matcher)
    if not why and not left.covers(task.resources):
        why = f"it asks for {to_text(task.resources)}, of the offer {to_text(left) or 'nothing'} is left"
    return replace(task, fault=why) if why else grant(task, left, agent)
