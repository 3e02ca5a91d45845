"""`edgerm ps`, `agents`, `frameworks`, `roles`, `offers`: what the master knows, as lists."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeAlias

import click

from edgerm.cli.asking import ask, json_option, master_option
from edgerm.cli.tables import show

if TYPE_CHECKING:
    from edgerm.sdk.operator import Operator
    from edgerm.wire.v1 import master_pb2, offers_pb2, operator_pb2, resources_pb2, tasks_pb2

    Usage: TypeAlias = operator_pb2.Response.ReadStats.Usage

TaskName: TypeAlias = tuple[str, str, str]  # framework, task, launch
OURS = "edgerm."  # attributes that an agent adds by itself: for programs


@click.command("ps", short_help="List tasks.")
@click.option("--all", "everything", is_flag=True, help="Also those that have ended.")
@click.option("--stats", is_flag=True, help="Also what they use now; that takes a moment.")
@json_option
@master_option
def ps(everything: bool, stats: bool, as_json: bool, master: str) -> None:
    """List the tasks of all frameworks that have not ended; with --all also those that have.

    With --stats CPU and memory are shown as used/asked for, memory in MiB; "-" is not known.
    """

    async def rows(operator: Operator) -> list[dict[str, Any]]:
        view, agents = await operator.tasks(), await operator.agents()
        names = {agent.agent_info.id.value: agent_name(agent.agent_info) for agent in agents.agents}
        ended = view.completed_tasks if everything else ()
        tasks = [*view.tasks, *view.unreachable_tasks, *view.orphan_tasks, *ended]
        used = await _used(operator, names) if stats else {}
        return [_task_row(task, names) | (_use_of(task, used) if stats else {}) for task in tasks]

    found = ask(master, rows)
    columns = {
        "task": "TASK",
        **({"build": "BUILD"} if any(row["build"] for row in found) else {}),
        "state": "STATE",
        "agent": "AGENT",
        **({"cpus_used/cpus": "CPU", "mem_used/mem": "MEMORY"} if stats else {"cpus": "CPUS", "mem": "MEM"}),
        "framework": "FRAMEWORK",
    }
    show(found, columns, as_json=as_json, empty="no task runs; see those that have ended with --all")


@click.command("agents", short_help="List agents and what they have.")
@json_option
@master_option
def agents(as_json: bool, master: str) -> None:
    """List the agents: how they are linked, what they have, and how much of it is in use."""

    async def rows(operator: Operator) -> list[dict[str, Any]]:
        view = await operator.agents()
        return [_agent_row(agent) for agent in view.agents] + [
            {**_NO_AGENT, "agent": info.id.value, "name": agent_name(info), "state": "recovering"}
            for info in view.recovered_agents
        ]

    columns = {
        "name": "NAME",
        "state": "STATE",
        "carrier": "LINK",
        "cpus_used/cpus": "CPUS",
        "mem_used/mem": "MEM",
        "attributes": "ATTRIBUTES",
        "agent": "AGENT",
    }
    empty = "no agent has joined: start one with `edgerm agent --master URL`"
    show(ask(master, rows), columns, as_json=as_json, empty=empty)


@click.command("frameworks", short_help="List frameworks.")
@json_option
@master_option
def frameworks(as_json: bool, master: str) -> None:
    """List the frameworks that are there or are waited for."""

    async def rows(operator: Operator) -> list[dict[str, Any]]:
        return [_framework_row(framework) for framework in (await operator.frameworks()).frameworks]

    columns = {
        "framework": "FRAMEWORK",
        "name": "NAME",
        "state": "STATE",
        "roles": "ROLES",
        "cpus": "CPUS",
        "mem": "MEM",
        "offers": "OFFERS",
    }
    show(ask(master, rows), columns, as_json=as_json, empty="no framework is there")


@click.command("roles", short_help="List roles.")
@json_option
@master_option
def roles(as_json: bool, master: str) -> None:
    """List the roles that frameworks have, and what is used or offered in each."""

    async def rows(operator: Operator) -> list[dict[str, Any]]:
        return [
            {
                "role": role.name,
                "weight": role.weight,
                "frameworks": len(role.frameworks),
                **scalars(role.resources, "cpus", "mem"),
            }
            for role in (await operator.roles()).roles
        ]

    columns = {"role": "ROLE", "weight": "WEIGHT", "frameworks": "FRAMEWORKS", "cpus": "CPUS", "mem": "MEM"}
    show(ask(master, rows), columns, as_json=as_json, empty="no framework has a role")


@click.command("offers", short_help="List offers that no framework has answered.")
@json_option
@master_option
def offers(as_json: bool, master: str) -> None:
    """List the offers that are out: what of which agent is held out to which framework, and for how long."""

    async def rows(operator: Operator) -> list[dict[str, Any]]:
        return [_offer_row(entry.offer, entry.age_s) for entry in (await operator.offers()).offers]

    columns = {
        "offer": "OFFER",
        "host": "HOST",
        "cpus": "CPUS",
        "mem": "MEM",
        "age_s": "AGE",
        "framework": "FRAMEWORK",
    }
    show(ask(master, rows), columns, as_json=as_json, empty="no offer is out")


def agent_name(info: Any) -> str:
    """What people call an agent."""
    return str(info.name or info.hostname or info.id.value)


def scalars(resources: Iterable[resources_pb2.Resource], *names: str) -> dict[str, float]:
    """Sums of scalars by name."""
    sums = dict.fromkeys(names, 0.0)
    for resource in resources:
        if resource.name in sums:
            sums[resource.name] = round(sums[resource.name] + resource.scalar.value, 3)
    return sums


def state_name(state: int) -> str:
    """Such as RUNNING."""
    from edgerm.core.tasks import TaskState  # noqa: PLC0415

    return TaskState(state).name


def _task_row(task: tasks_pb2.Task, names: dict[str, str]) -> dict[str, Any]:
    return {
        "task": task.task_id.value,
        "name": task.name,
        "build": task.alternative,
        "state": state_name(task.state),
        "agent": names.get(task.agent_id.value, task.agent_id.value),
        "agent_id": task.agent_id.value,
        "framework": task.framework_id.value,
        **scalars(task.resources, "cpus", "mem"),
    }


async def _used(operator: Operator, names: dict[str, str]) -> dict[TaskName, Usage]:
    """What tasks use, by framework, task and launch; a word about agents that did not say."""
    view = await operator.stats()
    for missing in view.missing:
        agent = names.get(missing.agent_id.value, missing.agent_id.value)
        sys.stderr.write(f"edgerm: what the tasks on {agent} use is not known: {missing.reason}\n")
    return {(usage.framework_id.value, usage.task_id.value, usage.launch_id): usage for usage in view.tasks}


def _use_of(task: tasks_pb2.Task, used: dict[TaskName, Usage]) -> dict[str, Any]:
    usage = used.get((task.framework_id.value, task.task_id.value, task.launch_id))
    if usage is None:
        return dict.fromkeys(("cpus_used", "mem_used", "cpu_s"))
    mem = round(usage.memory_bytes / (1 << 20), 3)
    return {"cpus_used": round(usage.cpus, 3), "mem_used": mem, "cpu_s": round(usage.cpu_s, 3)}


_NO_AGENT: dict[str, Any] = {
    **dict.fromkeys(("hostname", "cpus", "mem", "cpus_used", "mem_used", "last_beat_s", "carrier")),
    "attributes": "",
    "abilities": {},
}


def _agent_row(agent: master_pb2.Response.GetAgents.Agent) -> dict[str, Any]:
    info = agent.agent_info
    total, used = scalars(agent.total_resources, "cpus", "mem"), scalars(agent.allocated_resources, "cpus", "mem")
    attributes = {attribute.name: _value(attribute) for attribute in info.attributes}
    return {
        "agent": info.id.value,
        "name": agent_name(info),
        "hostname": info.hostname,
        "state": agent_state(agent),
        "carrier": agent.carrier,
        **total,
        **{f"{name}_used": amount for name, amount in used.items()},
        "attributes": " ".join(f"{name}:{value}" for name, value in attributes.items() if not name.startswith(OURS)),
        "abilities": {name: value for name, value in attributes.items() if name.startswith(OURS)},
        "last_beat_s": round(agent.last_beat_s, 3),
    }


def agent_state(agent: master_pb2.Response.GetAgents.Agent) -> str:
    """How its link stands, and DRAINING, DRAINED or DEACTIVATED if that is how an operator wants it."""
    from edgerm.wire.v1 import infos_pb2  # noqa: PLC0415

    link = str(agent.link_state or ("joined" if agent.active else "unreachable"))
    if agent.HasField("drain_info"):
        duty = "DRAINED" if agent.drain_info.state == infos_pb2.DRAINED else "DRAINING"
    else:
        duty = "DEACTIVATED" if agent.deactivated else ""
    return duty if duty and link == "joined" else f"{duty} ({link})" if duty else link


def _value(attribute: Any) -> str:
    kind = {0: "scalar", 1: "ranges", 2: "set", 3: "text"}[attribute.type]
    if kind == "ranges":
        return "[" + ",".join(f"{part.begin}-{part.end}" for part in attribute.ranges.range) + "]"
    if kind == "set":
        return "{" + ",".join(attribute.set.item) + "}"
    return f"{attribute.scalar.value:g}" if kind == "scalar" else str(attribute.text.value)


def _framework_row(framework: master_pb2.Response.GetFrameworks.Framework) -> dict[str, Any]:
    info = framework.framework_info
    state = "active" if framework.active else "disconnected"
    return {
        "framework": info.id.value,
        "name": info.name,
        "state": state,
        "roles": ",".join(info.roles) or info.role,
        "offers": len(framework.offers),
        "failover_timeout_s": info.failover_timeout,
        **scalars(framework.allocated_resources, "cpus", "mem"),
    }


def _offer_row(offer: offers_pb2.Offer, age_s: float) -> dict[str, Any]:
    return {
        "offer": offer.id.value,
        "framework": offer.framework_id.value,
        "agent": offer.agent_id.value,
        "host": offer.hostname,
        "age_s": round(age_s, 1),
        **scalars(offer.resources, "cpus", "mem"),
    }
