"""Outputs that many people read: one stream at the agent, each byte to each of them once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgerm.core.errors import NotFound, Unavailable
from edgerm.core.ids import AgentId, FrameworkId, LaunchId, TaskId, TaskKey
from edgerm.core.link import COAP, HTTP, Carrier, Close, Credit, Data, Frame, OpenLog
from edgerm_master.api import upstream as module
from edgerm_master.api import upstreams as outputs
from edgerm_master.api import viewer as viewers
from edgerm_master.api.port import Port
from edgerm_master.api.streams import Streams
from edgerm_master.api.upstream import CREDIT_BYTES, Source
from edgerm_master.api.upstreams import Upstreams
from edgerm_master.api.viewer import Viewer
from edgerm_master.core.effects import FramesIn
from edgerm_master.core.events import SendFrame

AGENT = AgentId("0" * 32)
KEY = TaskKey(FrameworkId("f"), TaskId("t"), LaunchId("l"))
FOLLOWED = Source(AGENT, KEY, stderr=False, follow=True)
LOOK = FOLLOWED._replace(follow=False)


class Agent:
    """The agent behind a port, with one task: it keeps the latest `ring_bytes` of its output."""

    def __init__(self, carrier: Carrier = HTTP, bytes_s: int = 8192) -> None:
        self.output = b""
        self.ended = False
        self.ring_bytes = 1 << 30
        self.frame_bytes = 1 << 30
        self.opened: list[OpenLog] = []
        self.granted_bytes = 0
        self.twice = False  # each frame comes twice, as after a beat whose answer was lost
        self.away = False
        self._streams: dict[int, list[Any]] = {}  # OpenLog, offset, credit
        self._handlers: dict[type, Any] = {}
        half = SimpleNamespace(carrier=carrier)
        self.core = SimpleNamespace(agents={AGENT: SimpleNamespace(half=half)})
        self.upstreams = Upstreams(Streams(cast("Port", self)), bytes_s)

    # --- the port ---

    def on(self, kind: type, handler: Any) -> None:
        """Who is told what."""
        self._handlers[kind] = handler

    def post(self, event: SendFrame) -> None:
        """A frame of the master."""
        number, body = event.frame.stream, event.frame.body
        if self.away:
            self._say(number, Close("agent 0 is not connected"))
            return
        match body:
            case OpenLog():
                self.opened.append(body)
                self.granted_bytes += body.credit_bytes
                offset = body.offset if body.offset >= 0 else max(0, len(self.output) + body.offset)
                self._streams[number] = [body, offset, body.credit_bytes]
            case Credit(more) if number in self._streams:
                self.granted_bytes += more
                self._streams[number][2] += more
            case Close():
                self._streams.pop(number, None)

    @property
    def running(self) -> int:
        """How many streams are open."""
        return len(self._streams)

    # --- the agent ---

    def write(self, data: bytes, *, end: bool = False) -> None:
        """The task writes."""
        self.output += data
        self.ended = self.ended or end

    def beat(self, most: int = 1 << 30) -> bool:
        """Send a frame of each stream that has credit; False: there was nothing to send."""
        sent = False
        for number, state in list(self._streams.items()):
            opened, offset, credit = state
            offset = min(max(offset, len(self.output) - self.ring_bytes), len(self.output))
            size = min(credit, self.frame_bytes, most, len(self.output) - offset)
            data = self.output[offset : offset + size]
            complete = offset + size == len(self.output)
            end = complete and (self.ended or (not opened.follow and not data))
            if (data or end) and (credit > 0 or end):
                state[1:] = [offset + size, credit - size]
                if end:
                    del self._streams[number]
                self._say(number, Data(offset, data, end))
                sent = True
        return sent

    def pump(self) -> None:
        """Send all that may be sent."""
        while self.beat():
            pass

    def close(self, reason: str) -> None:
        """End all streams."""
        for number in list(self._streams):
            del self._streams[number]
            self._say(number, Close(reason))

    def _say(self, number: int, body: Data | Close) -> None:
        for _ in range(2 if self.twice else 1):
            self._handlers[FramesIn](FramesIn(AGENT, (Frame(number, body),)))


class Person:
    """A viewer and what it has read."""

    def __init__(self, agent: Agent, offset: int, source: Source = FOLLOWED) -> None:
        self.viewer: Viewer = agent.upstreams.view(source, offset)
        self.read: list[Data] = []

    async def drain(self) -> Person:
        """Read what is there."""
        while self.viewer._waiting:
            self.read.append(await self.viewer.read())
        return self

    @property
    def text(self) -> bytes:
        """All bytes read; offsets must fit."""
        for before, after in zip(self.read, self.read[1:], strict=False):
            assert after.offset >= before.offset + len(before.data)
        return b"".join(data.data for data in self.read)


async def test_many_viewers_one_stream() -> None:
    """Whoever comes while an output is followed is served from what is here; the agent sends it once."""
    agent = Agent()
    agent.write(b"abc")
    people = [Person(agent, 0)]
    agent.pump()
    people += [Person(agent, 0), Person(agent, 2)]
    agent.write(b"def", end=True)
    agent.pump()
    assert [(await person.drain()).text for person in people] == [b"abcdef", b"abcdef", b"cdef"]
    assert all(person.read[-1].end for person in people)
    assert len(agent.opened) == 1
    assert agent.running == 0


async def test_the_last_viewer_closes() -> None:
    """When nobody reads any more the agent is told, and the next viewer begins anew."""
    agent = Agent()
    first, second = Person(agent, 0), Person(agent, 0)
    first.viewer.close()
    assert agent.running == 1
    second.viewer.close()
    second.viewer.close()
    assert agent.running == 0
    Person(agent, 0)
    assert len(agent.opened) == 2


async def test_earlier_bytes_begin_again() -> None:
    """A viewer who wants more than is here makes the stream begin further back; the others notice nothing."""
    agent = Agent()
    agent.write(b"0123456789")
    late = Person(agent, 8)
    agent.pump()
    early = Person(agent, 3)
    agent.pump()
    agent.write(b"x", end=True)
    agent.pump()
    assert [opened.offset for opened in agent.opened] == [8, 3]
    assert ((await late.drain()).text, (await early.drain()).text) == (b"89x", b"3456789x")


async def test_counting_from_the_end() -> None:
    """So many bytes before the end, also while others follow; and these lose nothing of what comes meanwhile."""
    agent = Agent()
    agent.write(b"0123456789")
    whole = Person(agent, 0)
    agent.pump()
    agent.write(b"abcdef")
    some = Person(agent, -3)
    others = Person(agent, -4)
    agent.pump()
    agent.write(b"x", end=True)
    agent.pump()
    assert (await whole.drain()).text == b"0123456789abcdefx"
    assert (await some.drain()).text == b"defx"
    assert (await others.drain()).text == b"cdefx"


async def test_earlier_bytes_while_the_end_is_looked_for() -> None:
    """Who wants more than is here, and comes while somebody else counts from the end, gets it, too."""
    agent = Agent()
    agent.write(b"0123456789")
    late = Person(agent, 7)
    agent.pump()
    last, early = Person(agent, -1), Person(agent, 3)
    agent.pump()
    agent.write(b"x", end=True)
    agent.pump()
    assert [(await person.drain()).text for person in (late, last, early)] == [b"789x", b"9x", b"3456789x"]


async def test_what_the_agent_has_dropped_is_still_here() -> None:
    """A later viewer gets what the master has, even if the agent keeps less of it by now."""
    agent = Agent()
    agent.ring_bytes = 4
    agent.write(b"0123")
    first = Person(agent, 2)
    agent.pump()
    agent.write(b"4567")
    agent.pump()
    second = Person(agent, 0)
    agent.pump()
    agent.write(b"89", end=True)
    agent.pump()
    assert (await first.drain()).text == b"23456789"
    assert (await second.drain()).text == b"23456789"


async def test_frames_that_come_twice() -> None:
    """A frame that a lost answer let the agent send again is dropped, and costs no credit."""
    agent = Agent()
    agent.twice = True
    agent.frame_bytes = CREDIT_BYTES // 2
    agent.write(bytes(CREDIT_BYTES * 3), end=True)
    person = Person(agent, 0)
    while agent.beat():
        await person.drain()
    assert person.text == agent.output
    assert person.read[-1].end


async def test_a_single_viewer_loses_nothing() -> None:
    """A viewer who does not read holds the agent up: it sends its credit and no more, in however small frames."""
    agent = Agent()
    agent.frame_bytes = 7
    agent.write(bytes(range(256)) * 2048, end=True)
    person = Person(agent, 0)
    agent.pump()
    assert agent.granted_bytes == CREDIT_BYTES
    while not (person.read and person.read[-1].end):
        await person.drain()
        agent.pump()
    assert person.text == agent.output


async def test_the_fastest_sets_the_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    """One who does not read stops nobody: it has a gap when it is more than the window behind."""
    monkeypatch.setattr(viewers, "WINDOW_BYTES", 100_000)
    monkeypatch.setattr(module, "CREDIT_BYTES", 10_000)
    agent = Agent()
    agent.frame_bytes = 1000
    fast, slow = Person(agent, 0), Person(agent, 0)
    agent.write(bytes(500_000), end=True)
    while agent.beat():
        await fast.drain()
    await slow.drain()
    assert len(fast.text) == 500_000
    assert 50_000 < len(slow.text) <= 100_000
    assert slow.read[0].offset > 0
    assert slow.read[-1].end


async def test_those_who_are_further_wait_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the one for whom the stream began again leaves, it goes on to where the others are."""
    monkeypatch.setattr(module, "CREDIT_BYTES", 100)
    agent = Agent()
    agent.write(bytes(10_000))
    late = Person(agent, 9_990)
    agent.pump()
    Person(agent, 0).viewer.close()
    agent.pump()
    agent.write(b"x", end=True)
    agent.pump()
    assert (await late.drain()).text == bytes(10) + b"x"
    assert late.read[-1].end


async def test_a_look_and_a_follower_end_apart() -> None:
    """Who only looks ends at the present end; looks share a stream, but not with those who follow."""
    agent = Agent()
    agent.write(b"abc")
    follower = Person(agent, 0)
    looks = [Person(agent, 0, LOOK), Person(agent, 1, LOOK)]
    agent.pump()
    assert [(await look.drain()).text for look in looks] == [b"abc", b"bc"]
    assert all(look.read[-1].end for look in looks)
    assert not (await follower.drain()).read[-1].end
    assert len(agent.opened) == 2


async def test_a_cut_reaches_everyone() -> None:
    """Each viewer reads what came, then the reason why there is no more."""
    agent = Agent()
    people = [Person(agent, 0), Person(agent, 0)]
    agent.write(b"abc")
    agent.pump()
    agent.close("not found: task t")
    for person in people:
        assert (await person.drain()).text == b"abc"
        with pytest.raises(NotFound):
            await person.viewer.read()
    agent.away = True
    with pytest.raises(Unavailable, match="not connected"):
        await Person(agent, 0).viewer.read()


async def test_an_agent_that_sends_too_much_is_cut_off() -> None:
    """Bytes beyond the credit end the stream."""
    agent = Agent()
    person = Person(agent, 0)
    [state] = agent._streams.values()
    state[2] += 1
    agent.write(bytes(CREDIT_BYTES + 1))
    agent.pump()
    with pytest.raises(Unavailable, match="more than it was allowed"):
        await person.viewer.read()
    assert agent.running == 0


async def test_viewers_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound a viewer is refused; one who leaves makes room."""
    monkeypatch.setattr(outputs, "VIEWERS_MAX", 1)
    agent = Agent()
    first = Person(agent, 0)
    with pytest.raises(Unavailable):
        Person(agent, 0)
    first.viewer.close()
    Person(agent, 0)


async def virtual(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Time that passes when a test says so; timers are called in their order."""
    loop = asyncio.get_running_loop()
    now_s = 0.0
    timers: list[tuple[float, asyncio.TimerHandle]] = []

    def call_later(delay_s: float, callback: Callable[..., object], *args: object) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(now_s + delay_s, callback, args, loop)
        timers.append((now_s + delay_s, handle))
        return handle

    def advance(seconds: float) -> None:
        nonlocal now_s
        end_s = now_s + seconds
        while timers and min(timers, key=lambda timer: timer[0])[0] <= end_s:
            due_s, handle = min(timers, key=lambda timer: timer[0])
            timers.remove((due_s, handle))
            now_s = max(now_s, due_s)
            if not handle.cancelled():
                handle._run()
        now_s = end_s

    monkeypatch.setattr(loop, "time", lambda: now_s, raising=False)
    monkeypatch.setattr(loop, "call_later", call_later, raising=False)
    return advance


async def test_the_pace_behind_coap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credit is granted no faster than the setting, over all outputs of the agent, however fast they are read."""
    advance = await virtual(monkeypatch)
    agent = Agent(COAP, bytes_s=8192)
    agent.frame_bytes = 800
    people = [Person(agent, 0), Person(agent, 0, FOLLOWED._replace(stderr=True)), Person(agent, 0)]
    assert agent.granted_bytes == 4096
    agent.write(bytes(1 << 20))
    for step in range(1, 101):
        advance(0.1)
        agent.pump()
        for person in people:
            await person.drain()
        assert agent.granted_bytes <= 4096 + 8192 * 0.1 * step + 1
    assert agent.granted_bytes > 8192 * 9
    assert people[0].text == people[2].text
    assert len(people[0].text) + len(people[1].text) > 8192 * 9
    assert len(agent.opened) == 2
    for person in people:
        person.viewer.close()


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("join"), st.integers(-60, 200)),
        st.tuples(st.just("leave"), st.integers(0, 5)),
        st.tuples(st.just("read"), st.integers(0, 5)),
        st.tuples(st.just("write"), st.integers(1, 40)),
        st.tuples(st.just("beat"), st.integers(1, 50)),
    ),
    max_size=60,
)


@settings(max_examples=300)
@given(STEPS, st.booleans())
async def test_each_byte_once_and_in_order(steps: list[tuple[str, int]], twice: bool) -> None:
    """Whoever comes and goes when: each reads from its offset to the end, without a gap and nothing twice."""
    agent = Agent()
    agent.twice = twice
    people: list[tuple[Person, int]] = []  # with the offset
    for what, number in steps:
        if what == "join":
            people.append((Person(agent, number), number))
        elif what == "write":
            agent.write(bytes((len(agent.output) + index) % 251 for index in range(number)))
        elif what == "beat":
            agent.beat(number)
        elif number < len(people):
            person = people[number][0]
            if what == "read":
                await person.drain()
            else:
                person.viewer.close()
                people.pop(number)
    agent.write(b"", end=True)
    agent.pump()
    for person, offset in people:
        await person.drain()
        assert person.read[-1].end
        if offset >= 0:
            assert person.text == agent.output[offset:]
        else:
            assert agent.output.endswith(person.text)
            assert len(person.text) >= min(-offset, len(agent.output))
        person.viewer.close()
    assert agent.running == 0
