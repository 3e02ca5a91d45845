"""Calls of the scheduler API as the master reads them. The SDK's side is `scheduler_client`.

What does not live here: events (`events`), who may call what and when, framework and stream ids (the face).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from edgerm.core.constraints import Constraints
from edgerm.core.errors import Invalid, NotImplementedCall, TooLarge
from edgerm.core.ids import AgentId, ExecutorId, FrameworkId, OfferId, TaskId, check_task_id
from edgerm.core.link import NAME_BYTES_MAX
from edgerm.core.scheduler import (
    MESSAGE_BYTES_MAX,
    REFUSE_DEFAULT_S,
    REFUSE_MAX_S,
    WAITING_MAX,
    Accept,
    Acknowledge,
    AnswerInverse,
    Call,
    Decline,
    FrameworkSpec,
    Kill,
    Message,
    Reconcile,
    Request,
    Revive,
    Suppress,
    TaskSpec,
    Teardown,
    UpdateFramework,
    Waiting,
)
from edgerm.core.texts import cut
from edgerm.wire.codec.claims import claims_of
from edgerm.wire.codec.constraints import constraints_from_message
from edgerm.wire.codec.infos import framework_spec
from edgerm.wire.codec.status import UUID_BYTES
from edgerm.wire.codec.tasks import task_spec
from edgerm.wire.codec.times import span_s
from edgerm.wire.patterns import check
from edgerm.wire.v1 import offers_pb2, scheduler_pb2
from edgerm.wire.v1.basics_pb2 import OfferID
from edgerm.wire.v1.infos_pb2 import FrameworkInfo
from edgerm.wire.v1.tasks_pb2 import TaskInfo

_OPERATION = offers_pb2.Offer.Operation
_WITHOUT_BODY = frozenset({"TEARDOWN", "REVIVE", "SUPPRESS"})


@dataclass(frozen=True, slots=True)
class Subscription:
    """What a SUBSCRIBE asks for."""

    spec: FrameworkSpec
    framework_id: FrameworkId | None
    suppressed_roles: tuple[str, ...]
    constraints: Mapping[str, Constraints]


class Reading(NamedTuple):
    """A call as far as it is built; `not_built` names the call, or the operations of an ACCEPT, that are not."""

    call: Call | None
    not_built: tuple[str, ...] = ()


def call_type(message: scheduler_pb2.Call) -> str:
    """The call's type, such as `ACCEPT`, after a look at its form.

    Raises `Invalid` (400) if the type is missing or unknown, the body it needs is missing, or the two framework ids
    of a SUBSCRIBE differ; `NotImplementedCall` (501) for an explicit UNKNOWN.
    """
    if not message.HasField("type"):
        raise Invalid("type is missing, or is none of the scheduler API's calls")
    if message.type == scheduler_pb2.Call.UNKNOWN:
        raise NotImplementedCall("calls of type UNKNOWN are not taken")
    name = scheduler_pb2.Call.Type.Name(message.type)
    if name not in _WITHOUT_BODY and not message.HasField(name.lower()):  # type: ignore[arg-type]
        raise Invalid(f"a call of type {name} needs {name.lower()!r}")
    if name == "SUBSCRIBE" and _id_of(message) != _id_of_info(message.subscribe.framework_info):
        raise Invalid("framework_id and subscribe.framework_info.id must be equal, or both absent")
    if name == "UPDATE_FRAMEWORK" and _id_of(message) != _id_of_info(message.update_framework.framework_info):
        raise Invalid("framework_id and update_framework.framework_info.id must be equal")
    return name


def _id_of(message: scheduler_pb2.Call) -> str | None:
    return message.framework_id.value if message.HasField("framework_id") else None


def _id_of_info(info: FrameworkInfo) -> str | None:
    return info.id.value if info.HasField("id") else None


def subscription_from_message(message: scheduler_pb2.Call) -> Subscription:
    """What a SUBSCRIBE (see `call_type`) asks for; the text of `Invalid` is fit for an ERROR event."""
    framework_id, body = _id_of(message), message.subscribe
    spec = framework_spec(body.framework_info)
    return Subscription(
        spec,
        None if framework_id is None else FrameworkId(framework_id),
        tuple(body.suppressed_roles),
        constraints_from_message(body.offer_constraints, spec.roles, check),
    )


def _update_framework(message: scheduler_pb2.Call) -> UpdateFramework:
    body = message.update_framework
    spec = framework_spec(body.framework_info)
    constraints = constraints_from_message(body.offer_constraints, spec.roles, check)
    return UpdateFramework(spec, tuple(body.suppressed_roles), constraints)


def call_from_message(message: scheduler_pb2.Call) -> Reading:
    """Any call but SUBSCRIBE; raises as `call_type` does, and `Invalid` (400) for a uuid or a grace that is wrong."""
    name = call_type(message)
    if name == "ACCEPT":
        return _accept(message.accept)
    read = _READERS.get(name)
    return Reading(read(message)) if read is not None else Reading(None, (name,))


def _accept(message: scheduler_pb2.Call.Accept) -> Reading:
    tasks: list[TaskSpec] = []
    not_built: list[str] = []
    for operation in message.operations:
        if operation.type == _OPERATION.LAUNCH:
            tasks += map(task_spec, operation.launch.task_infos)
            continue
        name = _OPERATION.Type.Name(operation.type)
        not_built.append(name)
        if operation.type == _OPERATION.LAUNCH_GROUP:
            group = map(task_spec, operation.launch_group.task_group.tasks)
            tasks += [replace(spec, fault="LAUNCH_GROUP is not built yet") for spec in group]
    refuse_s = _refuse_s(message.filters)
    return Reading(Accept(_offer_ids(message.offer_ids), tuple(tasks), refuse_s), tuple(dict.fromkeys(not_built)))


def _offer_ids(messages: Iterable[OfferID]) -> tuple[OfferId, ...]:
    return tuple(OfferId(message.value) for message in messages)


def _refuse_s(filters: offers_pb2.Filters) -> float:
    """Mesos' rule: what is no length of time counts as the default."""
    value_s = filters.refuse_seconds
    if math.isnan(value_s) or value_s < 0:
        return REFUSE_DEFAULT_S
    return min(value_s, REFUSE_MAX_S)


def _decline(message: scheduler_pb2.Call) -> Decline:
    return Decline(_offer_ids(message.decline.offer_ids), _refuse_s(message.decline.filters))


def _answer_inverse(message: scheduler_pb2.Call) -> AnswerInverse:
    agreed = message.type == scheduler_pb2.Call.ACCEPT_INVERSE_OFFERS
    body = message.accept_inverse_offers if agreed else message.decline_inverse_offers
    return AnswerInverse(_offer_ids(body.inverse_offer_ids), agreed)


def _kill(message: scheduler_pb2.Call) -> Kill:
    kill = message.kill
    grace_s = None
    if kill.kill_policy.HasField("grace_period"):
        grace_s = span_s("kill_policy.grace_period", kill.kill_policy.grace_period.nanoseconds)
    return Kill(
        TaskId(kill.task_id.value), AgentId(kill.agent_id.value) if kill.HasField("agent_id") else None, grace_s
    )


def _message(message: scheduler_pb2.Call) -> Message:
    body = message.message
    if not body.data:
        raise Invalid(f"message.data is empty: a message has 1 to {MESSAGE_BYTES_MAX} bytes")
    if len(body.data) > MESSAGE_BYTES_MAX:
        raise TooLarge(f"message.data has {len(body.data)} bytes; a message has at most {MESSAGE_BYTES_MAX}")
    return Message(AgentId(body.agent_id.value), ExecutorId(body.executor_id.value), body.data)


def _acknowledge(message: scheduler_pb2.Call) -> Acknowledge:
    body = message.acknowledge
    if len(body.uuid) != UUID_BYTES:
        raise Invalid(f"acknowledge.uuid has {len(body.uuid)} bytes; {UUID_BYTES} raw bytes are expected")
    return Acknowledge(AgentId(body.agent_id.value), TaskId(body.task_id.value), body.uuid)


def _reconcile(message: scheduler_pb2.Call) -> Reconcile:
    return Reconcile(
        tuple(
            (TaskId(task.task_id.value), AgentId(task.agent_id.value) if task.HasField("agent_id") else None)
            for task in message.reconcile.tasks
        )
    )


def _request(message: scheduler_pb2.Call) -> Request:
    """Of what it asks for only who waits is looked at."""
    waiting = message.request.waiting
    if len(waiting) > WAITING_MAX:
        raise TooLarge(f"request.waiting has {len(waiting)} tasks, at most {WAITING_MAX} are told")
    return Request(waiting=tuple(map(_waiting, waiting)))


def _waiting(message: scheduler_pb2.Call.Waiting) -> Waiting:
    task_id = check_task_id(message.task_id.value)
    return Waiting(task_id, cut(message.name, NAME_BYTES_MAX), claims_of(TaskInfo(claims=message.claims)))


_READERS: dict[str, Callable[[scheduler_pb2.Call], Call]] = {
    "TEARDOWN": lambda message: Teardown(),
    "DECLINE": _decline,
    "ACCEPT_INVERSE_OFFERS": _answer_inverse,
    "DECLINE_INVERSE_OFFERS": _answer_inverse,
    "REVIVE": lambda message: Revive(tuple(message.revive.roles)),
    "SUPPRESS": lambda message: Suppress(tuple(message.suppress.roles)),
    "KILL": _kill,
    "MESSAGE": _message,
    "ACKNOWLEDGE": _acknowledge,
    "RECONCILE": _reconcile,
    "REQUEST": _request,
    "UPDATE_FRAMEWORK": _update_framework,
}
