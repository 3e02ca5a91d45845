"""Agents: how they join, beat, fall silent and come back (docs/link.md).

What does not live here: what their tasks come to at a join (`comparing`).
"""

from __future__ import annotations

from dataclasses import replace

from edgerm.core.ids import AgentId
from edgerm.core.link import (
    REJOIN,
    Beat,
    Carrier,
    Forget,
    Gone,
    Join,
    MasterHalf,
    NextPart,
    Stale,
    TaskReport,
    WantsInventory,
    Welcome,
    make_session,
)
from edgerm.core.scheduler import AgentSpec, Failure
from edgerm.core.tasks import Reason, TaskSignal, TaskState, advance
from edgerm_master.core import comparing, draining, messaging, offers
from edgerm_master.core.agents import Agent, AgentSignal
from edgerm_master.core.changes import AgentAdded, AgentRemoved
from edgerm_master.core.effects import AnswerAgent, FramesIn, SessionEnded
from edgerm_master.core.updating import (
    end_here,
    note_own,
    settle,
    take_update,
    tell_own,
    uncharge,
)
from edgerm_master.core.world import Timer, World

HALF_JOINS_MAX = 16
PARTS_MAX = 256
SILENT = "the agent has not been heard of for too long"
UNREACHABLE_KEPT_S = 14 * 86400.0  # Mesos' registry_max_agent_age


class Joining:
    """Joins of which not all parts are here yet: one per agent, the newest. Bounded; who is dropped joins again."""

    def __init__(self) -> None:
        self._parts: dict[AgentId, list[Join]] = {}

    def take(self, join: Join) -> tuple[TaskReport, ...] | None:
        """All reports once the last part is here, None before; a part out of turn starts over."""
        parts = self._parts.pop(join.agent_id, [])
        self._parts[join.agent_id] = parts  # the latest last
        while len(self._parts) > HALF_JOINS_MAX:
            del self._parts[next(iter(self._parts))]
        if join.part == 0 or (parts and parts[0].incarnation != join.incarnation):
            parts.clear()
        if join.part == len(parts) < PARTS_MAX:
            parts.append(join)
        if join.more or len(parts) != join.part + 1:
            return None
        del self._parts[join.agent_id]
        return tuple(report for part in parts for report in part.tasks)


def join(world: World, joining: Joining, request: int, message: Join, carrier: Carrier) -> None:
    """An agent introduces itself. Idempotent on (agent id, incarnation)."""
    if message.agent_id in world.gone:
        record = world.gone[message.agent_id]
        why = f"an operator marked agent {record.agent_id} ({record.name}) gone: this master takes it in no more"
        world.out.append(AnswerAgent(request, Gone(why)))
        world.tally.joins[(carrier.name, "gone")] += 1
        return
    agent = world.agents.get(message.agent_id)
    if agent is not None and message.incarnation <= agent.incarnation:
        if message.incarnation == agent.incarnation and agent.half is not None:
            welcome = Welcome(agent.half.session, world.settings.beat_interval_s)
            world.out.append(AnswerAgent(request, NextPart() if message.more else welcome))
        else:
            world.out.append(AnswerAgent(request, Stale()))
            world.tally.joins[(carrier.name, "stale")] += 1
        return
    whole = world.inventories.complete(message)
    if whole is None and not message.more:
        world.out.append(AnswerAgent(request, WantsInventory()))
        return
    reports = joining.take(message)
    if reports is None or whole is None:
        world.out.append(AnswerAgent(request, NextPart()))
        return
    agent = _admit(world, agent, whole, carrier)
    world.tally.joins[(carrier.name, "joined")] += 1
    comparing.compare(world, agent, reports)
    world.look_at(agent)
    assert agent.half is not None
    world.out.append(AnswerAgent(request, Welcome(agent.half.session, world.settings.beat_interval_s)))


def _admit(world: World, agent: Agent | None, message: Join, carrier: Carrier) -> Agent:
    """Give the agent a session and take its inventory over."""
    if agent is None:
        agent = Agent(message.agent_id, message.agent, message.incarnation)
        world.agents[agent.agent_id] = agent
    end_session(world, agent)
    was_there, same = agent.joined, _same(agent.spec, message.agent)
    if agent.joined:
        world.shares.grow(agent.spec.resources, -1)
    if was_there and not same:
        world.notice(AgentRemoved(agent.agent_id, agent.spec, "it comes with another inventory"))
    if _says(agent.spec) != _says(message.agent):
        offers.forget_refusals(world, agent.agent_id)  # they were of an agent that said other things of itself
    taken = world.inventories.take(agent.agent_id, message.named, message.agent)
    agent.spec, agent.incarnation = taken.spec, message.incarnation
    world.out += taken.before
    world.shares.grow(agent.spec.resources)
    agent.move(AgentSignal.JOIN)
    world.timers.cancel((Timer.GONE, agent.agent_id, "", ""))
    if agent.joined_wall_s:
        agent.rejoined_wall_s = world.now.wall_s
    else:
        agent.joined_wall_s = world.now.wall_s
    agent.silent_wall_s = None
    world.count += 1
    session = make_session(world.seed, world.count)
    agent.half = MasterHalf(session, message.incarnation, carrier, message.lane)
    world.sessions[agent.half.session] = agent.agent_id
    agent.heard_s = world.now.steady_s
    _watch(world, agent)
    world.put_agent(agent)
    world.out += taken.after
    if not (was_there and same):
        world.notice(AgentAdded(agent))
    return agent


def _same(one: AgentSpec, other: AgentSpec) -> bool:
    """Whether it is the same box. The generation of its devices is another one at each start."""
    inventory = replace(other.inventory, generation=one.inventory.generation)
    return one == replace(other, inventory=inventory)


def _says(spec: AgentSpec) -> tuple[object, ...]:
    """What frameworks choose by, beside its resources."""
    return spec.info, spec.attributes, [(device.key, device.id, device.metadata) for device in spec.inventory.devices]


def end_session(world: World, agent: Agent) -> None:
    """The session is void, and with it all offers of the agent."""
    for offer_id in list(agent.offers):
        offers.rescind(world, offer_id)
    if agent.half is not None:
        del world.sessions[agent.half.session]
        world.out.append(SessionEnded(agent.agent_id, agent.half.session))
        agent.half = None


def beat(world: World, request: int, message: Beat, carrier: Carrier) -> None:
    """An agent is alive, and may have news."""
    agent = world.agents.get(world.sessions.get(message.session, AgentId("")))
    if agent is None or agent.half is None:
        world.out.append(AnswerAgent(request, REJOIN))
        world.tally.beats[(carrier.name, "rejoin")] += 1
        return
    world.tally.beats[(carrier.name, "taken")] += 1
    agent.heard_s = world.now.steady_s
    half = agent.half
    half.carrier = carrier
    updates, seen = half.take(message)
    for order in seen:
        world.tally.orders[type(order).__name__.lower()] += 1
        if isinstance(order, Forget) and order.key in world.tasks:
            world.drop_task(world.tasks[order.key])
    for update in updates:
        if update.key not in world.tasks:
            half.order(Forget(update.key))
        else:
            take_update(world, update)
    if message.frames:
        world.tally.frames_in += len(message.frames)
        letters, frames = half.take_frames(message)
        for letter in letters:
            messaging.to_framework(world, agent, letter)
        if frames:
            world.out.append(FramesIn(agent.agent_id, frames))
    world.out.append(AnswerAgent(request, half.answer()))


def _watch(world: World, agent: Agent) -> None:
    world.timers.set(agent.agent_id, _silent_s(world, agent))


def _silent_s(world: World, agent: Agent) -> float:
    """From when on (steady seconds) it has been silent for too long, unless it is heard again."""
    return agent.heard_s + world.settings.beat_interval_s * world.settings.missed_beats_max


def check_silence(world: World, agent: Agent) -> None:
    """The agent's time is up, unless it was heard meanwhile (beats do not touch the timer)."""
    if agent.joined and world.now.steady_s < _silent_s(world, agent):
        _watch(world, agent)
        return
    lose(world, agent)


def lose(world: World, agent: Agent) -> None:
    """The agent is unreachable: its tasks may still run, its offers are void, its frameworks are told."""
    was_joined = agent.joined
    end_session(world, agent)
    agent.move(AgentSignal.MISS)
    agent.silent_wall_s = world.now.wall_s
    world.tally.agents_lost += 1
    world.notice(AgentRemoved(agent.agent_id, agent.spec, SILENT))
    if was_joined:
        world.shares.grow(agent.spec.resources, -1)
    world.timers.set((Timer.GONE, agent.agent_id, "", ""), world.now.steady_s + UNREACHABLE_KEPT_S)
    tell_lost(world, agent)
    world.look_at(agent)
    for key in list(agent.tasks):
        task = world.tasks[key]
        uncharge(world, task)
        if task.live and task.run.state is not TaskState.UNREACHABLE:
            world.change_run(task, state=advance(task.run.state, TaskSignal.PARTED, task.run))
            note_own(world, task, Reason.AGENT_REMOVED, SILENT, was_live=True)
            owner = world.frameworks.get(key.framework_id)
            if owner is not None:
                state = owner.shown(TaskState.UNREACHABLE)
                tell_own(world, owner, key.task_id, agent.agent_id, state, Reason.AGENT_REMOVED, SILENT, task)


def tell_lost(world: World, agent: Agent) -> None:
    """Frameworks hear that the agent is not there any more, and their refusals of it end."""
    for framework in world.frameworks.values():
        world.tell(framework, Failure(agent.agent_id))
        for role in framework.spec.roles:
            if (role, agent.agent_id) in framework.filters:
                offers.drop_filter(world, framework, role, agent.agent_id)


def forget_agent(world: World, agent: Agent) -> None:
    """The agent was unreachable for so long that its tasks are called gone. Should it come back, it is a new one."""
    draining.stop(world, agent)
    for key in list(agent.tasks):
        task = world.tasks[key]
        if task.live:
            message = "its agent was unreachable for too long and has been forgotten"
            end_here(world, task, TaskSignal.GONE, Reason.AGENT_REMOVED, message)
        else:
            settle(world, task)
            world.drop_task(task)
    world.drop_agent(agent)
