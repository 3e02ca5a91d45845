"""Cgroups, v1 and v2: a group per task that limits it, measures it and kills it whole.

    found = open_cgroups(scope=agent_id[:8])
    group = found.task_group(key, limits)      # None: this user can make no group; see `enforced()`
    group.paths                                # a child writes "0" into each, then execs
    group.kill(), group.usage(), group.oom_kills(), group.remove()

`formats.py` has the numbers and parsers (pure), `groups.py` what both versions share, `v1.py` and `v2.py` their own,
`kill.py` the killing where the kernel does not do it.
CPU limits are hard (quota), so that a neighbour's idleness never hides a limit that is too small; weights besides
divide an overcommitted box. Which limits a task has, and what happens when it meets them, is decided elsewhere.
All calls block, on the kernel only; from an event loop `kill` belongs in a thread.
"""

from __future__ import annotations

from pathlib import Path

from edgerm.core.ids import path_name
from edgerm_agent.cgroups.formats import parse_mounts, parse_own_path
from edgerm_agent.cgroups.groups import Cgroups, Files, TaskGroup, ThreadGroup
from edgerm_agent.cgroups.v1 import open_v1
from edgerm_agent.cgroups.v2 import open_v2

__all__ = ["Cgroups", "TaskGroup", "ThreadGroup", "open_cgroups"]


def open_cgroups(
    scope: str, *, parent: str = "edgerm", proc: Path = Path("/proc"), files: Files | None = None
) -> Cgroups:
    """What this user can make here: v2 where it limits CPU or memory, else v1, else `Cgroups` of version "none".

    `scope` keeps agents on one box apart (the agent id, or its first characters). May be repeated; makes the folders
    `parent`/`scope` and leaves what is there. Never raises for lack of rights.
    """
    files = files or Files()
    mounts = parse_mounts(files.read(proc / "self/mountinfo") or "")
    own_path = parse_own_path(files.read(proc / "self/cgroup") or "")
    scope = path_name(scope)
    found: Cgroups | None = open_v2(files, mounts, own_path, parent, scope) if own_path is not None else None
    return found or open_v1(files, mounts, parent, scope) or Cgroups(files, {})
