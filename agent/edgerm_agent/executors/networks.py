"""Network namespaces that we make for tasks: one per task, named so that a later life of the agent finds it.

What does not live here: what is moved into them (`devices.nic`), the kernel's side of them (`netns`).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Collection
from hashlib import sha256
from pathlib import Path

from edgerm.core.errors import Invalid, Unavailable
from edgerm.core.ids import TaskKey
from edgerm_agent import netns
from edgerm_agent.keeper import members


class OwnNetworks:
    """Those of the agent with this data directory; see `edgerm.plugin.executor.Networks`."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir

    async def make(self, key: TaskKey) -> str:
        """The path of the task's. Raises `Invalid` where only root may make one, and `Unavailable`."""
        if os.geteuid() != 0:
            raise Invalid("only an agent that runs as root can give a process a network of its own")
        try:
            return await asyncio.to_thread(netns.make, self._name(key))
        except OSError as error:
            raise Unavailable(f"a network namespace cannot be made: {error.strerror}") from error

    async def drop(self, key: TaskKey) -> None:
        """Nothing of it stays. Raises `Unavailable`."""
        left = await asyncio.to_thread(self._remove, [self._name(key)])
        if left:
            raise Unavailable(left[0])

    def clear(self, known: Collection[TaskKey]) -> list[str]:
        """Remove those of tasks that nobody knows; the ones that stay, a line each. Blocks."""
        keep = {self._name(key) for key in known}
        place = self._place()
        return self._remove([name for name in netns.names() if name.startswith(place) and name not in keep])

    def _remove(self, names: Collection[str]) -> list[str]:
        left = []
        for name in names:
            try:
                netns.remove(name)
            except OSError as error:
                left.append(f"the network namespace {netns.path_of(name)}: {error.strerror}")
        return left

    def _place(self) -> str:
        return f"{members.place_of(str(self._data_dir)):06x}-"

    def _name(self, key: TaskKey) -> str:
        digest = sha256("\0".join(key).encode("utf-8", "surrogatepass")).hexdigest()
        return f"{self._place()}{digest[:24]}"
