"""A program for the tests' Docker engine, `python -m support.room FOLDER CGROUP`: a room that goes with who made it.

The room is a set of namespaces (network, mounts, processes), in which dockerd, containerd, bridges, rules, mounts and
containers all live. The first process in it ends when our standard input does, however the test died; then the kernel
ends and removes everything else, and we remove the cgroups and the folder. Run as root.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
REMOVE_S = 20.0

# The first process: reaps everything, ends with its standard input.
INIT = (
    "import os, signal, subprocess; signal.signal(signal.SIGCHLD, signal.SIG_DFL);"
    "subprocess.run(['ip', 'link', 'set', 'lo', 'up'], check=True);"
    "signal.signal(signal.SIGCHLD, signal.SIG_IGN); os.write(1, b'ready\\n'); os.read(0, 1)"
)
UNSHARE = ("unshare", "--net", "--mount", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc")


def main(folder: Path, cgroup: str) -> int:
    """Until our standard input ends."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the end of the input is the one order
    room = subprocess.Popen([*UNSHARE, sys.executable, "-I", "-S", "-c", INIT], stdin=subprocess.PIPE)
    with suppress(OSError):
        os.read(0, 1)
    assert room.stdin is not None
    room.stdin.close()
    status = room.wait()
    shutil.rmtree(folder, ignore_errors=True)
    for path in groups(cgroup):
        _remove_group(path)
    return status


def groups(cgroup: str) -> list[Path]:
    """The cgroups of the room, in whatever hierarchies this box has."""
    places = [CGROUPS, *(path for path in CGROUPS.iterdir() if path.is_dir())]
    return [place / cgroup for place in places if (place / cgroup).is_dir()]


def _remove_group(path: Path) -> None:
    """Remove a cgroup and those below it; the kernel may take a moment to see its last process gone."""
    until = time.monotonic() + REMOVE_S
    for folder in sorted((path, *(p for p in path.rglob("*") if p.is_dir())), reverse=True):
        while folder.exists() and time.monotonic() < until:
            with suppress(OSError):
                folder.rmdir()
                break
            time.sleep(0.02)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2]))
