"""Sandboxes: a folder for each task, its output beside it after the end, and how long both are kept.

    DATA_DIR/sandboxes/KEY/work     the task's working directory; it may belong to another user
    DATA_DIR/sandboxes/KEY/stdout   what the task wrote, as far as it was still kept at the task's end; `stderr` too

Output lies beside the working directory, not in it: there a task could put a link in its place, and an agent that is
root would write through it. KEY is the task's key as one path component.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from edgerm import logs
from edgerm.core.errors import NotFound
from edgerm.core.ids import TaskKey, path_name
from edgerm.plugin.executor import Chunk, Stream
from edgerm.store.datadir import explained

WORK = "work"
FROM = ".from"  # after a stream's name: the file that tells the offset of the first byte kept, if it is not 0
SWEEP_S_MIN = 1.0  # of many that are discarded within it, one sweep takes all

log = logs.get("agent.sandboxes")


@dataclass(frozen=True, slots=True)
class Left:
    """A sandbox that no task needs."""

    path: Path
    since_s: float  # UNIX time
    size_bytes: int


class Sandboxes:
    """All sandboxes below `path`. `needed` tells the keys of tasks that are not forgotten; theirs stay."""

    def __init__(
        self, path: Path, retention_s: float, total_bytes: int, needed: Callable[[], Collection[TaskKey]]
    ) -> None:
        self._path = path
        self._retention_s = retention_s
        self._total_bytes = total_bytes
        self._needed = needed
        self._timer: asyncio.TimerHandle | None = None
        self._sweeping: asyncio.Task[None] | None = None
        self._discarded: list[Path] = []  # since the last sweep
        self._left: dict[Path, Left] | None = None  # None: not looked yet
        with explained(path, "choose another directory with --data-dir"):
            path.mkdir(mode=0o711, exist_ok=True)
            path.chmod(0o711)  # a task's user may pass through, whatever our umask is

    def make(self, key: TaskKey, *, shared: bool = False) -> Path:
        """The working directory for a task, made if it is missing. Raises `Unavailable`.

        `shared`: whatever user an image has may use it, once it is mounted; from outside nobody but us gets there.
        """
        folder = self._folder(key)
        work = folder / WORK
        with explained(folder, "free some space or check the disk"):
            if not folder.is_dir():
                folder.mkdir(exist_ok=True)
                folder.chmod(0o700 if shared else 0o711)
            work.mkdir(mode=0o700, exist_ok=True)
            if shared:
                work.chmod(0o777)
        return work

    def place(self, key: TaskKey) -> Path:
        """The working directory of a task, whether it is there or not."""
        return self._folder(key) / WORK

    def save(self, key: TaskKey, stream: Stream, chunk: Chunk) -> None:
        """Keep the last of what an ended task wrote; blocks. Nothing is kept of a task that has no sandbox."""
        file = self._folder(key) / stream
        if file.parent.is_dir():
            with explained(file, "free some space or check the disk"):
                if chunk.offset:
                    file.with_name(stream + FROM).write_text(f"{chunk.offset}\n")
                file.write_bytes(chunk.data)

    def output(self, key: TaskKey, stream: Stream, offset: int, max_bytes: int) -> Chunk:
        """What was kept, as `Executor.output` answers; blocks. Raises `NotFound`."""
        file = self._folder(key) / stream
        try:
            begin = _begin(file.with_name(stream + FROM))
            data = file.read_bytes()
        except (OSError, ValueError):
            raise NotFound(f"nothing is kept of the {stream} of task {key.task_id}") from None
        end = begin + len(data)
        at = min(max(end + offset if offset < 0 else offset, begin), end)
        part = data[at - begin : at - begin + max_bytes]
        return Chunk(at, part, at + len(part) == end)

    def discard(self, key: TaskKey) -> None:
        """The task is forgotten: its sandbox is kept for the retention time from now on."""
        folder = self._folder(key)
        with suppress(OSError):
            os.utime(folder)
        self._discarded.append(folder)
        self._sweep_in(SWEEP_S_MIN)

    def sweep(self) -> None:
        """Remove what is kept for long enough, or is too much, in the background; then set the timer for the next."""
        if self._sweeping is None or self._sweeping.done():
            self._sweeping = asyncio.create_task(self._sweep(), name="sandbox retention")

    async def close(self) -> None:
        """No more sweeping."""
        if self._timer is not None:
            self._timer.cancel()
        if self._sweeping is not None:
            self._sweeping.cancel()
            with suppress(asyncio.CancelledError):
                await self._sweeping

    def _sweep_in(self, wait_s: float) -> None:
        loop = asyncio.get_running_loop()
        when_s = loop.time() + wait_s
        if self._timer is not None:
            if self._timer.when() <= when_s:
                return
            self._timer.cancel()
        self._timer = loop.call_at(when_s, self._on_time)

    def _on_time(self) -> None:
        self._timer = None
        self.sweep()

    async def _sweep(self) -> None:
        discarded, self._discarded = self._discarded, []
        needed = {path_name(str(key)) for key in self._needed()}
        next_s = await asyncio.to_thread(self._remove_old, discarded, needed, time.time())
        if self._discarded:  # meanwhile
            next_s = SWEEP_S_MIN
        if next_s is not None:
            self._sweep_in(max(next_s, SWEEP_S_MIN))

    def _remove_old(self, discarded: Collection[Path], needed: Collection[str], now_s: float) -> float | None:
        """Blocks; answers in how many seconds the next one will be old, None if there is none.

        The first one looks at everything, later ones only at what was discarded since: an agent may keep thousands.
        """
        if self._left is None:
            self._left = {}
            discarded = [path for path in self._path.iterdir() if path.name not in needed]
        for path in discarded:
            with suppress(FileNotFoundError):  # a task that was never started has none
                self._left[path] = _look(path, now_s)
        for sandbox in choose(self._left.values(), self._retention_s, self._total_bytes, now_s):
            del self._left[sandbox.path]
            if sandbox.path.name not in needed:  # the first look may meet one that is just being made
                _remove(sandbox.path)
        return min((sandbox.since_s + self._retention_s - now_s for sandbox in self._left.values()), default=None)

    def _folder(self, key: TaskKey) -> Path:
        return self._path / path_name(str(key))


def _begin(file: Path) -> int:
    try:
        return int(file.read_text())
    except FileNotFoundError:
        return 0


def choose(left: Collection[Left], retention_s: float, total_bytes: int, now_s: float) -> list[Left]:
    """The sandboxes to remove: all that are old, then the oldest until the rest fits. Pure."""
    chosen = []
    rest_bytes = sum(sandbox.size_bytes for sandbox in left)
    for sandbox in sorted(left, key=lambda sandbox: (sandbox.since_s, sandbox.path)):
        if now_s - sandbox.since_s >= retention_s or rest_bytes > total_bytes:
            chosen.append(sandbox)
            rest_bytes -= sandbox.size_bytes
    return chosen


def _look(path: Path, now_s: float) -> Left:
    since_s = path.stat().st_mtime
    if since_s > now_s:  # the clock went back: its time begins anew
        os.utime(path, (now_s, now_s))
        since_s = now_s
    return Left(path, since_s, _size(path))


def _size(path: Path) -> int:
    total = 0
    for folder, folders, files, fd in os.fwalk(path, onerror=None, follow_symlinks=False):
        del folder
        for name in (*folders, *files):
            with suppress(OSError):
                total += os.stat(name, dir_fd=fd, follow_symlinks=False).st_blocks * 512
    return total


def _remove(path: Path) -> None:
    """All of it, also folders that a task closed to its own user."""

    def opened(function: Callable[..., object], name: str, _: object) -> None:
        with suppress(OSError):
            Path(name).parent.chmod(stat.S_IRWXU)
            if not Path(name).is_symlink() and Path(name).is_dir():
                Path(name).chmod(stat.S_IRWXU)
                shutil.rmtree(name, ignore_errors=True)
            else:
                function(name)

    shutil.rmtree(path, onerror=opened)
    if path.exists():
        log.warning("a sandbox could not be removed whole", path=str(path))
