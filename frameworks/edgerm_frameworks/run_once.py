"""The smallest framework: run one task, print what it printed. Start `edgerm up` first, then

python -m edgerm_frameworks.run_once [URL of a master]
"""

from __future__ import annotations

import sys

from edgerm.sdk import connect
from edgerm_frameworks.modules import WINDOWED_STATS
from edgerm_frameworks.program import run, start

MASTER = "http://127.0.0.1:5050"


async def run_once(master: str) -> int:
    """A task's life, step by step."""
    # 1. Subscribe as a framework. On leaving the block the framework, and whatever it still runs, is ended.
    async with connect(master) as cluster:
        # 2. Launch a WASM module. It goes to the first agent that offers 0.1 CPUs and 32 MiB; the module itself and
        #    its input travel once, and only if they are not there yet. This waits until the task has ended.
        result = await cluster.run(
            wasm=WINDOWED_STATS, args=["3"], input=b"1.5\n2.5\n3.5\n10\n20\n30\n", cpus=0.1, mem=32
        )
        # 3. How it ended, and what it printed: one line for each window of three samples.
        print(result.state.name, "exit code", result.exit_code)
        print(result.output.decode(), end="")

        # 4. A task that lasts is launched, watched, and awaited.
        handle = await cluster.launch(wasm=WINDOWED_STATS, args=["1"], input=b"7\n")
        async for piece in handle.logs():
            print("live:", piece.decode(), end="")
        print((await handle.ended()).state.name)
    return 0 if result.ok else 1


def main(master: str = MASTER) -> int:
    """Run it; the exit status: 1 the task failed or the master is away, 130 after Ctrl-C."""
    return run("run_once", run_once(master))


if __name__ == "__main__":
    raise SystemExit(start(main, __doc__, sys.argv[1:]))
