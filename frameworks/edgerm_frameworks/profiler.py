"""How fast is each agent, and how far are they from each other? With two or more agents, as `edgerm up --agents 2`:

    python -m edgerm_frameworks.profiler [URL of a master]

Each agent does the same piece of WASM work, runs an echo server on a port of its own, and a probe that measures the way
to every other one. Agents are reached at their attribute `domain`, or else at their host name; they need `python3`.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from edgerm.core.ids import AgentId
from edgerm.sdk import Agent, Cluster, Result, TaskHandle, Unavailable, connect
from edgerm_frameworks.modules import SPIN
from edgerm_frameworks.program import run, start
from edgerm_frameworks.scripts import ECHO, PROBE

MASTER = "http://127.0.0.1:5050"
STEPS = 20e6  # of what SPIN does


@dataclass(frozen=True)
class Profile:
    """What was measured on one agent. `ms`: median round trips to others, by their ids; None: nobody answered."""

    agent: Agent
    steps_per_s: float
    ms: Mapping[AgentId, float | None]


def checked(result: Result) -> str:
    """What a task printed; raises `Unavailable` if it did not end well."""
    if not result.ok:
        raise Unavailable(f"task {result.task_id} on agent {result.status.agent_id}: {result.message}")
    return result.output.decode()


# 1. One piece of work, timed where it runs: the time of the way to the agent and back is not in it.
async def cpu(cluster: Cluster, agent: Agent) -> float:
    """Steps per second."""
    result = await cluster.run(wasm=SPIN, name="spin", constraints=[f"@agent={agent.agent_id}"], cpus=0.1, mem=32)
    return STEPS / (int(checked(result)) / 1e9)


# 2. A server that lasts, on any port that the agent offers. The task knows its port from EDGERM_PORTS, and prints it
#    once it listens: that line is worth more than the state RUNNING.
async def echo(cluster: Cluster, agent: Agent) -> tuple[TaskHandle, str]:
    """The task, and where it is reached."""
    handle = await cluster.launch(
        process=["python3", "-"], input=ECHO, ports=1, name="echo", constraints=[f"@agent={agent.agent_id}"]
    )
    async for piece in handle.logs():
        host = agent.attributes.get("domain", agent.spec.hostname)
        return handle, f"{host}:{int(piece)}"
    status = await handle.ended()
    raise Unavailable(f"the echo server on agent {agent.name} ended: {status.message}")


# 3. A task that measures the way to all servers, one after the other.
async def probe(cluster: Cluster, agent: Agent, servers: Mapping[AgentId, str]) -> dict[AgentId, float | None]:
    """Milliseconds by agent."""
    result = await cluster.run(
        process=["python3", "-", *servers.values()], input=PROBE, name="probe", constraints=[f"@agent={agent.agent_id}"]
    )
    told = dict(line.split(" ", 1) for line in checked(result).splitlines())
    return {
        agent_id: None if told[server].startswith("-") else float(told[server]) for agent_id, server in servers.items()
    }


async def profile(master: str) -> list[Profile]:
    """Measure everything."""
    async with connect(master) as cluster:
        agents = await cluster.agents()
        # 4. What can go on at once does, but not while something is timed: one agent spins at a time, one probes.
        servers = await asyncio.gather(*(echo(cluster, agent) for agent in agents.values()))
        by_agent = {agent_id: server for agent_id, (_, server) in zip(agents, servers, strict=True)}
        found = []
        for agent in agents.values():
            found.append(Profile(agent, await cpu(cluster, agent), await probe(cluster, agent, by_agent)))
        # 5. The end of the block ends the framework, and the echo servers with it.
        return found


def show(profiles: list[Profile]) -> None:
    """A row for each agent: its speed, and the way from it to each."""
    names = [one.agent.name[:12] for one in profiles]
    print(f"{'AGENT':12} {'MSTEPS/S':>9} " + " ".join(f"{'→ ' + name:>14}" for name in names))
    for name, one in zip(names, profiles, strict=True):
        ways = [one.ms[other.agent.agent_id] for other in profiles]
        cells = ("unreachable" if ms is None else f"{ms:.3f} ms" for ms in ways)
        print(f"{name:12} {one.steps_per_s / 1e6:>9.0f} " + " ".join(f"{cell:>14}" for cell in cells))


async def main_async(master: str) -> int:
    """Measure and show."""
    profiles = await profile(master)
    if not profiles:
        raise Unavailable(f"the master at {master} has no agents")
    show(profiles)
    return 0


def main(master: str = MASTER) -> int:
    """Print the matrix; the exit status: 1 something could not be measured, 130 after Ctrl-C."""
    return run("profiler", main_async(master))


if __name__ == "__main__":
    raise SystemExit(start(main, __doc__, sys.argv[1:]))
