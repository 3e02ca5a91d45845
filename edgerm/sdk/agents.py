"""Agents as a framework sees them: what each says of itself, what it has, what is free.

What does not live here: asking the master (`edgerm.sdk.operator`), choosing among offers (`edgerm.sdk.finding`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgerm.core.attributes import AttributeValue, by_name
from edgerm.core.ids import AgentId
from edgerm.core.resources import Resources
from edgerm.core.scheduler import AgentSpec
from edgerm.wire.codec.infos import agent_spec
from edgerm.wire.codec.resources import resources_from_messages
from edgerm.wire.v1.master_pb2 import Response


@dataclass(frozen=True, slots=True)
class Agent:
    """One agent that has joined. `free` is what neither a task nor an offer has, at the moment of asking."""

    agent_id: AgentId
    spec: AgentSpec
    free: Resources
    reachable: bool

    @property
    def name(self) -> str:
        """What people call it."""
        return self.spec.name or self.spec.hostname

    @property
    def attributes(self) -> Mapping[str, AttributeValue]:
        """By name: a text, a number, or a tuple (the items of a set; ranges as pairs)."""
        return by_name(self.spec.attributes)


def agents_of(view: Response.GetAgents) -> dict[AgentId, Agent]:
    """The agents of a master's answer, by id, in the order in which they joined."""
    return {AgentId(entry.agent_info.id.value): _agent(entry) for entry in view.agents}


def _agent(entry: Response.GetAgents.Agent) -> Agent:
    total = resources_from_messages(entry.total_resources)
    taken = resources_from_messages([*entry.allocated_resources, *entry.offered_resources])
    free = total - taken if total.covers(taken) else Resources()  # an agent that came back with less than is taken
    spec = agent_spec(entry.agent_info)
    return Agent(AgentId(entry.agent_info.id.value), spec, free, entry.link_state != "unreachable")
