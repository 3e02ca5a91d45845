"""Status updates: from the agent to the registry to the framework, and what follows from its acknowledgement.

Two kinds (mesos-v1 6.1): an agent's update has a uuid and is owed until acknowledged, one at a time per task; the
master's own has none and is told once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from edgerm.core.ids import AgentId, TaskId, TaskKey
from edgerm.core.link import Forget, Kill, Update
from edgerm.core.resources import Resources
from edgerm.core.scheduler import Acknowledge, Status
from edgerm.core.scheduler import Update as UpdateEvent
from edgerm.core.tasks import SIGNAL_OF, Reason, Source, TaskSignal, TaskState, advance, may
from edgerm_master.core import offers
from edgerm_master.core.agents import Agent
from edgerm_master.core.fairness import Client
from edgerm_master.core.frameworks import Completed, Framework
from edgerm_master.core.rebooking import rebook
from edgerm_master.core.world import Task, Timer, World

RETRY_FIRST_S = 10.0
RETRY_MAX_S = 600.0
OWED_MAX = 64  # updates of one task that wait for acknowledgement
OWED_BYTES_MAX = 128 * 1024  # and the characters in them
_STATUS_BYTES = 200


def tell_own(
    world: World,
    framework: Framework,
    task_id: TaskId,
    agent_id: AgentId | None,
    state: TaskState,
    reason: Reason,
    message: str = "",
    task: Task | None = None,
) -> None:
    """An update of the master's own: no uuid, not repeated. `state` as the framework may see it."""
    world.tell(framework, UpdateEvent(own_status(world, task_id, agent_id, state, reason, message, task)))


def own_status(
    world: World,
    task_id: TaskId,
    agent_id: AgentId | None,
    state: TaskState,
    reason: Reason,
    message: str,
    task: Task | None,
) -> Status:
    """A status of the master's own."""
    silent = world.agents[agent_id].silent_wall_s if agent_id in world.agents else None
    return Status(
        task_id,
        state,
        agent_id,
        Source.MASTER,
        reason,
        message,
        wall_s=world.now.wall_s,
        launch_id=task.key.launch_id if task else None,
        unreachable_wall_s=silent if state is TaskState.UNREACHABLE else None,
    )


def note_own(world: World, task: Task, reason: Reason, message: str, *, was_live: bool) -> None:
    """The master itself has moved the task: for operators, whatever its framework is told."""
    status = own_status(world, task.key.task_id, task.agent_id, task.run.state, reason, message, task)
    world.note_status(task, status, was_live=was_live)


def take_update(world: World, update: Update) -> None:
    """An agent's update: taken over once, told when it is the oldest that is owed."""
    task = world.tasks.get(update.key)
    if task is None or update.seq <= task.run.seq:
        return
    state, owed, was_live = task.run.state, task.run.owed, task.live
    was_lost = state is TaskState.UNREACHABLE
    status = _explained(task, update.status)
    signal = SIGNAL_OF.get(status.state)
    taken = False
    if signal is not None and may(state, signal):
        taken, state = True, advance(state, signal)
        if _is_owed(world, task, state):
            owed = _bounded((*owed, status))
    world.change_run(task, state=state, seq=update.seq, owed=owed)
    world.tally.updates += 1
    if task.live and status.granted:
        rebook(world, task, status)
    if taken:
        world.note_status(task, status, was_live=was_live)
    if was_live and not task.live:
        release(world, task)
    if not task.live and not owed:
        settle(world, task)
    elif was_lost or (len(owed) == 1 and owed[0] is status):
        tell_owed(world, task)


def _explained(task: Task, status: Status) -> Status:
    """An agent does not know why it was told to kill a task; whoever hears of its end does (as in Mesos)."""
    if task.run.drained and status.state in (TaskState.KILLING, TaskState.KILLED):
        return replace(status, reason=Reason.AGENT_DRAINING)
    return status


def _bounded(owed: tuple[Status, ...]) -> tuple[Status, ...]:
    """Few enough for one row of the store: in a flood the one in flight and the latest matter."""
    sizes = [_STATUS_BYTES + sum(len(text) for text in _texts(status)) for status in owed]
    while len(owed) > 2 and (len(owed) > OWED_MAX or sum(sizes) > OWED_BYTES_MAX):
        owed, sizes = (owed[0], *owed[2:]), [sizes[0], *sizes[2:]]
    return owed


def _texts(status: Status) -> tuple[str | bytes, ...]:
    devices = (device for one in status.granted for device in (one.claim, one.type, *one.ids))
    return status.message, status.trap, status.output_tail, status.detail, status.extra, *devices


def _is_owed(world: World, task: Task, state: TaskState) -> bool:
    """Whether anybody is to hear of this state: not after the framework's end, TASK_KILLING only who knows it."""
    if task.key.framework_id in world.removed:
        return False
    framework = world.frameworks.get(task.key.framework_id)
    return framework is None or state is not TaskState.KILLING or framework.shown(state) is state


def release(world: World, task: Task) -> None:
    """The task has ended: its resources may be offered again."""
    uncharge(world, task)
    agent = world.agents.get(task.agent_id)
    if agent is not None:
        offers.free(world, agent, task.record.task.resources)
        world.look_at(agent)


def charge(world: World, tasks: Iterable[Task]) -> None:
    """These tasks count for their frameworks' shares from now on, as far as they live on agents that are there."""
    held: dict[Client, list[Resources]] = {}
    for task in tasks:
        agent = world.agents.get(task.agent_id)
        known = task.key.framework_id in world.frameworks
        if known and task.live and not task.charged and agent is not None and agent.joined:
            task.charged = True
            held.setdefault(task.client, []).append(task.record.task.resources)
    for client, resources in held.items():
        world.shares.enter(client)
        world.shares.charge(client, *resources)


def uncharge(world: World, task: Task) -> None:
    """The task no longer counts for its framework's share."""
    if task.charged:
        task.charged = False
        world.shares.refund(task.client, task.record.task.resources)


def tell_owed(world: World, task: Task) -> None:
    """Tell the oldest update that is owed, and again until it is acknowledged.

    Not while the agent is unreachable: the framework was told so, and an older state would undo that.
    """
    framework = world.frameworks.get(task.key.framework_id)
    if framework is None or framework.stream is None or not task.run.owed:
        return
    if task.run.state is TaskState.UNREACHABLE:
        return
    status = task.run.owed[0]
    shown = framework.shown(status.state)
    if shown is not status.state:
        status = replace(status, state=shown)
    world.tell(framework, UpdateEvent(status))
    wait_s = min(RETRY_FIRST_S * 2.0 ** min(task.retries, 30), RETRY_MAX_S)
    world.timers.set((Timer.RETRY, task.key, "", ""), world.now.steady_s + wait_s)


def retry(world: World, key: TaskKey) -> None:
    """The update in flight was not acknowledged in time."""
    task = world.tasks.get(key)
    if task is not None and task.run.owed:
        task.retries += 1
        tell_owed(world, task)


def acknowledge(world: World, framework: Framework, call: Acknowledge) -> None:
    """The oldest owed update has arrived; late, repeated and unknown acknowledgements are ignored."""
    key = framework.tasks.get(call.task_id)
    task = world.tasks.get(key) if key else None
    if task is None or not task.run.owed or task.run.owed[0].uuid != call.uuid:
        return
    if task.agent_id != call.agent_id:
        return
    task.retries = 0
    world.timers.cancel((Timer.RETRY, task.key, "", ""))
    world.change_run(task, owed=task.run.owed[1:])
    if task.run.owed:
        tell_owed(world, task)
    elif not task.live:
        settle(world, task)


def settle(world: World, task: Task) -> None:
    """The task has ended and its framework knows (or is gone): its agent may forget it."""
    world.timers.cancel((Timer.RETRY, task.key, "", ""))
    _complete(world, task)
    world.change_run(task, settled=True, owed=())
    agent = world.agents.get(task.agent_id)
    if agent is not None:
        world.look_at(agent)
        if agent.half is not None:
            agent.half.order(Forget(task.key))


def _complete(world: World, task: Task) -> None:
    """Keep for people how the task ended, with its framework, also if that has ended before."""
    key, framework = task.key, world.shown(task.key.framework_id)
    if framework is not None and not task.run.settled:
        if framework.tasks.get(key.task_id) == key:
            del framework.tasks[key.task_id]
        framework.completed.append(Completed(task.record, task.run, task.statuses))


def end_here(world: World, task: Task, signal: TaskSignal, reason: Reason, message: str) -> None:
    """The master itself ends a task that its agent does not have: told once, forgotten at once."""
    framework = world.frameworks.get(task.key.framework_id)
    was_live = task.live
    task.run = replace(task.run, state=advance(task.run.state, signal, task.run), owed=())
    release(world, task)
    note_own(world, task, reason, message, was_live=was_live)
    _complete(world, task)
    if framework is not None:
        state = framework.shown(task.run.state)
        tell_own(world, framework, task.key.task_id, task.agent_id, state, reason, message, task)
    world.drop_task(task)


def order_kill(world: World, agent: Agent, task: Task) -> None:
    """Let the agent end the task; without a session the next join does it."""
    if agent.half is not None:
        agent.half.order(Kill(task.key, task.run.kill_grace_s, world.request))
        world.ring(agent)
