"""The master's end of the ephemeral lane: streams that it opened at agents, kept alive, with a deadline and an end.

What does not live here: who may open one, what a stream is about (`upstreams.py`, `usage.py`), and how frames reach the
agent (the link). Nothing here survives a session.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import count
from typing import TypeAlias

from edgerm.core.errors import Unavailable
from edgerm.core.ids import AgentId
from edgerm.core.link import HTTP, Carrier, Close, Credit, Data, Frame, OpenInput, OpenLog, OpenStats, Stats
from edgerm_master.api.port import Port
from edgerm_master.core.effects import FramesIn, SessionEnded
from edgerm_master.core.events import SendFrame

KEEP_ALIVE_S = 20.0  # a credit of nothing, which the agent answers, so that neither side thinks the stream abandoned
DEADLINE_S = 60.0  # without any frame from the agent for so long the stream is dropped
STREAMS_MAX = 16_384

Take: TypeAlias = Callable[[Data | Stats | Credit], None]
End: TypeAlias = Callable[[str], None]


class Streams:
    """All open streams, by number."""

    def __init__(self, port: Port) -> None:
        self._port = port
        self._numbers = count(1)
        self._open: dict[int, AgentStream] = {}
        port.on(FramesIn, self._take)
        port.on(SessionEnded, self._end)

    def open(self, agent_id: AgentId, take: Take, end: End) -> AgentStream:
        """A stream that has yet to be opened at the agent, with its first `send`.

        `take` is given what the agent sends. `end` is called once with the reason if the stream ends by no `close` of
        ours; that may happen within `send`. Raises `Unavailable`.
        """
        if len(self._open) >= STREAMS_MAX:
            raise Unavailable(f"{STREAMS_MAX} streams of agents are open already: try again later")
        stream = AgentStream(self, agent_id, next(self._numbers) % 2**32, take, end)
        self._open[stream.number] = stream
        return stream

    def carrier(self, agent_id: AgentId) -> Carrier:
        """What carries the agent's session now."""
        agent = self._port.core.agents.get(agent_id)
        return HTTP if agent is None or agent.half is None else agent.half.carrier

    def send(self, agent_id: AgentId, frame: Frame) -> None:
        """Send a frame; an agent that is away answers with a close at once."""
        self._port.post(SendFrame(agent_id, frame))

    def count(self) -> int:
        """How many are open."""
        return len(self._open)

    def drop(self, stream: AgentStream) -> None:
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


class AgentStream:
    """One stream at one agent."""

    def __init__(self, streams: Streams, agent_id: AgentId, number: int, take: Take, end: End) -> None:
        self.agent_id = agent_id
        self.number = number
        self.open = True
        self._streams = streams
        self._take_body = take
        self._end = end
        self._loop = asyncio.get_running_loop()
        self._heard_s = self._loop.time()
        self._timer = self._loop.call_later(min(KEEP_ALIVE_S, DEADLINE_S), self._keep_alive)

    def send(self, body: OpenLog | OpenStats | OpenInput | Data | Credit) -> None:
        """Send a frame of this stream."""
        self._streams.send(self.agent_id, Frame(self.number, body))

    def take(self, body: object) -> None:
        """A frame came from the agent."""
        self._heard_s = self._loop.time()
        if isinstance(body, Close):
            self._drop()
            self._end(body.reason or "the agent ended the stream")
        elif isinstance(body, Data | Stats | Credit):
            self._take_body(body)

    def close(self, why: str = "") -> None:
        """Nobody wants it any more: tell the agent; idempotent."""
        if self.open:
            self._drop()
            self._streams.send(self.agent_id, Frame(self.number, Close(why)))

    def fail(self, why: str) -> None:
        """Close it, and call `end` as if the agent had."""
        if self.open:
            self.close(why)
            self._end(why)

    def done(self) -> None:
        """The agent has said that this was all."""
        self._drop()

    def _drop(self) -> None:
        self.open = False
        self._timer.cancel()
        self._streams.drop(self)

    def _keep_alive(self) -> None:
        if self._loop.time() >= self._heard_s + DEADLINE_S:
            self.fail(f"agent {self.agent_id} sent nothing for {DEADLINE_S:.0f} s")
            return
        self._timer = self._loop.call_later(min(KEEP_ALIVE_S, DEADLINE_S), self._keep_alive)
        self.send(Credit(0))
