"""What the halves of the link say is never too big for those who carry it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import agent_ids, agents, frames, orders, reports, roles, statuses, task_keys, tasks, updates

from edgerm.core import link
from edgerm.core.blobs import digest_of
from edgerm.core.errors import TooLarge
from edgerm.core.ids import AgentId, FrameworkId, LaunchId, TaskId, TaskKey
from edgerm.core.link import sizes
from edgerm.core.resources import Reservation, ResourceKey, Resources, coalesce
from edgerm.core.scheduler import AgentSpec, BlobRef, Status, TaskSpec
from edgerm.core.tasks import TaskState
from edgerm.wire.codec.link import (
    MESSAGE_BYTES_MAX,
    decode_beat_answer,
    encode_beat,
    encode_beat_answer,
    encode_join,
)
from edgerm.wire.codec.resources import resources_to_messages
from edgerm.wire.codec.status import TEXT_BYTES_MAX
from edgerm.wire.codec.tasks import EXCERPT_BYTES_MAX, excerpt, offload, task_spec
from edgerm.wire.v1.tasks_pb2 import TaskInfo
from edgerm_agent.link.face import ANSWER_BYTES_MAX
from edgerm_master.api.link import REQUEST_BYTES_MAX

T = TypeVar("T")

SMALL_BYTES = 1000  # so few that whatever is counted as too little shows at once
SMALL = link.Carrier("small", SMALL_BYTES, 500)
MANY = 400  # more than fit into the budget that is used
WIDE = "\N{GRINNING FACE}"  # 4 bytes
ID = "\N{GREEK SMALL LETTER ALPHA}" * 127  # 254 bytes
KEY = TaskKey(FrameworkId(ID), TaskId(ID), LaunchId(ID))
BLOB = BlobRef(digest_of(b""), 2**63)
AGENT = AgentSpec("h")
AGENT_ID = AgentId("0" * 32)
EMPTY_BYTES = len(encode_beat(link.Beat(0, 0), AGENT_ID))

long_texts = st.builds(
    lambda text, count: text * count, st.text(st.characters(codec="utf-8"), max_size=4), st.integers(0, 300)
)
amounts = st.one_of(
    st.integers(1, 200).map(lambda count: coalesce((3 * n, 3 * n + 1) for n in range(2**60, 2**60 + count))),
    st.builds(lambda text, count: frozenset(f"{text}{n}" for n in range(count)), long_texts, st.integers(1, 20)),
)
labels = st.sampled_from([b"", b"\n\x03\n\x01k"])
owners = st.builds(Reservation, st.sampled_from(["r", "a" * 200 + "/b"]), st.booleans(), long_texts, labels)


@st.composite
def long_tasks(draw: st.DrawFn) -> TaskSpec:
    """Tasks with whatever may be long, their TaskInfo in a blob."""
    bag = Resources({ResourceKey("many", draw(st.lists(owners, max_size=3).map(tuple))): draw(amounts)})
    spec = replace(draw(tasks), name=draw(long_texts), resources=bag, grace_s=draw(st.none() | st.floats(0, 10**8)))
    return replace(spec, info=b"", info_blob=BLOB, blobs=(BLOB,) * draw(st.integers(0, 5)), executor="process")


long_statuses = st.builds(
    lambda status, message, trap, tail, detail: replace(
        status, message=message, trap=trap, output_tail=tail, detail=detail
    ),
    statuses,
    long_texts,
    long_texts,
    long_texts,
    long_texts,
)
long_orders = orders | st.builds(
    lambda key, role, task: link.Order(1, link.Launch(key._replace(task_id=task.task_id), role, task)),
    task_keys,
    roles,
    long_tasks(),
)
long_reports = reports | st.builds(
    lambda key, role, task: link.TaskReport(
        key._replace(task_id=task.task_id), TaskState.RUNNING, 2**60, role, task, True
    ),
    task_keys,
    roles,
    long_tasks(),
)
long_updates = updates | st.builds(
    lambda key, status: link.Update(key, 2**60, replace(status, task_id=key.task_id)), task_keys, long_statuses
)
usual_updates = long_updates.map(
    lambda update: replace(
        update,
        number=2**60,
        status=replace(
            update.status,
            agent_id=AGENT_ID,
            launch_id=update.key.launch_id,
            uuid=link.update_uuid(update.key, update.seq),
        ),
    )
)
long_agents = agents() | st.builds(lambda agent, name: replace(agent, name=name), agents(), long_texts)


def master_half(bodies: Sequence[link.OrderBody], carrier: link.Carrier = SMALL) -> link.MasterHalf:
    """The master's half with these orders waiting."""
    half = link.MasterHalf(1, 1, carrier)
    for body in bodies:
        half.order(body)
    return half


def agent_half(agent: AgentSpec = AGENT, carrier: link.Carrier = SMALL, agent_id: AgentId = AGENT_ID) -> link.AgentHalf:
    """An agent's half that has not joined."""
    return link.AgentHalf(agent_id, agent, 1, carrier=carrier)


def join_parts(half: link.AgentHalf, told: Sequence[link.TaskReport]) -> list[link.Join]:
    """All parts of its join; afterwards it is joined."""
    parts = []
    while True:
        polled = half.poll(0.0, told)
        assert polled is not None
        number, part = polled
        assert isinstance(part, link.Join)
        parts.append(part)
        answer = link.NextPart() if part.more else link.Welcome(2**32 - 1, 15.0)
        half.join_answered(number, answer, 0.0)
        if not part.more:
            return parts


def beat_of(half: link.AgentHalf) -> link.Beat:
    """Its next beat."""
    polled = half.poll(0.0, ())
    assert polled is not None
    assert isinstance(polled[1], link.Beat)
    return polled[1]


def largest(encode: Callable[[T], bytes], elements: Sequence[T]) -> int:
    """The size of a message with the largest of these alone."""
    return max((len(encode(element)) for element in elements), default=0)


@given(long_updates | usual_updates)
def test_an_update_is_never_counted_too_small(update: link.Update) -> None:
    """What is counted of an update is what it takes, or more."""
    assert len(encode_beat(link.Beat(0, 0, (update,)), AGENT_ID)) - EMPTY_BYTES <= sizes.update_bytes(update, AGENT_ID)


@given(long_orders)
def test_an_order_is_never_counted_too_small(order: link.Order) -> None:
    """What is counted of an order is what it takes, or more."""
    assert len(encode_beat_answer(link.BeatAnswer(orders=(order,)), AGENT_ID)) <= sizes.order_bytes(order)


@given(frames)
def test_a_frame_is_never_counted_too_small(frame: link.Frame) -> None:
    """What is counted of a frame is what it takes, or more."""
    assert len(encode_beat_answer(link.BeatAnswer(frames=(frame,)), AGENT_ID)) <= sizes.frame_bytes(frame)


def test_what_a_message_takes_beside_is_counted() -> None:
    """The numbers of a beat and of an answer fit into what is set aside for them."""
    assert len(encode_beat(link.Beat(2**32 - 1, 2**63, (), (), True, 2**63), AGENT_ID)) <= sizes.MESSAGE_BYTES
    assert len(encode_beat_answer(link.BeatAnswer(False, 2**63, (), (), True, 2**63), AGENT_ID)) <= sizes.MESSAGE_BYTES


def test_output_fits_a_datagram_whole() -> None:
    """A frame with as much output as a carrier allows fits its budget, so does the request for a task's output."""
    for carrier in (link.HTTP, link.COAP):
        for body in (
            link.Data(2**62, bytes(carrier.data_bytes)),
            link.OpenLog(KEY, True, -(2**60), True, 2**32 - 1),
            link.Close("x" * link.REASON_BYTES_MAX),
        ):
            assert sizes.frame_bytes(link.Frame(2**32 - 1, body)) <= carrier.budget_bytes - sizes.MESSAGE_BYTES


def test_many_updates_share_a_datagram() -> None:
    """What is counted is not so much more than what it takes that a datagram stays half empty."""
    run = "0123456789abcdef"
    key = TaskKey(FrameworkId(f"{run}-1"), TaskId("stats-0a1b2c3d"), LaunchId(f"{run}-99"))
    half = agent_half(carrier=link.COAP)
    join_parts(half, ())
    for seq in range(100):
        uuid = link.update_uuid(key, seq)
        half.report(
            link.Update(
                key,
                seq,
                Status(key.task_id, TaskState.RUNNING, AGENT_ID, uuid=uuid, launch_id=key.launch_id, wall_s=1.7e9),
            )
        )
    beat = beat_of(half)
    assert 500 <= len(encode_beat(beat, AGENT_ID)) <= link.COAP.budget_bytes


@given(st.lists(long_orders.map(lambda order: order.body), max_size=4), st.lists(frames, max_size=20))
def test_an_answer_keeps_to_the_budget(bodies: list[link.OrderBody], waiting: list[link.Frame]) -> None:
    """A beat's answer takes its budget at most, unless its first order alone takes more."""
    half = master_half(bodies)
    for frame in waiting:
        half.send(frame)
    answer = half.answer()
    alone = largest(lambda order: encode_beat_answer(link.BeatAnswer(orders=(order,)), AGENT_ID), answer.orders[:1])
    assert len(encode_beat_answer(answer, AGENT_ID)) <= max(SMALL_BYTES, alone + 16)
    assert answer.orders or not bodies


@given(st.lists(long_updates | usual_updates, max_size=4), st.lists(frames, max_size=20))
def test_a_beat_keeps_to_the_budget(told: list[link.Update], waiting: list[link.Frame]) -> None:
    """A beat takes its budget at most, unless its first update alone takes more."""
    half = agent_half()
    join_parts(half, ())
    for update in told:
        half.report(update)
    for frame in waiting:
        half.send(frame)
    beat = beat_of(half)
    alone = largest(lambda update: encode_beat(link.Beat(1, 1, (update,)), AGENT_ID), beat.updates[:1])
    assert len(encode_beat(beat, AGENT_ID)) <= max(SMALL_BYTES, alone + 32)
    assert beat.updates or not told


@given(long_agents, agent_ids, st.lists(long_reports, max_size=4))
def test_a_join_keeps_to_the_budget(agent: AgentSpec, agent_id: AgentId, told: list[link.TaskReport]) -> None:
    """A part of a join takes the budget at most, unless the agent itself with one task takes more."""
    with patch("edgerm.core.link.agent_half.JOIN_BUDGET_BYTES", SMALL_BYTES):
        parts = join_parts(agent_half(agent, agent_id=agent_id), told)
    for part in parts:
        alone = largest(lambda report, part=part: encode_join(replace(part, tasks=(report,))), part.tasks[:1])  # type: ignore[misc]
        assert len(encode_join(part)) <= max(SMALL_BYTES, alone, len(encode_join(replace(part, tasks=()))))


# --- with the budget that is used, and the largest that a task and a status may be --------------------------------


def largest_task() -> TaskSpec:
    """A task whose excerpt is as large as it may be."""
    message = TaskInfo(name=WIDE * 20_000)
    message.task_id.value, message.agent_id.value = ID, AGENT_ID
    message.command.value = "x"
    spec, count = task_spec(message), 0
    while True:
        ports = coalesce((3 * n, 3 * n + 1) for n in range(2**60, 2**60 + count + 1))
        del message.resources[:]
        message.resources.extend(resources_to_messages(Resources({ResourceKey("ports"): ports})))
        try:
            offloaded = offload(task_spec(message))
        except TooLarge:
            return replace(spec, blobs=(BLOB, BLOB))
        assert offloaded is not None
        spec, count = offloaded.spec, count + 1


def test_names_and_sizes_of_an_excerpt_are_bounded() -> None:
    """A name is cut to 255 bytes of UTF-8; a task whose resources take too much is refused, with the size."""
    task = largest_task()
    assert task.name == excerpt(task).name == WIDE * 63
    assert EXCERPT_BYTES_MAX - 64 < excerpt(task).ByteSize() <= EXCERPT_BYTES_MAX
    many = Resources({ResourceKey("devices"): frozenset(f"device-{n}" for n in range(1000))})
    with pytest.raises(TooLarge, match=f"resources take 1[0-9]{{4}} bytes, at most {EXCERPT_BYTES_MAX}"):
        offload(replace(task, resources=many, info=b"x" * 2000))


def test_many_large_orders_are_read_by_the_agent() -> None:
    """However many tasks with long names and resources wait, the agent can read the answer, and gets all in time."""
    task = largest_task()
    half = master_half([link.Launch(KEY, ID, task) for _ in range(MANY)], link.HTTP)
    seen = 0
    while seen < MANY:
        data = encode_beat_answer(half.answer(), AGENT_ID)
        assert len(data) <= min(link.HTTP.budget_bytes + 8192, ANSWER_BYTES_MAX)
        answer = decode_beat_answer(data, AGENT_ID)
        assert answer.orders[0].number == seen + 1
        seen = answer.orders[-1].number
        half.take(link.Beat(1, seen))


def test_many_large_tasks_and_statuses_are_read_by_the_master() -> None:
    """However many tasks with long names run or end with long texts, the master takes each join and each beat."""
    task = largest_task()
    half = agent_half(carrier=link.HTTP)
    told = [link.TaskReport(KEY, TaskState.RUNNING, 1, ID, task) for _ in range(MANY)]
    parts = join_parts(half, told)
    assert sum(len(part.tasks) for part in parts) == MANY
    assert max(len(encode_join(part)) for part in parts) <= min(link.HTTP.budget_bytes + 8192, REQUEST_BYTES_MAX)
    text = WIDE * 100_000
    status = Status(
        KEY.task_id, TaskState.FAILED, message=text, trap=text, output_tail=text, detail=text, extra=b"x" * 10**6
    )
    half.report(link.Update(KEY, 1, status))
    for _ in range(MANY):
        half.report(link.Update(KEY, 1, replace(status, message=WIDE * 1024, trap="", output_tail="", extra=b"")))
    assert len(encode_beat(beat_of(half), AGENT_ID)) <= min(
        link.HTTP.budget_bytes + 8 * TEXT_BYTES_MAX, REQUEST_BYTES_MAX
    )


def test_an_answer_that_no_agent_could_read_is_shortened() -> None:
    """Should an answer be too large all the same, its last orders are left for the next one."""
    task = replace(largest_task(), info_blob=None, info=b"")
    orders = tuple(link.Order(n + 1, link.Launch(KEY, ID, task)) for n in range(2 * MESSAGE_BYTES_MAX // 4096))
    answer = decode_beat_answer(encode_beat_answer(link.BeatAnswer(False, 7, orders), AGENT_ID), AGENT_ID)
    assert answer.persisted == 7
    assert answer.more
    assert [order.number for order in answer.orders] == list(range(1, len(answer.orders) + 1))
    assert 0 < len(answer.orders) < len(orders)
