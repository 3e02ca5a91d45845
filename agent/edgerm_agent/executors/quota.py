"""Sandbox quotas: what the file system does not enforce is measured now and then."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

from edgerm.core.ids import TaskKey

INTERVAL_S = 2.0
SHARE = 0.05  # of one core, at most, goes into measuring


class Quotas:
    """Measures sandboxes every 2 s, less often where that is much work, and reports each that is over its limit."""

    def __init__(self, exceeded: Callable[[TaskKey, str], Awaitable[None]]) -> None:
        self._exceeded = exceeded
        self._watched: dict[TaskKey, tuple[str, int]] = {}
        self._task: asyncio.Task[None] | None = None

    def watch(self, key: TaskKey, sandbox: str, limit_bytes: int) -> None:
        """From now on, until `forget`; calls `exceeded(key, message)`, again at each round while it is over."""
        self._watched[key] = (sandbox, limit_bytes)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="sandbox quotas")

    def forget(self, key: TaskKey) -> None:
        """No more; unknown keys too."""
        self._watched.pop(key, None)

    async def close(self) -> None:
        """End the measuring."""
        self._watched.clear()
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        while self._watched:
            began = time.monotonic()
            for key, used in (await asyncio.to_thread(_measure, dict(self._watched))).items():
                if key in self._watched:
                    limit = self._watched[key][1]
                    await self._exceeded(key, f"the sandbox holds {used} bytes or more, {limit} are allowed")
            await asyncio.sleep(max(INTERVAL_S, (time.monotonic() - began) / SHARE))


def _measure(watched: dict[TaskKey, tuple[str, int]]) -> dict[TaskKey, int]:
    used = {key: used_bytes(sandbox, limit) for key, (sandbox, limit) in watched.items()}
    return {key: size for key, size in used.items() if size > watched[key][1]}


def used_bytes(folder: str, enough_bytes: int) -> int:
    """What the files below `folder` take on disk, each at least 512 bytes; stops counting beyond `enough_bytes`."""
    total = 0
    folders = [folder]
    while folders and total <= enough_bytes:
        with suppress(OSError), os.scandir(folders.pop()) as entries:  # what vanishes takes nothing
            for entry in entries:
                with suppress(OSError):
                    total += max(entry.stat(follow_symlinks=False).st_blocks, 1) * 512
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                if total > enough_bytes:
                    break
    return total
