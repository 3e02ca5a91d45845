"""A sample framework: one container, on whichever agent has a Docker engine. Run it with

python -m edgerm_frameworks.one_container [URL of a master] [IMAGE]
"""

from __future__ import annotations

import asyncio
import sys

from edgerm.sdk import Cluster, EdgermError, connect

MASTER = "http://127.0.0.1:5050"
IMAGE = "busybox"
GREETING = "hello from a container"
EXECUTORS = "edgerm.executors"  # the attribute in which an agent tells what it can run


async def has_engine(cluster: Cluster) -> bool:
    """Whether any agent can run containers now."""
    view = await cluster.operator.agents()
    return any(
        attribute.name == EXECUTORS and "docker" in attribute.set.item
        for agent in view.agents
        for attribute in agent.agent_info.attributes
    )


async def one_container(master: str, image: str) -> str:
    """What came of it, in one line for a person."""
    async with connect(master) as cluster:
        if not await has_engine(cluster):
            return "no agent has a Docker engine that answers: the container is left out"
        result = await cluster.run(docker=image, args=["echo", GREETING], name="hello")
    if not result.ok:
        return f"a Docker engine answers, but the container did not run: {result.message}"
    return f"one container of {image}: {result.output.decode().strip()}"


def main(master: str = MASTER, image: str = IMAGE) -> int:
    """Run it, and say what came out; the exit status: 0 it ran, or there is nowhere to run it, 1 the master is away."""
    try:
        print(asyncio.run(one_container(master, image)), flush=True)
    except EdgermError as error:
        sys.stderr.write(f"one_container: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:3]))
