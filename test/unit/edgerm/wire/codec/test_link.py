"""The agent link's messages."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import beat_answers, beats, join_answers, joins

from edgerm.core import link
from edgerm.core.errors import Invalid, TooLarge
from edgerm.core.ids import AgentId, FrameworkId, LaunchId, TaskId, TaskKey
from edgerm.core.scheduler import AgentSpec, Status
from edgerm.core.tasks import TaskState
from edgerm.wire.codec.link import (
    FRAMES_MAX,
    MESSAGE_BYTES_MAX,
    ORDERS_MAX,
    TASKS_MAX,
    UPDATES_MAX,
    decode_beat,
    decode_beat_answer,
    decode_join,
    decode_join_answer,
    encode_beat,
    encode_beat_answer,
    encode_join,
    encode_join_answer,
)
from edgerm.wire.v1 import link_pb2 as pb
from edgerm.wire.v1.infos_pb2 import AgentInfo

KEY = TaskKey(FrameworkId("f"), TaskId("t"), LaunchId("l"))
DECODERS: list[Callable[[bytes], object]] = [decode_join, decode_join_answer, decode_beat, decode_beat_answer]


@given(joins)
def test_a_join_survives_the_wire(join: link.Join) -> None:
    """Agent, tasks with and without a blob, part and more are read as written."""
    assert decode_join(encode_join(join)) == join


@given(join_answers)
def test_a_join_answer_survives_the_wire(answer: link.JoinAnswer) -> None:
    """Each of the three answers is read as written."""
    assert decode_join_answer(encode_join_answer(answer)) == answer


@given(beats)
def test_a_beat_survives_the_wire(beat: link.Beat) -> None:
    """Updates and frames are read as written."""
    assert decode_beat(encode_beat(beat)) == beat


@given(beat_answers)
def test_a_beat_answer_survives_the_wire(answer: link.BeatAnswer) -> None:
    """Orders of every kind and frames are read as written."""
    assert decode_beat_answer(encode_beat_answer(answer)) == answer


@pytest.mark.parametrize("decode", DECODERS)
@given(st.binary(max_size=80))
def test_no_bytes_lead_to_another_error(decode: Callable[[bytes], object], data: bytes) -> None:
    """Arbitrary bytes are a message or Invalid."""
    try:
        assert decode(data) is not None
    except Invalid as error:
        assert str(error)


@given(st.one_of(joins.map(encode_join), beats.map(encode_beat)), st.data())
def test_damaged_messages_lead_to_no_other_error(data: bytes, draw: st.DataObject) -> None:
    """A message cut short, or with a byte changed, is a message or Invalid."""
    position = draw.draw(st.integers(0, max(len(data) - 1, 0)))
    changed = data[:position] + bytes([draw.draw(st.integers(0, 255))]) + data[position + 1 :]
    for damaged in (data[:position], changed):
        for decode in DECODERS:
            try:
                assert decode(damaged) is not None
            except Invalid as error:
                assert str(error)


def test_an_idle_beat_is_small() -> None:
    """A beat without news, and its answer, take a few bytes."""
    assert len(encode_beat(link.Beat(2**32 - 1, 1000))) <= 8
    assert len(encode_beat_answer(link.BeatAnswer(persisted=1000))) <= 3


def test_a_message_is_bounded_before_it_is_read() -> None:
    """More bytes than any message may have are TooLarge."""
    with pytest.raises(TooLarge, match="at most"):
        decode_beat(b"\0" * (MESSAGE_BYTES_MAX + 1))


@pytest.mark.parametrize(
    ("decode", "message", "what"),
    [
        (decode_join, pb.Join(tasks=[pb.TaskReport()] * (TASKS_MAX + 1)), "tasks"),
        (decode_beat, pb.Beat(updates=[pb.Update()] * (UPDATES_MAX + 1)), "updates"),
        (decode_beat, pb.Beat(frames=[pb.Frame()] * (FRAMES_MAX + 1)), "frames"),
        (decode_beat_answer, pb.BeatAnswer(orders=[pb.Order()] * (ORDERS_MAX + 1)), "orders"),
        (decode_beat_answer, pb.BeatAnswer(frames=[pb.Frame()] * (FRAMES_MAX + 1)), "frames"),
    ],
)
def test_counts_are_bounded(decode: Callable[[bytes], object], message: pb.Join | pb.Beat, what: str) -> None:
    """Each list has its bound, looked at before its members are."""
    with pytest.raises(TooLarge, match=what):
        decode(message.SerializeToString())


INFO = AgentInfo(hostname="h").SerializeToString()
WIRE_KEY = pb.Key(framework_id="f", task_id="t", launch_id="l")
RUNNING = b"\x0a\x03\x0a\x01t\x10\x01"  # a TaskStatus of t in TASK_RUNNING


@pytest.mark.parametrize(
    ("decode", "message", "why"),
    [
        (decode_join, pb.Join(agent_id=b"x", agent_info=INFO), "agent_id has 1 bytes"),
        (decode_join, pb.Join(agent_id=b"x" * 16), "hostname"),
        (decode_join, pb.Join(agent_id=b"x" * 16, agent_info=INFO, tasks=[pb.TaskReport()]), "framework id"),
        (
            decode_join,
            pb.Join(agent_id=b"x" * 16, agent_info=INFO, tasks=[pb.TaskReport(key=WIRE_KEY, state=99)]),
            "99 is no state",
        ),
        (decode_join_answer, pb.JoinAnswer(), "no outcome"),
        (decode_join_answer, pb.JoinAnswer(session=1), "beat_interval_ms"),
        (decode_beat, pb.Beat(updates=[pb.Update(key=WIRE_KEY, state=2, status=RUNNING)]), "in state 2 holds"),
        (decode_beat, pb.Beat(frames=[pb.Frame(stream=3)]), "stream 3"),
        (decode_beat_answer, pb.BeatAnswer(orders=[pb.Order(number=5)]), "order 5"),
        (
            decode_beat_answer,
            pb.BeatAnswer(orders=[pb.Order(forget=pb.Forget(key=pb.Key(framework_id="a/b")))]),
            "contains '/'",
        ),
    ],
)
def test_a_malformed_message_is_refused_with_the_reason(
    decode: Callable[[bytes], object], message: pb.Join | pb.Beat, why: str
) -> None:
    """What breaks a rule of the link is Invalid, and the text says which."""
    with pytest.raises(Invalid, match=why):
        decode(message.SerializeToString())


def test_a_task_under_another_tasks_key_is_refused() -> None:
    """The key and the TaskInfo must name the same task."""
    info = b"\x0a\x01n\x12\x03\x0a\x01u\x1a\x03\x0a\x01a"  # name n, task id u, agent id a
    order = pb.Order(launch=pb.Launch(key=WIRE_KEY, task=pb.Task(info=info)))
    with pytest.raises(Invalid, match="TaskInfo of 'u'"):
        decode_beat_answer(pb.BeatAnswer(orders=[order]).SerializeToString())


@pytest.mark.parametrize("agent_id", ["", "zz" * 16, "AB" * 16, "ab" * 15, "ab " * 16])
def test_an_agent_id_is_32_lower_case_digits(agent_id: str) -> None:
    """Any other text is refused before it is sent."""
    with pytest.raises(Invalid, match="hexadecimal"):
        encode_join(link.Join(AgentId(agent_id), 1, AgentSpec("h")))


@pytest.mark.parametrize(("asked_s", "read_s"), [(0.0, 0.0), (0.0001, 0.001), (math.inf, (2**32 - 1) / 1000)])
def test_a_grace_is_rounded_up_and_capped(asked_s: float, read_s: float) -> None:
    """Graces travel in whole milliseconds; none becomes shorter, none too long for the field."""
    order = link.Order(1, link.Kill(KEY, asked_s))
    (read,) = decode_beat_answer(encode_beat_answer(link.BeatAnswer(orders=(order,)))).orders
    assert isinstance(read.body, link.Kill)
    assert read.body.grace_s == read_s


def test_a_grace_that_is_no_time_is_refused() -> None:
    """NaN does not travel."""
    with pytest.raises(Invalid, match="grace"):
        encode_beat_answer(link.BeatAnswer(orders=(link.Order(1, link.Kill(KEY, math.nan)),)))


def test_unknown_fields_of_a_task_travel_on() -> None:
    """What the framework sent reaches the agent byte for byte."""
    info = b"\x0a\x01n\x12\x03\x0a\x01t\x1a\x03\x0a\x01a\xc2\xbb\x01\x03new"
    order = pb.Order(launch=pb.Launch(key=WIRE_KEY, task=pb.Task(info=info)))
    answer = decode_beat_answer(pb.BeatAnswer(orders=[order]).SerializeToString())
    body = decode_beat_answer(encode_beat_answer(answer)).orders[0].body
    assert isinstance(body, link.Launch)
    assert body.task.info == info


def test_a_status_without_news_in_its_key_is_the_same_update() -> None:
    """An update's number is given when it is sent; all else is the update's own."""
    update = link.Update(KEY, 3, Status(KEY.task_id, TaskState.RUNNING), 7)
    (read,) = decode_beat(encode_beat(link.Beat(1, 0, (update,)))).updates
    assert replace(read, number=0) == replace(update, number=0)
    assert read.number == 7
