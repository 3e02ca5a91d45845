"""One launched task, as whoever launched it holds it: how it stands, its output, input and messages, and its end.

What does not live here: how it is launched, and who tells it its status (`cluster`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgerm.core.errors import Conflict, EdgermError
from edgerm.core.ids import AgentId, ExecutorId, TaskId
from edgerm.core.scheduler import Status
from edgerm.core.tasks import TaskState
from edgerm.sdk.operator import Name
from edgerm.sdk.talking import Inbox, TaskInput

if TYPE_CHECKING:
    from edgerm.sdk.cluster import Cluster


@dataclass(frozen=True, slots=True)
class Result:
    """How a task ended. `output` is what it printed to stdout; `lost_bytes` of it, its beginning, the agent let go."""

    task_id: TaskId
    state: TaskState
    exit_code: int | None
    signal: int | None
    message: str
    output: bytes
    lost_bytes: int
    status: Status

    @property
    def ok(self) -> bool:
        """Whether it ended well."""
        return self.state is TaskState.FINISHED


class TaskHandle:
    """A launched task. `status` is the latest that is known of it."""

    def __init__(self, cluster: Cluster, task_id: TaskId) -> None:
        self.task_id = task_id
        self.status = Status(task_id, TaskState.STAGING)
        self.inbox = Inbox()
        self._cluster = cluster
        self._changed = asyncio.Event()
        self._input: TaskInput | None = None

    @property
    def agent_id(self) -> AgentId | None:
        """Where it runs."""
        return self.status.agent_id

    @property
    def _name(self) -> Name:
        return Name(self.task_id, self._cluster.framework_id)

    def told(self, status: Status) -> None:
        """A new status."""
        self.status = status
        self._changed.set()
        self.inbox.news.set()

    async def started(self) -> Status:
        """Wait until it runs, or has ended without."""
        while not (self.status.state is TaskState.RUNNING or self.status.state.terminal):
            await self.changed()
        return self.status

    async def ended(self) -> Status:
        """Wait for its end; raises `Unavailable` or `Conflict` if the subscription ended first."""
        while not self.status.state.terminal:
            await self.changed()
        return self.status

    async def changed(self) -> Status:
        """Wait for a newer status than `status`, the latest if there are several; raises as `ended`."""
        self._changed.clear()
        await self._cluster.until(self._changed)
        return self.status

    async def wait(self) -> Result:
        """Wait for its end, and fetch its output."""
        status = await self.ended()
        output, lost_bytes = await self._output(status)
        return Result(
            self.task_id, status.state, status.exit_code, status.signal, status.message, output, lost_bytes, status
        )

    async def kill(self, grace_s: float | None = None) -> Status:
        """End it, and wait until it has ended."""
        if not self.status.state.terminal:
            self._cluster.kill(self.task_id, grace_s)
        return await self.ended()

    async def logs(self, *, stderr: bool = False, follow: bool = True) -> AsyncIterator[bytes]:
        """Its output as it comes, from the beginning; with `follow` until it has ended."""
        await self.started()
        async for chunk in self._cluster.operator.read_log(self._name, stderr=stderr, follow=follow):
            yield chunk.data

    async def send(self, data: bytes) -> None:
        """Send a message to the task (`messages=True`) once it runs: it arrives at most once and in order, or is lost.

        Raises `Conflict` if the task has ended, `Invalid` unless there are 1 to 65,536 bytes.
        """
        status = await self.started()
        if status.state.terminal or status.agent_id is None:
            raise Conflict(f"task {self.task_id!r} has ended: nobody reads its messages")
        self._cluster.driver.session.message(status.agent_id, ExecutorId(self.task_id), data)

    async def messages(self) -> AsyncIterator[bytes]:
        """What the task says, from the first on, until it has ended; who reads too slowly misses the oldest."""
        while True:
            while (data := self.inbox.take()) is not None:
                yield data
            if self.status.state.terminal:
                return
            self.inbox.news.clear()
            await self._cluster.until(self.inbox.news)

    async def write(self, data: bytes) -> None:
        """Write to the task's standard input (`stdin_open=True`); returns when the task has taken all of it.

        Nothing is lost or doubled while the agent or the master are away for less than a minute. Raises `NotFound` if
        the task has ended or closed its input, `Unavailable` after that minute.
        """
        await (await self._live_input()).write(data)

    async def close_input(self) -> None:
        """End of file for the task, after all that was written. Raises as `write`."""
        await (await self._live_input()).close()

    async def _live_input(self) -> TaskInput:
        await self.started()
        if self._input is None:
            self._input = TaskInput(self._cluster.operator, self._name, lambda: not self.status.state.terminal)
        return self._input

    async def _output(self, status: Status) -> tuple[bytes, int]:
        """What it printed, and how many bytes are missing. When its agent is away, the tail that came with the end."""
        if status.agent_id is None or status.state in (TaskState.DROPPED, TaskState.ERROR):
            return b"", 0
        output, end = bytearray(), 0
        try:
            async with self._cluster.reading:
                async for chunk in self._cluster.operator.read_log(self._name):
                    output += chunk.data
                    end = chunk.offset + len(chunk.data)
        except EdgermError:
            return status.output_tail.encode(), 0
        return bytes(output), end - len(output)
