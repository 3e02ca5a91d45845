"""Tasks' output in the simulator: what a task writes, and both ends of the stream that brings it to a reader.

What does not live here: how frames travel (the link's halves). The reader must get each byte once and in order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import shake_128

from edgerm.core.ids import AgentId, TaskKey
from edgerm.core.link import Close, Credit, Data, Frame, OpenLog
from edgerm.testing.sim.clock import Clock

CREDIT_BYTES = 1500  # so little that it must be granted again and again
OUTPUT_BYTES_MAX = 4000
AGAIN_S = 10.0


def output_of(key: TaskKey) -> bytes:
    """All that this task ever writes."""
    name = str(key).encode()
    return shake_128(name).digest(1 + int.from_bytes(shake_128(name).digest(2), "big") % OUTPUT_BYTES_MAX)


@dataclass(slots=True)
class _Written:
    key: TaskKey
    offset: int
    credit_bytes: int


class Writers:
    """The agent's end of all streams of one session."""

    def __init__(self, send: Callable[[Frame], None], data_bytes: int) -> None:
        self._send = send
        self._data_bytes = data_bytes
        self._open: dict[int, _Written] = {}

    def take(self, frame: Frame) -> None:
        """A frame came from the master."""
        number, body = frame.stream, frame.body
        if isinstance(body, OpenLog):
            assert number not in self._open, f"stream {number} was opened twice"
            self._open[number] = _Written(body.key, body.offset, body.credit_bytes)
        elif isinstance(body, Credit) and number in self._open:
            self._open[number].credit_bytes += body.credit_bytes
        self._write(number)

    def _write(self, number: int) -> None:
        stream = self._open.get(number)
        while stream is not None and stream.credit_bytes:
            content = output_of(stream.key)[stream.offset :][: min(stream.credit_bytes, self._data_bytes)]
            end = stream.offset + len(content) == len(output_of(stream.key))
            self._send(Frame(number, Data(stream.offset, content, end)))
            stream.offset += len(content)
            stream.credit_bytes -= len(content)
            if end:
                del self._open[number]
                return


@dataclass(slots=True)
class Reader:
    """Somebody who reads one task's output; what breaks is asked for again from where it broke."""

    agent_id: AgentId
    key: TaskKey
    offset: int = 0
    ended: bool = False

    def take(self, data: Data) -> int:
        """How many bytes of `data` are new."""
        if data.offset < self.offset or self.ended:
            return 0  # sent again because an answer was lost
        begin = self.offset
        assert data.offset == begin, f"the output of task {self.key} lacks bytes {begin} to {data.offset}"
        self.offset, self.ended = begin + len(data.data), data.end
        assert data.data == output_of(self.key)[begin : self.offset], f"the output of task {self.key} is another"
        return len(data.data)


class Readers:
    """The master's end of all streams; readers stay when the master restarts, streams do not."""

    def __init__(self, clock: Clock, send: Callable[[AgentId, Frame], None]) -> None:
        self.all: list[Reader] = []
        self._clock = clock
        self._send = send
        self._open: dict[int, Reader] = {}
        self._count = 0

    def follow(self, agent_id: AgentId, key: TaskKey) -> None:
        """Read this task's output from its beginning, until all of it is there."""
        reader = Reader(agent_id, key)
        self.all.append(reader)
        self._try(reader)

    def _try(self, reader: Reader) -> None:
        if reader.ended:
            return
        if reader not in self._open.values():
            self._count += 1
            self._open[self._count] = reader
            self._send(
                reader.agent_id, Frame(self._count, OpenLog(reader.key, False, reader.offset, True, CREDIT_BYTES))
            )
        self._clock.after(AGAIN_S, lambda: self._try(reader))

    def take(self, agent_id: AgentId, frame: Frame) -> None:
        """A frame came from an agent."""
        reader = self._open.get(frame.stream)
        if reader is None or reader.agent_id != agent_id:
            return
        if isinstance(frame.body, Close):
            del self._open[frame.stream]
        elif isinstance(frame.body, Data):
            taken_bytes = reader.take(frame.body)
            if reader.ended:
                del self._open[frame.stream]
            elif taken_bytes:
                self._send(agent_id, Frame(frame.stream, Credit(taken_bytes)))

    def end(self, agent_id: AgentId | None = None) -> None:
        """An agent's session is over; None: the master is down, and with it every stream."""
        gone = [number for number, reader in self._open.items() if agent_id in (None, reader.agent_id)]
        for number in gone:
            del self._open[number]
