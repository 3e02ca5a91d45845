"""`edgerm drain`: take an agent out of service, and back."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click

from edgerm.cli.asking import USAGE, ask, fail, master_option
from edgerm.cli.listing import agent_name, agent_state

if TYPE_CHECKING:
    from edgerm.sdk.operator import Operator
    from edgerm.wire.v1 import master_pb2

    Agent = master_pb2.Response.GetAgents.Agent

POLL_S = 0.5
CHOICES_SHOWN = 10
UNITS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
SPAN_MAX_S = 366 * 86_400.0
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|)")


def span_s(context: click.Context, option: click.Parameter, text: str | None) -> float | None:
    """A length of time in seconds: `90`, `90s`, `1.5h`, `1h30m`."""
    if text is None:
        return None
    parts = _PART.findall(text)
    whole = parts and "".join(number + unit for number, unit in parts) == text
    mixed = len(parts) > 1 and any(not unit for _, unit in parts)
    value_s = sum(float(number) * UNITS[unit] for number, unit in parts)
    if not whole or mixed or value_s > SPAN_MAX_S:
        raise click.BadParameter(f"{text!r} is no time: write 90s, 10m, 1h30m or 2d, at most 366d", context, option)
    return value_s


@click.command("drain", short_help="Take an agent out of service: its tasks end, it gets no new ones.")
@click.option(
    "--deadline",
    callback=span_s,
    metavar="TIME",
    help="For so long tasks may end by themselves, such as 10m.  [at once]",
)
@click.option(
    "--grace", callback=span_s, metavar="TIME", help="Then a task gets its own grace period, but not more than so."
)
@click.option(
    "--gone", is_flag=True, help="Once it is drained the agent is gone for ever: its id may never join again."
)
@click.option("--wait", is_flag=True, help="Show how far it is, and return when it is drained.")
@click.option("--cancel", is_flag=True, help="Back into service; also ends what `--deadline` waits for.")
@click.argument("agent")
@master_option
def command(
    deadline: float | None, grace: float | None, gone: bool, wait: bool, cancel: bool, agent: str, master: str
) -> None:
    """Take AGENT out of service: no new offers from now on, its frameworks are told, and when the deadline has come the
    tasks that still run there are killed. It stays so until `edgerm drain AGENT --cancel`, whatever is restarted.

    AGENT is an agent's id, a beginning of it that no other agent has, or its name. Drained again, the deadline can come
    nearer only.
    """
    if cancel and (deadline is not None or grace is not None or gone or wait):
        raise click.UsageError("--cancel stands alone")

    async def drain(operator: Operator) -> str:
        found_id, name = await _find(operator, agent)
        if cancel:
            await operator.reactivate(found_id)
            return f"agent {name} is in service again"
        await operator.drain(found_id, deadline or 0.0, grace, mark_gone=gone)
        if not wait:
            return f"agent {name} is being drained; see: edgerm agents"
        return await _watch(operator, found_id, name, gone=gone)

    click.echo(ask(master, drain), err=True)


async def _find(operator: Operator, text: str) -> tuple[str, str]:
    """The id and the name of the agent that is meant; several or none end the command."""
    view = await operator.agents()
    names = {info.id.value: agent_name(info) for info in (*(a.agent_info for a in view.agents), *view.recovered_agents)}
    by_id = [agent_id for agent_id in names if agent_id == text]
    by_name = [agent_id for agent_id, name in names.items() if name == text]
    by_prefix = [agent_id for agent_id in names if text and agent_id.startswith(text)]
    found = by_id or by_name or by_prefix
    if not found:
        fail(f"no agent {text!r} is known; see: edgerm agents")
    if len(found) > 1:
        choices = ", ".join(f"{agent_id} ({names[agent_id]})" for agent_id in found[:CHOICES_SHOWN])
        fail(f"{len(found)} agents are meant by {text!r}: {choices}: name one by its id", USAGE)
    return found[0], names[found[0]]


async def _watch(operator: Operator, agent_id: str, name: str, *, gone: bool) -> str:
    """Return when it is drained; asking again and again is all that the operator API offers for this."""
    import asyncio  # noqa: PLC0415

    from edgerm.cli.progress import StatusLine  # noqa: PLC0415

    line = StatusLine("edgerm drain: ")
    while True:
        view = await operator.agents()
        found = next((agent for agent in view.agents if agent.agent_info.id.value == agent_id), None)
        news = _news(found, name)
        if found is None or not _is_draining(found):
            break
        line.show(news)
        await asyncio.sleep(POLL_S)
    line.clear()
    if found is None:
        return f"agent {name} is drained, and gone" if gone else f"agent {name} is not known any more"
    if not found.HasField("drain_info"):
        fail(f"agent {name} is not drained any more: somebody has put it back into service")
    return f"agent {name} is drained"


def _news(agent: Agent | None, name: str) -> str:
    if agent is None:
        return ""
    left_s, live, owed = agent.drain.left_s, agent.drain.live_tasks, agent.drain.unacknowledged_tasks
    parts = [f"{live} task{'s' * (live != 1)} left"]
    if owed:
        parts.append(f"{owed} whose framework has not acknowledged its end")
    if live:
        parts.append(f"killed in {left_s:.0f} s" if left_s else "killed now")
    return f"{name} is {agent_state(agent)}: {', '.join(parts)}"


def _is_draining(agent: Agent) -> bool:
    from edgerm.wire.v1 import infos_pb2  # noqa: PLC0415

    return agent.HasField("drain_info") and agent.drain_info.state == infos_pb2.DRAINING
