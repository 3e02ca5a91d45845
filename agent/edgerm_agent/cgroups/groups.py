"""What v1 and v2 have in common: a task's group, a thread's group, and the one door to their files.

How each version lays out its folders and what it reads stands in `v1.py` and `v2.py`.
"""

from __future__ import annotations

import errno
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from edgerm.core import cpulists
from edgerm.core.errors import Conflict, Unavailable
from edgerm.core.ids import TaskKey, path_name
from edgerm.plugin.executor import Limits, Usage
from edgerm_agent.cgroups.formats import Setting, parse_pids
from edgerm_agent.cgroups.kill import kill_all

Version = Literal["v1", "v2", "none"]
KILL_TIMEOUT_S = 5.0
FREEZE_S = 0.2  # a process in an uninterruptible call does not freeze, and is killed all the same
TASKS, THREADS = "processes", "threads"  # folders below edgerm/SCOPE; v1 has a file "tasks" there


class Files:
    """The only door to cgroup files; knows what the kernel answers for a group that has just gone."""

    def read(self, path: Path) -> str | None:
        """The text, or None if there is no such file (any more)."""
        try:
            return path.read_text(errors="surrogateescape")
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP):
                return None
            raise

    def write(self, path: Path, text: str) -> None:
        """One write(2): the kernel takes each as one command. An error names the file."""
        fd = os.open(path, os.O_WRONLY)
        try:
            os.write(fd, text.encode())
        except OSError as error:
            error.filename = str(path)
            raise
        finally:
            os.close(fd)

    def make(self, folder: Path) -> None:
        """A group and those above it; an existing one is left as it is."""
        for _ in range(3):  # another agent that ends may remove `edgerm` just before it is needed
            with suppress(FileNotFoundError):
                return folder.mkdir(parents=True, exist_ok=True)
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(folder))

    def remove(self, folder: Path) -> None:
        """An empty group; a missing one is already removed."""
        try:
            folder.rmdir()
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENODEV):
                raise

    def below(self, folder: Path) -> list[Path]:
        """The groups right below this one."""
        try:
            return sorted(entry for entry in folder.iterdir() if entry.is_dir())
        except FileNotFoundError:
            return []

    def tree(self, folder: Path) -> list[Path]:
        """This group and all below it, the deepest first: a task that runs as root may have made groups of its own."""
        return [*(path for child in self.below(folder) for path in self.tree(child)), folder]

    def writable(self, path: Path) -> bool:
        """Whether this user may write there, and the mount is not read-only."""
        return os.access(path, os.W_OK)


class _Group:
    """Folders that stand for one task: one per v1 hierarchy, or the single one of v2."""

    def __init__(self, files: Files, name: str, folders: Mapping[str, Path]) -> None:
        self.name = name
        self._files = files
        self._folders = dict(folders)  # by controller
        self._distinct = tuple(dict.fromkeys(folders.values()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name})"

    def exists(self) -> bool:
        """Whether any of the folders is there."""
        return any(folder.is_dir() for folder in self._distinct)

    def create(self, settings: Sequence[Setting]) -> None:
        """Make the folders and write the settings; may be repeated. Raises `Unavailable`; then nothing new is left."""
        fresh = not self.exists()
        try:
            for folder in self._distinct:
                self._files.make(folder)
            for setting in settings:
                self._apply(setting)
        except OSError as error:
            if fresh:
                with suppress(OSError):
                    self._remove_folders()
            raise Unavailable(f"cgroup {error.filename or self.name}: {error.strerror}") from error

    def _apply(self, setting: Setting) -> None:
        folder = self._folders.get(setting.controller)
        if folder is None or (setting.optional and not (folder / setting.file).exists()):
            return
        self._files.write(folder / setting.file, setting.value)

    def _remove_folders(self) -> None:
        for folder in self._distinct:
            for path in self._files.tree(folder):
                self._files.remove(path)

    def _read(self, controller: str, file: str) -> str | None:
        folder = self._folders.get(controller)
        return None if folder is None else self._files.read(folder / file)


class TaskGroup(_Group, ABC):
    """The group of one process task. Every call blocks on the kernel only, `kill` for at most its time-out."""

    holds_cpus = False  # whether it holds the task to the CPUs that `Cgroups.task_group` was asked for

    @property
    def paths(self) -> tuple[str, ...]:
        """The files that a child writes "0" into, before it drops its rights and execs, to be in the group."""
        return tuple(str(folder / "cgroup.procs") for folder in self._distinct)

    def pids(self) -> set[int]:
        """Processes in the group or below it. A child that has so far joined one v1 hierarchy of several counts."""
        found: set[int] = set()
        for folder in self._distinct:
            for path in self._files.tree(folder):
                found |= parse_pids(self._files.read(path / "cgroup.procs") or "")
        return found

    def remove(self) -> None:
        """Remove the empty group; may be repeated. Raises `Conflict` while it holds a process."""
        try:
            self._remove_folders()
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise Unavailable(f"cgroup {error.filename}: {error.strerror}") from error
            held = " ".join(map(str, sorted(self.pids())[:10])) or "of another PID namespace"
            raise Conflict(f"cgroup {error.filename} still holds processes ({held}): kill it first") from error

    def kill(self, timeout_s: float = KILL_TIMEOUT_S) -> bool:
        """SIGKILL all that is in the group, also what forks meanwhile; True: verified empty.

        No code of the task runs once a part of it is dead. After a crash in between: kill again.
        False: something is still there after `timeout_s`, as a process in an uninterruptible read may be.
        """
        return kill_all(self.pids, self._frozen, time.monotonic() + timeout_s)

    @contextmanager
    def _frozen(self) -> Iterator[None]:
        self._freeze()
        try:
            yield
        finally:
            self._thaw()

    @abstractmethod
    def _freeze(self) -> None:
        """Let none of its processes run, as far as that is done within `FREEZE_S`."""

    @abstractmethod
    def _thaw(self) -> None:
        """Let them run again, also those that the task froze itself."""

    @abstractmethod
    def usage(self) -> Usage | None:
        """CPU time since the group was made, and memory without the page cache that is free to go. None: not known."""

    @abstractmethod
    def oom_kills(self) -> int:
        """Above 0: the kernel killed processes of the group at its memory limit. (v2 counts some of them twice.)"""


class ThreadGroup(_Group, ABC):
    """The CPU group of one thread of a WASM host; the WASM engine limits its memory and ends it."""

    _file: str  # the file that takes thread ids

    @property
    def paths(self) -> tuple[str, ...]:
        """The files that the thread itself writes "0" into to be in the group."""
        return tuple(str(folder / self._file) for folder in self._distinct)

    def join_thread(self, tid: int) -> None:
        """Move a thread, by its kernel id (`threading.get_native_id()`). Raises `Unavailable` if the kernel refuses."""
        for path in self.paths:
            try:
                self._files.write(Path(path), str(tid))
            except OSError as error:
                raise Unavailable(f"thread {tid} cannot join cgroup {path}: {error.strerror}") from error

    def remove(self) -> None:
        """Remove the group; may be repeated. A thread that still runs goes back to its host's group, unlimited."""
        for folder in self._distinct:
            self._evict(folder)
        try:
            self._remove_folders()
        except OSError as error:
            raise Conflict(f"cgroup {error.filename}: {error.strerror}: a thread of it does not end") from error

    def _evict(self, folder: Path) -> None:
        for tid in parse_pids(self._files.read(folder / self._file) or ""):
            try:
                self._files.write(folder.parent / self._file, str(tid))
            except ProcessLookupError:
                continue  # it ended meanwhile

    @abstractmethod
    def cpu_s(self) -> float | None:
        """CPU time of its threads since the group was made; None: not known."""


class Cgroups:
    """The groups of one agent, all below `edgerm/SCOPE`, so that two agents on a box do not meet.

    Itself it is a box where this user can make no group; `v1.py` and `v2.py` have the others.
    """

    version: Version = "none"

    def __init__(self, files: Files, tops: Mapping[str, Path]) -> None:
        self._files = files
        self._tops = dict(tops)  # by controller: the folder edgerm/SCOPE

    @property
    def host_paths(self) -> tuple[str, ...]:
        """The files that a WASM host writes "0" into before it execs, so that its threads may have groups."""
        return ()

    def enforced(self) -> dict[str, str]:
        """By Mesos resource name what holds a task to its limit: "cgroup-v1", "cgroup-v2", "rlimit" or "none"."""
        ours = f"cgroup-{self.version}"
        return {"cpus": ours if "cpu" in self._tops else "none", "mem": ours if "memory" in self._tops else "rlimit"}

    @property
    def cpuset(self) -> str:
        """What holds a process to its CPUs: "cgroup-v1", "cgroup-v2", or its "affinity", which it may change itself."""
        return "affinity"

    def enable_cpusets(self) -> None:
        """Do at once what making the first group with CPUs of its own would do; without effect where that is none."""

    def task_group(self, key: TaskKey, limits: Limits, cpus: Sequence[int] = ()) -> TaskGroup | None:
        """The task's group with these limits and CPUs, made if need be; None where this user can make none.

        `cpus`: none: any. Whether it holds the task to them is said by `TaskGroup.holds_cpus`.
        Raises `Unavailable` if the kernel refuses, `Invalid` for a limit below its unit.
        """
        if not self._tops:
            return None
        settings = self._settings(limits)
        name = group_name(key)
        self._task(name).create(settings)
        holds_cpus = bool(cpus) and self._bind(name, cpulists.to_text(cpus))
        group = self._task(name)
        group.holds_cpus = holds_cpus
        return group

    def _bind(self, name: str, cpus: str) -> bool:
        """Hold the task's group, which is there, to these CPUs; False: that cannot be done here."""
        return False

    def thread_group(self, key: TaskKey, limits: Limits) -> ThreadGroup | None:
        """A CPU group for a thread of a WASM host that has joined `host_paths`; None where CPU cannot be limited."""
        if "cpu" not in self._tops:
            return None
        settings = self._thread_settings(limits)
        group = self._thread(group_name(key))
        group.create(settings)
        return group

    def find(self, key: TaskKey) -> TaskGroup | None:
        """The task's group if it exists."""
        if not self._tops:
            return None
        group = self._task(group_name(key))
        return group if group.exists() else None

    def orphans(self, known: Collection[TaskKey]) -> list[TaskGroup]:
        """Groups of this agent that belong to none of the known tasks: to be killed and removed."""
        return [self._task(name) for name in self._strangers(TASKS, known)]

    def orphan_threads(self, known: Collection[TaskKey]) -> list[ThreadGroup]:
        """Thread groups of this agent that belong to none of the known tasks: to be removed."""
        return [self._thread(name) for name in self._strangers(THREADS, known)]

    def discard(self) -> None:
        """Remove this agent's folders as far as they are empty, and `edgerm` if no other agent is below it."""
        for top in dict.fromkeys(self._tops.values()):
            for folder in (top / TASKS, top / THREADS, top, top.parent):
                with suppress(OSError):
                    self._files.remove(folder)

    def _strangers(self, kind: str, known: Collection[TaskKey]) -> list[str]:
        tops = dict.fromkeys(self._tops.values())
        found = {folder.name for top in tops for folder in self._files.below(top / kind)}
        return sorted(found - {group_name(key) for key in known})

    def _settings(self, limits: Limits) -> list[Setting]:
        raise NotImplementedError

    def _thread_settings(self, limits: Limits) -> list[Setting]:
        return [setting for setting in self._settings(limits) if setting.controller == "cpu"]

    def _task(self, name: str) -> TaskGroup:
        raise NotImplementedError

    def _thread(self, name: str) -> ThreadGroup:
        raise NotImplementedError


def group_name(key: TaskKey) -> str:
    """The folder's name: one component, never two keys alike, never the name of a kernel file (it has % or +)."""
    return path_name(str(key))
