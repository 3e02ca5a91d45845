"""Agents: how they join, beat, fall silent and come back (docs/link.md)."""

from __future__ import annotations

from dataclasses import replace

from edgerm.core.effects import Drop, Put
from edgerm.core.ids import AgentId, TaskKey
from edgerm.core.link import (
    REJOIN,
    Beat,
    Carrier,
    Forget,
    Join,
    Launch,
    MasterHalf,
    NextPart,
    Stale,
    TaskReport,
    Welcome,
    make_session,
)
from edgerm.core.scheduler import Failure
from edgerm.core.tasks import SIGNAL_OF, Reason, TaskSignal, TaskState, advance
from edgerm_master.core import offers
from edgerm_master.core.agents import Agent, AgentSignal, AgentState
from edgerm_master.core.effects import AnswerAgent, FramesIn, SessionEnded
from edgerm_master.core.frameworks import Framework
from edgerm_master.core.records import AgentRecord, RunRecord, TaskRecord
from edgerm_master.core.updating import charge, end_here, order_kill, take_update, tell_owed, tell_own, uncharge
from edgerm_master.core.world import Task, Timer, World

HALF_JOINS_MAX = 16
PARTS_MAX = 256
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
    agent = world.agents.get(message.agent_id)
    if agent is not None and message.incarnation <= agent.incarnation:
        if message.incarnation == agent.incarnation and agent.half is not None:
            welcome = Welcome(agent.half.session, world.settings.beat_interval_s)
            world.out.append(AnswerAgent(request, NextPart() if message.more else welcome))
        else:
            world.out.append(AnswerAgent(request, Stale()))
        return
    reports = joining.take(message)
    if reports is None:
        world.out.append(AnswerAgent(request, NextPart()))
        return
    agent = _admit(world, agent, message, carrier)
    _compare(world, agent, reports)
    assert agent.half is not None
    world.out.append(AnswerAgent(request, Welcome(agent.half.session, world.settings.beat_interval_s)))


def _admit(world: World, agent: Agent | None, message: Join, carrier: Carrier) -> Agent:
    """Give the agent a session and take its inventory over."""
    if agent is None:
        agent = Agent(message.agent_id, message.agent, message.incarnation)
        world.agents[agent.agent_id] = agent
    _end_session(world, agent)
    if agent.joined:
        world.shares.grow(agent.spec.resources, -1)
    agent.spec, agent.incarnation = message.agent, message.incarnation
    world.shares.grow(agent.spec.resources)
    agent.move(AgentSignal.JOIN)
    world.timers.cancel((Timer.GONE, agent.agent_id, "", ""))
    agent.joined_wall_s, agent.silent_wall_s = world.now.wall_s, None
    world.count += 1
    agent.half = MasterHalf(make_session(world.seed, world.count), message.incarnation, carrier)
    world.sessions[agent.half.session] = agent.agent_id
    _heard(world, agent)
    world.out.append(Put("agent", agent.agent_id, AgentRecord(agent.agent_id, agent.spec, agent.incarnation)))
    return agent


def _end_session(world: World, agent: Agent) -> None:
    for offer_id in list(agent.offers):
        offers.rescind(world, offer_id)
    if agent.half is not None:
        del world.sessions[agent.half.session]
        world.out.append(SessionEnded(agent.agent_id, agent.half.session))
        agent.half = None


def _compare(world: World, agent: Agent, reports: tuple[TaskReport, ...]) -> None:
    """Set what is wanted against what runs: the table of docs/link.md, "Join"."""
    reported = {report.key: report for report in reports}
    for key in list(agent.tasks):
        task = world.tasks[key]
        if key in reported:
            _keep(world, agent, task, reported.pop(key))
        elif not task.live:
            _already_forgotten(world, task)
        else:
            _missing(world, agent, task)
    for report in reported.values():
        if report.key not in world.tasks:  # else another agent's: a copy of its data directory joined as well
            _adopt(world, agent, report)
    offers.settle_free(world, agent)
    for key in agent.tasks:
        charge(world, world.tasks[key])
    world.dirty[agent.agent_id] = None


def _keep(world: World, agent: Agent, task: Task, report: TaskReport) -> None:
    assert agent.half is not None
    if task.run.settled:
        agent.half.order(Forget(task.key))
        return
    if not task.live:
        return
    if task.run.state is TaskState.UNREACHABLE and report.seq <= task.run.seq:
        _return(world, agent, task, report.state)
    if task.run.kill_asked:
        order_kill(world, agent, task)


def _return(world: World, agent: Agent, task: Task, reported: TaskState) -> None:
    """The task was called unreachable, and is there again with nothing new to tell."""
    signal = SIGNAL_OF.get(reported, TaskSignal.BACK)
    state = advance(task.run.state, signal, task.run)
    world.change_run(task, state=state)
    if state is not TaskState.STAGING:  # never sent as an update (mesos-v1 4.4)
        framework = world.frameworks.get(task.key.framework_id)
        _tell_state(world, framework, state, task.key, agent)
    tell_owed(world, task)


def _already_forgotten(world: World, task: Task) -> None:
    """It ended and the agent has no record of it any more: nothing is left to wait for but the framework."""
    if task.run.settled:
        world.drop_task(task)


def _missing(world: World, agent: Agent, task: Task) -> None:
    assert agent.half is not None
    run = task.run
    if run.state is TaskState.STAGING and run.seq == 0 and not run.kill_asked:
        agent.half.order(Launch(task.key, task.record.role, task.record.task))
    elif run.state is TaskState.STAGING and run.seq == 0:
        message = "killed before the agent took it"
        end_here(world, task, TaskSignal.KILLED, Reason.TASK_KILLED_DURING_LAUNCH, message)
    else:
        message = "the agent is there and does not have this task"
        end_here(world, task, TaskSignal.GONE, Reason.AGENT_REREGISTERED, message)


def _adopt(world: World, agent: Agent, report: TaskReport) -> None:
    """A task that the registry does not know: contact never kills, unless its framework is over."""
    assert agent.half is not None
    key = report.key
    framework = world.frameworks.get(key.framework_id)
    if report.state.terminal and not report.owes:
        _tell_state(world, framework, report.state, key, agent)
        agent.half.order(Forget(key))
        return
    record = TaskRecord(key, report.role, replace(report.task, agent_id=agent.agent_id))
    # An ended task's updates follow in beats: until then it counts as live.
    state = TaskState.RUNNING if report.state.terminal else report.state
    over = key.framework_id in world.removed
    task = Task(record, RunRecord(key, state, kill_asked=over))
    world.tasks[key] = task
    agent.tasks[key] = None
    world.out += (Put("run", str(key), task.run), Put("task", str(key), record))
    if framework is not None:
        framework.tasks.setdefault(key.task_id, key)
        _tell_state(world, framework, state, key, agent)
    if over:
        order_kill(world, agent, task)


def _tell_state(world: World, framework: Framework | None, state: TaskState, key: TaskKey, agent: Agent) -> None:
    if framework is not None:
        shown, task = framework.shown(state), world.tasks.get(key)
        tell_own(world, framework, key.task_id, agent.agent_id, shown, Reason.AGENT_REREGISTERED, "", task)


def beat(world: World, request: int, message: Beat, carrier: Carrier) -> None:
    """An agent is alive, and may have news."""
    agent = world.agents.get(world.sessions.get(message.session, AgentId("")))
    if agent is None or agent.half is None:
        world.out.append(AnswerAgent(request, REJOIN))
        return
    agent.heard_s = world.now.steady_s
    half = agent.half
    half.carrier = carrier
    updates, seen = half.take(message)
    for order in seen:
        if isinstance(order, Forget) and order.key in world.tasks:
            world.drop_task(world.tasks[order.key])
    for update in updates:
        if update.key not in world.tasks:
            half.order(Forget(update.key))
        else:
            take_update(world, update)
    if message.frames:
        world.out.append(FramesIn(agent.agent_id, message.frames))
    world.out.append(AnswerAgent(request, half.answer()))


def _heard(world: World, agent: Agent) -> None:
    agent.heard_s = world.now.steady_s
    _watch(world, agent)


def _watch(world: World, agent: Agent) -> None:
    limit_s = world.settings.beat_interval_s * world.settings.missed_beats_max
    world.timers.set((Timer.AGENT, agent.agent_id, "", ""), agent.heard_s + limit_s)


def check_silence(world: World, agent: Agent) -> None:
    """The agent's time is up, unless it was heard meanwhile (beats do not touch the timer)."""
    limit_s = world.settings.beat_interval_s * world.settings.missed_beats_max
    if agent.state is AgentState.JOINED and world.now.steady_s < agent.heard_s + limit_s:
        _watch(world, agent)
        return
    lose(world, agent)


def lose(world: World, agent: Agent) -> None:
    """The agent is unreachable: its tasks may still run, its offers are void, its frameworks are told."""
    was_joined = agent.joined
    _end_session(world, agent)
    agent.move(AgentSignal.MISS)
    agent.silent_wall_s = world.now.wall_s
    if was_joined:
        world.shares.grow(agent.spec.resources, -1)
    world.timers.set((Timer.GONE, agent.agent_id, "", ""), world.now.steady_s + UNREACHABLE_KEPT_S)
    for framework in world.frameworks.values():
        world.tell(framework, Failure(agent.agent_id))
        for role in framework.spec.roles:
            if (role, agent.agent_id) in framework.filters:
                offers.drop_filter(world, framework, role, agent.agent_id)
    for key in list(agent.tasks):
        task = world.tasks[key]
        uncharge(world, task)
        if task.live and task.run.state is not TaskState.UNREACHABLE:
            world.change_run(task, state=advance(task.run.state, TaskSignal.PARTED, task.run))
            owner = world.frameworks.get(key.framework_id)
            if owner is not None:
                state = owner.shown(TaskState.UNREACHABLE)
                message = "the agent has not been heard of for too long"
                tell_own(world, owner, key.task_id, agent.agent_id, state, Reason.AGENT_REMOVED, message, task)


def forget_agent(world: World, agent: Agent) -> None:
    """The agent was unreachable for so long that its tasks are called gone. Should it come back, it is a new one."""
    for key in list(agent.tasks):
        task = world.tasks[key]
        if task.live:
            message = "its agent was unreachable for too long and has been forgotten"
            end_here(world, task, TaskSignal.GONE, Reason.AGENT_REMOVED, message)
        else:
            world.drop_task(task)
    del world.agents[agent.agent_id]
    world.dirty.pop(agent.agent_id, None)
    world.out.append(Drop("agent", agent.agent_id))
