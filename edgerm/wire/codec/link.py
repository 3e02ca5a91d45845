"""The agent link's messages (docs/link.md) and the values of `edgerm.core.link`.

What lives here: joins, beats, their answers, chunks. What does not: keys, tasks, orders, frames (`link_parts`), and
what a message leaves out (`link_short`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from edgerm.core.blobs import digest_of
from edgerm.core.devices import NO_INVENTORY
from edgerm.core.errors import Invalid, TooLarge
from edgerm.core.ids import AgentId, TaskKey
from edgerm.core.link import (
    REJOIN,
    Beat,
    BeatAnswer,
    Chunk,
    Gone,
    Join,
    JoinAnswer,
    NextPart,
    Stale,
    TaskReport,
    Update,
    WantsInventory,
    Welcome,
)
from edgerm.core.scheduler import BlobRef, TaskSpec, with_devices, without_devices
from edgerm.wire.codec.devices import decode_inventory, encode_inventory
from edgerm.wire.codec.infos import agent_info, agent_spec
from edgerm.wire.codec.link_parts import (
    blob_of,
    digest_in,
    fill_blob,
    fill_frame,
    fill_key,
    fill_order,
    fill_task,
    frame_of,
    key_of,
    milliseconds,
    order_of,
    state_of,
    task_of,
)
from edgerm.wire.codec.link_short import short_status, status_in
from edgerm.wire.content import from_protobuf
from edgerm.wire.v1 import link_pb2 as pb
from edgerm.wire.v1.infos_pb2 import AgentInfo

MESSAGE_BYTES_MAX = 4 * 2**20
TASKS_MAX = 10_000  # in one part of a join
UPDATES_MAX = 4096
ORDERS_MAX = 10_000
FRAMES_MAX = 1024
AGENT_ID_BYTES = 16

M = TypeVar("M", bound=Message)


def _parse(message_class: type[M], data: bytes) -> M:
    if len(data) > MESSAGE_BYTES_MAX:
        raise TooLarge(f"{message_class.__name__} of {len(data)} bytes; at most {MESSAGE_BYTES_MAX} are taken")
    try:
        return message_class.FromString(data)
    except DecodeError as error:
        raise Invalid(f"{message_class.__name__} is malformed: {error}") from None


def _bounded(what: str, count: int, most: int) -> None:
    if count > most:
        raise TooLarge(f"{count} {what} in one message, at most {most} are allowed")


# --- join -------------------------------------------------------------------------------------------------------


def encode_join(join: Join) -> bytes:
    """One part of a join; raises `Invalid` for an agent id that is not 32 hexadecimal digits."""
    inventory = join.agent.inventory
    message = pb.Join(
        agent_id=_agent_id_bytes(join.agent_id),
        incarnation=join.incarnation,
        boot_id=join.boot_id,
        part=join.part,
        more=join.more,
        agent_info=agent_info(without_devices(join.agent)).SerializeToString(deterministic=True),
        lane=join.lane,
    )
    if inventory.classes or inventory.devices:
        content = encode_inventory(inventory)
        message.inventory_sha256 = bytes.fromhex(digest_of(content))
        if join.devices:
            message.inventory = content
    for report in join.tasks:
        target = message.tasks.add(state=report.state, seq=report.seq, role=report.role, owes=report.owes)
        fill_key(target.key, report.key)
        fill_task(target.task, report.task, report.key, join.agent_id)
    return message.SerializeToString()


def decode_join(data: bytes, known: Callable[[TaskKey], TaskSpec | None] = lambda key: None) -> Join:
    """One part of a join; raises `Invalid`.

    What `known` tells of a task is taken for what the agent says of it, which is not read then: a task never changes.
    """
    message = _parse(pb.Join, data)
    _bounded("tasks", len(message.tasks), TASKS_MAX)
    if len(message.agent_id) != AGENT_ID_BYTES:
        raise Invalid(f"agent_id has {len(message.agent_id)} bytes; {AGENT_ID_BYTES} are expected")
    agent_id = AgentId(message.agent_id.hex())
    agent = agent_spec(from_protobuf(AgentInfo, message.agent_info))
    digest, told = None, bool(message.inventory)
    if message.inventory_sha256:
        digest = digest_in(message.inventory_sha256)
        inventory = decode_inventory(message.inventory, digest) if told else NO_INVENTORY
        agent = with_devices(agent, inventory)
    elif agent.inventory.classes or agent.inventory.devices:  # an older agent's, which stood in its AgentInfo
        digest, told = digest_of(encode_inventory(agent.inventory)), True
    return Join(
        agent_id=agent_id,
        incarnation=message.incarnation,
        agent=agent,
        boot_id=message.boot_id,
        tasks=tuple(_report(report, agent_id, known) for report in message.tasks),
        part=message.part,
        more=message.more,
        lane=message.lane,
        devices=told,
        named=digest,
    )


def _agent_id_bytes(agent_id: AgentId) -> bytes:
    try:
        data = bytes.fromhex(agent_id)
    except ValueError:
        data = b""
    if data.hex() != agent_id or len(data) != AGENT_ID_BYTES:
        raise Invalid(f"agent id {agent_id!r} is not {2 * AGENT_ID_BYTES} lower-case hexadecimal digits")
    return data


def _report(message: pb.TaskReport, agent_id: AgentId, known: Callable[[TaskKey], TaskSpec | None]) -> TaskReport:
    key = key_of(message.key)
    task = known(key) or task_of(message.task, key, agent_id)
    return TaskReport(key, state_of(message.state), message.seq, message.role, task, message.owes)


def encode_join_answer(answer: JoinAnswer) -> bytes:
    """The master's word on a join."""
    if isinstance(answer, Welcome):
        interval_ms = milliseconds("beat interval", answer.beat_interval_s)
        return pb.JoinAnswer(session=answer.session, beat_interval_ms=interval_ms, lane=answer.lane).SerializeToString()
    if isinstance(answer, NextPart):
        return pb.JoinAnswer(next_part=True).SerializeToString()
    if isinstance(answer, WantsInventory):
        return pb.JoinAnswer(wants_inventory=True).SerializeToString()
    if isinstance(answer, Gone):
        return pb.JoinAnswer(gone=answer.why).SerializeToString()
    return pb.JoinAnswer(stale=True).SerializeToString()


def decode_join_answer(data: bytes) -> JoinAnswer:
    """The master's word on a join; raises `Invalid`."""
    message = _parse(pb.JoinAnswer, data)
    match message.WhichOneof("outcome"):
        case "session":
            if not message.beat_interval_ms:
                raise Invalid("JoinAnswer has a session, but no beat_interval_ms")
            return Welcome(message.session, message.beat_interval_ms / 1000, message.lane)
        case "next_part":
            return NextPart()
        case "wants_inventory":
            return WantsInventory()
        case "stale":
            return Stale()
        case "gone":
            return Gone(message.gone or "the master does not say why")
        case None:
            raise Invalid("JoinAnswer has no outcome that is known here")


# --- beat -------------------------------------------------------------------------------------------------------


def encode_beat(beat: Beat, agent_id: AgentId) -> bytes:
    """A beat of this agent."""
    message = pb.Beat(session=beat.session, seen=beat.seen)
    if beat.more:
        message.more = True
    if beat.heard:
        message.heard = beat.heard
    if beat.frames_first:
        message.frames_first = beat.frames_first
    for update in beat.updates:
        target = message.updates.add(number=update.number, seq=update.seq, state=update.status.state)
        fill_key(target.key, update.key)
        target.status = short_status(update, agent_id)
    for frame in beat.frames:
        fill_frame(message.frames.add(), frame)
    return message.SerializeToString()


def decode_beat(data: bytes, agent_of: Callable[[int], AgentId | None]) -> Beat:
    """A beat; raises `Invalid`. `agent_of` tells whose session it is: one of nobody's brings nothing."""
    message = _parse(pb.Beat, data)
    updates, frames = message.updates, message.frames
    if (not updates and not frames) or (agent_id := agent_of(message.session)) is None:
        return Beat(message.session, message.seen, (), (), message.more, message.heard, message.frames_first)
    _bounded("updates", len(updates), UPDATES_MAX)
    _bounded("frames", len(frames), FRAMES_MAX)
    told, sent = tuple(_update(update, agent_id) for update in updates), tuple(map(frame_of, frames))
    return Beat(message.session, message.seen, told, sent, message.more, message.heard, message.frames_first)


def _update(message: pb.Update, agent_id: AgentId) -> Update:
    key = key_of(message.key)
    status = status_in(message.status, key, message.seq, state_of(message.state), agent_id)
    if status.task_id != key.task_id or status.state != message.state:
        raise Invalid(
            f"update {message.number} of {key} in state {message.state} holds a status of {status.task_id!r} "
            f"in state {status.state.value}"
        )
    return Update(key, message.seq, status, message.number)


def encode_beat_answer(answer: BeatAnswer, agent_id: AgentId) -> bytes:
    """What the master has for this agent; orders and frames beyond MESSAGE_BYTES_MAX are left out.

    An agent could not read them and would ask for ever; the orders go with the next answers.
    """
    data = _encode_beat_answer(answer, agent_id)
    while len(data) > MESSAGE_BYTES_MAX and len(answer.orders) + len(answer.frames) > 1:
        orders = answer.orders[: len(answer.orders) // 2 or 1]
        answer = replace(answer, orders=orders, frames=(), more=True)
        data = _encode_beat_answer(answer, agent_id)
    return data


def _encode_beat_answer(answer: BeatAnswer, agent_id: AgentId) -> bytes:
    message = pb.BeatAnswer(join=answer.join, persisted=answer.persisted, more=answer.more)
    message.frames_first = answer.frames_first
    for order in answer.orders:
        target = message.orders.add(number=order.number)
        fill_order(target, order.body, agent_id)
    for frame in answer.frames:
        fill_frame(message.frames.add(), frame)
    return message.SerializeToString()


def decode_beat_answer(data: bytes, agent_id: AgentId) -> BeatAnswer:
    """What the master has for this agent; raises `Invalid`, also for an order that is not known here."""
    message = _parse(pb.BeatAnswer, data)
    if message.join:
        return REJOIN
    orders, frames = message.orders, message.frames
    if not orders and not frames:
        return BeatAnswer(False, message.persisted, (), (), message.more, message.frames_first)
    _bounded("orders", len(orders), ORDERS_MAX)
    _bounded("frames", len(frames), FRAMES_MAX)
    wanted, sent = tuple(order_of(order, agent_id) for order in orders), tuple(map(frame_of, frames))
    return BeatAnswer(False, message.persisted, wanted, sent, message.more, message.frames_first)


# --- what fits no datagram --------------------------------------------------------------------------------------


def encode_blob_ref(blob: BlobRef) -> bytes:
    """The name of a message that does not fit."""
    message = pb.BlobRef()
    fill_blob(message, blob)
    return message.SerializeToString()


def decode_blob_ref(data: bytes) -> BlobRef:
    """The name of a message that does not fit; raises `Invalid`."""
    return blob_of(_parse(pb.BlobRef, data))


def encode_chunk(chunk: Chunk) -> bytes:
    """A slice of a message that does not fit."""
    message = pb.Chunk(size_bytes=chunk.size_bytes, chunk_bytes=chunk.chunk_bytes, number=chunk.number)
    message.sha256, message.content = bytes.fromhex(chunk.digest), chunk.content
    return message.SerializeToString()


def decode_chunk(data: bytes) -> Chunk:
    """A slice of a message that does not fit; raises `Invalid`, also if its length is wrong for its place."""
    message = _parse(pb.Chunk, data)
    begin = message.number * message.chunk_bytes
    expected = min(message.chunk_bytes, message.size_bytes - begin)
    if expected <= 0 or len(message.content) != expected:
        raise Invalid(
            f"chunk {message.number} has {len(message.content)} bytes, which is wrong for chunks of "
            f"{message.chunk_bytes} bytes and a whole of {message.size_bytes}"
        )
    digest = digest_in(message.sha256)
    return Chunk(digest, message.size_bytes, message.chunk_bytes, message.number, message.content)
