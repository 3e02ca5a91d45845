"""The parts of the agent link's messages: keys, tasks, blobs, states, times, orders and frames."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import assert_never

from edgerm.core.blobs import Digest
from edgerm.core.claims import Claim, Granted
from edgerm.core.errors import Invalid
from edgerm.core.ids import AgentId, FrameworkId, LaunchId, TaskId, TaskKey, check_id, sane_request_id
from edgerm.core.link import (
    NAME_BYTES_MAX,
    Close,
    Credit,
    Data,
    Forget,
    Frame,
    FrameBody,
    Kill,
    Launch,
    MessagePart,
    OpenInput,
    OpenLog,
    OpenStats,
    Order,
    OrderBody,
    Stats,
    TaskUsage,
    common_begin,
)
from edgerm.core.scheduler import BlobRef, TaskSpec
from edgerm.core.tasks import TaskState
from edgerm.core.texts import cut
from edgerm.wire.codec.claims import ids_in
from edgerm.wire.codec.link_short import short_info, task_in
from edgerm.wire.codec.tasks import DIGEST_BYTES, excerpt, with_grants
from edgerm.wire.v1 import link_pb2 as pb

BLOBS_MAX = 100  # that one task may need
_UINT32_MAX = 2**32 - 1
_STATES = {int(state): state for state in TaskState}


def milliseconds(what: str, value_s: float) -> int:
    """Seconds as whole milliseconds, rounded up so that a short wait never becomes none; capped at 49 days.

    Raises `Invalid`, naming `what`, for what is no length of time.
    """
    if not value_s >= 0:
        raise Invalid(f"{what} must be a number of seconds, 0 or more, not {value_s}")
    value_ms = round(min(value_s * 1000, _UINT32_MAX))
    return min(value_ms + (value_ms / 1000 < value_s), _UINT32_MAX)


def state_of(number: int) -> TaskState:
    """The task state with this number; raises `Invalid`."""
    try:
        return _STATES[number]
    except KeyError:
        raise Invalid(f"{number} is no state of a task") from None


def fill_key(message: pb.Key, key: TaskKey) -> None:
    """Write a task's key; of a launch id that begins as the framework's id, only the rest."""
    message.framework_id, message.task_id = key.framework_id, key.task_id
    if begin := common_begin(key):
        message.launch_tail = key.launch_id[len(begin) :]
    else:
        message.launch_id = key.launch_id


def key_of(message: pb.Key) -> TaskKey:
    """A task's key; raises `Invalid` if a part of it may not name a thing."""
    framework_id = FrameworkId(check_id("framework id", message.framework_id))
    task_id = TaskId(check_id("task id", message.task_id))
    tail = message.launch_tail
    launch_id = framework_id[: framework_id.rfind("-") + 1] + tail if tail else message.launch_id
    return TaskKey(framework_id, task_id, LaunchId(check_id("launch id", launch_id)))


def fill_task(message: pb.Task, task: TaskSpec, key: TaskKey, agent_id: AgentId) -> None:
    """Write a task of this agent: its TaskInfo, or the blob's name with an excerpt."""
    inline = task.info if task.info_blob is None else b""
    message.info = short_info(inline or excerpt(task).SerializeToString(deterministic=True), key, agent_id)
    if task.granted:
        _fill_granted(message, task)
    if task.info_blob is None:
        return
    fill_blob(message.info_blob, task.info_blob)
    message.executor = task.executor
    for blob in task.blobs:
        fill_blob(message.blobs.add(), blob)


def _fill_granted(message: pb.Task, task: TaskSpec) -> None:
    places = {claim.name: place for place, claim in enumerate(task.claims)}
    for granted in task.granted:
        if granted.claim in places:
            message.granted.add(claim=places[granted.claim], ids=granted.ids, shared=granted.shared)
    message.generation, message.app = task.generation, task.app


def task_of(message: pb.Task, key: TaskKey, agent_id: AgentId) -> TaskSpec:
    """A task as a value; raises `Invalid` if its TaskInfo is none, or not that of the task with this key."""
    spec = task_in(message.info, key, agent_id)
    if spec.task_id != key.task_id:
        raise Invalid(f"task {key} has the TaskInfo of {spec.task_id!r}")
    if message.granted and spec.claims:  # claims that are not understood here have no places
        spec = with_grants(spec, _granted(message, spec.claims), message.generation, cut(message.app, NAME_BYTES_MAX))
    if not message.HasField("info_blob"):
        return spec
    if len(message.blobs) > BLOBS_MAX:
        raise Invalid(f"task {key} needs {len(message.blobs)} blobs, at most {BLOBS_MAX} are allowed")
    return replace(
        spec,
        info=b"",
        info_blob=blob_of(message.info_blob),
        executor=message.executor,
        blobs=tuple(map(blob_of, message.blobs)),
        fault="",  # an excerpt has no command; whoever has the blob judges
    )


def _granted(message: pb.Task, claims: tuple[Claim, ...]) -> tuple[Granted, ...]:
    places = [granted.claim for granted in message.granted]
    if len(set(places)) < len(places) or not all(place < len(claims) for place in places):
        raise Invalid(f"devices are granted to the claims {str(places)[:80]}, the task has {len(claims)}")
    return tuple(
        Granted(claim.name, claim.type, ids_in(claim.name, granted.ids), granted.shared, claim.config)
        for granted in message.granted
        for claim in (claims[granted.claim],)
    )


def fill_blob(message: pb.BlobRef, blob: BlobRef) -> None:
    """Write a blob's name and size."""
    message.sha256 = bytes.fromhex(blob.digest)
    message.size_bytes = blob.size_bytes


def blob_of(message: pb.BlobRef) -> BlobRef:
    """A blob's name and size; raises `Invalid`."""
    return BlobRef(digest_in(message.sha256), message.size_bytes)


def digest_in(sha256: bytes) -> Digest:
    """A blob's name; raises `Invalid` unless it is a SHA-256."""
    if len(sha256) != DIGEST_BYTES:
        raise Invalid(f"a blob's sha256 has {len(sha256)} bytes; {DIGEST_BYTES} are expected")
    return Digest(sha256.hex())


# --- orders -----------------------------------------------------------------------------------------------------


def fill_order(message: pb.Order, body: OrderBody, agent_id: AgentId) -> None:
    """Write an order to this agent."""
    match body:
        case Launch():
            fill_key(message.launch.key, body.key)
            message.launch.role = body.role
            fill_task(message.launch.task, body.task, body.key, agent_id)
            if body.request:
                message.launch.request = body.request
        case Kill():
            fill_key(message.kill.key, body.key)
            if body.grace_s is not None:
                message.kill.grace_ms = milliseconds("grace", body.grace_s)
            if body.request:
                message.kill.request = body.request
        case Forget():
            fill_key(message.forget.key, body.key)
        case _:
            assert_never(body)


def order_of(message: pb.Order, agent_id: AgentId) -> Order:
    """An order to this agent as a value; raises `Invalid`, also for one that is not known here."""
    return Order(message.number, _order_body(message, agent_id))


def _order_body(message: pb.Order, agent_id: AgentId) -> OrderBody:
    match message.WhichOneof("what"):
        case "launch":
            key = key_of(message.launch.key)
            task = task_of(message.launch.task, key, agent_id)
            return Launch(key, message.launch.role, task, sane_request_id(message.launch.request))
        case "kill":
            grace_s = message.kill.grace_ms / 1000 if message.kill.HasField("grace_ms") else None
            return Kill(key_of(message.kill.key), grace_s, sane_request_id(message.kill.request))
        case "forget":
            return Forget(key_of(message.forget.key))
        case None:
            why = "is the master newer than the agent?"
            raise Invalid(f"order {message.number} is none of launch, kill and forget: {why}")


# --- frames -----------------------------------------------------------------------------------------------------


def fill_frame(message: pb.Frame, frame: Frame) -> None:
    """Write a frame."""
    message.stream = frame.stream
    match frame.body:
        case OpenLog(key, stderr, offset, follow, credit_bytes):
            target = message.open_log
            fill_key(target.key, key)
            target.stderr, target.offset, target.follow, target.credit_bytes = stderr, offset, follow, credit_bytes
        case Data(offset, data, end):
            message.data.offset, message.data.content, message.data.end = offset, data, end
        case Credit(credit_bytes):
            message.credit_bytes = credit_bytes
        case Close(reason):
            message.close = reason
        case OpenInput(key):
            fill_key(message.open_input.key, key)
        case MessagePart(named, data, more):
            if named is not None:
                fill_key(message.message.key, named)
            message.message.content, message.message.more = data, more
        case OpenStats(interval_s):
            message.open_stats.interval_ms = milliseconds("interval", interval_s)
        case Stats(tasks, end):
            message.stats.end = end
            for usage in tasks:
                _fill_usage(message.stats.tasks.add(), usage)


def _fill_usage(message: pb.TaskUsage, usage: TaskUsage) -> None:
    fill_key(message.key, usage.key)
    message.cpu_ms = round(usage.cpu_s * 1000)
    message.cpus_milli, message.memory_bytes = usage.cpus_milli, usage.memory_bytes


def frame_of(message: pb.Frame) -> Frame:
    """A frame as a value; raises `Invalid`."""
    what = message.WhichOneof("what")
    if what is None:
        raise Invalid(f"frame of stream {message.stream} has no body that is known here")
    return Frame(message.stream, _BODIES[what](message))


def _open_log(message: pb.Frame) -> OpenLog:
    body = message.open_log
    return OpenLog(key_of(body.key), body.stderr, body.offset, body.follow, body.credit_bytes)


def _message_part(message: pb.Frame) -> MessagePart:
    words = message.message
    return MessagePart(key_of(words.key) if words.HasField("key") else None, words.content, words.more)


_BODIES: dict[str, Callable[[pb.Frame], FrameBody]] = {
    "open_log": _open_log,
    "data": lambda message: Data(message.data.offset, message.data.content, message.data.end),
    "credit_bytes": lambda message: Credit(message.credit_bytes),
    "close": lambda message: Close(message.close),
    "open_stats": lambda message: OpenStats(message.open_stats.interval_ms / 1000),
    "open_input": lambda message: OpenInput(key_of(message.open_input.key)),
    "message": _message_part,
    "stats": lambda message: Stats(tuple(map(_usage, message.stats.tasks)), message.stats.end),
}


def _usage(message: pb.TaskUsage) -> TaskUsage:
    return TaskUsage(key_of(message.key), message.cpu_ms / 1000, message.cpus_milli, message.memory_bytes)
