"""WRITE_INPUT: bytes for a task's open standard input, from who writes them to its agent (docs/link.md, "Input").

A request brings a piece with its place in the input and is answered when the task has taken it, or with how far the
task has come after a while. So a writer who repeats what is not taken loses and doubles nothing, whatever was lost in
between, and nothing waits here but the one piece that is being written.

What does not live here: the lane (`streams.py`), the pipe (the agent).
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from edgerm.core.errors import Conflict, EdgermError, Invalid, NotFound, TooLarge, Unavailable
from edgerm.core.ids import AgentId, TaskKey
from edgerm.core.link import Credit, Data, OpenInput, Stats
from edgerm_master.api.streams import AgentStream, Streams

PIECE_BYTES_MAX = 64 * 1024  # of one request
ANSWER_S = 20.0  # a task that takes nothing for so long: the answer says how far it has come
IDLE_S = 60.0  # after which the stream is closed; the input itself stays open
INPUTS_MAX = 1000


class Taken(NamedTuple):
    """How far a task has taken its live input."""

    offset: int
    closed: bool


class InputWriter:
    """All inputs that are being written."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        self._inputs: dict[TaskKey, _Input] = {}

    async def write(self, agent_id: AgentId, key: TaskKey, offset: int | None, data: bytes, close: bool) -> Taken:
        """Write `data`, whose first byte is byte `offset` of the live input; no data: only look how far it is.

        Raises `Invalid`, `Conflict` for a place beyond what was written or after the end, `NotFound` if the task has no
        open input, `Unavailable` if its agent is away.
        """
        if len(data) > PIECE_BYTES_MAX:
            raise TooLarge(f"data of {len(data)} bytes; at most {PIECE_BYTES_MAX} are taken in one WRITE_INPUT")
        if data and offset is None:
            raise Invalid("WRITE_INPUT with data and without offset: say which byte of the input is the first")
        found = self._inputs.get(key)
        if found is None:
            if len(self._inputs) >= INPUTS_MAX:
                raise Unavailable(f"{INPUTS_MAX} inputs are being written already: try again later")
            found = self._inputs[key] = _Input(self._streams, agent_id, key)
        found.users += 1
        try:
            async with found.lock:
                return await found.write(offset, data, close)
        finally:
            found.users -= 1
            self._leave(key, found)

    def _leave(self, key: TaskKey, found: _Input) -> None:
        """Close the stream when nobody has written for a while."""

        def forget() -> None:
            if not found.users and self._inputs.get(key) is found:
                del self._inputs[key]
                found.close()

        if found.idle is not None:
            found.idle.cancel()
        if not found.users:
            if found.over:
                forget()
            else:
                found.idle = asyncio.get_running_loop().call_later(IDLE_S, forget)


class _Input:
    """One task's input; one request at a time is at work on it."""

    def __init__(self, streams: Streams, agent_id: AgentId, key: TaskKey) -> None:
        self.lock = asyncio.Lock()
        self.users = 0
        self.idle: asyncio.TimerHandle | None = None
        self._streams = streams
        self._agent_id = agent_id
        self._key = key
        self._stream: AgentStream | None = None
        self._window_bytes = 0  # that the agent holds for the task; 0: it has not said
        self._known = False  # the agent has said how far the task is
        self._taken = 0
        self._sent = 0
        self._ending = False  # the end was sent
        self._closed = False
        self._why: str | None = None  # the stream ended by itself
        self._changed = asyncio.Event()

    @property
    def over(self) -> bool:
        """Whether there is no stream to keep."""
        return self._stream is None or self._closed or self._why is not None

    def close(self) -> None:
        """Nobody writes any more."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    async def write(self, offset: int | None, data: bytes, close: bool) -> Taken:
        """See `InputWriter.write`."""
        until_s = asyncio.get_running_loop().time() + ANSWER_S
        await self._open(until_s)
        begin = self._sent if offset is None else offset
        end = begin + len(data)
        self._check(begin, end, close)
        while self._sent < end and await self._room(until_s):
            piece = data[self._sent - begin :][: self._piece_bytes()]
            self._send(Data(self._sent, piece))
        if close and self._sent >= end and not (self._ending or self._closed):
            self._ending = True
            self._send(Data(self._sent, b"", end=True))
        while not self._closed and (close or self._taken < end) and await self._news(until_s):
            pass
        return Taken(self._taken, self._closed)

    def _check(self, begin: int, end: int, close: bool) -> None:
        if begin > self._sent:
            raise Conflict(f"byte {begin} of the input cannot be written yet: it has come to byte {self._sent}")
        if end > self._sent and (self._ending or self._closed):
            raise Conflict(f"the input is closed after byte {self._sent}: nothing can be written any more")

    async def _open(self, until_s: float) -> None:
        """Have a stream, and know how far the task is."""
        if self._stream is None or self._why is not None:
            self._why, self._window_bytes, self._known, self._ending, self._closed = None, 0, False, False, False
            self._stream = self._streams.open(self._agent_id, self._take, self._fail)
            self._stream.send(OpenInput(self._key))
        while not self._known:
            if not await self._news(until_s):
                raise Unavailable(f"agent {self._agent_id} does not answer")

    def _take(self, body: Data | Stats | Credit) -> None:
        if isinstance(body, Credit) and not self._window_bytes:
            self._window_bytes = body.credit_bytes
        elif isinstance(body, Data) and self._window_bytes:
            if not self._known:
                self._taken = self._sent = body.offset
            self._known = True
            self._taken = max(self._taken, body.offset)
            if body.end:
                self._closed = True
                self._sent = max(self._sent, self._taken)
                assert self._stream is not None
                self._stream.done()
                self._stream = None
        self._changed.set()

    def _fail(self, why: str) -> None:
        self._why = why
        self._changed.set()

    def _piece_bytes(self) -> int:
        room = self._taken + self._window_bytes - self._sent
        return min(room, self._streams.carrier(self._agent_id).data_bytes)

    async def _room(self, until_s: float) -> bool:
        while self._piece_bytes() <= 0 or self._closed:
            if self._closed or not await self._news(until_s):
                return False
        return True

    async def _news(self, until_s: float) -> bool:
        """Wait for a word of the agent; False when the time is over. Raises what ended the stream."""
        if self._why is None and not self._changed.is_set():
            try:
                async with asyncio.timeout_at(until_s):
                    await self._changed.wait()
            except TimeoutError:
                return False
        self._changed.clear()
        if self._why is not None:
            raise self._error(self._why)
        return True

    def _error(self, why: str) -> EdgermError:
        kind = NotFound if why.startswith("not found") else Unavailable
        return kind(f"{why} (the task is known to have taken {self._taken} bytes)" if self._known else why)

    def _send(self, body: Data) -> None:
        if self._stream is None:
            raise Unavailable(f"the connection to agent {self._agent_id} was lost")
        self._sent += len(body.data)
        self._stream.send(body)
