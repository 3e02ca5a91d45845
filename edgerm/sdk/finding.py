"""Where would this task fit among these offers? For schedulers that choose themselves among several places. Pure.

Those who do not care where call `Cluster.run`; those who take the first place that fits call `Task.on`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from edgerm.core.errors import Conflict
from edgerm.core.ids import AgentId
from edgerm.core.resources import NOTHING
from edgerm.core.scheduler import Offer, TaskSpec
from edgerm.sdk.offered import agent_of
from edgerm.sdk.tasks import Task


@dataclass(frozen=True, slots=True)
class Found:
    """A place: `driver.accept(found.offers, [found.task])` launches the task there.

    The task holds what it needs of the offers and no more; of several builds it is the first that fits there.
    """

    agent_id: AgentId
    offers: tuple[Offer, ...]  # all of this agent, which are used together
    task: TaskSpec


def find(offers: Iterable[Offer], task: Task) -> list[Found]:
    """A place on each agent that has room for the task and meets its constraints, in the order of their offers."""
    by_agent: dict[AgentId, list[Offer]] = {}
    for offer in offers:
        by_agent.setdefault(offer.agent_id, []).append(offer)
    found = []
    for agent_id, theirs in by_agent.items():
        try:
            whole = replace(theirs[0], agent=agent_of(theirs))
            placed = task.on(whole, sum((offer.resources for offer in theirs), NOTHING))
        except Conflict:
            continue
        found.append(Found(agent_id, tuple(theirs), placed))
    return found
