"""One task, its status, and this master, as messages of the operator API.

What does not live here: what there is, and lists of it (`views.py`).
"""

from __future__ import annotations

from ipaddress import ip_address

from aiohttp import web

from edgerm.core.scheduler import Status
from edgerm.wire.codec.resources import resources_to_messages
from edgerm.wire.codec.status import status_to_message
from edgerm.wire.codec.tasks import task_info
from edgerm.wire.v1 import basics_pb2, infos_pb2, tasks_pb2
from edgerm_master.api.http import local_address
from edgerm_master.api.versions import EDGERM_VERSION, MESOS_VERSION
from edgerm_master.core.master import Master
from edgerm_master.core.records import RunRecord, TaskRecord


def task_message(
    record: TaskRecord, run: RunRecord, statuses: tuple[Status, ...] = (), user: str = ""
) -> tasks_pb2.Task:
    """A task and how far it has come; of a big one only what the master itself knows."""
    key, task = record.key, record.task
    info = task_info(task)
    shown = run.owed[0].state if run.owed else run.state
    message = tasks_pb2.Task(
        name=task.name,
        task_id=basics_pb2.TaskID(value=key.task_id),
        framework_id=basics_pb2.FrameworkID(value=key.framework_id),
        agent_id=basics_pb2.AgentID(value=task.agent_id),
        state=run.state.value,  # type: ignore[arg-type]
        resources=tuple(resources_to_messages(task.resources)),
        statuses=[status_without_data(status) for status in statuses or run.owed],
        status_update_state=shown.value,  # type: ignore[arg-type]
        launch_id=key.launch_id,
    )
    if run.owed and run.owed[0].uuid:
        message.status_update_uuid = run.owed[0].uuid
    if user := info.command.user or user:
        message.user = user
    if task.alternative:
        message.alternative = task.alternative
    for name in ("labels", "discovery", "container", "health_check", "kill_policy"):
        if info.HasField(name):
            getattr(message, name).CopyFrom(getattr(info, name))
    return message


def status_without_data(status: Status) -> tasks_pb2.TaskStatus:
    """The status, less what an executor sent along: that is its framework's business, and may be large."""
    message = status_to_message(status)
    message.ClearField("data")
    return message


def master_info(core: Master, request: web.Request) -> infos_pb2.MasterInfo:
    """This master, as it is seen by whoever sent the request."""
    host, port = local_address(request)
    address = ip_address(host)
    number = int.from_bytes(address.packed, "little") if address.version == 4 else 0  # as Mesos: network byte order
    return infos_pb2.MasterInfo(
        id=core.world.run_id,
        ip=number,
        port=port,
        pid=f"master@{host}:{port}",
        hostname=host,
        version=MESOS_VERSION,
        address=basics_pb2.Address(hostname=host, ip=host, port=port),
        edgerm_version=EDGERM_VERSION,
    )
