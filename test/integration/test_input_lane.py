"""Both ends of the input stream, the master's and the agent's, over a lane that breaks: each byte once, in order."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any, cast

import pytest

from edgerm.core.errors import Conflict, NotFound, Unavailable
from edgerm.core.ids import AgentId, FrameworkId, LaunchId, TaskId, TaskKey
from edgerm.core.link import COAP, HTTP, Carrier, Data, Frame
from edgerm.plugin.executor import Handle, Intake, LaunchSpec
from edgerm.testing.executors import FakeExecutor, Script
from edgerm_agent.core.effects import FramesIn as ToAgent
from edgerm_agent.core.events import Event
from edgerm_agent.core.events import SendFrame as FromAgent
from edgerm_agent.input import WINDOW_BYTES_MAX, Inputs
from edgerm_agent.lane import Lane
from edgerm_master.api import input as writing
from edgerm_master.api.input import PIECE_BYTES_MAX, InputWriter, Taken
from edgerm_master.api.port import Port
from edgerm_master.api.streams import Streams
from edgerm_master.core.effects import FramesIn, SessionEnded
from edgerm_master.core.events import SendFrame

AGENT = AgentId("0" * 32)
KEY = TaskKey(FrameworkId("f"), TaskId("t"), LaunchId("l"))


class Sipping(FakeExecutor):
    """Takes some of what it is given, now and then nothing."""

    def __init__(self, chance: Random) -> None:
        super().__init__(lambda spec: Script(exit=None))
        self._chance = chance
        self.thirsty = True

    async def put_input(self, handle: Handle, offset: int, data: bytes, end: bool, wait_s: float) -> Intake:
        sip = self._chance.randrange(len(data) + 1) if self.thirsty else 0
        await asyncio.sleep(0)
        return await super().put_input(handle, offset, data[:sip], end and sip == len(data), wait_s)


class Wires:
    """A master's lane and an agent's, joined; `lose` breaks them as a lost session does."""

    def __init__(self, chance: Random, carrier: Carrier) -> None:
        self.executor = Sipping(chance)
        self.handle: Handle | None = None
        self.largest = 0
        self._handlers: dict[type, Any] = {}
        self._session = 0
        self._unheard: list[Frame] = []
        self._loop = asyncio.get_running_loop()
        inputs = Inputs({"fake": self.executor}, lambda key: self.handle, lambda: carrier)
        self.lane = Lane(cast("Any", None), cast("Any", None), inputs, lambda: self._unheard)
        self.lane.begin(self._from_agent)
        self.core = type("Core", (), {"agents": {}})
        self.writer = InputWriter(Streams(cast("Port", self)))

    async def start(self, *, stdin_open: bool = True) -> None:
        """The task."""
        spec = LaunchSpec(KEY, "t", ("t",), (), Path(), stdin_open=stdin_open)
        self.handle = await self.executor.start(spec)

    @property
    def taken(self) -> bytes:
        """What the task has."""
        return bytes(self.executor.tasks[KEY].input)

    def on(self, kind: type, handler: Any) -> None:
        """As the master's port has it."""
        self._handlers[kind] = handler

    def post(self, event: SendFrame) -> None:
        """A frame to the agent, in its turn."""
        session = self._session
        self.largest = max(self.largest, len(getattr(event.frame.body, "data", b"")))

        def deliver() -> None:
            if session == self._session:
                self.lane.take(ToAgent((event.frame,)))

        self._loop.call_soon(deliver)

    def _from_agent(self, event: Event) -> None:
        assert isinstance(event, FromAgent)
        session, frame = self._session, event.frame
        self._unheard.append(frame)

        def deliver() -> None:
            if session == self._session:
                self._unheard.remove(frame)
                self.lane.answered()
                self._handlers[FramesIn](FramesIn(AGENT, (frame,)))

        self._loop.call_soon(deliver)

    def lose(self) -> None:
        """The session is over; what was under way is gone."""
        self._session += 1
        self._unheard.clear()
        self.lane.forget()
        self._handlers[SessionEnded](SessionEnded(AGENT, self._session))

    async def write(self, offset: int | None, data: bytes = b"", *, close: bool = False) -> Taken:
        """As a request does."""
        async with asyncio.timeout(30):
            return await self.writer.write(AGENT, KEY, offset, data, close)

    async def end(self) -> None:
        """Nothing is left."""
        self.lose()
        await self.lane.close()


@pytest.fixture(params=range(12))
def seed(request: pytest.FixtureRequest) -> Iterator[int]:
    """Another story each."""
    yield request.param


async def test_each_byte_once(seed: int) -> None:
    """A writer who repeats what is not known to be taken loses and doubles nothing, whenever sessions are lost."""
    chance = Random(seed)
    wires = Wires(chance, chance.choice((HTTP, COAP)))
    await wires.start()
    data = chance.randbytes(chance.randrange(1, 150_000))
    at, closed = 0, False
    losses = [asyncio.get_running_loop().call_later(chance.random() / 30, wires.lose) for _ in range(12)]
    while not closed:
        try:
            at, _ = await wires.write(None)
            piece = data[at:][: chance.randrange(1, PIECE_BYTES_MAX)]
            at, closed = await wires.write(at, piece, close=at + len(piece) == len(data))
        except Unavailable:
            continue
        assert at <= len(wires.taken)
    for loss in losses:
        loss.cancel()
    assert wires.taken == data
    assert wires.executor.tasks[KEY].input_closed
    assert wires.largest <= WINDOW_BYTES_MAX
    assert await wires.write(at, close=True) == (len(data), True)  # once more, as after a lost answer
    with pytest.raises(Conflict):
        await wires.write(at, b"late")
    await wires.end()


async def test_a_full_pipe_answers_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer of a task that takes nothing is answered after a while, with where to go on; no more is sent ahead
    than the agent granted."""
    monkeypatch.setattr(writing, "ANSWER_S", 0.05)
    wires = Wires(Random(1), HTTP)
    await wires.start()
    wires.executor.thirsty = False
    assert await wires.write(0, bytes(PIECE_BYTES_MAX)) == (0, False)
    assert await wires.write(PIECE_BYTES_MAX, bytes(PIECE_BYTES_MAX)) == (0, False)
    with pytest.raises(Conflict, match="cannot be written yet"):
        await wires.write(WINDOW_BYTES_MAX + 1, b"x")
    wires.executor.thirsty = True
    monkeypatch.setattr(writing, "ANSWER_S", 20.0)
    assert await wires.write(0, bytes(PIECE_BYTES_MAX)) == (PIECE_BYTES_MAX, False)
    assert wires.taken == bytes(PIECE_BYTES_MAX)
    await wires.end()


@pytest.mark.parametrize(("stdin_open", "gone"), [(False, False), (True, True)])
async def test_nobody_reads(stdin_open: bool, gone: bool) -> None:
    """A task without an open input, or one that has ended, is not found."""
    wires = Wires(Random(1), HTTP)
    await wires.start(stdin_open=stdin_open)
    if gone:
        wires.handle = None
    with pytest.raises(NotFound):
        await wires.write(0, b"x")
    await wires.end()


async def test_more_than_was_granted_ends_the_stream() -> None:
    """An agent keeps no more than it granted: a master that sends more, or leaves a gap, loses its stream."""
    wires = Wires(Random(1), HTTP)
    await wires.start()
    await wires.write(0, b"abc")
    ((number, stream),) = wires.lane._open.items()
    wires.post(SendFrame(AGENT, Frame(number, Data(4, b"x"))))
    async with asyncio.timeout(10):
        await asyncio.wait({stream.task})
    assert number not in wires.lane._open
    assert wires.taken == b"abc"
    assert await wires.write(3, b"d") == (4, False)  # by a stream of its own
    await wires.end()
