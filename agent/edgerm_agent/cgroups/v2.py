"""Cgroup v2: one folder per task below the highest group that this user may write, systemd's delegation included.

    BASE/edgerm/SCOPE/processes/NAME   a task: cpu, memory, pids as far as they are delegated; cpuset from the first
                                       task on that has CPUs of its own
    BASE/edgerm/SCOPE/threads          the processes of WASM hosts: the root of a threaded subtree
    BASE/edgerm/SCOPE/threads/NAME     a task's thread: cpu only

BASE is the hierarchy's root for root, `user@UID.service` for a user's service, or the agent's own unit with
`Delegate=yes`. In that last case v2 allows no process in BASE itself, so those that are there, the agent among them,
move into the leaf `edgerm-self`.
"""

from __future__ import annotations

import errno
import os
import select
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from edgerm.plugin.executor import Limits, Usage
from edgerm_agent.cgroups.formats import Mount, Setting, parse_keyed, parse_number, parse_pids, v2_bases, v2_settings
from edgerm_agent.cgroups.groups import FREEZE_S, KILL_TIMEOUT_S, TASKS, THREADS, Cgroups, Files, TaskGroup, ThreadGroup

CONTROLLERS = ("cpu", "memory", "pids")
_GONE = (errno.ENOENT, errno.ENODEV)


class V2TaskGroup(TaskGroup):
    """A task's one folder; the kernel kills the whole subtree and tells when it is empty."""

    @property
    def _folder(self) -> Path:
        return self._distinct[0]

    def kill(self, timeout_s: float = KILL_TIMEOUT_S) -> bool:
        """See `TaskGroup.kill`. The kernel kills the subtree; a frozen process dies without a thaw."""
        deadline = time.monotonic() + timeout_s
        if not (self._folder / "cgroup.kill").exists():  # removed, or Linux before 5.14
            return super().kill(timeout_s)
        with self._frozen():
            self._set("cgroup.kill", "1")
            return self._await_event("populated", 0, deadline)

    def _freeze(self) -> None:
        self._set("cgroup.freeze", "1")
        self._await_event("frozen", 1, time.monotonic() + FREEZE_S)

    def _thaw(self) -> None:
        for path in self._files.tree(self._folder):
            self._set("cgroup.freeze", "0", path)

    def _set(self, file: str, value: str, folder: Path | None = None) -> None:
        try:
            self._files.write((folder or self._folder) / file, value)
        except OSError as error:
            if error.errno not in _GONE:
                raise

    def _await_event(self, name: str, value: int, deadline: float) -> bool:
        """Whether cgroup.events says so by then; of a group that is gone, all is true."""
        try:
            events = os.open(self._folder / "cgroup.events", os.O_RDONLY)
            try:
                return _await_keyed(events, name, value, deadline)
            finally:
                os.close(events)
        except OSError as error:
            if error.errno in _GONE:
                return True
            raise

    def usage(self) -> Usage | None:
        """See `TaskGroup.usage`."""
        cpu_us = parse_keyed(self._read("", "cpu.stat") or "").get("usage_usec")
        memory = parse_number(self._read("", "memory.current") or "")
        if cpu_us is None or memory is None:
            return None
        cache = parse_keyed(self._read("", "memory.stat") or "").get("inactive_file", 0)
        return Usage(cpu_s=cpu_us / 1e6, memory_bytes=max(memory - cache, 0))

    def oom_kills(self) -> int:
        """See `TaskGroup.oom_kills`."""
        return parse_keyed(self._read("", "memory.events") or "").get("oom_kill", 0)


def _await_keyed(events: int, name: str, value: int, deadline: float) -> bool:
    poller = select.poll()
    poller.register(events, select.POLLPRI)  # the kernel's word for "changed since it was read"
    while parse_keyed(os.pread(events, 4096, 0).decode()).get(name) != value:
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            return False
        poller.poll(left_s * 1000)
    return True


class V2ThreadGroup(ThreadGroup):
    """A threaded folder below the hosts' domain."""

    _file = "cgroup.threads"

    def cpu_s(self) -> float | None:
        """See `ThreadGroup.cpu_s`."""
        cpu_us = parse_keyed(self._read("", "cpu.stat") or "").get("usage_usec")
        return None if cpu_us is None else cpu_us / 1e6


class V2Cgroups(Cgroups):
    """One hierarchy; what is enforced depends on what was delegated."""

    version = "v2"

    @property
    def host_paths(self) -> tuple[str, ...]:
        """See `Cgroups.host_paths`."""
        return (str(self._tops[""] / THREADS / "cgroup.procs"),)

    @property
    def cpuset(self) -> str:
        """See `Cgroups.cpuset`."""
        base = self._tops[""].parent.parent
        return "cgroup-v2" if "cpuset" in _offered(self._files, base) else super().cpuset

    def enable_cpusets(self) -> None:
        """Before Linux 6.2 this gives every process below BASE/edgerm all CPUs again, whatever its affinity was."""
        top = self._tops[""]
        for folder in (top.parent.parent, top.parent, top, top / TASKS):
            _enable(self._files, folder, ("cpuset",))

    def _bind(self, name: str, cpus: str) -> bool:
        """The kernel takes CPUs that are not to be had, and tells then that others are in effect."""
        self.enable_cpusets()
        folder = self._tops[""] / TASKS / name
        try:
            self._files.write(folder / "cpuset.cpus", cpus)
        except OSError:
            return False
        return (self._files.read(folder / "cpuset.cpus.effective") or "").strip() == cpus

    def _settings(self, limits: Limits) -> list[Setting]:
        return v2_settings(limits)

    def _task(self, name: str) -> V2TaskGroup:
        return V2TaskGroup(self._files, name, {c: top / TASKS / name for c, top in self._tops.items()})

    def _thread(self, name: str) -> V2ThreadGroup:
        folders = {c: top / THREADS / name for c, top in self._tops.items() if c in ("", "cpu")}
        return V2ThreadGroup(self._files, name, folders)

    def _thread_settings(self, limits: Limits) -> list[Setting]:
        return [Setting("", "cgroup.type", "threaded"), *super()._thread_settings(limits)]


def open_v2(files: Files, mounts: Iterable[Mount], own_path: str, parent: str, scope: str) -> V2Cgroups | None:
    """The best base where this user can limit CPU or memory; None if there is none."""
    for mount in mounts:
        for base in map(Path, v2_bases(mount, own_path)) if mount.unified else ():
            if _offered(files, base) & {"cpu", "memory"} and files.writable(base / "cgroup.subtree_control"):
                found = _prepare(files, base, parent, scope)
                if found is not None:
                    return found
    return None


def _prepare(files: Files, base: Path, parent: str, scope: str) -> V2Cgroups | None:
    top = base / parent / scope
    try:
        files.make(top / TASKS)
        files.make(top / THREADS)
    except OSError:
        return None
    _evacuate(files, base, base / f"{parent}-self")
    for folder in (base, base / parent, top, top / TASKS):
        _enable(files, folder, CONTROLLERS)
    _enable(files, top / THREADS, ("cpu",))
    granted = set((files.read(top / TASKS / "cgroup.subtree_control") or "").split())
    found = V2Cgroups(files, dict.fromkeys(["", *(c for c in CONTROLLERS if c in granted)], top))
    if granted & {"cpu", "memory"}:
        return found
    found.discard()
    return None


def _offered(files: Files, folder: Path) -> set[str]:
    return set((files.read(folder / "cgroup.controllers") or "").split())


def _enable(files: Files, folder: Path, controllers: Iterable[str]) -> None:
    """Hand controllers down, each by itself: one that the kernel refuses must not cost the others."""
    for controller in controllers:
        if controller in _missing(files, folder):
            with suppress(OSError):
                files.write(folder / "cgroup.subtree_control", f"+{controller}")


def _missing(files: Files, folder: Path) -> set[str]:
    return _offered(files, folder) - set((files.read(folder / "cgroup.subtree_control") or "").split())


def _evacuate(files: Files, folder: Path, leaf: Path) -> None:
    """Move all processes of `folder` into `leaf` if it has yet to hand controllers down; the true root need not.

    First of all: with a process inside, `+cpu` is taken and turns the folder into a threaded domain, where no group
    below it can hold a task.
    """
    true_root = not (folder / "cgroup.type").exists()
    pids = parse_pids(files.read(folder / "cgroup.procs") or "")
    if true_root or not pids or not _missing(files, folder) & set(CONTROLLERS):
        return
    with suppress(OSError):
        files.make(leaf)
        for pid in pids:
            with suppress(ProcessLookupError):
                files.write(leaf / "cgroup.procs", str(pid))
