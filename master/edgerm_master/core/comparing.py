"""A join compared with the registry: what runs at the agent, and what is wanted there (docs/link.md, "Join").

What does not live here: the join itself, sessions (`joining`).
"""

from __future__ import annotations

from dataclasses import replace

from edgerm.core.effects import Put
from edgerm.core.ids import TaskKey
from edgerm.core.link import Forget, Launch, TaskReport
from edgerm.core.tasks import SIGNAL_OF, Reason, TaskSignal, TaskState, advance
from edgerm_master.core import offers
from edgerm_master.core.agents import Agent
from edgerm_master.core.frameworks import Framework
from edgerm_master.core.records import RunRecord, TaskRecord
from edgerm_master.core.updating import (
    charge,
    end_here,
    note_own,
    order_kill,
    tell_owed,
    tell_own,
)
from edgerm_master.core.world import Task, World


def compare(world: World, agent: Agent, reports: tuple[TaskReport, ...]) -> None:
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
    charge(world, (world.tasks[key] for key in agent.tasks))
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
    note_own(world, task, Reason.AGENT_REREGISTERED, "the agent is back", was_live=True)
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
    agent.hold(key)
    world.out += (Put("run", str(key), task.run), Put("task", str(key), record))
    world.note_launch(task)
    if framework is not None:
        framework.tasks.setdefault(key.task_id, key)
        _tell_state(world, framework, state, key, agent)
    if over:
        order_kill(world, agent, task)


def _tell_state(world: World, framework: Framework | None, state: TaskState, key: TaskKey, agent: Agent) -> None:
    if framework is not None:
        shown, task = framework.shown(state), world.tasks.get(key)
        tell_own(world, framework, key.task_id, agent.agent_id, shown, Reason.AGENT_REREGISTERED, "", task)
