"""Watch one sensor: a WASM task reads it where it is, and its readings are seen here as they come. On an agent with a
sensor, as `edgerm agent --attributes sensor:boiler`:

    python -m edgerm_frameworks.sensor_watch [URL of a master] [SENSOR] [LIMIT] [READINGS] [PERIOD in ms]

Readings above the limit are printed, and at the end what the latest thirty were like. READINGS 0: until Ctrl-C.
"""

from __future__ import annotations

import sys
from collections import deque
from zlib import crc32

from edgerm.sdk import EdgermError, TaskState, connect
from edgerm_frameworks.modules import SENSOR
from edgerm_frameworks.program import run, start

MASTER = "http://127.0.0.1:5050"
KEPT = 30


async def watch(master: str, sensor: str, limit: float, readings: int, period_ms: int) -> int:
    """One task, and its output while it runs."""
    latest: deque[float] = deque(maxlen=KEPT)
    # 1. On leaving the block, by the end or by Ctrl-C, the task is ended.
    async with connect(master) as cluster:
        # 2. The task waits for an agent that has this sensor. (The module makes the readings itself, from a seed.)
        arguments = [str(crc32(sensor.encode())), str(readings), "1", str(period_ms)]
        handle = await cluster.launch(
            wasm=SENSOR, args=arguments, constraints=[f"sensor={sensor}"], name=f"watch-{sensor}", cpus=0.1, mem=32
        )
        try:
            # 3. `logs` yields output as it is printed. A piece may end amid a line, or hold many.
            rest = b""
            async for piece in handle.logs():
                *lines, rest = (rest + piece).split(b"\n")
                for value in map(float, lines):
                    latest.append(value)
                    if value > limit:
                        print(f"{sensor}: {value:.3f} is above {limit:g}", flush=True)
        finally:
            if latest:
                mean = sum(latest) / len(latest)
                print(
                    f"{sensor}: latest {len(latest)} from {min(latest)} to {max(latest)}, mean {mean:.3f}", flush=True
                )
        # 4. The output has ended, so has the task; how?
        status = await handle.ended()
    if status.state is not TaskState.FINISHED:
        raise EdgermError(f"the task ended {status.state.name}: {status.message}")
    return 0


def main(
    master: str = MASTER, sensor: str = "boiler", limit: str = "24", readings: str = "100", period_ms: str = "100"
) -> int:
    """Watch it; the exit status: 1 the task did not end well, 2 wrong arguments, 130 after Ctrl-C."""
    try:
        numbers = float(limit), int(readings), int(period_ms)
    except ValueError as error:
        sys.stderr.write(f"sensor_watch: {error}\n")
        return 2
    return run("sensor_watch", watch(master, sensor, *numbers))


if __name__ == "__main__":
    raise SystemExit(start(main, __doc__, sys.argv[1:]))
