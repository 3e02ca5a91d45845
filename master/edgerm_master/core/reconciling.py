"""What a framework is told because it asked or came back: answers to RECONCILE, and updates that it is owed.

There may be thousands, so they go out in slices with a pause between them: neither the loop nor a reader that keeps up
is overrun. A framework that loses its stream meanwhile starts over with its next one.
"""

from __future__ import annotations

from edgerm.core.ids import AgentId, TaskKey
from edgerm.core.scheduler import Kill, Reconcile
from edgerm.core.tasks import Reason, TaskSignal, TaskState
from edgerm_master.core.agents import AgentState
from edgerm_master.core.changes import KillAsked
from edgerm_master.core.frameworks import Asked, Framework
from edgerm_master.core.updating import end_here, order_kill, tell_owed, tell_own
from edgerm_master.core.world import Task, Timer, World

SLICE_ANSWERS = 100
PAUSE_S = 0.02
ASKED_MAX = 500_000  # answers that wait; of what is asked beyond, the framework must ask again


def reconcile(world: World, framework: Framework, call: Reconcile) -> None:
    """Answer with the latest state of each task (mesos-v1 6.2); none named: of all."""
    named = call.tasks or [(task_id, None) for task_id in framework.tasks]
    _ask(world, framework, [Asked(task_id, agent_id) for task_id, agent_id in named])


def resend(world: World, framework: Framework) -> None:
    """The framework is back: tell it again what it has not acknowledged."""
    framework.asked.clear()
    _ask(world, framework, [Asked(key.task_id, owed=key) for key in framework.tasks.values()])


def _ask(world: World, framework: Framework, asked: list[Asked]) -> None:
    first = not framework.asked
    framework.asked.extend(asked[: ASKED_MAX - len(framework.asked)])
    if first:
        answer_some(world, framework)


def answer_some(world: World, framework: Framework) -> None:
    """Answer the next slice of what is asked."""
    left = SLICE_ANSWERS
    while left and framework.asked:
        asked = framework.asked.popleft()
        left -= _answer(world, framework, asked)
    if framework.asked:
        world.timers.set((Timer.ANSWER, framework.framework_id, "", ""), world.now.steady_s + PAUSE_S)


def _answer(world: World, framework: Framework, asked: Asked) -> bool:
    """Whether there was something to tell."""
    if asked.owed is not None:
        return _tell_again(world, asked.owed)
    key = framework.tasks.get(asked.task_id)
    if key is not None:
        _answer_known(world, framework, world.tasks[key])
        return True
    state = _state_of_unknown(world, asked.agent_id)
    if state is None:
        return False
    tell_own(world, framework, asked.task_id, asked.agent_id, framework.shown(state), Reason.RECONCILIATION)
    return True


def _tell_again(world: World, key: TaskKey) -> bool:
    task = world.tasks.get(key)
    if task is None or not task.run.owed:
        return False
    task.retries = 0
    tell_owed(world, task)
    return True


def _answer_known(world: World, framework: Framework, task: Task) -> None:
    agent = world.agents.get(task.agent_id)
    if agent is not None and agent.state is AgentState.RECOVERING:
        return
    lost = task.run.state is TaskState.UNREACHABLE
    state = task.run.owed[0].state if task.run.owed and not lost else task.run.state
    shown = framework.shown(state)
    tell_own(world, framework, task.key.task_id, task.agent_id, shown, Reason.RECONCILIATION, "", task)


def _state_of_unknown(world: World, agent_id: AgentId | None) -> TaskState | None:
    """What to say of a task that nobody knows; None: silence, for it may be on an agent that is still to come."""
    if agent_id is None:
        recovering = any(agent.state is AgentState.RECOVERING for agent in world.agents.values())
        return None if recovering else TaskState.UNKNOWN
    if agent_id in world.gone:
        return TaskState.GONE_BY_OPERATOR
    agent = world.agents.get(agent_id)
    if agent is None:
        return TaskState.UNKNOWN
    if agent.state is AgentState.RECOVERING:
        return None
    return TaskState.GONE if agent.joined else TaskState.UNREACHABLE


def kill(world: World, framework: Framework, call: Kill) -> None:
    """End a task; forwarded each time it is asked."""
    key = framework.tasks.get(call.task_id)
    task = world.tasks.get(key) if key else None
    if task is None:
        _ask(world, framework, [Asked(call.task_id, call.agent_id)])
        return
    if (call.agent_id is not None and call.agent_id != task.agent_id) or not task.live:
        return
    agent = world.agents[task.agent_id]
    if agent.half is not None and agent.half.withdraw(task.key):
        message = "killed before the launch left the master"
        end_here(world, task, TaskSignal.KILLED, Reason.TASK_KILLED_DURING_LAUNCH, message)
        return
    world.notice(KillAsked(task.key, task.agent_id))
    world.change_run(task, kill_asked=True, kill_grace_s=call.grace_s)
    order_kill(world, agent, task)
