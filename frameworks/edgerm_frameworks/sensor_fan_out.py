"""A sample framework: statistics of many sensors, computed window by window where there is room for it.

Every sensor's series goes to a WASM task of its own; what it prints is checked against Python. Run it with

    python -m edgerm_frameworks.sensor_fan_out [URL of a master]
"""

from __future__ import annotations

import asyncio
import math
import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from edgerm.sdk import Cluster, Result, connect
from edgerm_frameworks.modules import WINDOWED_STATS, windowed_stats_lines
from edgerm_frameworks.program import run, start

MASTER = "http://127.0.0.1:5050"


@dataclass(frozen=True)
class Row:
    """What became of one sensor."""

    sensor: str
    samples: int
    windows: int
    low: str
    high: str
    right: bool  # digit for digit what Python gets
    took_s: float  # from the launch to the result
    agent_id: str
    message: str = ""


def series(sensor: int, samples: int) -> list[int]:
    """A day of a temperature in thousandths of a degree: a wave, some noise, now and then a spike. Always the same."""
    chance = random.Random(sensor)
    wave = (20_000 + 5_000 * math.sin(2 * math.pi * (n / samples + sensor / 10)) for n in range(samples))
    return [round(value + chance.gauss(0, 300) + (chance.random() < 0.001) * 15_000) for value in wave]


async def one_sensor(cluster: Cluster, sensor: int, samples: int, window: int) -> Row:
    """Launch the module on one series, wait for its end, and check what it printed."""
    values = series(sensor, samples)
    text = "".join(f"{value // 1000}.{value % 1000:03d}\n" for value in values)
    begin_s = time.monotonic()
    result: Result = await cluster.run(
        wasm=WINDOWED_STATS, args=[str(window)], input=text.encode(), name=f"sensor{sensor:02d}", cpus=0.1, mem=32
    )
    took_s = time.monotonic() - begin_s
    lines = result.output.decode().splitlines()
    right = result.ok and lines == windowed_stats_lines(values, window)
    lows, highs = [line.split()[2] for line in lines], [line.split()[3] for line in lines]
    return Row(
        f"sensor{sensor:02d}",
        samples,
        len(lines),
        min(lows, key=float, default="-"),
        max(highs, key=float, default="-"),
        right,
        took_s,
        result.status.agent_id or "-",
        result.message,
    )


async def fan_out(
    master: str, sensors: int, samples: int, window: int, progress: Callable[[int, int], None]
) -> list[Row]:
    """All sensors at once; `progress` is told how many of how many are done."""
    rows: list[Row] = []

    async def one(sensor: int) -> None:
        rows.append(await one_sensor(cluster, sensor, samples, window))
        progress(len(rows), sensors)

    async with connect(master) as cluster, asyncio.TaskGroup() as group:
        for sensor in range(sensors):
            group.create_task(one(sensor))
    return sorted(rows, key=lambda row: row.sensor)


def show_progress(done: int, total: int) -> None:
    """A bar that moves in a terminal, a line now and then elsewhere."""
    if sys.stdout.isatty():
        bar = ("#" * (30 * done // total)).ljust(30, ".")
        print(f"\r  [{bar}] {done}/{total} sensors", end="\n" if done == total else "", flush=True)
    elif done == total or done % max(1, total // 4) == 0:
        print(f"  {done}/{total} sensors", flush=True)


def show_table(rows: list[Row]) -> None:
    """What was computed, and where."""
    print(f"{'SENSOR':10}{'SAMPLES':>9}{'WINDOWS':>9}{'LOW':>9}{'HIGH':>9}{'RESULT':>9}{'TOOK':>9}  AGENT")
    for row in rows:
        verdict = "right" if row.right else "WRONG"
        print(
            f"{row.sensor:10}{row.samples:>9}{row.windows:>9}{row.low:>9}{row.high:>9}"
            f"{verdict:>9}{row.took_s:>8.2f}s  {row.agent_id[:8]}" + (f"  {row.message}" if not row.right else "")
        )


async def compute(master: str, sensors: int, samples: int, window: int) -> int:
    """Everything, and show what came out."""
    begin_s = time.monotonic()
    rows = await fan_out(master, sensors, samples, window, show_progress)
    show_table(rows)
    wrong = sum(not row.right for row in rows)
    agents = len({row.agent_id for row in rows})
    verdict = f"{wrong} results are WRONG" if wrong else "all results are right"
    print(f"{len(rows)} tasks on {agents} agents in {time.monotonic() - begin_s:.1f} s, {verdict}")
    return 1 if wrong else 0


def main(master: str = MASTER, *, sensors: int = 24, samples: int = 20_000, window: int = 500) -> int:
    """Run it; the exit status: 0 all results are right, 1 not so or the master is away, 130 after Ctrl-C."""
    return run("sensor_fan_out", compute(master, sensors, samples, window))


if __name__ == "__main__":
    raise SystemExit(start(main, __doc__, sys.argv[1:]))
