"""What the agent link's messages have in common: keys, tasks, blobs, states, times, and frames."""

from __future__ import annotations

from dataclasses import replace

from edgerm.core.blobs import Digest
from edgerm.core.errors import Invalid
from edgerm.core.ids import FrameworkId, LaunchId, TaskId, TaskKey, check_id
from edgerm.core.link import Close, Credit, Data, Frame, OpenLog
from edgerm.core.scheduler import BlobRef, TaskSpec
from edgerm.core.tasks import TaskState
from edgerm.wire.codec.tasks import DIGEST_BYTES, excerpt, task_spec_from_bytes
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
    """Write a task's key."""
    message.framework_id, message.task_id, message.launch_id = key


def key_of(message: pb.Key) -> TaskKey:
    """A task's key; raises `Invalid` if a part of it may not name a thing."""
    return TaskKey(
        FrameworkId(check_id("framework id", message.framework_id)),
        TaskId(check_id("task id", message.task_id)),
        LaunchId(check_id("launch id", message.launch_id)),
    )


def fill_task(message: pb.Task, task: TaskSpec) -> None:
    """Write a task: its TaskInfo, or the blob's name with an excerpt."""
    if task.info_blob is None:
        message.info = task.info or excerpt(task).SerializeToString(deterministic=True)
        return
    message.info = excerpt(task).SerializeToString(deterministic=True)
    _fill_blob(message.info_blob, task.info_blob)
    message.executor = task.executor
    for blob in task.blobs:
        _fill_blob(message.blobs.add(), blob)


def task_of(message: pb.Task, key: TaskKey) -> TaskSpec:
    """A task as a value; raises `Invalid` if its TaskInfo is none, or not that of the task with this key."""
    spec = task_spec_from_bytes(message.info)
    if spec.task_id != key.task_id:
        raise Invalid(f"task {key} has the TaskInfo of {spec.task_id!r}")
    if not message.HasField("info_blob"):
        return spec
    if len(message.blobs) > BLOBS_MAX:
        raise Invalid(f"task {key} needs {len(message.blobs)} blobs, at most {BLOBS_MAX} are allowed")
    return replace(
        spec,
        info=b"",
        info_blob=_blob(message.info_blob),
        executor=message.executor,
        blobs=tuple(map(_blob, message.blobs)),
        fault="",  # an excerpt has no command; whoever has the blob judges
    )


def _fill_blob(message: pb.BlobRef, blob: BlobRef) -> None:
    message.sha256 = bytes.fromhex(blob.digest)
    message.size_bytes = blob.size_bytes


def _blob(message: pb.BlobRef) -> BlobRef:
    if len(message.sha256) != DIGEST_BYTES:
        raise Invalid(f"a blob's sha256 has {len(message.sha256)} bytes; {DIGEST_BYTES} are expected")
    return BlobRef(Digest(message.sha256.hex()), message.size_bytes)


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


def frame_of(message: pb.Frame) -> Frame:
    """A frame as a value; raises `Invalid`."""
    match message.WhichOneof("what"):
        case "open_log":
            body = message.open_log
            key = key_of(body.key)
            return Frame(message.stream, OpenLog(key, body.stderr, body.offset, body.follow, body.credit_bytes))
        case "data":
            part = message.data
            return Frame(message.stream, Data(part.offset, part.content, part.end))
        case "credit_bytes":
            return Frame(message.stream, Credit(message.credit_bytes))
        case "close":
            return Frame(message.stream, Close(message.close))
        case None:
            raise Invalid(f"frame of stream {message.stream} has no body that is known here")
