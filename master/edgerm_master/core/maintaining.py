"""What operators ask of an agent: which file carries it out, and what follows once something of it has changed."""

from __future__ import annotations

from edgerm_master.core import departing, draining
from edgerm_master.core.agents import Agent, AgentState
from edgerm_master.core.effects import Accepted
from edgerm_master.core.events import DeactivateAgent, DrainAgent, Maintained, MarkAgentGone, ReactivateAgent
from edgerm_master.core.world import World


def carry_out(world: World, event: Maintained) -> None:
    """Do what the operator asks for; nothing for an agent that is not known any more, or gone."""
    call = event.call
    world.request = event.cause
    world.out.append(Accepted(event.request))
    agent = world.agents.get(call.agent_id)
    if agent is None or agent.state is AgentState.GONE:
        return
    match call:
        case DrainAgent():
            draining.drain(world, agent, call)
            look(world, agent)
        case DeactivateAgent():
            draining.deactivate(world, agent)
        case ReactivateAgent():
            draining.reactivate(world, agent)
        case MarkAgentGone():
            departing.mark_gone(world, agent)


def look(world: World, agent: Agent) -> None:
    """At an agent that is drained or gone, after something of it has changed."""
    if agent.state is AgentState.GONE:
        departing.finish(world, agent)
    elif draining.look(world, agent):
        departing.mark_gone(world, agent)
