"""MARK_AGENT_GONE: an operator's word that an agent is over, with all that runs there.

Its tasks are over for their frameworks at once, so they must not run on: should the agent be heard of again, its join
is answered with why, and it ends its tasks and itself. Its id is remembered, so that this also holds after a restart of
the master. Ends that the agent had reported stay owed until they are acknowledged; then the last of it is dropped.
"""

from __future__ import annotations

from edgerm.core.effects import Drop, Put
from edgerm.core.tasks import Reason, TaskSignal
from edgerm_master.core import draining
from edgerm_master.core.agents import Agent, AgentSignal, AgentState
from edgerm_master.core.changes import AgentRemoved
from edgerm_master.core.joining import end_session, tell_lost
from edgerm_master.core.records import GoneRecord
from edgerm_master.core.updating import end_here
from edgerm_master.core.world import Timer, World

GONE_MAX = 10_000
WHY = "an operator marked its agent gone"


def mark_gone(world: World, agent: Agent) -> None:
    """The agent is over; a second time changes nothing."""
    if agent.state is AgentState.GONE:
        return
    draining.stop(world, agent)
    world.ring(agent)  # it learns sooner what became of it
    end_session(world, agent)
    if agent.joined:
        world.shares.grow(agent.spec.resources, -1)
    if agent.state is not AgentState.UNREACHABLE:  # else they were told of it and heard no more since
        tell_lost(world, agent)
        world.notice(AgentRemoved(agent.agent_id, agent.spec, WHY))
    agent.move(AgentSignal.DISMISS)
    world.timers.cancel(agent.agent_id)
    world.timers.cancel((Timer.GONE, agent.agent_id, "", ""))
    _remember(world, agent)
    finish(world, agent)


def _remember(world: World, agent: Agent) -> None:
    """The oldest such id makes room in the end."""
    number = 1 + next(reversed(world.gone.values())).number if world.gone else 1
    record = GoneRecord(agent.agent_id, agent.spec.name or agent.spec.hostname, world.now.wall_s, number)
    world.gone[agent.agent_id] = record
    world.out.append(Put("gone", agent.agent_id, record))
    if len(world.gone) > GONE_MAX:
        oldest = next(iter(world.gone))
        del world.gone[oldest]
        world.out.append(Drop("gone", oldest))


def recovered(world: World, agent: Agent) -> None:
    """An earlier master did not come to the end of it."""
    agent.move(AgentSignal.DISMISS)
    world.timers.set((Timer.DRAIN, agent.agent_id, "", ""), world.now.steady_s)


def finish(world: World, agent: Agent) -> None:
    """End what still lives of it; forget it when nothing is owed any more."""
    for key in list(agent.tasks):
        task = world.tasks[key]
        if task.live:
            end_here(world, task, TaskSignal.DISMISSED, Reason.AGENT_REMOVED_BY_OPERATOR, WHY)
        elif task.run.settled:
            world.drop_task(task)
    if not agent.tasks:
        world.timers.cancel((Timer.DRAIN, agent.agent_id, "", ""))
        world.drop_agent(agent)
