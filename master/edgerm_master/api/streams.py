"""The master's end of the ephemeral lane: streams that it opened at agents, with credit, a deadline, and an end.

What does not live here: who may open one, and how frames reach the agent (the link). Nothing here survives a session.
"""

from __future__ import annotations

import asyncio
from collections import deque
from itertools import count

from edgerm.core.errors import NotFound, Unavailable
from edgerm.core.ids import AgentId, TaskKey
from edgerm.core.link import Close, Credit, Data, Frame, OpenLog
from edgerm_master.api.port import Port
from edgerm_master.core.effects import FramesIn, SessionEnded
from edgerm_master.core.events import SendFrame

CREDIT_BYTES = 256 * 1024
KEEP_ALIVE_S = 20.0  # a credit of nothing, which the agent answers, so that neither side thinks the stream abandoned
DEADLINE_S = 60.0  # without any frame from the agent for so long the stream is dropped
STREAMS_MAX = 1000


class Streams:
    """All open streams, by number."""

    def __init__(self, port: Port) -> None:
        self._port = port
        self._numbers = count(1)
        self._open: dict[int, LogStream] = {}
        port.on(FramesIn, self._take)
        port.on(SessionEnded, self._end)

    def open_log(self, agent_id: AgentId, key: TaskKey, stderr: bool, offset: int, follow: bool) -> LogStream:
        """Ask an agent for a task's output; the caller closes the stream. Raises `Unavailable`."""
        if len(self._open) >= STREAMS_MAX:
            raise Unavailable(f"{STREAMS_MAX} outputs are being read already: try again later")
        stream = LogStream(self, agent_id, next(self._numbers) % 2**32)
        self._open[stream.number] = stream
        self.send(stream, OpenLog(key, stderr, offset, follow, CREDIT_BYTES))
        return stream

    def send(self, stream: LogStream, body: OpenLog | Credit | Close) -> None:
        """Send a frame of this stream to its agent; an agent that is away answers with a close at once."""
        self._port.post(SendFrame(stream.agent_id, Frame(stream.number, body)))

    def drop(self, stream: LogStream) -> None:
        """Forget the stream; frames that still come are ignored."""
        self._open.pop(stream.number, None)

    def _take(self, effect: FramesIn) -> None:
        for frame in effect.frames:
            stream = self._open.get(frame.stream)
            if stream is not None and stream.agent_id == effect.agent_id:
                stream.take(frame.body)

    def _end(self, effect: SessionEnded) -> None:
        for stream in [stream for stream in self._open.values() if stream.agent_id == effect.agent_id]:
            stream.take(Close(f"the connection to agent {effect.agent_id} was lost"))


class LogStream:
    """One task's output on its way here: at most CREDIT_BYTES wait for the reader."""

    def __init__(self, streams: Streams, agent_id: AgentId, number: int) -> None:
        self.agent_id = agent_id
        self.number = number
        self._streams = streams
        self._waiting: deque[Data] = deque()
        self._credit_bytes = CREDIT_BYTES  # what the agent may still send
        self._read_bytes = 0  # read since credit was last granted
        self._closed: str | None = None
        self._news = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(KEEP_ALIVE_S, self._keep_alive)

    def take(self, body: object) -> None:
        """A frame came from the agent."""
        if isinstance(body, Data):
            self._credit_bytes -= len(body.data)
            if self._credit_bytes < 0:
                self.close(f"agent {self.agent_id} sent more than it was allowed to")
            elif body.data or body.end:  # else it only says that the agent lives
                self._waiting.append(body)
        elif isinstance(body, Close) and self._closed is None:
            self._closed = body.reason or "the agent ended the stream"
            self._streams.drop(self)
        self._news.set()

    async def read(self) -> Data:
        """The next bytes; raises `Unavailable` when the stream was cut, or `NotFound` when there is no such output."""
        while not self._waiting:
            if self._closed is not None:
                raise (NotFound if self._closed.startswith("not found") else Unavailable)(self._closed)
            self._news.clear()
            try:
                async with asyncio.timeout(DEADLINE_S):
                    await self._news.wait()
            except TimeoutError:
                raise Unavailable(f"agent {self.agent_id} sent nothing for {DEADLINE_S:.0f} s") from None
        data = self._waiting.popleft()
        self._grant(len(data.data))
        return data

    def close(self, why: str = "") -> None:
        """Nobody reads any more; idempotent."""
        self._timer.cancel()
        if self._closed is None:
            self._closed = why or "closed"
            self._streams.drop(self)
            self._streams.send(self, Close(why))

    def _grant(self, read_bytes: int) -> None:
        self._read_bytes += read_bytes
        if self._closed is None and self._read_bytes >= CREDIT_BYTES // 2:
            self._credit_bytes += self._read_bytes
            self._streams.send(self, Credit(self._read_bytes))
            self._read_bytes = 0

    def _keep_alive(self) -> None:
        if self._closed is None:
            self._timer = self._loop.call_later(KEEP_ALIVE_S, self._keep_alive)
            self._streams.send(self, Credit(0))
