"""Streams that the master opened at agents: deadlines and ends."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from edgerm.core.errors import Unavailable
from edgerm.core.ids import AgentId
from edgerm.core.link import Close, Credit, Data, Frame, OpenStats, Stats
from edgerm_master.api import streams as module
from edgerm_master.api.port import Port
from edgerm_master.api.streams import AgentStream, Streams
from edgerm_master.core.effects import FramesIn, SessionEnded
from edgerm_master.core.events import SendFrame

AGENT = AgentId("0" * 32)


class Lane:
    """A port at whose other end is one agent."""

    def __init__(self) -> None:
        self.sent: list[object] = []
        self.taken: list[object] = []
        self.ended: asyncio.Queue[str] = asyncio.Queue()
        self._handlers: dict[type, Any] = {}
        self.streams = Streams(cast("Port", self))

    def on(self, kind: type, handler: Any) -> None:
        """As the port has it."""
        self._handlers[kind] = handler

    def post(self, event: SendFrame) -> None:
        """A frame to the agent."""
        self.sent.append(event.frame.body)

    def opened(self) -> AgentStream:
        """A stream."""
        stream = self.streams.open(AGENT, self.taken.append, self.ended.put_nowait)
        stream.send(OpenStats(1.0))
        return stream

    def say(self, number: int, *bodies: Data | Stats | Close, agent_id: AgentId = AGENT) -> None:
        """Frames from an agent."""
        self._handlers[FramesIn](FramesIn(agent_id, tuple(Frame(number, body) for body in bodies)))

    def lose(self) -> None:
        """The agent's session ends."""
        self._handlers[SessionEnded](SessionEnded(AGENT, 1))


async def test_a_silent_agent_is_asked_and_then_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent that says nothing for the deadline, though it is asked, has lost the stream."""
    monkeypatch.setattr(module, "KEEP_ALIVE_S", 0.01)
    monkeypatch.setattr(module, "DEADLINE_S", 0.05)
    lane = Lane()
    lane.opened()
    async with asyncio.timeout(30):
        assert "sent nothing for" in await lane.ended.get()
    assert Credit(0) in lane.sent
    assert isinstance(lane.sent[-1], Close)


async def test_frames_find_their_stream() -> None:
    """A stream gets what its agent sends it, and nothing of another agent, another number or after its end."""
    lane = Lane()
    stream = lane.opened()
    lane.say(stream.number, Stats())
    lane.say(stream.number + 1, Data(0, b"x"))
    lane.say(stream.number, Data(0, b"y"), agent_id=AgentId("1" * 32))
    lane.say(stream.number, Close("enough"), Data(0, b"z"))
    assert lane.taken == [Stats()]
    assert lane.ended.get_nowait() == "enough"
    stream.close()
    assert lane.ended.empty()
    assert lane.sent == [OpenStats(1.0)]


async def test_a_lost_session_ends_its_streams() -> None:
    """The streams of an agent whose session is over end, with a word."""
    lane = Lane()
    lane.opened()
    lane.lose()
    assert "was lost" in lane.ended.get_nowait()


async def test_streams_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound a stream is refused; a closed one makes room."""
    monkeypatch.setattr(module, "STREAMS_MAX", 1)
    lane = Lane()
    stream = lane.opened()
    with pytest.raises(Unavailable):
        lane.opened()
    stream.close("over")
    assert lane.sent[-1] == Close("over")
    lane.opened().close()
