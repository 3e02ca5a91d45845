"""Cgroup v1: one folder per hierarchy (cpu, cpuacct, memory, pids, freezer), groups made at each hierarchy's root.

In the hierarchy of cpuset only tasks with CPUs of their own have a folder: all others stay where the agent is.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from edgerm.plugin.executor import Limits, Usage
from edgerm_agent.cgroups.formats import Mount, Setting, parse_keyed, parse_number, v1_settings
from edgerm_agent.cgroups.groups import FREEZE_S, TASKS, THREADS, Cgroups, Files, TaskGroup, ThreadGroup

CONTROLLERS = ("cpu", "cpuacct", "memory", "pids", "freezer")
CPUSET = "cpuset"


class V1TaskGroup(TaskGroup):
    """A task's folders in up to five hierarchies."""

    def _freeze(self) -> None:
        """v1 has no event for "all are frozen", it has to be asked; usually the first answer is yes."""
        give_up = time.monotonic() + FREEZE_S
        self._set_freezer("FROZEN", self._folders.get("freezer"))
        while (self._read("freezer", "freezer.state") or "").strip() == "FREEZING" and time.monotonic() < give_up:
            time.sleep(0.001)

    def _thaw(self) -> None:
        folder = self._folders.get("freezer")
        for path in self._files.tree(folder) if folder is not None else ():
            self._set_freezer("THAWED", path)

    def _set_freezer(self, state: str, folder: Path | None) -> None:
        if folder is not None:
            with suppress(FileNotFoundError):
                self._files.write(folder / "freezer.state", state)

    def usage(self) -> Usage | None:
        """See `TaskGroup.usage`."""
        cpu_ns = parse_number(self._read("cpuacct", "cpuacct.usage") or "")
        memory = parse_number(self._read("memory", "memory.usage_in_bytes") or "")
        if cpu_ns is None or memory is None:
            return None
        cache = parse_keyed(self._read("memory", "memory.stat") or "").get("total_inactive_file", 0)
        return Usage(cpu_s=cpu_ns / 1e9, memory_bytes=max(memory - cache, 0))

    def oom_kills(self) -> int:
        """See `TaskGroup.oom_kills`; from memory.oom_control (Linux 4.13 and newer)."""
        return parse_keyed(self._read("memory", "memory.oom_control") or "").get("oom_kill", 0)


class V1ThreadGroup(ThreadGroup):
    """A thread's folders in cpu and cpuacct; v1 takes any thread of any process."""

    _file = "tasks"

    def cpu_s(self) -> float | None:
        """See `ThreadGroup.cpu_s`."""
        cpu_ns = parse_number(self._read("cpuacct", "cpuacct.usage") or "")
        return None if cpu_ns is None else cpu_ns / 1e9


class V1Cgroups(Cgroups):
    """Each hierarchy that this user may write counts for itself."""

    version = "v1"

    def _settings(self, limits: Limits) -> list[Setting]:
        return v1_settings(limits)

    @property
    def cpuset(self) -> str:
        """See `Cgroups.cpuset`."""
        return "cgroup-v1" if CPUSET in self._tops else super().cpuset

    def _bind(self, name: str, cpus: str) -> bool:
        """A new group of cpuset is empty: it takes no process before it has CPUs and memory, nor do those above."""
        top = self._tops.get(CPUSET)
        if top is None:
            return False
        root, folder = top.parent.parent, top / TASKS / name
        try:
            self._files.make(folder)
            for above in (top.parent, top, top / TASKS):
                for file in ("cpuset.mems", "cpuset.cpus"):  # of a CPU that went and came back they do not know
                    self._copy(root / file, above / file)
            self._copy(root / "cpuset.mems", folder / "cpuset.mems")
            self._files.write(folder / "cpuset.cpus", cpus)
        except OSError:
            with suppress(OSError):
                self._files.remove(folder)
            return False
        return True

    def _copy(self, source: Path, target: Path) -> None:
        text = (self._files.read(source) or "").strip()
        if text != (self._files.read(target) or "").strip():
            self._files.write(target, text)

    def _task(self, name: str) -> V1TaskGroup:
        folders = {c: top / TASKS / name for c, top in self._tops.items()}
        if CPUSET in folders and not folders[CPUSET].is_dir():
            del folders[CPUSET]
        return V1TaskGroup(self._files, name, folders)

    def _thread(self, name: str) -> V1ThreadGroup:
        tops = {c: top for c, top in self._tops.items() if c in ("cpu", "cpuacct")}
        return V1ThreadGroup(self._files, name, {c: top / THREADS / name for c, top in tops.items()})


def open_v1(files: Files, mounts: Iterable[Mount], parent: str, scope: str) -> V1Cgroups | None:
    """The hierarchies where this user can make groups; None if neither CPU nor memory is among them."""
    tops: dict[str, Path] = {}
    for mount in mounts:
        top = Path(mount.point) / parent / scope
        wanted = [c for c in CONTROLLERS if c in mount.controllers and c not in tops]
        if mount.controllers == {CPUSET}:  # mounted with others, it would keep every task out that names no CPUs
            wanted.append(CPUSET)
        if wanted and _make(files, top):
            tops |= dict.fromkeys(wanted, top)
    found = V1Cgroups(files, tops)
    if tops.keys() & {"cpu", "memory"}:
        return found
    found.discard()
    return None


def _make(files: Files, top: Path) -> bool:
    try:
        files.make(top / TASKS)
        files.make(top / THREADS)
    except OSError:
        return False
    return True
