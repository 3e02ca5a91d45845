"""`edgerm devices`: which devices the agents have, how they are, and who has them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import click

from edgerm.cli.asking import ask, ask_box, data_dir_option, json_option, master_option
from edgerm.cli.listing import agent_name
from edgerm.cli.tables import show
from edgerm.core.metadata import read

if TYPE_CHECKING:
    from collections.abc import Iterable

    from edgerm.sdk.operator import Operator
    from edgerm.wire.v1 import infos_pb2, master_pb2, tasks_pb2

    Holders: TypeAlias = dict[tuple[str, str, str], list[tasks_pb2.Task]]  # by agent, name and id

HEALTHY, UNHEALTHY = "Healthy", "Unhealthy"  # the kubelet's words
FAKE = "fake"


class Listing(NamedTuple):
    """The devices, and what is to be said beside."""

    rows: list[dict[str, Any]]
    remarks: list[str]  # classes of which nothing can be had


@click.command("devices", short_help="List devices and who has them.")
@json_option
@data_dir_option
@master_option
def command(as_json: bool, data_dir: Path | None, master: str) -> None:
    """List the devices of all agents: whether several tasks may have one at once, whether it is there, who has it.

    With --data-dir those of one agent on this box, which needs no master.

    A task claims them with `edgerm run --claim CLASS=COUNT`, or takes one with `edgerm run --device NAME`. A device in
    quarantine was not given back clean, and is offered again when it is. With --json also metadata, what its holder
    gets, and why it is in quarantine. A class whose plugin does not run is told on standard error.
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
    empty = "no agent has devices: its operator names them in agent.toml, under [devices]"
    found = _on_box(data_dir) if data_dir is not None else ask(master, listing)
    if data_dir is not None:
        del columns["agent"]
    show(found.rows if as_json else list(map(_shown, found.rows)), columns, as_json=as_json, empty=empty)
    for remark in found.remarks:
        sys.stderr.write(f"{remark}\n")


def _on_box(data_dir: Path) -> Listing:
    answer = ask_box(data_dir, "devices")
    without = [each for each in answer["classes"] if each["problem"]]
    remarks = [f"nothing of class {each['class']} can be claimed: {each['problem']}" for each in without]
    return Listing(answer["devices"], remarks)


async def rows(operator: Operator) -> list[dict[str, Any]]:
    """Each device of each agent, as it is now."""
    return (await listing(operator)).rows


async def listing(operator: Operator) -> Listing:
    """What there is now."""
    return listing_of(await operator.agents(), await operator.tasks())


def listing_of(agents: master_pb2.Response.GetAgents, tasks: master_pb2.Response.GetTasks) -> Listing:
    """What there is, as the master tells it."""
    holders = _holders([*tasks.tasks, *tasks.unreachable_tasks, *tasks.orphan_tasks])
    infos = [*(agent.agent_info for agent in agents.agents), *agents.recovered_agents]
    return Listing(
        [_row(info, device, holders) for info in infos for device in info.devices],
        [
            f"{agent_name(info)}: nothing of class {each.name} can be claimed: {each.problem}"
            for info in infos
            for each in info.device_classes
            if each.problem
        ],
    )


def _holders(tasks: Iterable[tasks_pb2.Task]) -> Holders:
    found: Holders = {}
    for task in tasks:
        for resource in task.resources:
            for item in resource.set.item:
                found.setdefault((task.agent_id.value, resource.name, item), []).append(task)
    return found


def _row(info: infos_pb2.AgentInfo, device: infos_pb2.Device, holders: Holders) -> dict[str, Any]:
    tasks = holders.get((info.id.value, device.name, device.id), [])
    local = [device.held_by] if device.held_by else []
    return {
        "agent": agent_name(info),
        "agent_id": info.id.value,
        "class": device.name,
        "id": device.id,
        "pool": "shared" if device.shared else "exclusive",
        "health": UNHEALTHY if device.problem else HEALTHY,
        "problem": device.problem,
        "holder": ",".join([*(task.task_id.value for task in tasks), *local]),
        "holders": [{"framework": task.framework_id.value, "task": task.task_id.value} for task in tasks],
        "gives": list(device.gives),
        "metadata": dict(read(device.metadata)),
        "quarantine": device.quarantine,
        "fake": device.fake,
    }


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    """A line of the table: whether a device is a stand-in, and held back, belongs to how it is."""
    health = [row["health"], *([FAKE] if row["fake"] else []), *(["in quarantine"] if row["quarantine"] else [])]
    return row | {"health": ", ".join(health), "problem": row["problem"] or row["quarantine"]}
