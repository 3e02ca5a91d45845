"""The agent's end of the ephemeral lane: tasks' output on its way to the master, with credit and a deadline.

What does not live here: how frames travel (the link). A stream sends one frame for each beat that is answered, so that
the link's queue never overflows and nothing piles up here while the master is away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from edgerm import logs
from edgerm.core.errors import NotFound, Unavailable
from edgerm.core.ids import TaskKey
from edgerm.core.link import Close, Credit, Data, Frame, OpenLog
from edgerm.plugin.executor import Chunk, Executor, Handle, Stream
from edgerm_agent.core.effects import FramesIn
from edgerm_agent.core.events import Event, SendFrame
from edgerm_agent.sandboxes import Sandboxes

STREAMS_MAX = 64
CHUNK_BYTES = 32 * 1024
CREDIT_BYTES_MAX = 1 << 24
DEADLINE_S = 60.0  # without any frame from the master for so long a stream is dropped
WAIT_S = 30.0  # one request for output that is not there yet

log = logs.get("agent.output")


class Outputs:
    """All open streams, by the master's number. `find` tells a task's handle, None if it has ended; `NotFound`."""

    def __init__(
        self,
        executors: Mapping[str, Executor],
        sandboxes: Sandboxes,
        find: Callable[[TaskKey], Handle | None],
    ) -> None:
        self._executors = executors
        self._sandboxes = sandboxes
        self._find = find
        self._post: Callable[[Event], None] = lambda event: None
        self._open: dict[int, _Reader] = {}

    def begin(self, post: Callable[[Event], None]) -> None:
        """Where frames go."""
        self._post = post

    def take(self, effect: FramesIn) -> None:
        """Frames came from the master."""
        for frame in effect.frames:
            reader = self._open.get(frame.stream)
            if isinstance(frame.body, OpenLog) and reader is None:
                self._begin(frame.stream, frame.body)
            elif isinstance(frame.body, Credit) and reader is not None:
                reader.grant(frame.body.credit_bytes)
                if not frame.body.credit_bytes:  # the master asks whether we are there
                    self._say(frame.stream, Data(reader.offset, b""))
            elif isinstance(frame.body, Close) and reader is not None:
                reader.task.cancel()

    def answered(self) -> None:
        """A beat was answered: what was queued before is with the master."""
        for reader in self._open.values():
            reader.turn.set()

    def forget(self) -> None:
        """A new session: the streams of the last one are gone."""
        for reader in self._open.values():
            reader.task.cancel()
        self._open.clear()

    async def close(self) -> None:
        """End all streams."""
        tasks = [reader.task for reader in self._open.values()]
        self.forget()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _begin(self, number: int, opened: OpenLog) -> None:
        if len(self._open) >= STREAMS_MAX:
            self._say(number, Close(f"{STREAMS_MAX} outputs are being read on this agent already: try again later"))
            return
        self._open[number] = reader = _Reader(opened.credit_bytes)
        reader.task = asyncio.create_task(self._serve(number, opened, reader), name=f"output {number}")

    async def _serve(self, number: int, opened: OpenLog, reader: _Reader) -> None:
        try:
            await self._copy(number, opened, reader)
        except NotFound as error:
            self._say(number, Close(f"not found: {error}"))
        except (Unavailable, TimeoutError) as error:
            self._say(number, Close(str(error) or f"no word from the master for {DEADLINE_S:.0f} s"))
        except Exception as error:
            log.error("an output failed by a fault of ours", exc_info=error)
            self._say(number, Close("a fault of the agent, see its log"))
        finally:
            if self._open.get(number) is reader:
                del self._open[number]

    async def _copy(self, number: int, opened: OpenLog, reader: _Reader) -> None:
        stream: Stream = "stderr" if opened.stderr else "stdout"
        offset = opened.offset
        while True:
            await reader.has_credit()
            limit = min(reader.credit_bytes, CHUNK_BYTES)
            chunk = await self._read(opened.key, stream, offset, limit, WAIT_S if opened.follow else 0.0)
            reader.check()
            end = chunk.ended or (not opened.follow and not chunk.data)
            if chunk.data or end:
                reader.credit_bytes -= len(chunk.data)
                reader.turn.clear()
                self._say(number, Data(chunk.offset, chunk.data, end))
            if end:
                return
            reader.offset = offset = chunk.offset + len(chunk.data)
            await reader.had_turn()

    async def _read(self, key: TaskKey, stream: Stream, offset: int, limit: int, wait_s: float) -> Chunk:
        handle = self._find(key)
        if handle is not None:
            try:
                return await self._executors[handle.executor].output(handle, stream, offset, limit, wait_s)
            except NotFound:  # released meanwhile: then it is in the sandbox
                pass
        return await asyncio.to_thread(self._sandboxes.output, key, stream, offset, limit)

    def _say(self, number: int, body: Data | Close) -> None:
        self._post(SendFrame(Frame(number, body)))


class _Reader:
    """What one stream may send."""

    def __init__(self, credit_bytes: int) -> None:
        self.task: asyncio.Task[None]
        self.credit_bytes = min(credit_bytes, CREDIT_BYTES_MAX)
        self.offset = 0  # up to which the output was sent
        self.turn = asyncio.Event()
        self.turn.set()
        self._credit = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._heard_s = self._loop.time()

    def grant(self, more_bytes: int) -> None:
        """The master grants so much more, and lives."""
        self.credit_bytes = min(self.credit_bytes + more_bytes, CREDIT_BYTES_MAX)
        self._heard_s = self._loop.time()
        self._credit.set()

    def check(self) -> None:
        """Raises `TimeoutError` past the deadline."""
        if self._loop.time() > self._heard_s + DEADLINE_S:
            raise TimeoutError

    async def has_credit(self) -> None:
        """Return when something may be sent; raises `TimeoutError`."""
        while self.credit_bytes <= 0:
            self._credit.clear()
            async with asyncio.timeout_at(self._heard_s + DEADLINE_S):
                await self._credit.wait()

    async def had_turn(self) -> None:
        """Return when what was sent before is on its way; raises `TimeoutError`."""
        while not self.turn.is_set():
            async with asyncio.timeout_at(self._heard_s + DEADLINE_S):
                await self.turn.wait()
