"""Map where the sensors are, reduce in one place: only what the maps print travels. On agents with sensors, which their
operators name in an attribute, `edgerm agent --attributes sensor:boiler`, or declare as devices (agent.toml):

    python -m edgerm_frameworks.map_reduce [URL of a master] [READINGS]
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple
from zlib import crc32

from edgerm.sdk import Agent, Cluster, Result, Unavailable, connect
from edgerm_frameworks.modules import SENSOR, WINDOWED_STATS
from edgerm_frameworks.program import run, start

MASTER = "http://127.0.0.1:5050"
EVERY = 100  # readings become one, their mean


def checked(result: Result) -> list[str]:
    """The lines of a task; raises `Unavailable` if it did not end well."""
    if not result.ok:
        raise Unavailable(f"task {result.task_id} on agent {result.status.agent_id}: {result.message}")
    return result.output.decode().splitlines()


class Sensor(NamedTuple):
    """Where one is, and what a task asks for to use it."""

    name: str
    agent: Agent
    devices: Sequence[str] = ()


# 1. Which agents have a sensor? An attribute only says so. A device is more: a resource, which the task has to itself
#    (unless it is shared) and gets what its operator declared with it: nodes of /dev, files, variables.
def sensors(agents: Iterable[Agent]) -> Iterator[Sensor]:
    """All of them."""
    for agent in agents:
        if "sensor" in agent.attributes:
            yield Sensor(str(agent.attributes["sensor"]), agent)
        for key, amount in agent.spec.resources.items():
            if key.name == "sensor" and isinstance(amount, frozenset):
                yield from (Sensor(device_id, agent, [f"sensor={device_id}"]) for device_id in sorted(amount))


# 2. Map: a WASM module of a kilobyte goes to the sensor, reads it, and prints a hundredth of what it read. (The module
#    makes the readings itself, from a seed, so that this sample runs without hardware.)
async def map_one(cluster: Cluster, sensor: Sensor, readings: int) -> list[str]:
    """What was mapped where one sensor is."""
    result = await cluster.run(
        wasm=SENSOR,
        args=[str(crc32(sensor.name.encode())), str(readings), str(EVERY), "0"],
        constraints=[f"@agent={sensor.agent.agent_id}"],
        devices=sensor.devices,
        name="map",
        cpus=0.1,
        mem=32,
    )
    return checked(result)


# 3. Reduce: one more module, wherever there is room, gets all mapped lines as its standard input.
async def reduce_all(cluster: Cluster, lines: list[str]) -> str:
    """One line: how many, the least, the greatest, the mean and the standard deviation."""
    text = "".join(f"{line}\n" for line in lines)
    result = await cluster.run(wasm=WINDOWED_STATS, args=[str(len(lines))], input=text.encode(), name="reduce")
    return checked(result)[0].partition(" ")[2]


async def map_reduce(master: str, readings: int) -> int:
    """Map on all at once; when all are done, reduce."""
    async with connect(master) as cluster:
        found = list(sensors((await cluster.agents()).values()))
        if not found:
            raise Unavailable("no agent has a sensor: start them with --attributes sensor:NAME")
        mapped = await asyncio.gather(*(map_one(cluster, sensor, readings) for sensor in found))
        for sensor, lines in zip(found, mapped, strict=True):
            print(f"{sensor.name} on {sensor.agent.name}: {readings} readings, {len(lines)} mapped", flush=True)
        count, low, high, mean, deviation = (
            await reduce_all(cluster, [line for one in mapped for line in one])
        ).split()
    print(f"reduced: {count} values from {low} to {high}, mean {mean}, standard deviation {deviation}")
    return 0


def main(master: str = MASTER, readings: str = "100000") -> int:
    """Map and reduce; the exit status: 1 no sensors, or a task failed, 2 wrong arguments, 130 after Ctrl-C."""
    if not readings.isdecimal() or int(readings) < EVERY:
        sys.stderr.write(f"map_reduce: how many readings? {readings!r} is not a number of {EVERY} or more\n")
        return 2
    return run("map_reduce", map_reduce(master, int(readings)))


if __name__ == "__main__":
    raise SystemExit(start(main, __doc__, sys.argv[1:]))
