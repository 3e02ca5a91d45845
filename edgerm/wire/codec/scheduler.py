"""The scheduler API as the master has it: calls are read, events are written. The SDK's side is `scheduler_client`.

What does not live here: who may call what and when; framework and stream ids (the face).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

from edgerm.core.errors import Invalid, NotImplementedCall
from edgerm.core.ids import AgentId, FrameworkId, OfferId, TaskId
from edgerm.core.resources import Amount, ResourceKey
from edgerm.core.scheduler import (
    REFUSE_DEFAULT_S,
    REFUSE_MAX_S,
    Accept,
    Acknowledge,
    Call,
    Capability,
    Decline,
    Error,
    Event,
    Failure,
    FrameworkSpec,
    Heartbeat,
    Kill,
    Offer,
    Offers,
    Reconcile,
    Rescind,
    Revive,
    Subscribed,
    Suppress,
    TaskSpec,
    Teardown,
    Update,
)
from edgerm.wire.codec.infos import framework_spec
from edgerm.wire.codec.resources import resource_to_message
from edgerm.wire.codec.status import UUID_BYTES, status_to_message
from edgerm.wire.codec.tasks import task_spec
from edgerm.wire.codec.times import span_s
from edgerm.wire.v1 import offers_pb2, scheduler_pb2
from edgerm.wire.v1.basics_pb2 import OfferID
from edgerm.wire.v1.infos_pb2 import AgentInfo, MasterInfo

_OPERATION = offers_pb2.Offer.Operation
SMALL = 16  # ranges or items up to which a resource's encoded form is remembered
_WITHOUT_BODY = frozenset({"TEARDOWN", "REVIVE", "SUPPRESS"})


# --- calls ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Subscription:
    """What a SUBSCRIBE asks for."""

    spec: FrameworkSpec
    framework_id: FrameworkId | None
    suppressed_roles: tuple[str, ...]


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
    if name == "SUBSCRIBE" and _id_of(message) != _id_of_info(message):
        raise Invalid("framework_id and subscribe.framework_info.id must be equal, or both absent")
    return name


def _id_of(message: scheduler_pb2.Call) -> str | None:
    return message.framework_id.value if message.HasField("framework_id") else None


def _id_of_info(message: scheduler_pb2.Call) -> str | None:
    info = message.subscribe.framework_info
    return info.id.value if info.HasField("id") else None


def subscription_from_message(message: scheduler_pb2.Call) -> Subscription:
    """What a SUBSCRIBE (see `call_type`) asks for; the text of `Invalid` is fit for an ERROR event."""
    framework_id = _id_of(message)
    return Subscription(
        framework_spec(message.subscribe.framework_info),
        None if framework_id is None else FrameworkId(framework_id),
        tuple(message.subscribe.suppressed_roles),
    )


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


def _kill(message: scheduler_pb2.Call) -> Kill:
    kill = message.kill
    grace_s = None
    if kill.kill_policy.HasField("grace_period"):
        grace_s = span_s("kill_policy.grace_period", kill.kill_policy.grace_period.nanoseconds)
    return Kill(
        TaskId(kill.task_id.value), AgentId(kill.agent_id.value) if kill.HasField("agent_id") else None, grace_s
    )


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


_READERS: dict[str, Callable[[scheduler_pb2.Call], Call]] = {
    "TEARDOWN": lambda message: Teardown(),
    "DECLINE": _decline,
    "REVIVE": lambda message: Revive(tuple(message.revive.roles)),
    "SUPPRESS": lambda message: Suppress(tuple(message.suppress.roles)),
    "KILL": _kill,
    "ACKNOWLEDGE": _acknowledge,
    "RECONCILE": _reconcile,
}


# --- events -----------------------------------------------------------------------------------------------------


def event_to_message(event: Event, framework: FrameworkSpec, master: MasterInfo | None = None) -> scheduler_pb2.Event:
    """The event in the form that this framework's capabilities ask for; `master` goes with SUBSCRIBED.

    Raises `Invalid` for offers that the framework cannot be told (a refined reservation, without the capability).
    """
    message = scheduler_pb2.Event()
    _WRITERS[type(event)](message, event, framework)
    if isinstance(event, Subscribed) and master is not None:
        message.subscribed.master_info.CopyFrom(master)
    return message


def _write_subscribed(message: scheduler_pb2.Event, event: Subscribed, framework: FrameworkSpec) -> None:
    message.type = scheduler_pb2.Event.SUBSCRIBED
    message.subscribed.framework_id.value = event.framework_id
    message.subscribed.heartbeat_interval_seconds = event.heartbeat_interval_s


def _write_offers(message: scheduler_pb2.Event, event: Offers, framework: FrameworkSpec) -> None:
    message.type = scheduler_pb2.Event.OFFERS
    add = message.offers.offers.add
    for offer in event.offers:
        write_offer(add(), offer, framework.capabilities)
    message.offers.SetInParent()


def write_offer(message: offers_pb2.Offer, offer: Offer, capabilities: frozenset[Capability]) -> None:
    """Fill an empty Offer message, in the form that these capabilities ask for."""
    role = offer.role if Capability.MULTI_ROLE in capabilities else None
    refined = Capability.RESERVATION_REFINEMENT in capabilities
    parts = [_agent_part(offer.agent.info)]
    for key, amount in sorted(offer.resources.items()):
        small = isinstance(amount, int) or len(amount) <= SMALL
        parts.append((_remembered_part if small else _resource_part)(key, amount, role, refined))
    message.MergeFromString(b"".join(parts))
    if role is not None:
        message.allocation_info.role = role
    message.id.value = offer.offer_id
    message.framework_id.value = offer.framework_id
    message.agent_id.value = offer.agent_id
    message.hostname = offer.agent.hostname


@lru_cache(maxsize=4096)
def _agent_part(info: bytes) -> bytes:
    """What offers of an agent repeat, as bytes of an incomplete Offer."""
    agent = AgentInfo.FromString(info)
    part = offers_pb2.Offer(attributes=agent.attributes)
    if agent.HasField("domain"):
        part.domain.CopyFrom(agent.domain)
    return part.SerializePartialToString()


def _resource_part(key: ResourceKey, amount: Amount, role: str | None, refined: bool) -> bytes:
    """One resource as bytes of an incomplete Offer."""
    return offers_pb2.Offer(resources=[resource_to_message(key, amount, role, refined)]).SerializePartialToString()


_remembered_part = lru_cache(maxsize=16384)(_resource_part)


def _write_rescind(message: scheduler_pb2.Event, event: Rescind, framework: FrameworkSpec) -> None:
    message.type = scheduler_pb2.Event.RESCIND
    message.rescind.offer_id.value = event.offer_id


def _write_update(message: scheduler_pb2.Event, event: Update, framework: FrameworkSpec) -> None:
    message.type = scheduler_pb2.Event.UPDATE
    message.update.status.CopyFrom(status_to_message(event.status))


def _write_failure(message: scheduler_pb2.Event, event: Failure, framework: FrameworkSpec) -> None:
    message.type = scheduler_pb2.Event.FAILURE
    message.failure.agent_id.value = event.agent_id
    if event.executor_id is not None:
        message.failure.executor_id.value = event.executor_id
        message.failure.status = event.exit_status or 0  # clients index it when there is an executor


def _write_error(message: scheduler_pb2.Event, event: Error, framework: FrameworkSpec) -> None:
    message.type = scheduler_pb2.Event.ERROR
    message.error.message = event.message


def _write_heartbeat(message: scheduler_pb2.Event, event: Heartbeat, framework: FrameworkSpec) -> None:
    message.type = scheduler_pb2.Event.HEARTBEAT


_WRITERS: dict[type, Callable[..., None]] = {
    Subscribed: _write_subscribed,
    Offers: _write_offers,
    Rescind: _write_rescind,
    Update: _write_update,
    Failure: _write_failure,
    Error: _write_error,
    Heartbeat: _write_heartbeat,
}
