"""Draining: an agent is not offered any more, what runs there ends, and its frameworks know.

Told by an operator, an agent gives no offers from now on, and frameworks with tasks there are told when they will be
killed (an inverse offer, Mesos' word for resources that are asked back). Until that deadline tasks may end by
themselves; then each that lives is killed, with its own grace or a shorter one. When the last end is acknowledged the
agent is drained; a framework that is away is not waited for, since its ends are stored here, and it is told when it is
back. All of it is part of the agent's record, so neither a restart of the master nor one of the agent ends it.

**The deadline counts only while a master is up**, by its steady clock: what is left is stored once a minute. A master
that takes over goes on with what was stored last. The time of a wall clock is never believed: on a box without a
battery it may be years off, and a deadline that seems to have passed would kill. So a restart makes the deadline later
by as long as the master was away and a minute at most, never earlier, and never longer than it was set.

An agent that is away stays draining, for nobody knows what it will bring along; it is drained after its next join. One
that is to be marked gone is so at the deadline, even if nobody can reach it.

What does not live here: that an agent is gone for good (`departing`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from edgerm.core.ids import OfferId
from edgerm.core.scheduler import KILL_GRACE_S, AnswerInverse, InverseOffer, InverseOffers, RescindInverse
from edgerm.core.tasks import Reason, TaskSignal
from edgerm_master.core import offers
from edgerm_master.core.agents import Agent, AgentState, Drain, DrainPlan, Duty, DutySignal, Invitation
from edgerm_master.core.changes import DutyChanged, KillAsked
from edgerm_master.core.events import DrainAgent
from edgerm_master.core.frameworks import Framework
from edgerm_master.core.updating import end_here, order_kill
from edgerm_master.core.world import Task, Timer, World

CHECKPOINT_S = 60.0
TICK_S = 0.01  # what is that near is now
WHY = "its agent is drained"


# --- what operators ask for -------------------------------------------------------------------------------------


def drain(world: World, agent: Agent, call: DrainAgent) -> None:
    """Begin, or change what was asked for before: grace and `mark_gone` are the new ones, the deadline the earlier."""
    before, due_s = agent.drain, world.now.steady_s + call.deadline_s
    if before is not None and before.due_s <= due_s:
        left_s = before.left_s(world.now.steady_s)
        before.plan = DrainPlan(left_s, call.max_grace_s, call.mark_gone, before.plan.asked_wall_s, left_s)
    else:
        asked_wall_s = before.plan.asked_wall_s if before is not None else world.now.wall_s
        _uninvite(world, agent)
        plan = DrainPlan(call.deadline_s, call.max_grace_s, call.mark_gone, asked_wall_s, call.deadline_s)
        agent.drain = Drain(plan, due_s)
    _stop_offers(world, agent, DutySignal.DRAIN)


def deactivate(world: World, agent: Agent) -> None:
    """No more offers; a draining goes on."""
    _stop_offers(world, agent, DutySignal.DEACTIVATE)


def reactivate(world: World, agent: Agent) -> None:
    """Offers again. Tasks whose kill was asked for end all the same."""
    _serve(world, agent, DutySignal.REACTIVATE)
    stop(world, agent)
    world.put_agent(agent)
    world.dirty[agent.agent_id] = None


def stop(world: World, agent: Agent) -> None:
    """The draining is over; frameworks are told that nothing is asked back any more."""
    _uninvite(world, agent)
    agent.drain = None
    world.timers.cancel((Timer.DRAIN, agent.agent_id, "", ""))


def _serve(world: World, agent: Agent, signal: DutySignal) -> None:
    before = agent.duty
    agent.serve(signal)
    if agent.duty is not before:
        world.notice(DutyChanged(agent.agent_id, agent.spec, agent.duty))


def _stop_offers(world: World, agent: Agent, signal: DutySignal) -> None:
    _serve(world, agent, signal)
    for offer_id in list(agent.offers):
        offers.rescind(world, offer_id)
    world.put_agent(agent)


# --- how it goes on ---------------------------------------------------------------------------------------------


def look(world: World, agent: Agent) -> bool:
    """See how far the agent's draining is, and do what is due; whether it is now to be marked gone."""
    if agent.drain is None:
        return False
    if agent.duty is Duty.DRAINED and any(_live(world, agent)):
        _serve(world, agent, DutySignal.FILL)
        world.put_agent(agent)
    if agent.duty is Duty.DRAINING:
        _go_on(world, agent, agent.drain)
    return agent.drain.plan.mark_gone and (agent.duty is Duty.DRAINED or _is_given_up(world, agent, agent.drain))


def _is_given_up(world: World, agent: Agent, drain: Drain) -> bool:
    """The deadline is over and nobody can reach it: it will not get empty. What it has ends when it comes back."""
    return agent.state is AgentState.UNREACHABLE and world.now.steady_s >= drain.due_s


def _go_on(world: World, agent: Agent, drain: Drain) -> None:
    _invite(world, agent, drain)
    left_s = drain.left_s(world.now.steady_s)
    if left_s == 0.0:
        for task in list(_live(world, agent)):
            _kill(world, agent, task, drain.plan.max_grace_s)
    if agent.joined and _is_empty(world, agent):  # of one that is away nobody knows what it will bring along
        _serve(world, agent, DutySignal.EMPTY)
    gone_by_s = drain.plan.left_s - left_s  # since it was stored
    if agent.duty is Duty.DRAINED or gone_by_s > CHECKPOINT_S - TICK_S or left_s == 0.0 < gone_by_s:
        drain.plan, gone_by_s = replace(drain.plan, left_s=left_s), 0.0
        world.put_agent(agent)
    if agent.duty is Duty.DRAINING and left_s > 0.0:
        wait_s = min(left_s, CHECKPOINT_S - gone_by_s)
        world.timers.set((Timer.DRAIN, agent.agent_id, "", ""), world.now.steady_s + wait_s)


def _live(world: World, agent: Agent) -> Iterator[Task]:
    return (world.tasks[key] for key in agent.tasks if world.tasks[key].live)


def _is_empty(world: World, agent: Agent) -> bool:
    return all(_is_over(world, world.tasks[key]) for key in agent.tasks)


def _is_over(world: World, task: Task) -> bool:
    """It has ended, and nobody who is there has still to acknowledge that."""
    framework = world.frameworks.get(task.key.framework_id)
    return task.run.settled or (not task.live and (framework is None or framework.stream is None))


def _kill(world: World, agent: Agent, task: Task, max_grace_s: float | None) -> None:
    if agent.half is not None and agent.half.withdraw(task.key):
        message = f"killed before the launch left the master: {WHY}"
        end_here(world, task, TaskSignal.KILLED, Reason.AGENT_DRAINING, message)
        return
    run = task.run
    grace_s = _grace_s(task, max_grace_s)
    if run.kill_asked and run.kill_grace_s == grace_s:
        return
    world.change_run(task, kill_asked=True, kill_grace_s=grace_s, drained=run.drained or not run.kill_asked)
    world.notice(KillAsked(task.key, agent.agent_id, WHY))
    order_kill(world, agent, task)


def _grace_s(task: Task, max_grace_s: float | None) -> float | None:
    """The shorter of its own, or what it was killed with before, and the greatest allowed; None: its own."""
    own_s = task.run.kill_grace_s if task.run.kill_asked else None
    if max_grace_s is None:
        return own_s
    if own_s is None:
        own_s = task.record.task.grace_s if task.record.task.grace_s is not None else KILL_GRACE_S
    return min(own_s, max_grace_s)


def recovered(world: World, agent: Agent, plan: DrainPlan) -> None:
    """This master takes the draining over."""
    agent.drain = Drain(plan, world.now.steady_s + min(plan.left_s, plan.deadline_s))
    world.timers.set((Timer.DRAIN, agent.agent_id, "", ""), world.now.steady_s)


# --- what frameworks are told -----------------------------------------------------------------------------------


def _invite(world: World, agent: Agent, drain: Drain) -> None:
    """Tell the frameworks with tasks there that were not told yet."""
    for framework_id in dict.fromkeys(task.key.framework_id for task in _live(world, agent)):
        framework = world.frameworks.get(framework_id)
        if framework is not None and framework.stream is not None and framework_id not in drain.invited:
            left_s = drain.left_s(world.now.steady_s)
            offer_id = OfferId(world.next_id())
            offer = InverseOffer(offer_id, framework_id, agent.agent_id, world.now.wall_s + left_s, left_s)
            drain.invited[framework_id] = Invitation(offer)
            framework.invited[offer_id] = agent.agent_id
            world.tell(framework, InverseOffers((offer,)))


def _uninvite(world: World, agent: Agent) -> None:
    if agent.drain is None:
        return
    for framework_id, invitation in agent.drain.invited.items():
        framework = world.frameworks.get(framework_id)
        if framework is not None and framework.invited.pop(invitation.offer.offer_id, None) is not None:
            world.tell(framework, RescindInverse(invitation.offer.offer_id))
    agent.drain.invited.clear()


def forget_told(world: World, framework: Framework) -> None:
    """Its stream has ended: what it was told on it is void."""
    for agent_id in framework.invited.values():
        agent = world.agents.get(agent_id)
        if agent is not None and agent.drain is not None:
            agent.drain.invited.pop(framework.framework_id, None)
    framework.invited.clear()
    look_at_agents(world, framework)


def look_at_agents(world: World, framework: Framework) -> None:
    """It has a stream now, or has none any more: it is told which of its agents are drained, or not waited for."""
    for key in framework.tasks.values():
        agent = world.agents.get(world.tasks[key].agent_id)
        if agent is not None and agent.duty is Duty.DRAINING and agent.state is not AgentState.GONE:
            world.look_at(agent)


def answer(world: World, framework: Framework, call: AnswerInverse) -> None:
    """Remember what it said, for people; an answer changes nothing, and what is not outstanding is ignored."""
    for offer_id in call.offer_ids:
        agent = world.agents.get(framework.invited[offer_id]) if offer_id in framework.invited else None
        if agent is not None and agent.drain is not None:
            invitation = agent.drain.invited[framework.framework_id]
            invitation.answer = "accepted" if call.agreed else "declined"
