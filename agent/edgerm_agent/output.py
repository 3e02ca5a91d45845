"""Tasks' output on its way to the master: from whatever holds the task, or from its sandbox once it has ended.

What does not live here: credit, turns and ends of streams (`lane.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from edgerm.core.errors import NotFound
from edgerm.core.ids import TaskKey
from edgerm.core.link import Carrier, Data, OpenLog
from edgerm.plugin.executor import Chunk, Executor, Handle, Stream
from edgerm_agent.lane import LaneStream
from edgerm_agent.sandboxes import Sandboxes

WAIT_S = 30.0  # one request for output that is not there yet


class Outputs:
    """Sends outputs. `find` tells a task's handle, None if it has ended, or raises `NotFound`."""

    def __init__(
        self,
        executors: Mapping[str, Executor],
        sandboxes: Sandboxes,
        find: Callable[[TaskKey], Handle | None],
        carrier: Callable[[], Carrier],
    ) -> None:
        self._executors = executors
        self._sandboxes = sandboxes
        self._find = find
        self._carrier = carrier

    async def send(self, opened: OpenLog, stream: LaneStream) -> None:
        """See `lane.Outputs`: one frame at a time, no larger than what carries it allows."""
        name: Stream = "stderr" if opened.stderr else "stdout"
        offset = opened.offset
        while True:
            await stream.has_credit()
            limit = min(stream.credit_bytes, self._carrier().data_bytes)
            chunk = await self._read(opened.key, name, offset, limit, WAIT_S if opened.follow else 0.0)
            stream.check()
            end = chunk.ended or (not opened.follow and not chunk.data)
            if chunk.data or end:
                stream.credit_bytes -= len(chunk.data)
                stream.say(Data(chunk.offset, chunk.data, end))
            if end:
                return
            stream.offset = offset = chunk.offset + len(chunk.data)
            await stream.had_turn()

    async def _read(self, key: TaskKey, stream: Stream, offset: int, limit: int, wait_s: float) -> Chunk:
        handle = self._find(key)
        if handle is not None:
            try:
                return await self._executors[handle.executor].output(handle, stream, offset, limit, wait_s)
            except NotFound:  # released meanwhile: then it is in the sandbox
                pass
        return await asyncio.to_thread(self._sandboxes.output, key, stream, offset, limit)
