"""The master in the simulator: the real core behind simulated streams and links."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, cast

from edgerm.core.blobs import digest_of
from edgerm.core.constraints import NO_CONSTRAINTS, Constraints
from edgerm.core.devices import NO_INVENTORY
from edgerm.core.ids import AgentId, FrameworkId, StreamId
from edgerm.core.link import Beat, BeatAnswer, Carrier, Frame, Join, JoinAnswer
from edgerm.core.scheduler import Call, FrameworkSpec, UpdateFramework, without_devices
from edgerm.core.scheduler import Event as FrameworkEvent
from edgerm.testing.sim.clock import Clock
from edgerm.testing.sim.node import Node
from edgerm.testing.sim.output import Readers
from edgerm_master.core import effects
from edgerm_master.core.events import (
    Beaten,
    Called,
    Event,
    Joined,
    Maintained,
    Maintenance,
    SendFrame,
    StreamClosed,
    Subscribe,
    Tick,
)
from edgerm_master.core.invariants import broken
from edgerm_master.core.master import Master, Settings
from edgerm_master.core.records import Record

if TYPE_CHECKING:
    from edgerm.testing.sim.framework import SimFramework

Answered = Callable[[JoinAnswer | BeatAnswer], None]


class SimMaster(Node[effects.Speech]):
    """One master. After each event, or every so many, every invariant is checked."""

    def __init__(
        self,
        clock: Clock,
        settings: Settings,
        make: Callable[[str, bytes, Settings], Master] = Master,
        check_every: int = 1,
    ) -> None:
        super().__init__(clock)
        self._check_every = check_every
        self._events = 0
        self._settings = settings
        self._make = make
        self.core = make("m0", b"", settings)
        self.ring: Callable[[AgentId, int], None] = lambda _agent, _session: None
        self._requests: dict[int, Answered] = {}
        self._accepted: dict[int, Callable[[], None]] = {}
        self._streams: dict[StreamId, SimFramework] = {}
        self._count = 0
        self.readers = Readers(clock, lambda agent_id, frame: self.later(0.0, partial(self._send, agent_id, frame)))

    def begin(self) -> None:
        self._requests, self._accepted, self._streams = {}, {}, {}
        self.readers.end()
        seed = self.clock.random.randbytes(16)
        self.core = self._make(f"m{self.life}", seed, self._settings)
        self.core.recover(cast("list[Record]", list(self.disk.rows.values())), self.now)
        self.check("recovery")
        self._set_timer()

    def crash(self) -> None:
        super().crash()
        for stream, framework in list(self._streams.items()):
            framework.stream_broke(stream)
        self._streams = {}

    def due_s(self) -> float | None:
        return self.core.due_s()

    def tick(self) -> None:
        self.post(Tick())

    def post(self, event: Event) -> None:
        """Let `event` happen, if the master lives."""
        if not self.alive:
            return
        made = self.core.handle(event, self.now)
        self._events += 1
        if self._events % self._check_every == 0:
            self.check(event)
        self.take(made)

    def check(self, event: object) -> None:
        """Every invariant must hold, after this event; raises AssertionError."""
        problems = broken(self.core.world)
        assert not problems, f"master, after {event}: {problems}"

    # --- what agents and frameworks do ---

    def agent_asks(self, body: Join | Beat, carrier: Carrier, answered: Answered) -> None:
        """A join or a beat has arrived."""
        self._count += 1
        self._requests[self._count] = answered
        if isinstance(body, Join):
            body = _named(body)
        made = Joined(self._count, body, carrier) if isinstance(body, Join) else Beaten(self._count, body, carrier)
        self.post(made)

    def subscribe(
        self,
        framework: SimFramework,
        spec: FrameworkSpec,
        framework_id: FrameworkId | None,
        suppressed: tuple[str, ...] = (),
        constraints: Mapping[str, Constraints] = NO_CONSTRAINTS,
    ) -> StreamId | None:
        """Open a stream; None when nobody answers."""
        if not self.alive:
            return None
        self._count += 1
        stream = StreamId(f"s{self._count}")
        self._streams[stream] = framework
        self.post(Subscribe(stream, spec, framework_id, suppressed, constraints))
        return stream

    def close_stream(self, stream: StreamId) -> None:
        """The framework's end of the stream is gone."""
        if self._streams.pop(stream, None) is not None:
            self.post(StreamClosed(stream))

    def call(self, stream: StreamId, framework_id: FrameworkId, call: Call) -> bool:
        """A framework's call; False when it is refused (no such stream, or nobody there)."""
        if not self.alive or self.core.stream_of(framework_id) != stream:
            return False
        if isinstance(call, UpdateFramework) and self.core.fault_of_update(framework_id, call):
            return False
        self._count += 1
        self.post(Called(self._count, framework_id, call))
        return True

    def maintain(self, call: Maintenance, done: Callable[[], None]) -> None:
        """An operator's word about an agent; `done` once it is durable, never if this master does not come to that."""
        if self.alive:
            self._count += 1
            self._accepted[self._count] = done
            self.post(Maintained(self._count, call))

    # --- what the core asks for ---

    def speak(self, effect: effects.Speech) -> None:
        match effect:
            case effects.AnswerAgent(request, answer):
                self._requests.pop(request)(answer)
            case effects.Tell(stream, event) | effects.TellSoon(stream, event):
                self._tell(stream, event)
            case effects.CloseStream(stream):
                framework = self._streams.pop(stream, None)
                if framework is not None:
                    self.clock.after(0.001, partial(framework.stream_broke, stream))
            case effects.Ring(agent_id, session):
                self.ring(agent_id, session)
            case effects.FramesIn(agent_id, frames):
                for frame in frames:
                    self.readers.take(agent_id, frame)
            case effects.SessionEnded(agent_id, _):
                self.readers.end(agent_id)
            case effects.Accepted(request):
                self._accepted.pop(request, lambda: None)()

    def _send(self, agent_id: AgentId, frame: Frame) -> None:
        self.post(SendFrame(agent_id, frame))

    def _tell(self, stream: StreamId, event: FrameworkEvent) -> None:
        framework = self._streams.get(stream)
        if framework is not None:
            # A stream is TCP: in order or broken, so every event takes the same time.
            self.clock.after(0.001, partial(framework.hear, stream, event))


def _named(join: Join) -> Join:
    """The join as it comes off the wire: an inventory has a name, and goes along only where it is asked for."""
    inventory = replace(join.agent.inventory, generation=0)
    if inventory == NO_INVENTORY:
        return join
    agent = join.agent if join.devices else without_devices(join.agent)
    return replace(join, agent=agent, named=digest_of(repr(inventory).encode()))
