"""The agent's end of the ephemeral lane: streams that the master opened, with credit, turns and a deadline.

What does not live here: how frames travel (the link), what a stream is about (`output.py` and others). A stream has a
turn when all that it said is known to be with the master: so the link's queue never overflows, frames that a lost
beat carried are not overtaken, and nothing piles up here while the master is away.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Protocol

from edgerm import logs
from edgerm.core.errors import NotFound, Unavailable
from edgerm.core.link import Close, Credit, Data, Frame, OpenInput, OpenLog, OpenStats, Stats
from edgerm_agent.core.effects import FramesIn
from edgerm_agent.core.events import Event, SendFrame

STREAMS_MAX = 64
CREDIT_BYTES_MAX = 1 << 24
DEADLINE_S = 60.0  # without any frame from the master for so long a stream is dropped

log = logs.get("agent.lane")


class Outputs(Protocol):
    """Who sends tasks' output; see `output.py`."""

    async def send(self, opened: OpenLog, stream: LaneStream) -> None:
        """All that was asked for. Raises `NotFound`, `Unavailable` or `TimeoutError`; the stream ends so."""


class Usages(Protocol):
    """Who sends what tasks use; see `stats.py`."""

    async def send(self, opened: OpenStats, stream: LaneStream) -> None:
        """The answer. Raises as `Outputs.send` does."""


class Inputs(Protocol):
    """Who writes tasks' open standard input; see `input.py`."""

    async def send(self, opened: OpenInput, stream: LaneStream) -> None:
        """Take what comes until the end. Raises as `Outputs.send` does."""


class Lane:
    """All open streams, by the master's number. `unheard` tells the frames that the master is not known to have."""

    def __init__(
        self, outputs: Outputs, usages: Usages, inputs: Inputs, unheard: Callable[[], Iterable[Frame]]
    ) -> None:
        self._outputs = outputs
        self._usages = usages
        self._inputs = inputs
        self._unheard = unheard
        self._post: Callable[[Event], None] = lambda event: None
        self._open: dict[int, LaneStream] = {}

    def begin(self, post: Callable[[Event], None]) -> None:
        """Where frames go."""
        self._post = post

    def take(self, effect: FramesIn) -> None:
        """Frames came from the master."""
        for frame in effect.frames:
            self._take(frame)

    def _take(self, frame: Frame) -> None:
        stream = self._open.get(frame.stream)
        match frame.body:
            case OpenLog() as opened if stream is None:
                self._begin(frame.stream, opened.credit_bytes, lambda stream: self._outputs.send(opened, stream))
            case OpenStats() as asked if stream is None:
                self._begin(frame.stream, 0, lambda stream: self._usages.send(asked, stream))
            case OpenInput() as wanted if stream is None:
                self._begin(frame.stream, 0, lambda stream: self._inputs.send(wanted, stream))
            case Data() as data if stream is not None:
                stream.arrive(data)
            case Credit(credit_bytes) if stream is not None:
                stream.grant(credit_bytes)
                if not credit_bytes:  # the master asks whether we are there
                    self._say(frame.stream, Data(stream.offset, b""))
            case Close() if stream is not None:
                del self._open[frame.stream]  # at once: the frame that follows may open another
                stream.task.cancel()

    def answered(self) -> None:
        """A beat was answered: the frames of most streams are with the master."""
        waiting = {frame.stream for frame in self._unheard()}
        for number, stream in self._open.items():
            if number not in waiting:
                stream.turn.set()

    def forget(self) -> None:
        """A new session: the streams of the last one are gone."""
        for stream in self._open.values():
            stream.task.cancel()
        self._open.clear()

    async def close(self) -> None:
        """End all streams."""
        tasks = [stream.task for stream in self._open.values()]
        self.forget()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _begin(self, number: int, credit_bytes: int, work: Callable[[LaneStream], Awaitable[None]]) -> None:
        if len(self._open) >= STREAMS_MAX:
            self._say(number, Close(f"{STREAMS_MAX} streams are open on this agent already: try again later"))
            return
        self._open[number] = stream = LaneStream(credit_bytes, lambda body: self._say(number, body))
        stream.task = asyncio.create_task(self._serve(number, stream, work), name=f"stream {number}")

    async def _serve(self, number: int, stream: LaneStream, work: Callable[[LaneStream], Awaitable[None]]) -> None:
        try:
            await work(stream)
        except NotFound as error:
            self._say(number, Close(f"not found: {error}"))
        except (Unavailable, TimeoutError) as error:
            self._say(number, Close(str(error) or f"no word from the master for {DEADLINE_S:.0f} s"))
        except Exception as error:
            log.error("a stream failed by a fault of ours", exc_info=error)
            self._say(number, Close("a fault of the agent, see its log"))
        finally:
            if self._open.get(number) is stream:
                del self._open[number]

    def _say(self, number: int, body: Data | Stats | Credit | Close) -> None:
        self._post(SendFrame(Frame(number, body)))


class LaneStream:
    """What one stream may send."""

    def __init__(self, credit_bytes: int, post: Callable[[Data | Stats | Credit], None]) -> None:
        self.task: asyncio.Task[None]
        self.credit_bytes = min(credit_bytes, CREDIT_BYTES_MAX)
        self.offset = 0  # up to which the output was sent, or the input taken
        self.window_bytes = 0  # of input, that may be here and not taken
        self.turn = asyncio.Event()
        self.turn.set()
        self._post = post
        self._credit = asyncio.Event()
        self._came: deque[Data] = deque()
        self._came_to = 0  # of the input, whether taken or not
        self._arrival = asyncio.Event()
        self._fault = ""
        self._loop = asyncio.get_running_loop()
        self._heard_s = self._loop.time()

    def say(self, body: Data | Stats | Credit) -> None:
        """Send this; `had_turn` returns when it is with the master."""
        self.turn.clear()
        self._post(body)

    def grant(self, more_bytes: int) -> None:
        """The master grants so much more, and lives."""
        self.credit_bytes = min(self.credit_bytes + more_bytes, CREDIT_BYTES_MAX)
        self._heard_s = self._loop.time()
        self._credit.set()

    def expect(self, window_bytes: int) -> None:
        """Take input from `offset` on, at most so many bytes at once."""
        self.window_bytes, self._came_to = window_bytes, self.offset

    def arrive(self, data: Data) -> None:
        """Data came from the master, which lives."""
        self._heard_s = self._loop.time()
        begin, end = data.offset, data.offset + len(data.data)
        if begin != self._came_to or end > self.offset + self.window_bytes:
            self._fault = f"the master sent bytes {begin} to {end} of the input, which it was not granted"
        elif data.data or data.end:
            self._came.append(data)
            self._came_to = end
        self._arrival.set()

    async def arrived(self) -> Data:
        """The next data. Raises `Unavailable` if something else came than what follows, or too much; `TimeoutError`."""
        while not self._came and not self._fault:
            self._arrival.clear()
            await self._within_deadline(self._arrival)
        if self._fault:
            raise Unavailable(self._fault)
        return self._came.popleft()

    def check(self) -> None:
        """Raises `TimeoutError` past the deadline."""
        if self._loop.time() > self._heard_s + DEADLINE_S:
            raise TimeoutError

    async def has_credit(self) -> None:
        """Return when something may be sent; raises `TimeoutError`."""
        while self.credit_bytes <= 0:
            self._credit.clear()
            await self._within_deadline(self._credit)

    async def had_turn(self) -> None:
        """Return when what was said is with the master; raises `TimeoutError`."""
        while not self.turn.is_set():
            await self._within_deadline(self.turn)

    async def _within_deadline(self, event: asyncio.Event) -> None:
        """Wait for it; a word from the master meanwhile moves the deadline. Raises `TimeoutError`."""
        until_s = self._heard_s + DEADLINE_S
        try:
            async with asyncio.timeout_at(until_s):
                await event.wait()
        except TimeoutError:
            self.check()
