"""What a message of the link leaves out because its receiver knows it (docs/link.md, "What a message leaves out").

A TaskInfo or TaskStatus that names its task is whole; one that does not stands beside the task's key in a message of
the agent's session, and what it lacks is filled in here. Nothing is left out that would not come back byte for byte.
"""

from __future__ import annotations

from edgerm.core.ids import AgentId, TaskKey
from edgerm.core.link import Update, update_uuid
from edgerm.core.scheduler import Status, TaskSpec
from edgerm.core.tasks import TaskState
from edgerm.wire.codec.status import status_from_message, status_to_message
from edgerm.wire.codec.tasks import task_spec, task_spec_from_bytes
from edgerm.wire.content import check_complete, from_protobuf, from_protobuf_partly
from edgerm.wire.v1.tasks_pb2 import TaskInfo, TaskStatus
from edgerm.wire.v1.tasks_pb2 import TaskState as WireState


def short_info(info: bytes, key: TaskKey, agent_id: AgentId) -> bytes:
    """A TaskInfo without the task's id, the agent's, and a name that is the task's id."""
    message = from_protobuf(TaskInfo, info)
    message.ClearField("task_id")
    message.ClearField("agent_id")
    if message.name == key.task_id:
        message.ClearField("name")
    short = message.SerializePartialToString(deterministic=True)
    _complete(message, key, agent_id)
    return short if message.SerializeToString(deterministic=True) == info else info


def _complete(message: TaskInfo, key: TaskKey, agent_id: AgentId) -> None:
    message.task_id.value, message.agent_id.value = key.task_id, agent_id
    if not message.HasField("name"):
        message.name = key.task_id


def task_in(info: bytes, key: TaskKey, agent_id: AgentId) -> TaskSpec:
    """The task of a TaskInfo, short or whole; raises `Invalid`."""
    message = from_protobuf_partly(TaskInfo, info)
    if message.HasField("task_id"):
        return task_spec_from_bytes(info)
    _complete(message, key, agent_id)
    check_complete(message)
    return task_spec(message)


def short_status(update: Update, agent_id: AgentId) -> bytes:
    """An update's TaskStatus without what its key, its state and its number say."""
    key, status = update.key, update.status
    message = status_to_message(status)
    known = status.task_id == key.task_id and status.agent_id == agent_id and status.launch_id == key.launch_id
    if not known or not status.uuid:
        return message.SerializeToString(deterministic=True)
    for name in ("task_id", "agent_id", "launch_id", "state"):
        message.ClearField(name)
    if status.uuid == update_uuid(key, update.seq):
        message.ClearField("uuid")
    return message.SerializePartialToString(deterministic=True)


def status_in(data: bytes, key: TaskKey, seq: int, state: TaskState, agent_id: AgentId) -> Status:
    """The status of an update, short or whole; raises `Invalid`."""
    message = from_protobuf_partly(TaskStatus, data)
    if not message.HasField("task_id"):
        message.task_id.value, message.agent_id.value, message.launch_id = key.task_id, agent_id, key.launch_id
        message.state = WireState.ValueType(state)
        if not message.HasField("uuid"):
            message.uuid = update_uuid(key, seq)
    check_complete(message)
    return status_from_message(message)
