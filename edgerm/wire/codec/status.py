"""`TaskStatus` and `Status`.

What lives here is also their bound: whatever comes in or goes out, a status is small. What is too long is cut and not
refused, because an agent tells an update until it is taken: one that never could be would block all that follow.
"""

from __future__ import annotations

import math

from edgerm.core.claims import Granted
from edgerm.core.errors import Invalid
from edgerm.core.ids import AgentId, LaunchId, TaskId
from edgerm.core.scheduler import Status
from edgerm.core.tasks import Reason, Source, TaskState
from edgerm.core.texts import cut, tail
from edgerm.wire.codec.claims import grants_of, grants_to_messages
from edgerm.wire.codec.times import nanoseconds, seconds
from edgerm.wire.content import from_protobuf
from edgerm.wire.v1 import tasks_pb2 as pb

UUID_BYTES = 16
TEXT_BYTES_MAX = 4096  # of each text, and of all that has no field of its own together
ID_BYTES_MAX = 255
_TEXTS = ("message", "trap", "output_tail", "detail", "launch_id")
_NUMBERS = ("exit_code", "signal")
_OURS = (
    *_TEXTS,
    *_NUMBERS,
    "task_id",
    "state",
    "source",
    "agent_id",
    "timestamp",
    "uuid",
    "unreachable_time",
    "granted",
)
_REASONS = frozenset(map(int, Reason))


def status_to_message(status: Status) -> pb.TaskStatus:
    """The status as a message: its `extra` first, then what it says itself. Without a uuid the field stays unset."""
    message = pb.TaskStatus()
    if status.extra and len(status.extra) <= TEXT_BYTES_MAX:
        message.MergeFromString(status.extra)
    message.task_id.value = status.task_id
    message.state = pb.TaskState.ValueType(status.state)
    message.source = pb.TaskStatus.Source.ValueType(status.source)
    if status.reason is not None:
        message.reason = pb.TaskStatus.Reason.ValueType(status.reason)
    if status.agent_id is not None:
        message.agent_id.value = status.agent_id
    if status.wall_s:
        message.timestamp = status.wall_s
    if status.uuid:
        message.uuid = status.uuid
    if status.unreachable_wall_s is not None:
        message.unreachable_time.nanoseconds = nanoseconds("unreachable_time", status.unreachable_wall_s)
    if status.exit_code is not None:
        message.exit_code = status.exit_code
    if status.signal is not None:
        message.signal = status.signal
    message.granted.extend(grants_to_messages(status.granted))
    _set_texts(message, status)
    return message


def _set_texts(message: pb.TaskStatus, status: Status) -> None:
    if status.message:
        message.message = cut(status.message, TEXT_BYTES_MAX)
    if status.trap:
        message.trap = cut(status.trap, TEXT_BYTES_MAX)
    if status.output_tail:
        message.output_tail = tail(status.output_tail, TEXT_BYTES_MAX)
    if status.detail:
        message.detail = cut(status.detail, TEXT_BYTES_MAX)
    if status.launch_id is not None:
        message.launch_id = status.launch_id


def status_from_message(message: pb.TaskStatus) -> Status:
    """The status as a value; what has no field there, reasons that edgerm never gives among it, is kept as `extra`.

    Texts are cut to 4 KiB, and `extra` is left out if it is longer. Raises `Invalid` for a uuid that has not 16 bytes
    and for a timestamp that is no number.
    """
    if len(message.uuid) not in (0, UUID_BYTES):
        raise Invalid(f"uuid has {len(message.uuid)} bytes; {UUID_BYTES} raw bytes are expected")
    if not math.isfinite(message.timestamp):
        raise Invalid(f"timestamp must be a finite number, not {message.timestamp}")
    has = message.HasField
    known_reason = has("reason") and message.reason in _REASONS
    return Status(
        task_id=TaskId(message.task_id.value),
        state=TaskState(message.state),
        agent_id=AgentId(cut(message.agent_id.value, ID_BYTES_MAX)) if has("agent_id") else None,
        source=Source(message.source) if has("source") else Source.AGENT,
        reason=Reason(message.reason) if known_reason else None,
        message=cut(message.message, TEXT_BYTES_MAX),
        uuid=message.uuid,
        wall_s=message.timestamp,
        launch_id=LaunchId(cut(message.launch_id, ID_BYTES_MAX)) if has("launch_id") else None,
        exit_code=message.exit_code if has("exit_code") else None,
        signal=message.signal if has("signal") else None,
        trap=cut(message.trap, TEXT_BYTES_MAX),
        output_tail=tail(message.output_tail, TEXT_BYTES_MAX),
        detail=cut(message.detail, TEXT_BYTES_MAX),
        granted=_granted(message),
        unreachable_wall_s=seconds(message.unreachable_time.nanoseconds) if has("unreachable_time") else None,
        extra=_rest(message, known_reason=known_reason),
    )


def _granted(message: pb.TaskStatus) -> tuple[Granted, ...]:
    """Nothing if it is malformed: see above."""
    try:
        return grants_of(message.granted) if message.granted else ()
    except Invalid:
        return ()


def _rest(message: pb.TaskStatus, *, known_reason: bool) -> bytes:
    rest = pb.TaskStatus()
    rest.CopyFrom(message)
    for name in _OURS:
        rest.ClearField(name)  # type: ignore[arg-type]
    if known_reason:
        rest.ClearField("reason")
    data = rest.SerializePartialToString(deterministic=True)
    return data if len(data) <= TEXT_BYTES_MAX else b""


def encode_status(status: Status) -> bytes:
    """Canonical bytes of `status_to_message`."""
    return status_to_message(status).SerializeToString(deterministic=True)


def decode_status(data: bytes) -> Status:
    """The status in these bytes; raises `Invalid` if there is none."""
    return status_from_message(from_protobuf(pb.TaskStatus, data))
