"""`edgerm watch`: the master's stream of events, a line each, until Ctrl-C."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from edgerm.cli.asking import ask, master_option

if TYPE_CHECKING:
    from edgerm.sdk.operator import Operator
    from edgerm.wire.v1 import master_pb2


@click.command("watch", short_help="Follow what happens, until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="Print each event as one line of JSON, as Mesos' API has it.")
@master_option
def command(as_json: bool, master: str) -> None:
    """Print every change of agents, frameworks and tasks as it happens, after a line on what there is now.

    With --json the first line has the whole state.
    """

    async def follow(operator: Operator) -> None:
        async for event in operator.watch():
            line = _json(event) if as_json else words(event)
            if line:
                sys.stdout.write(line + "\n")
                sys.stdout.flush()

    try:
        ask(master, follow)
    except BrokenPipeError:  # whoever read has enough
        sys.stderr.close()


def _json(event: master_pb2.Event) -> str:
    from edgerm.wire.content import JSON, encode  # noqa: PLC0415

    return "" if event.type == event.HEARTBEAT else encode(event, JSON).decode()


def words(event: master_pb2.Event) -> str:
    """The event in a line for people; empty for a heartbeat."""
    name = type(event).Type.Name(event.type)
    say = {
        "SUBSCRIBED": lambda: _state(event.subscribed.get_state),
        "TASK_ADDED": lambda: _task(event.task_added),
        "TASK_UPDATED": lambda: _update(event.task_updated),
        "AGENT_ADDED": lambda: _agent(event.agent_added),
        "AGENT_REMOVED": lambda: event.agent_removed.agent_id.value,
        "FRAMEWORK_ADDED": lambda: _framework(event.framework_added),
        "FRAMEWORK_UPDATED": lambda: _framework(event.framework_updated),
        "FRAMEWORK_REMOVED": lambda: _ended(event.framework_removed),
    }.get(name)
    return f"{name:<17}  {say()}" if say is not None else ""


def _state(state: master_pb2.Response.GetState) -> str:
    view = state.get_tasks
    tasks = len(view.tasks) + len(view.unreachable_tasks) + len(view.orphan_tasks)
    agents = sum(agent.active for agent in state.get_agents.agents)
    return f"{agents} agents, {len(state.get_frameworks.frameworks)} frameworks, {tasks} tasks"


def _task(event: master_pb2.Event.TaskAdded) -> str:
    task = event.task
    return f"{task.framework_id.value}/{task.task_id.value} on {task.agent_id.value}"


def _update(event: master_pb2.Event.TaskUpdated) -> str:
    from edgerm.core.tasks import TaskState  # noqa: PLC0415

    status = event.status
    said = f": {status.message}" if status.message else ""
    return f"{event.framework_id.value}/{status.task_id.value} TASK_{TaskState(event.state).name}{said}"


def _agent(event: master_pb2.Event.AgentAdded) -> str:
    info = event.agent.agent_info
    return f"{info.id.value} {info.name or info.hostname}"


def _framework(event: master_pb2.Event.FrameworkAdded | master_pb2.Event.FrameworkUpdated) -> str:
    framework = event.framework
    how = "connected" if framework.connected else "away"
    return f"{framework.framework_info.id.value} {framework.framework_info.name} {how}"


def _ended(event: master_pb2.Event.FrameworkRemoved) -> str:
    return f"{event.framework_info.id.value} {event.framework_info.name}"
