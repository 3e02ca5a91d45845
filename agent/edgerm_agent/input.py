"""Tasks' open standard input: from the master's stream to whatever holds the task (docs/link.md, "Input").

What does not live here: deadlines and ends of streams (`lane.py`), the pipe (`executors/`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from edgerm.core.errors import NotFound
from edgerm.core.ids import TaskKey
from edgerm.core.link import Carrier, Credit, Data, OpenInput
from edgerm.plugin.executor import Executor, Handle, Intake
from edgerm_agent.lane import LaneStream

WINDOW_FRAMES = 8
WINDOW_BYTES_MAX = 64 * 1024
WAIT_S = 20.0  # one request, while the pipe is full


class Inputs:
    """Writes inputs. `find` tells a task's handle, None if it has ended, or raises `NotFound`."""

    def __init__(
        self,
        executors: Mapping[str, Executor],
        find: Callable[[TaskKey], Handle | None],
        carrier: Callable[[], Carrier],
    ) -> None:
        self._executors = executors
        self._find = find
        self._carrier = carrier

    async def send(self, opened: OpenInput, stream: LaneStream) -> None:
        """See `lane.Inputs`: take data as the task does, and say how far that is."""
        intake = await self._put(opened.key, Data(0, b""), 0.0)
        stream.offset = intake.offset
        stream.expect(min(WINDOW_FRAMES * self._carrier().data_bytes, WINDOW_BYTES_MAX))
        stream.say(Credit(stream.window_bytes))
        await stream.had_turn()
        await self._tell(stream, intake)
        while not intake.closed:
            data: Data | None = await stream.arrived()
            while data is not None and not intake.closed:
                intake = await self._put(opened.key, data, WAIT_S)
                stream.check()
                left = data.offset + len(data.data) - intake.offset
                data = Data(intake.offset, data.data[-left:], data.end) if left > 0 else None
                if intake.offset > stream.offset or intake.closed:
                    stream.offset = intake.offset
                    await self._tell(stream, intake)

    async def _tell(self, stream: LaneStream, intake: Intake) -> None:
        stream.say(Data(intake.offset, b"", intake.closed))
        await stream.had_turn()

    async def _put(self, key: TaskKey, data: Data, wait_s: float) -> Intake:
        handle = self._find(key)
        if handle is None:
            raise NotFound(f"task {key.task_id} has ended: nobody reads its input")
        return await self._executors[handle.executor].put_input(handle, data.offset, data.data, data.end, wait_s)
