"""The process executor: tasks are plain processes, parented by the keeper, limited by cgroups or RLIMIT_AS."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from edgerm.core.errors import EdgermError, Unavailable
from edgerm.core.ids import TaskKey
from edgerm.plugin.executor import Exit, ExitReason, Handle, Inspection, LaunchFailed, LaunchSpec, Usage
from edgerm_agent.cgroups import Cgroups, TaskGroup
from edgerm_agent.executors.holder import HolderProcess, keeper_command
from edgerm_agent.executors.kept import KeptExecutor
from edgerm_agent.executors.networks import OwnNetworks
from edgerm_agent.executors.users import User, find_user, give
from edgerm_agent.keeper import members
from edgerm_agent.keeper.protocol import Body

BURY_S = 30.0

NEEDS_USER = (
    "the process executor is off, because this agent runs as root: "
    "name the user that tasks run as with --process-user USER (root, if you mean it)"
)


class ProcessExecutor(KeptExecutor):
    """Runs processes. `user`: whom tasks without a user of their own run as; an agent that is root needs one.

    `farewell`: what the keeper does when the lifeline ends, as arguments (`keeper.program`).
    """

    def __init__(
        self,
        data_dir: Path,
        cgroups: Cgroups,
        *,
        user: str | None = None,
        lifeline: int | None = None,
        farewell: Sequence[str] = (),
    ) -> None:
        super().__init__("process", HolderProcess(data_dir, "keeper", keeper_command(), lifeline, farewell))
        self._cgroups = cgroups
        self._user = user
        self._networks = OwnNetworks(data_dir)

    async def prepare(self, spec: LaunchSpec) -> Body:
        """Find the user, give it the sandbox, make the cgroup."""
        user = await asyncio.to_thread(self._user_of, spec)
        if user is not None:
            await asyncio.to_thread(_give, spec.sandbox, user)
        group = await asyncio.to_thread(self._make_group, spec)
        return {
            "program": spec.program,
            "argv": spec.argv,
            "env": spec.env,
            "sandbox": str(spec.sandbox),
            "stdin": None if spec.stdin is None else str(spec.stdin),
            "stdin_open": spec.stdin_open,
            "uid": user and user.uid,
            "gid": user and user.gid,
            "groups": user and user.groups,
            "procs": group.paths if group else (),
            "as_bytes": spec.limits.memory_bytes if self._cgroups.enforced().get("mem") == "rlimit" else None,
            "cpus": () if group and group.holds_cpus else spec.cpus,
            "network": spec.network,
            "tag": self._tag(spec.key),
        }

    async def network(self, key: TaskKey) -> str:
        """As `Networks`. Raises `Invalid` for an agent that is not root."""
        return await self._networks.make(key)

    async def drop_network(self, key: TaskKey) -> None:
        """As `Networks`."""
        await self._networks.drop(key)

    def clear_networks(self, known: Collection[TaskKey]) -> list[str]:
        """Remove the namespaces of tasks that nobody knows; those that stay. Blocks."""
        return self._networks.clear(known)

    async def bury(self, key: TaskKey) -> None:
        """Kill what is left of the task. Raises `Unavailable` if something does not die."""
        await asyncio.to_thread(self._bury, key)

    async def refine(self, handle: Handle, exit_: Exit) -> Exit:
        """The kernel counts whom it killed at the memory limit."""
        group = self._cgroups.find(handle.key)
        if exit_.reason is ExitReason.ENDED and exit_.code != 0 and group and group.oom_kills() > 0:
            return replace(exit_, reason=ExitReason.MEMORY, message=f"{exit_.message}: out of its memory limit")
        return exit_

    async def clean(self, key: TaskKey) -> None:
        """Remove the cgroup."""
        group = self._cgroups.find(key)
        if group is not None:
            await asyncio.to_thread(group.remove)

    async def usage(self, handle: Handle) -> Usage | None:
        """From the cgroup, which also knows of processes that have ended; else from /proc."""
        return await asyncio.to_thread(self._group_usage, handle.key) or await super().usage(handle)

    def _group_usage(self, key: TaskKey) -> Usage | None:
        group = self._cgroups.find(key)
        return None if group is None else group.usage()

    async def inspect(self) -> Inspection:
        problems = []
        if self._user is None and os.geteuid() == 0:
            problems.append(NEEDS_USER)
        elif self._user is not None:
            try:
                _allowed(await asyncio.to_thread(find_user, self._user))
            except LookupError as error:
                problems.append(f"{error} (--process-user)")
        enforced = {**self._cgroups.enforced(), "cpuset": self._cgroups.cpuset, "disk": "polled"}
        return Inspection(enforced, tuple(problems), await self.held())

    def _user_of(self, spec: LaunchSpec) -> User | None:
        name = spec.user or self._user
        if name is None:
            if os.geteuid() == 0:
                raise LaunchFailed(NEEDS_USER)
            return None
        try:
            return _allowed(find_user(name))
        except LookupError as error:
            raise LaunchFailed(str(error)) from error

    def _make_group(self, spec: LaunchSpec) -> TaskGroup | None:
        try:
            return self._cgroups.task_group(spec.key, spec.limits, spec.cpus)
        except Unavailable:
            raise
        except EdgermError as error:
            raise LaunchFailed(str(error)) from error

    def _tag(self, key: TaskKey) -> int:
        """See `keeper.members`; stable, because a later agent must find the same."""
        digest = sha256("\0".join(key).encode("utf-8", "surrogatepass")).digest()
        task = int.from_bytes(digest[:8], "big") % (1 << members.TASK_BITS)
        tag = (members.place_of(str(self.holder.data_dir)) << members.TASK_BITS) | task
        limit = members.own_limit()
        return tag if tag < limit else 1 + tag % (limit - 1)

    def _bury(self, key: TaskKey) -> None:
        group = self._cgroups.find(key)
        tag = self._tag(key)
        until = time.monotonic() + BURY_S
        while True:
            group_is_empty = group is None or group.kill()
            left = members.tagged().get(tag, [])
            if group_is_empty and not left:
                return
            if time.monotonic() > until:
                raise Unavailable(f"processes of task {key} do not die: {left or group}")
            members.kill(left)
            time.sleep(0.01)


def _allowed(user: User) -> User:
    """Only root may become another. Raises `LookupError`."""
    if os.geteuid() not in (0, user.uid):
        raise LookupError(f"only an agent that runs as root can run tasks as user {user.name!r}")
    return user


def _give(sandbox: Path, user: User) -> None:
    if user.uid == os.geteuid():
        return
    try:
        give(str(sandbox), user)
    except OSError as error:
        raise LaunchFailed(f"cannot give the sandbox {sandbox} to {user.name}: {error.strerror}") from error
