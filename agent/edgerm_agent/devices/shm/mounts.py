"""The tmpfs of shared memories: how mountinfo tells of them, and the programs that make and end them.

They are mounts of the box and belong to no process, so they outlive the agent. The source of a mount is its memory's
name, so that a mount is known again even when the agent's notes are lost. What does not live here: which there should
be (`memories`).
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass

from edgerm.plugin.device import HostFiles

MOUNTINFO = "/proc/self/mountinfo"
SOURCE = "edgerm:"
OPTIONS = "mode=1777,nosuid,nodev,noexec"  # as /dev/shm has them
_SIZE = re.compile(r"(?:^|,)size=([0-9]{1,15})k(?:,|$)")
_ESCAPE = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Mounted:
    """What is mounted at a place."""

    kind: str  # of file system
    source: str
    size_bytes: int = 0  # of a tmpfs with a limit

    @property
    def memory(self) -> str:
        """The name of the memory that it is; empty: it is none of ours."""
        ours = self.kind == "tmpfs" and self.source.startswith(SOURCE)
        return self.source.removeprefix(SOURCE) if ours else ""


def parse_mountinfo(text: str, below: str) -> dict[str, Mounted]:
    """What is mounted below a directory, by place; of several at one place the one on top. Source: proc(5)."""
    found: dict[str, Mounted] = {}
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        fields, tail = left.split(" "), right.split(" ")
        if len(fields) < 6 or len(tail) < 3:
            continue
        place = _unescaped(fields[4])
        if place.startswith(f"{below}/"):
            found[place] = Mounted(tail[0], _unescaped(tail[1]), _size_of(tail[2]))
    return found


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(lambda match: chr(int(match[1], 8)), text)


def _size_of(options: str) -> int:
    found = _SIZE.search(options)
    return int(found[1]) * 1024 if found else 0


async def mount(host: HostFiles, name: str, path: str, size_bytes: int) -> None:
    """An empty tmpfs at `path`, which is made if it is missing. Raises `OSError` with the program's words."""
    await host.run("install", "-d", "-m", "755", posixpath.dirname(path), path)  # whatever the agent's own umask
    await host.run("mount", "-t", "tmpfs", "-o", f"size={size_bytes},{OPTIONS}", f"{SOURCE}{name}", path)


async def resize(host: HostFiles, path: str, size_bytes: int) -> None:
    """Another limit; refused (`OSError`) where more than that is in it."""
    await host.run("mount", "-o", f"remount,size={size_bytes},{OPTIONS}", path)


async def unmount(host: HostFiles, path: str) -> None:
    """End it, and remove its place. Raises `OSError` while a process of the box has a file of it open."""
    await host.run("umount", path)
    await host.run("rmdir", path)
