"""Local grants as tasks: nothing runs for one, it holds its devices until it is given back.

Whoever asked (a container runtime, a person) uses them itself. So a local grant outlives the agent, and ends with the
box: nobody is left after a reboot to give it back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from edgerm.core.errors import NotFound
from edgerm.core.ids import TaskKey
from edgerm.plugin.executor import Chunk, Exit, Handle, Inspection, Intake, LaunchSpec, Stream, Tell, Usage, unheard

LOCAL = "local"


class LocalExecutor:
    """Holds local grants. `kept`: those that the journal has, which are still held if this is the same boot.

    `started` is told of each when its devices are ready.
    """

    name = LOCAL

    def __init__(self, boot_id: str, kept: Iterable[Handle]) -> None:
        self._instance = boot_id or LOCAL
        self._held = {handle.key: handle for handle in kept if handle.instance == self._instance}
        self.started: Callable[[TaskKey], None] = lambda key: None
        self._over: dict[TaskKey, asyncio.Event] = {key: asyncio.Event() for key in self._held}

    async def instance(self) -> str:
        """The present boot."""
        return self._instance

    async def lost(self, instance: str) -> None:
        """Never, in this life of the agent."""
        await asyncio.get_running_loop().create_future()

    async def start(self, spec: LaunchSpec, tell: Tell = unheard) -> Handle:
        """It is held from now on."""
        self._over.setdefault(spec.key, asyncio.Event())
        asyncio.get_running_loop().call_soon(self.started, spec.key)  # after whoever asked has the handle
        return self._held.setdefault(spec.key, Handle(spec.key, LOCAL, self._instance))

    async def abandon(self, key: TaskKey) -> None:
        """A start does not take any time."""

    async def wait(self, handle: Handle) -> Exit:
        """It ends when it is stopped."""
        if handle.key not in self._over:
            raise NotFound(f"local grant {handle.key.task_id} is not held")
        await self._over[handle.key].wait()
        return Exit(code=0, message="it was given back")

    async def stop(self, handle: Handle, grace_s: float) -> None:
        """At once."""
        if handle.key in self._over:
            self._over[handle.key].set()

    async def adopt(self, handle: Handle) -> bool:
        """Whether it is of this boot."""
        return handle.key in self._held

    async def inspect(self) -> Inspection:
        """What is held."""
        return Inspection(held=tuple(self._held.values()))

    async def release(self, handle: Handle) -> None:
        """Forget it."""
        self._held.pop(handle.key, None)
        self._over.pop(handle.key, None)

    async def output(self, handle: Handle, stream: Stream, offset: int, max_bytes: int, wait_s: float) -> Chunk:
        """There is none."""
        return Chunk(0, b"", ended=True)

    async def put_input(self, handle: Handle, offset: int, data: bytes, end: bool, wait_s: float) -> Intake:
        """There is nobody to read it."""
        raise NotFound(f"local grant {handle.key.task_id} has no input")

    async def usage(self, handle: Handle) -> Usage | None:
        """Not known here."""
        return None

    async def end_tasks(self) -> None:
        """All of them are over."""
        for over in self._over.values():
            over.set()

    async def close(self) -> None:
        """They go on."""
