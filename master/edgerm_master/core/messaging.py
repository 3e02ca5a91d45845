"""Messages between frameworks and their tasks: the ephemeral lane's, so nothing here is stored or tried again."""

from __future__ import annotations

from edgerm.core.ids import ExecutorId, TaskId
from edgerm.core.link import Letter
from edgerm.core.scheduler import Message
from edgerm_master.core.agents import Agent
from edgerm_master.core.frameworks import Framework
from edgerm_master.core.world import World


def to_task(world: World, framework: Framework, call: Message) -> None:
    """Pass it on to the framework's live task on that agent; without one, or without room, it is dropped."""
    key = framework.tasks.get(TaskId(call.executor_id))  # a built-in task's executor has the task's id
    task = world.tasks.get(key) if key is not None else None
    agent = world.agents.get(call.agent_id)
    sent = (
        key is not None
        and task is not None
        and task.live
        and task.agent_id == call.agent_id
        and agent is not None
        and agent.half is not None
        and agent.half.send_message(Letter(key, call.data))
    )
    if sent and agent is not None:
        world.tally.messages_to_tasks += 1
        world.ring(agent)
    else:
        world.tally.messages_dropped += 1


def to_framework(world: World, agent: Agent, letter: Letter) -> None:
    """Tell the task's framework; while that is away, or of a task that is none of the agent's, it is dropped."""
    framework = world.frameworks.get(letter.key.framework_id)
    task = world.tasks.get(letter.key)
    if framework is None or framework.stream is None or task is None or task.agent_id != agent.agent_id:
        world.tally.messages_dropped += 1
        return
    world.tally.messages_to_frameworks += 1
    world.tell_soon(framework, Message(agent.agent_id, ExecutorId(letter.key.task_id), letter.data))
