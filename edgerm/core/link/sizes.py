"""How large messages are: bounds of the encoded form, never too small, so that a message stays within its budget.

What does not live here: the encoding itself (`edgerm.wire.codec.link`), whose tests hold these bounds against it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from edgerm.core.claims import Claim, Granted
from edgerm.core.devices import CLASSES_MAX, DEVICES_MAX, INVENTORY_BYTES_MAX, Device, DeviceClass
from edgerm.core.ids import AgentId, TaskKey
from edgerm.core.link.messages import (
    NAME_BYTES_MAX,
    Close,
    Credit,
    Data,
    Forget,
    Frame,
    Launch,
    MessagePart,
    OpenInput,
    OpenLog,
    OpenStats,
    Order,
    Stats,
    TaskReport,
    TaskUsage,
    Update,
    common_begin,
    update_uuid,
)
from edgerm.core.resources import Amount, ResourceKey, Resources
from edgerm.core.scheduler import AgentSpec, TaskSpec
from edgerm.core.texts import utf8_bytes

# A field takes its bytes, a tag of at most 2 and a length of at most 4; a number at most 10 and its tag.
_FIELD_BYTES = 6
_NUMBER_BYTES = 12
MESSAGE_BYTES = 40  # of a beat or an answer, beside what it carries
_BLOB_BYTES = 64


def _text_bytes(*texts: str) -> int:
    return sum(_FIELD_BYTES + utf8_bytes(text) for text in texts)


def _some_bytes(*texts: str) -> int:
    """As `_text_bytes`, of texts that are left out when they are empty."""
    return _text_bytes(*filter(None, texts))


def _key_bytes(key: TaskKey) -> int:
    begin = common_begin(key)
    return 12 + sum(map(utf8_bytes, key)) - utf8_bytes(begin)  # lengths of at most 2 bytes


def _resources_bytes(resources: Resources) -> int:
    return sum(_resource_key_bytes(key) + _amount_bytes(resources[key]) for key in resources)


def _resource_key_bytes(key: ResourceKey) -> int:
    reservations = sum(
        32 + _text_bytes(part.role, part.principal) + len(part.labels) + _FIELD_BYTES for part in key.reservations
    )
    return 32 + _text_bytes(key.name) + len(key.disk) + reservations


def _amount_bytes(amount: Amount) -> int:
    if isinstance(amount, int):
        return 16
    if isinstance(amount, tuple):
        return 16 + 32 * len(amount)
    return 16 + _text_bytes(*amount)


def _excerpt_bytes(task: TaskSpec) -> int:
    name_bytes = min(utf8_bytes(task.name), NAME_BYTES_MAX)
    ids = _text_bytes(task.task_id, task.agent_id) + _some_bytes(task.alternative)
    return 96 + name_bytes + ids + _resources_bytes(task.resources) + _claims_bytes(task.claims)


def _task_bytes(task: TaskSpec) -> int:
    """What travels of a task: its TaskInfo, or an excerpt and the names of its blobs; and its devices."""
    granted = _granted_bytes(task.granted) + _NUMBER_BYTES + _text_bytes(task.app) if task.granted else 0
    if task.info and task.info_blob is None:
        return _FIELD_BYTES + len(task.info) + granted
    blobs = _text_bytes(task.executor) + _BLOB_BYTES * len(task.needs)
    return _FIELD_BYTES + _excerpt_bytes(task) + blobs + granted


def _granted_bytes(granted: tuple[Granted, ...]) -> int:
    return sum(_FIELD_BYTES + _NUMBER_BYTES + 4 + _text_bytes(*one.ids) for one in granted)


def _claims_bytes(claims: tuple[Claim, ...]) -> int:
    return sum(
        _FIELD_BYTES
        + _NUMBER_BYTES
        + 8
        + _text_bytes(claim.name, claim.type)
        + _some_bytes(claim.config)
        + sum(_FIELD_BYTES + _text_bytes(one.key, one.operator.value, one.values) for one in claim.expressions)
        for claim in claims
    )


def order_bytes(order: Order) -> int:
    """An order in an answer."""
    body = order.body
    extra = _FIELD_BYTES + _task_bytes(body.task) + _text_bytes(body.role) if isinstance(body, Launch) else 6
    if not isinstance(body, Forget) and body.request:
        extra += _text_bytes(body.request)
    return 2 * _FIELD_BYTES + _NUMBER_BYTES + _key_bytes(body.key) + extra


def update_bytes(update: Update, agent_id: AgentId) -> int:
    """An update in a beat of this agent."""
    key, status = update.key, update.status
    total = 36 + update.seq.bit_length() // 7 + _key_bytes(key) + len(status.extra)
    total += _some_bytes(status.message, status.output_tail, status.trap, status.detail)
    total += sum(_text_bytes(one.claim, one.type) for one in status.granted) + _granted_bytes(status.granted)
    numbers = status.exit_code, status.signal, status.unreachable_wall_s
    total += sum(16 for number in numbers if number is not None)
    ours = status.agent_id == agent_id and status.launch_id == key.launch_id
    if ours and status.uuid == update_uuid(key, update.seq):
        return total  # what follows from the key is left out
    return total + 64 + _text_bytes(status.task_id, status.agent_id or "", status.launch_id or "")


def report_bytes(report: TaskReport) -> int:
    """A task in a join."""
    return 48 + _key_bytes(report.key) + _text_bytes(report.role) + _task_bytes(report.task)


def agent_bytes(agent: AgentSpec) -> int:
    """What goes with each part of a join beside the tasks."""
    return 200 + _text_bytes(agent.hostname, agent.name) + len(agent.info) + _resources_bytes(agent.resources)


def tellable(agent: AgentSpec) -> AgentSpec:
    """The agent with its devices as far as a join may tell them, the first ones: more would keep it out."""
    inventory = agent.inventory
    classes = inventory.classes
    if sum(map(_class_bytes, classes)) > INVENTORY_BYTES_MAX // 2:
        classes = tuple(replace(each, schema="") for each in classes)
    count, left = fitting(map(_class_bytes, classes), INVENTORY_BYTES_MAX - MESSAGE_BYTES, least=0)
    classes = classes[: min(count, CLASSES_MAX)]
    count, _ = fitting(map(_device_bytes, inventory.devices), left, least=0)
    devices = inventory.devices[: min(count, DEVICES_MAX)]
    if classes == inventory.classes and len(devices) == len(inventory.devices):
        return agent
    return replace(agent, inventory=replace(inventory, classes=classes, devices=devices))


def _class_bytes(found: DeviceClass) -> int:
    return 24 + _text_bytes(found.name, found.schema, found.problem, *found.config_keys)


def _device_bytes(device: Device) -> int:
    texts = _text_bytes(device.name, device.id, device.metadata, device.problem, device.quarantine, device.held_by)
    return 24 + texts + _text_bytes(*device.gives) + _NUMBER_BYTES * len(device.numa_nodes)


def frame_bytes(frame: Frame) -> int:
    """A frame in a beat or an answer."""
    match frame.body:
        case Data(data=data):
            return 40 + len(data)
        case OpenLog(key=key) | OpenInput(key=key):
            return 64 + _key_bytes(key)
        case MessagePart(key=named, data=data):
            return 40 + len(data) + (0 if named is None else key_bytes(named))
        case Stats(tasks=tasks):
            return 32 + sum(map(usage_bytes, tasks))
        case Close(reason=reason):
            return 24 + utf8_bytes(reason)
        case Credit() | OpenStats():
            return 32


def key_bytes(key: TaskKey) -> int:
    """What a task's key takes of a frame."""
    return _FIELD_BYTES + _key_bytes(key)


def usage_bytes(usage: TaskUsage) -> int:
    """What a task's usage takes of a frame."""
    return 3 * _NUMBER_BYTES + _FIELD_BYTES + _key_bytes(usage.key)


def fitting(sizes: Iterable[int], budget_bytes: int, least: int = 1) -> tuple[int, int]:
    """How many of the first fit (at least so many, if there are), and what is left of the budget."""
    count, left = 0, budget_bytes
    for size in sizes:
        if count >= least and size > left:
            break
        count, left = count + 1, left - size
    return count, max(left, 0)
