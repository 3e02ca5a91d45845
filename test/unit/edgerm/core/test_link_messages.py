"""Messages on the ephemeral lane: cut into parts, numbered with the frames, put together once and in order."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import task_keys

from edgerm.core.ids import AgentId, FrameworkId, LaunchId, TaskId, TaskKey
from edgerm.core.link import (
    COAP,
    HTTP,
    QUEUED_FRAMES_MAX,
    AgentHalf,
    Beat,
    BeatAnswer,
    Carrier,
    Close,
    Data,
    Frame,
    Letter,
    MasterHalf,
    MessagePart,
    Welcome,
)
from edgerm.core.link.parts import Assembly, cut, queue_message
from edgerm.core.link.sizes import MESSAGE_BYTES, frame_bytes
from edgerm.core.scheduler import MESSAGE_BYTES_MAX, AgentSpec

KEY = TaskKey(FrameworkId("m0-1"), TaskId("t"), LaunchId("m0-2"))
WORDS = Letter(KEY, b"hello")


def joined(carrier: Carrier = HTTP) -> AgentHalf:
    """An agent with a session."""
    half = AgentHalf(AgentId("a"), AgentSpec("h"), 1, carrier=carrier)
    polled = half.poll(0.0, ())
    assert polled is not None
    half.join_answered(polled[0], Welcome(7, 15.0), 0.0)
    return half


def beat_of(half: AgentHalf, now_s: float = 0.0) -> tuple[int, Beat]:
    """The beat that is due."""
    polled = half.poll(now_s, ())
    assert polled is not None
    assert isinstance(polled[1], Beat)
    return polled[0], polled[1]


@given(st.lists(st.tuples(task_keys, st.binary(min_size=1, max_size=4000)), max_size=4), st.integers(1, 2000))
def test_what_is_cut_comes_together(said: list[tuple[TaskKey, bytes]], data_bytes: int) -> None:
    """Messages in parts of any size come back whole and in order, whatever frames of streams lie between."""
    frames = []
    for key, data in said:
        for frame in cut(Letter(key, data), data_bytes):
            frames += [frame, Frame(9, Data(0, b"x"))]
    letters, others = Assembly().take(frames)
    assert letters == [Letter(key, data) for key, data in said]
    assert len(others) == len(frames) // 2


@given(task_keys)
def test_parts_fit_what_carries_them(key: TaskKey) -> None:
    """A part fits a beat, unless its task's ids alone do not."""
    for carrier in (HTTP, COAP):
        first, *rest = [frame_bytes(frame) for frame in cut(Letter(key, bytes(MESSAGE_BYTES_MAX)), carrier.data_bytes)]
        assert max(rest, default=0) <= carrier.budget_bytes - MESSAGE_BYTES
        assert first <= max(carrier.data_bytes, sum(map(len, key)) * 4) + 80


@given(
    st.lists(st.builds(MessagePart, st.none() | st.just(KEY), st.binary(max_size=40_000), st.booleans()), max_size=9)
)
def test_parts_that_fit_no_message(parts: list[MessagePart]) -> None:
    """Parts without a beginning, or of more than a message may be, are left out; what is held is bounded."""
    assembly = Assembly()
    letters, others = assembly.take([Frame(0, part) for part in parts])
    assert all(0 < len(letter.data) <= MESSAGE_BYTES_MAX for letter in letters)
    assert len(assembly._begun) <= MESSAGE_BYTES_MAX
    assert others == ()


@pytest.mark.parametrize("carrier", [HTTP, COAP])
def test_a_full_queue_drops_whole_messages(carrier: Carrier) -> None:
    """A message is queued whole or not at all; however many there are, streams keep half of the queue."""
    frames: deque[Frame] = deque()
    taken = [data for data in (b"%d" % n * 5000 for n in range(300)) if queue_message(frames, Letter(KEY, data), 800)]
    letters, _ = Assembly().take(frames)
    assert [letter.data for letter in letters] == taken
    assert 0 < len(frames) <= QUEUED_FRAMES_MAX // 2
    assert queue_message(deque(), Letter(KEY, bytes(MESSAGE_BYTES_MAX)), carrier.data_bytes)
    for size in (0, MESSAGE_BYTES_MAX + 1):
        assert not queue_message(deque(), Letter(KEY, bytes(size)), carrier.data_bytes)


def test_a_beat_that_is_sent_again() -> None:
    """The master takes the frames of a beat once, however often they come and in whatever beat."""
    agent, master = joined(), MasterHalf(7, 1)
    assert agent.send_message(WORDS)
    agent.send(Frame(3, Data(0, b"x")))
    request, first = beat_of(agent)
    assert first.frames_first == 1
    assert master.take_frames(first) == ([WORDS], (Frame(3, Data(0, b"x")),))
    agent.failed(request, 0.0)
    assert agent.send_message(Letter(KEY, b"more"))
    request, again = beat_of(agent, 10.0)
    assert (again.frames_first, len(again.frames)) == (1, 3)
    assert master.take_frames(again) == ([Letter(KEY, b"more")], ())
    assert master.take_frames(first) == ([], ())  # a late double
    agent.beat_answered(request, BeatAnswer(), 10.0)
    agent.send(Frame(3, Close()))
    _, last = beat_of(agent, 10.0)
    assert last.frames_first == 4
    assert master.take_frames(last) == ([], (Frame(3, Close()),))


def test_an_agent_that_does_not_number() -> None:
    """Of an older agent, whose frames have no numbers, all are taken."""
    frames = (Frame(3, Data(0, b"x")),)
    master = MasterHalf(7, 1)
    for _ in range(2):
        assert master.take_frames(Beat(7, 0, (), frames)) == ([], frames)


def test_master_to_agent() -> None:
    """What the master says arrives once, in order, as messages beside the frames of streams."""
    agent, master = joined(COAP), MasterHalf(7, 1, COAP)
    said = [Letter(KEY, b"%d" % number * 700) for number in range(9)]
    assert all(map(master.send_message, said))
    heard: list[Letter] = []
    for round_ in range(20):
        agent.ring()
        request, beat = beat_of(agent, float(round_))
        master.take(beat)
        answer = master.answer()
        heard += agent.beat_answered(request, answer, float(round_)).letters
        assert agent.beat_answered(request, answer, float(round_)).letters == ()
    assert heard == said


def test_without_a_session() -> None:
    """Without a session nothing is queued, and a new one begins with nothing of the last."""
    agent = AgentHalf(AgentId("a"), AgentSpec("h"), 1)
    assert not agent.send_message(WORDS)
    agent = joined()
    assert agent.send_message(WORDS)
    request, _ = beat_of(agent)
    agent.beat_answered(request, BeatAnswer(join=True), 0.0)
    assert not agent.send_message(WORDS)
    polled = agent.poll(0.0, ())
    assert polled is not None
    agent.join_answered(polled[0], Welcome(8, 15.0), 0.0)
    assert beat_of(agent)[1].frames == ()


def test_an_older_side() -> None:
    """To an agent or a master that knows no messages none is sent: it could not read what else the message brings."""
    agent = AgentHalf(AgentId("a"), AgentSpec("h"), 1)
    polled = agent.poll(0.0, ())
    assert polled is not None
    agent.join_answered(polled[0], Welcome(7, 15.0, lane=0), 0.0)
    assert not agent.send_message(WORDS)
    master = MasterHalf(7, 1, lane=0)
    assert not master.send_message(WORDS)
    assert master.send(Frame(3, Close()))
