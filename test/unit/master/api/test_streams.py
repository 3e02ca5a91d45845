"""Outputs that the master reads from agents: deadlines."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from edgerm.core.errors import Unavailable
from edgerm.core.ids import AgentId, FrameworkId, LaunchId, TaskId, TaskKey
from edgerm.core.link import Close, Data, Frame
from edgerm_master.api import streams as module
from edgerm_master.api.port import Port
from edgerm_master.api.streams import LogStream, Streams
from edgerm_master.core.effects import FramesIn
from edgerm_master.core.events import SendFrame

AGENT = AgentId("0" * 32)
KEY = TaskKey(FrameworkId("f"), TaskId("t"), LaunchId("l"))


class Lane:
    """A port at whose other end is one agent."""

    def __init__(self) -> None:
        self.sent: list[object] = []
        self._handlers: dict[type, Any] = {}
        self.streams = Streams(cast("Port", self))

    def on(self, kind: type, handler: Any) -> None:
        """As the port has it."""
        self._handlers[kind] = handler

    def post(self, event: SendFrame) -> None:
        """A frame to the agent."""
        self.sent.append(event.frame.body)

    def opened(self) -> LogStream:
        """An output that is followed."""
        return self.streams.open_log(AGENT, KEY, False, 0, True)

    def say(self, stream: LogStream, body: Data) -> None:
        """A frame from the agent."""
        self._handlers[FramesIn](FramesIn(AGENT, (Frame(stream.number, body),)))


async def test_a_followed_output_without_a_frame_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent that says nothing for the deadline, though it is asked, has lost the stream: its reader is told."""
    monkeypatch.setattr(module, "DEADLINE_S", 0.01)
    lane = Lane()
    stream = lane.opened()
    with pytest.raises(Unavailable, match="sent nothing for"):
        async with asyncio.timeout(30):
            await stream.read()
    stream.close("over")
    assert lane.sent[-1] == Close("over")


async def test_a_frame_without_bytes_only_says_that_the_agent_lives() -> None:
    """The answer to a credit of nothing is no output; what follows it is."""
    lane = Lane()
    stream = lane.opened()
    for body in (Data(0, b""), Data(0, b"x"), Data(1, b"", end=True)):
        lane.say(stream, body)
    assert [await stream.read(), await stream.read()] == [Data(0, b"x"), Data(1, b"", end=True)]
    stream.close()
