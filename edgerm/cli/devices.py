"""`edgerm devices`: which devices the agents have, how they are, and who has them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import click

from edgerm.cli.asking import ask, json_option, master_option
from edgerm.cli.listing import agent_name
from edgerm.cli.tables import show

if TYPE_CHECKING:
    from collections.abc import Iterable

    from edgerm.sdk.operator import Operator
    from edgerm.wire.v1 import infos_pb2, tasks_pb2

    Holders: TypeAlias = dict[tuple[str, str, str], list[tasks_pb2.Task]]  # by agent, name and id

HEALTHY, UNHEALTHY = "Healthy", "Unhealthy"  # the kubelet's words


@click.command("devices", short_help="List devices and who has them.")
@json_option
@master_option
def command(as_json: bool, master: str) -> None:
    """List the devices of all agents: whether several tasks may have one at once, whether it is there, who has it.

    A task asks for one with `edgerm run --device NAME`. With --json also what its holder gets of it.
    """
    columns = {
        "agent": "AGENT",
        "class": "NAME",
        "id": "ID",
        "pool": "POOL",
        "health": "HEALTH",
        "holder": "USED BY",
        "problem": "PROBLEM",
    }
    empty = "no agent has devices: its operator declares them in agent.toml, under [[devices.declared]]"
    show(ask(master, rows), columns, as_json=as_json, empty=empty)


async def rows(operator: Operator) -> list[dict[str, Any]]:
    """Each device of each agent, as it is now."""
    agents, tasks = await operator.agents(), await operator.tasks()
    holders = _holders([*tasks.tasks, *tasks.unreachable_tasks, *tasks.orphan_tasks])
    infos = [*(agent.agent_info for agent in agents.agents), *agents.recovered_agents]
    return [_row(info, device, holders) for info in infos for device in info.devices]


def _holders(tasks: Iterable[tasks_pb2.Task]) -> Holders:
    found: Holders = {}
    for task in tasks:
        for resource in task.resources:
            for item in resource.set.item:
                found.setdefault((task.agent_id.value, resource.name, item), []).append(task)
    return found


def _row(info: infos_pb2.AgentInfo, device: infos_pb2.Device, holders: Holders) -> dict[str, Any]:
    tasks = holders.get((info.id.value, device.name, device.id), [])
    return {
        "agent": agent_name(info),
        "agent_id": info.id.value,
        "class": device.name,
        "id": device.id,
        "pool": "shared" if device.shared else "exclusive",
        "health": UNHEALTHY if device.problem else HEALTHY,
        "problem": device.problem,
        "holder": ",".join(task.task_id.value for task in tasks),
        "holders": [{"framework": task.framework_id.value, "task": task.task_id.value} for task in tasks],
        "gives": list(device.gives),
    }
