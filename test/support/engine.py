"""A Docker engine of the tests' own: Debian's dockerd in a room of its own (`support.room`), images made by import.

Nothing of the box's own engine is touched, and nothing is left: bridge, rules, mounts, processes and containers live in
the room's namespaces and end with them, even if the tests are killed.
"""

from __future__ import annotations

import ctypes
import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import docker

from support.room import groups

READY_S = 60.0
LOOK_S = 0.02
CLONE_NEWNET = 0x40000000
IMAGE = "busybox:1"
REGISTRY = "127.0.0.1:5000"  # in the room
SOCKET_MARK = "docker.sock"
NEEDED = {
    "dockerd": "docker.io",
    "containerd": "docker.io",
    "busybox": "busybox-static",
    "iptables": "iptables",
    "docker-registry": "docker-registry",
}
SBIN = "/usr/local/sbin:/usr/sbin:/sbin"


def why_not() -> str:
    """Why no engine can run here, with the remedy; empty: it can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "needs root on Linux: it starts a Docker engine"
    missing = sorted({package for program, package in NEEDED.items() if find(program) is None})
    return f"needs a Docker engine: apt install {' '.join(missing)}" if missing else ""


def find(program: str) -> str | None:
    """The program, also where only root looks."""
    return shutil.which(program, path=f"{os.environ.get('PATH', os.defpath)}:{SBIN}")


class Room:
    """Namespaces and a folder that end together; see `support.room`."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="edgerm-engine-"))
        self.cgroup = self.folder.name
        self._entered: list[subprocess.Popen[bytes]] = []
        argv = [sys.executable, "-m", "support.room", str(self.folder), self.cgroup]
        environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
        self._guard = subprocess.Popen(
            argv, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        assert self._guard.stdout is not None
        said = self._guard.stdout.readline()
        if said != b"ready\n":
            self.close()
            raise AssertionError("the engine's room could not be made; see above")
        (unshare,) = _children(self._guard.pid)
        (self.pid,) = _children(unshare)

    def run(self, *argv: str, log: Path) -> int:
        """Start a program in the room; its process id out here."""
        enter = ["nsenter", f"--target={self.pid}", "--net", "--mount", "--ipc", "--pid", "--"]
        path = f"{os.environ.get('PATH', os.defpath)}:{SBIN}"
        with log.open("ab") as out:
            process = subprocess.Popen(
                [*enter, *argv], stdin=subprocess.DEVNULL, stdout=out, stderr=out, env={**os.environ, "PATH": path}
            )
        self._entered.append(process)
        until = time.monotonic() + READY_S
        while not (found := _children(process.pid)) and process.poll() is None and time.monotonic() < until:
            time.sleep(LOOK_S)
        assert found, f"{argv[0]} did not start: {log.read_text()[-2000:]}"
        return found[0]

    def socket(self) -> socket.socket:
        """A TCP socket that lives in the room's network."""
        made: list[socket.socket] = []

        def make() -> None:
            libc = ctypes.CDLL(None, use_errno=True)
            net = os.open(f"/proc/{self.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            try:
                if libc.setns(net, CLONE_NEWNET) == 0:
                    made.append(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            finally:
                os.close(net)

        thread = threading.Thread(target=make)  # only this thread enters
        thread.start()
        thread.join()
        assert made, "the room's network cannot be entered"
        return made[0]

    def resume(self) -> None:
        """nsenter stops with what it waits for, and does not go on by itself."""
        for process in self._entered:
            process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """End everything in the room, and the room."""
        assert self._guard.stdin is not None
        assert self._guard.stdout is not None
        self.resume()
        self._guard.stdin.close()
        self._guard.wait()
        self._guard.stdout.close()
        for process in self._entered:
            process.wait()
        assert not self.folder.exists()
        assert not groups(self.cgroup)


def _children(pid: int) -> list[int]:
    with suppress(OSError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


class TestEngine:
    """One dockerd. `restart` and the like are for tests that have one of their own."""

    __test__ = False

    def __init__(self, *flags: str) -> None:
        self.room = Room()
        self.folder = self.room.folder
        self.url = f"unix://{self.folder}/{SOCKET_MARK}"
        self.pid = 0
        self._flags = flags
        (self.folder / "daemon.json").write_text("{}")

    def start(self) -> None:
        """Start it, and return when it answers."""
        folder = self.folder
        self.pid = self.room.run(
            "dockerd",
            f"--config-file={folder}/daemon.json",
            f"--host={self.url}",
            f"--data-root={folder}/data",
            f"--exec-root={folder}/exec",
            f"--pidfile={folder}/dockerd.pid",
            f"--cgroup-parent=/{self.room.cgroup}",
            "--shutdown-timeout=1",
            "--log-level=warn",
            *self._flags,
            log=folder / "dockerd.log",
        )
        _until(self._answers, self._said)

    def stop(self) -> None:
        """As the box's administrator stops it."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """As a crash ends it."""
        self._end(signal.SIGKILL)
        (self.folder / "dockerd.pid").unlink(missing_ok=True)

    def pause(self) -> None:
        """Let it hang: its socket takes connections and nobody answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        os.kill(self.pid, signal.SIGCONT)
        self.room.resume()

    @contextmanager
    def client(self) -> Iterator[docker.APIClient]:
        """The engine without us."""
        client = docker.APIClient(self.url, version="auto")
        client.trust_env = False
        try:
            yield client
        finally:
            client.close()

    def import_image(self, image: str = IMAGE, ballast: bytes = b"", user: str = "0") -> None:
        """Make an image of busybox alone, whose default command says `the default`."""
        repository, _, tag = image.rpartition(":")
        with self.client() as client:
            client.import_image(
                _root_file_system(self.folder, ballast),
                repository=repository,
                tag=tag,
                changes=['CMD ["echo", "the default"]', "ENV FROM_IMAGE=yes", "ENV PATH=/bin", f"USER {user}"],
            )

    def start_registry(self) -> None:
        """Debian's registry on the room's loopback."""
        config = self.folder / "registry.yml"
        store = self.folder / "registry"
        config.write_text(
            f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {store}}}}}\n"
            f"http: {{addr: '{REGISTRY}'}}\n"
        )
        self.room.run("docker-registry", "serve", str(config), log=self.folder / "registry.log")
        _until(self._registry_answers, (self.folder / "registry.log").read_text)

    def connect(self, port: int) -> socket.socket:
        """A connection to a port of the room's loopback."""
        made = self.room.socket()
        made.settimeout(READY_S)
        try:
            made.connect(("127.0.0.1", port))
        except OSError:
            made.close()
            raise
        return made

    def close(self) -> None:
        """End it with all its containers."""
        self.room.close()

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(self.url.removeprefix("unix://"))
            except OSError:
                return False
        try:
            with self.client() as client:
                return bool(client.ping())
        except docker.errors.DockerException:  # the socket was that of one that was killed
            return False

    def _registry_answers(self) -> bool:
        try:
            self.connect(int(REGISTRY.rpartition(":")[2])).close()
        except OSError:
            return False
        return True

    def _end(self, number: int) -> None:
        pidfd = os.pidfd_open(self.pid)
        try:
            os.kill(self.pid, number)
            _until(lambda: not Path(f"/proc/{self.pid}/exe").exists() or not _lives(self.pid), self._said)
        finally:
            os.close(pidfd)

    def _said(self) -> str:
        return (self.folder / "dockerd.log").read_text()[-3000:]


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def _until(condition: object, said: object) -> None:
    """Wait for what tells nobody that it has come about."""
    assert callable(condition)
    assert callable(said)
    until = time.monotonic() + READY_S
    while not condition():
        assert time.monotonic() < until, said()
        time.sleep(LOOK_S)


def _root_file_system(folder: Path, ballast: bytes) -> str:
    """A tar archive with busybox and its names, and a file of `ballast`."""
    busybox = find("busybox")
    assert busybox is not None
    names = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
    path = folder / f"image-{time.monotonic_ns()}.tar"
    with tarfile.open(path, "w") as tar:
        for name in ("bin", "tmp", "mnt"):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            tar.addfile(entry)
        tar.add(Path(busybox).resolve(), "bin/busybox")
        for name in set(names) - {"busybox"}:
            entry = tarfile.TarInfo(f"bin/{name}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(entry)
        entry = tarfile.TarInfo("ballast")
        entry.size = len(ballast)
        tar.addfile(entry, io.BytesIO(ballast))
    return str(path)


@contextmanager
def running_engine(*flags: str) -> Iterator[TestEngine]:
    """An engine that has the image `busybox:1`, and ends with the block."""
    engine = TestEngine(*flags)
    try:
        engine.start()
        engine.import_image()
        yield engine
    finally:
        engine.close()
