"""What the agent needs of its own executors beside `edgerm.plugin.executor.Executor`: what is behind each."""

from __future__ import annotations

from typing import Protocol

from edgerm.plugin.executor import Executor


class OwnExecutor(Executor, Protocol):
    """An executor with something behind it that holds the tasks: a keeper, a WASM host, a container engine."""

    async def instance(self) -> str:
        """What is behind it now (see `Handle.instance`), started if it is ours to start.

        Raises `Unavailable`, saying what is waited for, while there is none or it does not answer.
        """
        ...

    async def lost(self, instance: str) -> None:
        """Return when this instance cannot be reached any more, or is another one now. Cancelled at will.

        Raises `Unavailable` if there is none already.
        """
        ...

    async def end_tasks(self) -> None:
        """End all tasks at once, and what is ours of what is behind it; nothing of them is left on the box."""
        ...

    async def close(self) -> None:
        """Disconnect; the tasks go on."""
        ...
