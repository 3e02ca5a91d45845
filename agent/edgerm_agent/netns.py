"""Network namespaces of this box: made under a name, found, entered by a thread of their own, removed.

A namespace is named by a path that leads to it: a mount of ours, or `/proc/PID/ns/net` of a process in it. All calls
block; those that change something need root. Errors are `OSError`. Sources: network_namespaces(7), setns(2).
What does not live here: interfaces (`devices.nic`), and whose namespace it is.
"""

from __future__ import annotations

import fcntl
import os
import re
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

FOLDER = Path("/run/edgerm/netns")
PROC = Path("/proc")
OWN_PATH = "/proc/thread-self/ns/net"
CLONE_NEWNET = 0x4000_0000
MS_BIND = 0x1000
MNT_DETACH = 2
SIOCSIFFLAGS = 0x8914
IFF_UP, IFF_RUNNING = 0x1, 0x40
ENTERED_S = 60.0  # how long a job in a namespace may take

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,100}")
_MOUNTED = re.compile(r"^\S+ \S+ \S+ net:\[([0-9]+)\] (\S+) ", re.MULTILINE)
_ESCAPE = re.compile(r"\\([0-7]{3})")

T = TypeVar("T")


def path_of(name: str) -> str:
    """Where the namespace of this name is, if it is there."""
    if not _NAME.fullmatch(name) or name in (".", ".."):
        raise ValueError(f"{name[:40]!r} is no name of a network namespace")
    return str(FOLDER / name)


def names() -> tuple[str, ...]:
    """Of all that `make` has made, by whichever agent."""
    try:
        return tuple(sorted(entry.name for entry in FOLDER.iterdir()))
    except FileNotFoundError:
        return ()


def make(name: str) -> str:
    """The path of the namespace of this name; a new one has nothing but a loopback that is up. Idempotent."""
    path = path_of(name)
    if is_namespace(path):
        return path
    FOLDER.mkdir(mode=0o755, parents=True, exist_ok=True)
    Path(path).touch(mode=0o444)

    def work() -> None:
        _call("unshare", CLONE_NEWNET)
        _start_loopback()
        _call("mount", OWN_PATH.encode(), path.encode(), b"none", MS_BIND, None)

    _in_thread(work)
    return path


def _start_loopback() -> None:
    """netdevice(7), SIOCSIFFLAGS."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as door:
        fcntl.ioctl(door, SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", IFF_UP | IFF_RUNNING))


def remove(name: str) -> None:
    """Nothing is left of the name; the namespace goes when the last process in it does. Idempotent."""
    path = path_of(name)
    while is_namespace(path):
        _call("umount2", path.encode(), MNT_DETACH)
    with suppress(FileNotFoundError):
        Path(path).unlink()


def is_namespace(path: str) -> bool:
    """Whether `path` leads to a network namespace, and not to the file that one is mounted on."""
    try:
        return os.stat(path).st_dev == os.stat(OWN_PATH).st_dev  # noqa: PTH116 - pathlib follows the link less well
    except OSError:
        return False


def number_of(path: str = OWN_PATH) -> int:
    """The kernel's number of a namespace, which another one may have once it is gone. Raises `OSError`."""
    return os.stat(path).st_ino  # noqa: PTH116 - as above


def find(number: int) -> str:
    """A path to the namespace with this number, as long as something holds it; empty: it seems to be gone."""
    with suppress(OSError):
        for path in mounted((PROC / "self/mountinfo").read_text(errors="surrogateescape"), number):
            if is_namespace(path) and number_of(path) == number:
                return path
    for process in PROC.iterdir():
        if process.name.isdigit():
            path = f"{process}/ns/net"
            with suppress(OSError):  # it ended meanwhile
                if number_of(path) == number:
                    return path
    return ""


def mounted(mountinfo: str, number: int) -> tuple[str, ...]:
    """Where a namespace is mounted, by /proc/PID/mountinfo (proc(5))."""
    return tuple(
        _ESCAPE.sub(lambda match: chr(int(match[1], 8)), point)
        for found, point in _MOUNTED.findall(mountinfo)
        if int(found) == number
    )


def path_of_process(pid: int) -> str:
    """Where the namespace of a process is, as long as it lives."""
    return f"{PROC}/{pid}/ns/net"


def name_of_process(pid: int) -> str:
    """What a process is called, as the kernel cuts it; empty: there is none."""
    try:
        return (PROC / str(pid) / "comm").read_text().strip()
    except OSError:
        return ""


def run(path: str, work: Callable[[], T]) -> T:
    """The result of `work`, done by a thread of its own in the namespace at `path`; empty: in ours.

    Raises `TimeoutError` when it takes longer than `ENTERED_S`, and whatever `work` raises.
    """
    if not path:
        return _in_thread(work)
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:

        def job() -> T:
            _call("setns", descriptor, CLONE_NEWNET)
            return work()

        return _in_thread(job)
    finally:
        os.close(descriptor)


def _in_thread(work: Callable[[], T]) -> T:
    """A thread of its own: it stays in whatever namespace it has entered, and goes with it."""
    results: list[T] = []
    failures: list[BaseException] = []

    def job() -> None:
        try:
            results.append(work())
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=job, name="netns", daemon=True)
    thread.start()
    thread.join(ENTERED_S)
    if failures:
        raise failures[0]
    if not results:
        raise TimeoutError(f"work in a network namespace took longer than {ENTERED_S:g} s")
    return results[0]


def _call(name: str, *arguments: object) -> None:
    """A function of the C library that sets errno; Python has setns and unshare from 3.12 on, mount never."""
    import ctypes  # noqa: PLC0415 - most agents make no namespace

    library = ctypes.CDLL(None, use_errno=True)
    if getattr(library, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
