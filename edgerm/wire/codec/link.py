"""The agent link's messages (docs/link.md) and the values of `edgerm.core.link`.

What lives here: joins, beats, their answers, orders. What does not: `Key`, `Task`, frames (`link_parts`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar, assert_never

from google.protobuf.message import DecodeError, Message

from edgerm.core.errors import Invalid, TooLarge
from edgerm.core.ids import AgentId
from edgerm.core.link import (
    REJOIN,
    Beat,
    BeatAnswer,
    Forget,
    Join,
    JoinAnswer,
    Kill,
    Launch,
    NextPart,
    Order,
    OrderBody,
    Stale,
    TaskReport,
    Update,
    Welcome,
)
from edgerm.wire.codec.infos import agent_info, agent_spec
from edgerm.wire.codec.link_parts import (
    fill_frame,
    fill_key,
    fill_task,
    frame_of,
    key_of,
    milliseconds,
    state_of,
    task_of,
)
from edgerm.wire.codec.status import decode_status, encode_status
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
    message = pb.Join(
        agent_id=_agent_id_bytes(join.agent_id),
        incarnation=join.incarnation,
        boot_id=join.boot_id,
        part=join.part,
        more=join.more,
        agent_info=agent_info(join.agent).SerializeToString(deterministic=True),
    )
    for report in join.tasks:
        target = message.tasks.add(state=report.state, seq=report.seq, role=report.role, owes=report.owes)
        fill_key(target.key, report.key)
        fill_task(target.task, report.task)
    return message.SerializeToString()


def decode_join(data: bytes) -> Join:
    """One part of a join; raises `Invalid`."""
    message = _parse(pb.Join, data)
    _bounded("tasks", len(message.tasks), TASKS_MAX)
    if len(message.agent_id) != AGENT_ID_BYTES:
        raise Invalid(f"agent_id has {len(message.agent_id)} bytes; {AGENT_ID_BYTES} are expected")
    return Join(
        agent_id=AgentId(message.agent_id.hex()),
        incarnation=message.incarnation,
        agent=agent_spec(from_protobuf(AgentInfo, message.agent_info)),
        boot_id=message.boot_id,
        tasks=tuple(map(_report, message.tasks)),
        part=message.part,
        more=message.more,
    )


def _agent_id_bytes(agent_id: AgentId) -> bytes:
    try:
        data = bytes.fromhex(agent_id)
    except ValueError:
        data = b""
    if data.hex() != agent_id or len(data) != AGENT_ID_BYTES:
        raise Invalid(f"agent id {agent_id!r} is not {2 * AGENT_ID_BYTES} lower-case hexadecimal digits")
    return data


def _report(message: pb.TaskReport) -> TaskReport:
    key = key_of(message.key)
    state, task = state_of(message.state), task_of(message.task, key)
    return TaskReport(key, state, message.seq, message.role, task, message.owes)


def encode_join_answer(answer: JoinAnswer) -> bytes:
    """The master's word on a join."""
    if isinstance(answer, Welcome):
        interval_ms = milliseconds("beat interval", answer.beat_interval_s)
        return pb.JoinAnswer(session=answer.session, beat_interval_ms=interval_ms).SerializeToString()
    if isinstance(answer, NextPart):
        return pb.JoinAnswer(next_part=True).SerializeToString()
    return pb.JoinAnswer(stale=True).SerializeToString()


def decode_join_answer(data: bytes) -> JoinAnswer:
    """The master's word on a join; raises `Invalid`."""
    message = _parse(pb.JoinAnswer, data)
    match message.WhichOneof("outcome"):
        case "session":
            if not message.beat_interval_ms:
                raise Invalid("JoinAnswer has a session, but no beat_interval_ms")
            return Welcome(message.session, message.beat_interval_ms / 1000)
        case "next_part":
            return NextPart()
        case "stale":
            return Stale()
        case None:
            raise Invalid("JoinAnswer has no outcome that is known here")


# --- beat -------------------------------------------------------------------------------------------------------


def encode_beat(beat: Beat) -> bytes:
    """A beat."""
    message = pb.Beat(session=beat.session, seen=beat.seen)
    if beat.more:
        message.more = True
    for update in beat.updates:
        target = message.updates.add(number=update.number, seq=update.seq, state=update.status.state)
        fill_key(target.key, update.key)
        target.status = encode_status(update.status)
    for frame in beat.frames:
        fill_frame(message.frames.add(), frame)
    return message.SerializeToString()


def decode_beat(data: bytes) -> Beat:
    """A beat; raises `Invalid`."""
    message = _parse(pb.Beat, data)
    updates, frames = message.updates, message.frames
    if not updates and not frames:
        return Beat(message.session, message.seen, (), (), message.more)
    _bounded("updates", len(updates), UPDATES_MAX)
    _bounded("frames", len(frames), FRAMES_MAX)
    return Beat(message.session, message.seen, tuple(map(_update, updates)), tuple(map(frame_of, frames)), message.more)


def _update(message: pb.Update) -> Update:
    key = key_of(message.key)
    status = decode_status(message.status)
    if status.task_id != key.task_id or status.state != message.state:
        raise Invalid(
            f"update {message.number} of {key} in state {message.state} holds a status of {status.task_id!r} "
            f"in state {status.state.value}"
        )
    return Update(key, message.seq, status, message.number)


def encode_beat_answer(answer: BeatAnswer) -> bytes:
    """What the master has for the agent; orders and frames beyond MESSAGE_BYTES_MAX are left out.

    An agent could not read them and would ask for ever; the orders go with the next answers.
    """
    data = _encode_beat_answer(answer)
    while len(data) > MESSAGE_BYTES_MAX and len(answer.orders) + len(answer.frames) > 1:
        orders = answer.orders[: len(answer.orders) // 2 or 1]
        answer = replace(answer, orders=orders, frames=(), more=True)
        data = _encode_beat_answer(answer)
    return data


def _encode_beat_answer(answer: BeatAnswer) -> bytes:
    message = pb.BeatAnswer(join=answer.join, persisted=answer.persisted, more=answer.more)
    for order in answer.orders:
        target = message.orders.add(number=order.number)
        _fill_order(target, order.body)
    for frame in answer.frames:
        fill_frame(message.frames.add(), frame)
    return message.SerializeToString()


def _fill_order(message: pb.Order, body: OrderBody) -> None:
    match body:
        case Launch():
            fill_key(message.launch.key, body.key)
            message.launch.role = body.role
            fill_task(message.launch.task, body.task)
        case Kill():
            fill_key(message.kill.key, body.key)
            if body.grace_s is not None:
                message.kill.grace_ms = milliseconds("grace", body.grace_s)
        case Forget():
            fill_key(message.forget.key, body.key)
        case _:
            assert_never(body)


def decode_beat_answer(data: bytes) -> BeatAnswer:
    """What the master has for the agent; raises `Invalid`, also for an order that is not known here."""
    message = _parse(pb.BeatAnswer, data)
    if message.join:
        return REJOIN
    orders, frames = message.orders, message.frames
    if not orders and not frames:
        return BeatAnswer(False, message.persisted, (), (), message.more)
    _bounded("orders", len(orders), ORDERS_MAX)
    _bounded("frames", len(frames), FRAMES_MAX)
    return BeatAnswer(False, message.persisted, tuple(map(_order, orders)), tuple(map(frame_of, frames)), message.more)


def _order(message: pb.Order) -> Order:
    kind = message.WhichOneof("what")
    if kind is None:
        raise Invalid(f"order {message.number} is none of launch, kill and forget: is the master newer than the agent?")
    return Order(message.number, _ORDERS[kind](message))


def _launch(message: pb.Order) -> Launch:
    key = key_of(message.launch.key)
    return Launch(key, message.launch.role, task_of(message.launch.task, key))


def _kill(message: pb.Order) -> Kill:
    grace_s = message.kill.grace_ms / 1000 if message.kill.HasField("grace_ms") else None
    return Kill(key_of(message.kill.key), grace_s)


def _forget(message: pb.Order) -> Forget:
    return Forget(key_of(message.forget.key))


_ORDERS: dict[str, Callable[[pb.Order], OrderBody]] = {"launch": _launch, "kill": _kill, "forget": _forget}
