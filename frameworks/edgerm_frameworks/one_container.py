"""A sample framework: one container, on whichever agent has a Docker engine. Run it with

python -m edgerm_frameworks.one_container [URL of a master] [IMAGE]
"""

from __future__ import annotations

import sys

from edgerm.core.alternatives import EXECUTORS
from edgerm.core.attributes import texts
from edgerm.sdk import Cluster, connect
from edgerm_frameworks.program import run, start

MASTER = "http://127.0.0.1:5050"
IMAGE = "busybox"
GREETING = "hello from a container"


async def has_engine(cluster: Cluster) -> bool:
    """Whether any agent can run containers now."""
    agents = (await cluster.agents()).values()
    return any("docker" in texts(agent.attributes.get(EXECUTORS, ())) for agent in agents)


async def one_container(master: str, image: str) -> int:
    """Run it, and say what came of it in one line."""
    async with connect(master) as cluster:
        if not await has_engine(cluster):
            print("no agent has a Docker engine that answers: the container is left out", flush=True)
            return 0
        result = await cluster.run(docker=image, args=["echo", GREETING], name="hello")
    if result.ok:
        print(f"one container of {image}: {result.output.decode().strip()}", flush=True)
    else:
        print(f"a Docker engine answers, but the container did not run: {result.message}", flush=True)
    return 0


def main(master: str = MASTER, image: str = IMAGE) -> int:
    """The exit status: 0 it ran, or there is nowhere to run it; 1 the master is away; 130 after Ctrl-C."""
    return run("one_container", one_container(master, image))


if __name__ == "__main__":
    raise SystemExit(start(main, __doc__, sys.argv[1:]))
