"""What tests in the guest share: a Docker engine on the guest itself, whose containers see its real hardware."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from support import engine as engines

CGROUPS = Path("/sys/fs/cgroup")
# Without rules and bridges of its own: what stands in the guest's network is what the test put there.
FLAGS = ("--bridge=none", "--iptables=false", "--storage-driver=overlay2")


class OpenRoom(engines.Room):
    """The guest itself instead of namespaces: an engine in it has the guest's devices, network and process ids."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="engine-", dir="/run"))  # in memory: overlay2 takes no overlay
        self.cgroup = self.folder.name
        self._programs: list[subprocess.Popen[bytes]] = []

    def run(self, *argv: str, log: Path) -> int:
        """Start a program; its process id."""
        with log.open("ab") as out:
            self._programs.append(subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out))
        return self._programs[-1].pid

    def resume(self) -> None:
        """Nothing stands between us and the programs."""

    def close(self) -> None:
        """End the programs and remove what they made."""
        for program in self._programs:
            program.terminate()
            program.wait()
        for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
            if (point := line.split()[4]).startswith(f"{self.folder}/"):  # of an engine that a test has killed
                subprocess.run(("umount", "--lazy", point), check=False)
        shutil.rmtree(self.folder)
        for folder, _, _ in os.walk(CGROUPS / self.cgroup, topdown=False):
            Path(folder).rmdir()


class GuestEngine(engines.TestEngine):
    """dockerd on the guest itself. It ends with all its containers."""

    def __init__(self) -> None:
        self.room = OpenRoom()
        self.folder = self.room.folder
        self.url = f"unix://{self.folder}/{engines.SOCKET_MARK}"
        self.pid = 0
        self._flags = FLAGS
        (self.folder / "daemon.json").write_text("{}")

    def close(self) -> None:
        """Remove its containers, then end it."""
        with suppress(OSError), self.client() as client:
            for container in client.containers(all=True):
                client.remove_container(container["Id"], force=True)
        self.room.close()


@pytest.fixture(scope="session")
def engine() -> Iterator[GuestEngine]:
    """A Docker engine with the image `support.engine.IMAGE` (busybox); containers are made with network "none"."""
    if os.environ.get("EDGEBOX") != "1":
        pytest.skip("runs in the edgebox only: make test-edgebox")
    made = GuestEngine()
    try:
        made.start()
        made.import_image()
        yield made
    finally:
        made.close()
