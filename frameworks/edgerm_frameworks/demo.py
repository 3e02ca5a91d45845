"""`make demo`: a master and two agents on this machine, a framework with real work, a table, and nothing left behind.

The second agent links over CoAP. What does not live here: the frameworks (`sensor_fan_out`, `one_container`), and how
to start a master and agents (`edgerm up`).
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from edgerm_frameworks import one_container, sensor_fan_out

AGENTS = 2
STOP_S = 30.0


@contextmanager
def cluster() -> Iterator[str]:
    """The URL of a master with two agents. They end with the block, and also if this process just vanishes."""
    reading, writing = os.pipe()
    command = [sys.executable, "-m", "edgerm.cli.main", "up", "--agents", str(AGENTS), "--lifeline", str(reading)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, pass_fds=(reading,), start_new_session=True
    ) as up:
        os.close(reading)
        try:
            yield _ready(up)
        finally:
            os.close(writing)
            up.wait(STOP_S)


def _ready(up: subprocess.Popen[str]) -> str:
    """What `edgerm up` says first."""
    assert up.stdout is not None
    words = up.stdout.readline().split()
    if words[:1] != ["ready"]:
        raise SystemExit("demo: `edgerm up` could not start; what it said stands above")
    return words[1].removeprefix("http=")


def main() -> int:
    """The whole demo; the exit status of its framework."""
    print(f"starting a master and {AGENTS} agents on this machine, one linked over HTTP, one over CoAP", flush=True)
    try:
        with cluster() as url:
            print(f"master at {url}; launching WASM tasks, one for each sensor", flush=True)
            status = sensor_fan_out.main(url) or one_container.main(url)
    except KeyboardInterrupt:
        status = 130
    print("everything is stopped", flush=True)
    return status


if __name__ == "__main__":
    raise SystemExit(main())
