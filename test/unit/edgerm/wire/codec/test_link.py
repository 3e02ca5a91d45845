"""The agent link's messages."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from strategies import (
    agent_ids,
    beat_answers,
    beats,
    blob_refs,
    chunks,
    ids,
    join_answers,
    joins,
    launches,
    reports,
    updates,
)

from edgerm.core import link
from edgerm.core.blobs import digest_of
from edgerm.core.devices import NO_INVENTORY
from edgerm.core.errors import Invalid, TooLarge
from edgerm.core.ids import AgentId, FrameworkId, LaunchId, TaskId, TaskKey
from edgerm.core.resources import Resources
from edgerm.core.scheduler import AgentSpec, BlobRef, Status, TaskSpec, without_devices
from edgerm.core.tasks import Source, TaskState
from edgerm.core.texts import cut
from edgerm.sdk.tasks import wasm_task
from edgerm.wire.codec.devices import encode_inventory
from edgerm.wire.codec.link import (
    FRAMES_MAX,
    MESSAGE_BYTES_MAX,
    ORDERS_MAX,
    TASKS_MAX,
    UPDATES_MAX,
    decode_beat,
    decode_beat_answer,
    decode_blob_ref,
    decode_chunk,
    decode_join,
    decode_join_answer,
    encode_beat,
    encode_beat_answer,
    encode_blob_ref,
    encode_chunk,
    encode_join,
    encode_join_answer,
)
from edgerm.wire.codec.tasks import task_spec
from edgerm.wire.v1 import link_pb2 as pb
from edgerm.wire.v1.basics_pb2 import Label, Labels
from edgerm.wire.v1.infos_pb2 import AgentInfo
from edgerm.wire.v1.tasks_pb2 import TaskInfo, TaskStatus

KEY = TaskKey(FrameworkId("f"), TaskId("t"), LaunchId("l"))
AGENT = AgentId("ab" * 16)


def whole_beat(data: bytes) -> link.Beat:
    """A beat of AGENT."""
    return decode_beat(data, lambda session: AGENT)


def whole_answer(data: bytes) -> link.BeatAnswer:
    """An answer to AGENT."""
    return decode_beat_answer(data, AGENT)


DECODERS: list[Callable[[bytes], object]] = [
    decode_join,
    decode_join_answer,
    whole_beat,
    whole_answer,
    decode_chunk,
    decode_blob_ref,
]


def heard(join: link.Join) -> link.Join:
    """The join as its master hears it: the inventory's name always, the inventory where it goes along."""
    inventory = join.agent.inventory
    if inventory == NO_INVENTORY:
        return replace(join, devices=False)
    named = digest_of(encode_inventory(inventory))
    return replace(join, named=named, agent=join.agent if join.devices else without_devices(join.agent))


@given(joins)
def test_a_join_survives_the_wire(join: link.Join) -> None:
    """Agent, tasks with and without a blob, part and more are read as written; devices, or only their name."""
    assert decode_join(encode_join(join)) == heard(join)


@given(joins)
def test_a_task_that_is_known_is_not_read_again(join: link.Join) -> None:
    """What the master knows of a task stands in for what the agent says of it; all else is read as written."""
    assume(len({report.key for report in join.tasks}) == len(join.tasks))
    known = {report.key: report.task for report in join.tasks[:1]}
    message = pb.Join.FromString(encode_join(join))
    for report in message.tasks[:1]:
        report.task.info = b"unreadable"
    read = decode_join(message.SerializeToString(), known.get)
    assert read == heard(join)
    assert all(report.task is known[report.key] for report in read.tasks[:1])


@given(join_answers)
def test_a_join_answer_survives_the_wire(answer: link.JoinAnswer) -> None:
    """Each of the three answers is read as written."""
    assert decode_join_answer(encode_join_answer(answer)) == answer


@given(chunks())
def test_a_chunk_survives_the_wire(chunk: link.Chunk) -> None:
    """Every slice of a message is read as written."""
    assert decode_chunk(encode_chunk(chunk)) == chunk


@given(blob_refs)
def test_a_blobs_name_survives_the_wire(blob: BlobRef) -> None:
    """The name of a message that does not fit is read as written."""
    assert decode_blob_ref(encode_blob_ref(blob)) == blob


@given(chunks(), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.binary(max_size=9))
def test_a_chunk_that_lies_outside_is_refused(
    chunk: link.Chunk, size_bytes: int, chunk_bytes: int, number: int, content: bytes
) -> None:
    """What is read as a chunk lies within the whole and has the length that its place gives it."""
    message = link.Chunk(chunk.digest, size_bytes, chunk_bytes, number, content)
    try:
        read = decode_chunk(encode_chunk(message))
    except Invalid as error:
        assert f"chunk {number} has {len(content)} bytes" in str(error)
        return
    begin = read.number * read.chunk_bytes
    assert begin < read.size_bytes
    assert begin + len(read.content) == min(begin + read.chunk_bytes, read.size_bytes)


@given(beats)
def test_a_beat_survives_the_wire(beat: link.Beat) -> None:
    """Updates and frames are read as written."""
    assert whole_beat(encode_beat(beat, AGENT)) == beat


@given(beat_answers)
def test_a_beat_answer_survives_the_wire(answer: link.BeatAnswer) -> None:
    """Orders of every kind and frames are read as written."""
    assert whole_answer(encode_beat_answer(answer, AGENT)) == answer


@pytest.mark.parametrize("decode", DECODERS)
@given(st.binary(max_size=80))
def test_no_bytes_lead_to_another_error(decode: Callable[[bytes], object], data: bytes) -> None:
    """Arbitrary bytes are a message or Invalid."""
    try:
        assert decode(data) is not None
    except Invalid as error:
        assert str(error)


@given(st.one_of(joins.map(encode_join), beats.map(lambda beat: encode_beat(beat, AGENT))), st.data())
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
    assert len(encode_beat(link.Beat(2**32 - 1, 127), AGENT)) <= 7
    assert len(encode_beat(link.Beat(2**32 - 1, 2**14 - 1), AGENT)) <= 8
    assert encode_beat_answer(link.BeatAnswer(), AGENT) == b""


def test_a_message_is_bounded_before_it_is_read() -> None:
    """More bytes than any message may have are TooLarge."""
    with pytest.raises(TooLarge, match="at most"):
        whole_beat(b"\0" * (MESSAGE_BYTES_MAX + 1))


@pytest.mark.parametrize(
    ("decode", "message", "what"),
    [
        (decode_join, pb.Join(tasks=[pb.TaskReport()] * (TASKS_MAX + 1)), "tasks"),
        (whole_beat, pb.Beat(updates=[pb.Update()] * (UPDATES_MAX + 1)), "updates"),
        (whole_beat, pb.Beat(frames=[pb.Frame()] * (FRAMES_MAX + 1)), "frames"),
        (whole_answer, pb.BeatAnswer(orders=[pb.Order()] * (ORDERS_MAX + 1)), "orders"),
        (whole_answer, pb.BeatAnswer(frames=[pb.Frame()] * (FRAMES_MAX + 1)), "frames"),
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
        (whole_beat, pb.Beat(updates=[pb.Update(key=WIRE_KEY, state=2, status=RUNNING)]), "in state 2 holds"),
        (whole_beat, pb.Beat(frames=[pb.Frame(stream=3)]), "stream 3"),
        (whole_answer, pb.BeatAnswer(orders=[pb.Order(number=5)]), "order 5"),
        (
            whole_answer,
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
        whole_answer(pb.BeatAnswer(orders=[order]).SerializeToString())


@pytest.mark.parametrize("agent_id", ["", "zz" * 16, "AB" * 16, "ab" * 15, "ab " * 16])
def test_an_agent_id_is_32_lower_case_digits(agent_id: str) -> None:
    """Any other text is refused before it is sent."""
    with pytest.raises(Invalid, match="hexadecimal"):
        encode_join(link.Join(AgentId(agent_id), 1, AgentSpec("h")))


@pytest.mark.parametrize(("asked_s", "read_s"), [(0.0, 0.0), (0.0001, 0.001), (math.inf, (2**32 - 1) / 1000)])
def test_a_grace_is_rounded_up_and_capped(asked_s: float, read_s: float) -> None:
    """Graces travel in whole milliseconds; none becomes shorter, none too long for the field."""
    order = link.Order(1, link.Kill(KEY, asked_s))
    (read,) = whole_answer(encode_beat_answer(link.BeatAnswer(orders=(order,)), AGENT)).orders
    assert isinstance(read.body, link.Kill)
    assert read.body.grace_s == read_s


def test_a_grace_that_is_no_time_is_refused() -> None:
    """NaN does not travel."""
    with pytest.raises(Invalid, match="grace"):
        encode_beat_answer(link.BeatAnswer(orders=(link.Order(1, link.Kill(KEY, math.nan)),)), AGENT)


def test_unknown_fields_of_a_task_travel_on() -> None:
    """What the framework sent reaches the agent byte for byte."""
    info = b"\x0a\x01n\x12\x03\x0a\x01t\x1a\x03\x0a\x01a\xc2\xbb\x01\x03new"
    order = pb.Order(launch=pb.Launch(key=WIRE_KEY, task=pb.Task(info=info)))
    answer = whole_answer(pb.BeatAnswer(orders=[order]).SerializeToString())
    body = whole_answer(encode_beat_answer(answer, AGENT)).orders[0].body
    assert isinstance(body, link.Launch)
    assert body.task.info == info


NO_KEY = TaskStatus(labels=Labels(labels=[Label()])).SerializePartialToString()


@pytest.mark.parametrize("message", [{"state": 99}, {"state": 1, "status": NO_KEY}])
def test_a_short_status_that_cannot_be_completed_is_refused(message: dict[str, Any]) -> None:
    """An unknown state, and a label without its key."""
    with pytest.raises(Invalid):
        whole_beat(pb.Beat(updates=[pb.Update(key=WIRE_KEY, **message)]).SerializeToString())


def test_a_status_without_news_in_its_key_is_the_same_update() -> None:
    """An update's number is given when it is sent; all else is the update's own."""
    update = link.Update(KEY, 3, Status(KEY.task_id, TaskState.RUNNING), 7)
    (read,) = whole_beat(encode_beat(link.Beat(1, 0, (update,)), AGENT)).updates
    assert replace(read, number=0) == replace(update, number=0)
    assert read.number == 7


# --- what is left out -------------------------------------------------------------------------------------------


@given(ids, ids, ids, st.booleans())
def test_what_a_key_leaves_out_comes_back(run: str, framework: str, launch: str, same: bool) -> None:
    """A launch id that begins as the framework's id does is sent without that; every key comes back as it was."""
    framework_id = FrameworkId(f"{run}-{framework}")
    launch_id = LaunchId(framework_id.rpartition("-")[0] + "-" + launch if same else launch)
    order = link.Order(1, link.Forget(TaskKey(framework_id, KEY.task_id, launch_id)))
    data = encode_beat_answer(link.BeatAnswer(orders=(order,)), AGENT)
    assert whole_answer(data).orders == (order,)
    assert len(data) <= 28 + len(f"{framework_id}{launch}".encode())


def of_agent(update: link.Update, agent_id: AgentId) -> link.Update:
    """The update as this agent makes them."""
    key = update.key
    uuid = link.update_uuid(key, update.seq)
    return replace(update, status=replace(update.status, agent_id=agent_id, launch_id=key.launch_id, uuid=uuid))


@given(updates, agent_ids, st.binary(min_size=16, max_size=16))
def test_what_an_update_leaves_out_comes_back(update: link.Update, agent_id: AgentId, uuid: bytes) -> None:
    """Ids, state and uuid that follow from the key do not travel; a uuid that does not follow does."""
    usual = of_agent(update, agent_id)
    other = replace(usual, status=replace(usual.status, uuid=uuid))
    data = encode_beat(link.Beat(7, 0, (usual, other)), agent_id)
    assert decode_beat(data, {7: agent_id}.get).updates == (usual, other)
    assert usual.status.uuid not in data
    assert uuid in data
    assert agent_id.encode() not in data


@given(launches, agent_ids, st.booleans())
def test_what_a_launch_leaves_out_comes_back(launch: link.Launch, agent_id: AgentId, named: bool) -> None:
    """A task that is ordered comes back byte for byte without its agent's id having travelled."""
    launch = replace(launch, task=of_task(launch.task, agent_id, named))
    data = encode_beat_answer(link.BeatAnswer(orders=(link.Order(1, launch),)), agent_id)
    assert decode_beat_answer(data, agent_id).orders[0].body == launch
    assert agent_id.encode() not in data


@given(reports, agent_ids, st.booleans())
def test_what_a_report_leaves_out_comes_back(report: link.TaskReport, agent_id: AgentId, named: bool) -> None:
    """A task in a join comes back byte for byte without its agent's id in text."""
    report = replace(report, task=of_task(report.task, agent_id, named))
    data = encode_join(link.Join(agent_id, 1, AgentSpec("h"), tasks=(report,)))
    assert decode_join(data).tasks == (report,)
    assert agent_id.encode() not in data


def of_task(task: TaskSpec, agent_id: AgentId, named: bool) -> TaskSpec:
    """The task as one of this agent; `named` after its id."""
    name = task.task_id if named else task.name
    if not task.info:
        return replace(task, agent_id=agent_id, name=cut(name, link.NAME_BYTES_MAX))
    message = TaskInfo.FromString(task.info)
    message.name, message.agent_id.value = name, agent_id
    return task_spec(message)


def test_a_beat_of_nobodys_session_brings_nothing() -> None:
    """What it says could not be completed, and is void all the same: its agent is told to join."""
    update = of_agent(link.Update(KEY, 1, Status(KEY.task_id, TaskState.RUNNING), 1), AGENT)
    data = encode_beat(link.Beat(7, 3, (update,), (link.Frame(1, link.Credit(1)),)), AGENT)
    assert decode_beat(data, {8: AGENT}.get) == link.Beat(7, 3)


def test_a_launch_of_a_cached_module_is_small() -> None:
    """All that is said from a ring to an acknowledged TASK_RUNNING takes 400 bytes at most over CoAP."""
    run, agent_id, task_id = "0123456789abcdef", AgentId("9f" * 16), "stats-0a1b2c3d4"
    key = TaskKey(FrameworkId(f"{run}-12"), TaskId(task_id), LaunchId(f"{run}-3456"))
    task = wasm_task(task_id, BlobRef(digest_of(b"module"), 40_000), ["3"])
    launch = link.Launch(key, "*", task.at(agent_id, Resources.of(cpus=0.1, mem=32)))
    uuid = link.update_uuid(key, 1)
    status = Status(
        key.task_id, TaskState.RUNNING, agent_id, Source.EXECUTOR, None, "", uuid, 1.7e9 + 0.123, key.launch_id
    )
    running = link.Update(key, 1, status, 1)
    payloads = [
        b"57",  # the doorbell's count
        b"",
        encode_beat(link.Beat(2**32 - 1, 57), agent_id),
        encode_beat_answer(link.BeatAnswer(orders=(link.Order(58, launch),)), agent_id),
        encode_beat(link.Beat(2**32 - 1, 58, (running,)), agent_id),
        encode_beat_answer(link.BeatAnswer(persisted=57), agent_id),
    ]
    around = [8, 4, 14, 6, 14, 6]  # header, token, path
    assert sum(map(len, payloads)) + sum(around) <= 400
