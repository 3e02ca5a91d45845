"""The scheduler API as a framework has it: calls are written, events are read. The master's side is `scheduler`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache

from edgerm.core.constraints import NO_CONSTRAINTS, Constraints
from edgerm.core.errors import Invalid
from edgerm.core.ids import AgentId, ExecutorId, FrameworkId, OfferId
from edgerm.core.scheduler import (
    Accept,
    Acknowledge,
    AgentSpec,
    AnswerInverse,
    Call,
    Decline,
    Error,
    Event,
    Failure,
    FrameworkSpec,
    Heartbeat,
    InverseOffer,
    InverseOffers,
    Kill,
    Message,
    Offer,
    Offers,
    Reconcile,
    Request,
    Rescind,
    RescindInverse,
    Revive,
    Subscribed,
    Suppress,
    Teardown,
    Update,
    UpdateFramework,
)
from edgerm.wire.codec.claims import claims_to_messages
from edgerm.wire.codec.constraints import constraints_to_message
from edgerm.wire.codec.devices import inventory_of
from edgerm.wire.codec.infos import agent_spec, framework_info
from edgerm.wire.codec.resources import resources_from_messages, resources_to_messages
from edgerm.wire.codec.status import status_from_message
from edgerm.wire.codec.tasks import task_info
from edgerm.wire.codec.times import nanoseconds, seconds
from edgerm.wire.v1 import offers_pb2, scheduler_pb2
from edgerm.wire.v1.infos_pb2 import AgentInfo

# --- calls ------------------------------------------------------------------------------------------------------


def subscribe_message(
    spec: FrameworkSpec,
    framework_id: FrameworkId | None = None,
    suppressed_roles: tuple[str, ...] = (),
    constraints: Mapping[str, Constraints] = NO_CONSTRAINTS,
) -> scheduler_pb2.Call:
    """A SUBSCRIBE; with an id the framework comes back. Raises `Invalid` for several roles without MULTI_ROLE."""
    message = scheduler_pb2.Call(type=scheduler_pb2.Call.SUBSCRIBE)
    message.subscribe.framework_info.CopyFrom(framework_info(spec, framework_id))
    message.subscribe.suppressed_roles.extend(suppressed_roles)
    if constraints:
        message.subscribe.offer_constraints.CopyFrom(constraints_to_message(constraints))
    if framework_id is not None:
        message.framework_id.value = framework_id
    return message


def call_to_message(call: Call, framework_id: FrameworkId) -> scheduler_pb2.Call:
    """The call as a message; raises `Invalid` if a task's `info` is no TaskInfo or a time cannot be said."""
    message = scheduler_pb2.Call()
    message.framework_id.value = framework_id
    _WRITERS[type(call)](message, call)
    if isinstance(call, UpdateFramework):
        message.update_framework.framework_info.id.value = framework_id
    return message


def _write_accept(message: scheduler_pb2.Call, call: Accept) -> None:
    message.type = scheduler_pb2.Call.ACCEPT
    body = message.accept
    for offer_id in call.offer_ids:
        body.offer_ids.add(value=offer_id)
    if call.tasks:
        operation = body.operations.add(type=offers_pb2.Offer.Operation.LAUNCH)
        operation.launch.task_infos.extend(map(task_info, call.tasks))
    body.filters.refuse_seconds = call.refuse_s


def _write_decline(message: scheduler_pb2.Call, call: Decline) -> None:
    message.type = scheduler_pb2.Call.DECLINE
    for offer_id in call.offer_ids:
        message.decline.offer_ids.add(value=offer_id)
    message.decline.filters.refuse_seconds = call.refuse_s


def _write_answer_inverse(message: scheduler_pb2.Call, call: AnswerInverse) -> None:
    kinds = scheduler_pb2.Call
    message.type = kinds.ACCEPT_INVERSE_OFFERS if call.agreed else kinds.DECLINE_INVERSE_OFFERS
    body = message.accept_inverse_offers if call.agreed else message.decline_inverse_offers
    body.SetInParent()
    for offer_id in call.offer_ids:
        body.inverse_offer_ids.add(value=offer_id)


def _write_revive(message: scheduler_pb2.Call, call: Revive) -> None:
    message.type = scheduler_pb2.Call.REVIVE
    message.revive.roles.extend(call.roles)


def _write_suppress(message: scheduler_pb2.Call, call: Suppress) -> None:
    message.type = scheduler_pb2.Call.SUPPRESS
    message.suppress.roles.extend(call.roles)


def _write_kill(message: scheduler_pb2.Call, call: Kill) -> None:
    message.type = scheduler_pb2.Call.KILL
    message.kill.task_id.value = call.task_id
    if call.agent_id is not None:
        message.kill.agent_id.value = call.agent_id
    if call.grace_s is not None:
        message.kill.kill_policy.grace_period.nanoseconds = nanoseconds("the grace period", call.grace_s)


def _write_message(message: scheduler_pb2.Call, call: Message) -> None:
    message.type = scheduler_pb2.Call.MESSAGE
    message.message.agent_id.value = call.agent_id
    message.message.executor_id.value = call.executor_id
    message.message.data = call.data


def _write_acknowledge(message: scheduler_pb2.Call, call: Acknowledge) -> None:
    message.type = scheduler_pb2.Call.ACKNOWLEDGE
    message.acknowledge.agent_id.value = call.agent_id
    message.acknowledge.task_id.value = call.task_id
    message.acknowledge.uuid = call.uuid


def _write_reconcile(message: scheduler_pb2.Call, call: Reconcile) -> None:
    message.type = scheduler_pb2.Call.RECONCILE
    message.reconcile.SetInParent()
    for task_id, agent_id in call.tasks:
        task = message.reconcile.tasks.add()
        task.task_id.value = task_id
        if agent_id is not None:
            task.agent_id.value = agent_id


def _write_request(message: scheduler_pb2.Call, call: Request) -> None:
    message.type = scheduler_pb2.Call.REQUEST
    message.request.SetInParent()
    if call.resources:
        message.request.requests.add().resources.extend(resources_to_messages(call.resources))
    for waiting in call.waiting:
        told = message.request.waiting.add(name=waiting.name, claims=claims_to_messages(waiting.claims))
        told.task_id.value = waiting.task_id


def _write_update_framework(message: scheduler_pb2.Call, call: UpdateFramework) -> None:
    message.type = scheduler_pb2.Call.UPDATE_FRAMEWORK
    body = message.update_framework
    body.framework_info.CopyFrom(framework_info(call.spec))
    body.suppressed_roles.extend(call.suppressed_roles)
    if call.constraints:
        body.offer_constraints.CopyFrom(constraints_to_message(call.constraints))


def _write_teardown(message: scheduler_pb2.Call, call: Teardown) -> None:
    message.type = scheduler_pb2.Call.TEARDOWN


_WRITERS: dict[type, Callable[..., None]] = {
    Accept: _write_accept,
    Decline: _write_decline,
    AnswerInverse: _write_answer_inverse,
    Revive: _write_revive,
    Suppress: _write_suppress,
    Kill: _write_kill,
    Message: _write_message,
    Acknowledge: _write_acknowledge,
    Reconcile: _write_reconcile,
    Request: _write_request,
    UpdateFramework: _write_update_framework,
    Teardown: _write_teardown,
}


# --- events -----------------------------------------------------------------------------------------------------


def event_from_message(message: scheduler_pb2.Event, framework: FrameworkSpec) -> Event | None:
    """The event as a value, or None for one that edgerm has no use for.

    `framework` tells the role of offers that do not name one. Raises `Invalid` if the event's body is missing or a
    value in it is wrong.
    """
    if not message.HasField("type"):
        return None
    name = scheduler_pb2.Event.Type.Name(message.type)
    if name == "HEARTBEAT":
        return Heartbeat()
    if name not in _READERS:
        return None
    if not message.HasField(name.lower()):  # type: ignore[arg-type]
        raise Invalid(f"an event of type {name} needs {name.lower()!r}")
    return _READERS[name](message, framework)


def _subscribed(message: scheduler_pb2.Event, framework: FrameworkSpec) -> Subscribed:
    body = message.subscribed
    return Subscribed(FrameworkId(body.framework_id.value), body.heartbeat_interval_seconds)


def _offers(message: scheduler_pb2.Event, framework: FrameworkSpec) -> Offers:
    role = framework.roles[0] if framework.roles else "*"
    return Offers(tuple(offer_from_message(offer, role) for offer in message.offers.offers))


def offer_from_message(message: offers_pb2.Offer, role: str = "*") -> Offer:
    """The offer as a value; `role` counts where the message names none.

    Of its agent it tells host, attributes, and the devices among the resources.
    """
    about = AgentInfo(hostname=message.hostname, attributes=message.attributes)
    if message.agent_name:
        about.name = message.agent_name
    if message.HasField("domain"):
        about.domain.CopyFrom(message.domain)
    return Offer(
        offer_id=OfferId(message.id.value),
        framework_id=FrameworkId(message.framework_id.value),
        role=message.allocation_info.role if message.HasField("allocation_info") else role,
        agent_id=AgentId(message.agent_id.value),
        resources=resources_from_messages(message.resources),
        agent=_with_devices(_agent(about.SerializeToString(deterministic=True)), message),
    )


def _with_devices(agent: AgentSpec, message: offers_pb2.Offer) -> AgentSpec:
    if not message.devices and not message.device_classes:
        return agent
    return replace(agent, inventory=inventory_of(message.device_classes, message.devices))


@lru_cache(maxsize=4096)
def _agent(info: bytes) -> AgentSpec:
    """The same few agents come in every offer."""
    return agent_spec(AgentInfo.FromString(info))


def _rescind(message: scheduler_pb2.Event, framework: FrameworkSpec) -> Rescind:
    return Rescind(OfferId(message.rescind.offer_id.value))


def _inverse_offers(message: scheduler_pb2.Event, framework: FrameworkSpec) -> InverseOffers:
    """Those that name an agent: others ask for nothing that edgerm knows."""
    offers = message.inverse_offers.inverse_offers
    return InverseOffers(tuple(_inverse_offer(offer) for offer in offers if offer.HasField("agent_id")))


def _inverse_offer(message: offers_pb2.InverseOffer) -> InverseOffer:
    return InverseOffer(
        offer_id=OfferId(message.id.value),
        framework_id=FrameworkId(message.framework_id.value),
        agent_id=AgentId(message.agent_id.value),
        start_wall_s=seconds(message.unavailability.start.nanoseconds),
        starts_in_s=message.starts_in_s if message.HasField("starts_in_s") else None,
    )


def _rescind_inverse(message: scheduler_pb2.Event, framework: FrameworkSpec) -> RescindInverse:
    return RescindInverse(OfferId(message.rescind_inverse_offer.inverse_offer_id.value))


def _update(message: scheduler_pb2.Event, framework: FrameworkSpec) -> Update:
    return Update(status_from_message(message.update.status))


def _message(message: scheduler_pb2.Event, framework: FrameworkSpec) -> Message:
    body = message.message
    return Message(AgentId(body.agent_id.value), ExecutorId(body.executor_id.value), body.data)


def _failure(message: scheduler_pb2.Event, framework: FrameworkSpec) -> Failure:
    body = message.failure
    return Failure(
        AgentId(body.agent_id.value),
        ExecutorId(body.executor_id.value) if body.HasField("executor_id") else None,
        body.status if body.HasField("status") else None,
    )


def _error(message: scheduler_pb2.Event, framework: FrameworkSpec) -> Error:
    return Error(message.error.message)


_READERS: dict[str, Callable[[scheduler_pb2.Event, FrameworkSpec], Event]] = {
    "SUBSCRIBED": _subscribed,
    "OFFERS": _offers,
    "RESCIND": _rescind,
    "INVERSE_OFFERS": _inverse_offers,
    "RESCIND_INVERSE_OFFER": _rescind_inverse,
    "UPDATE": _update,
    "MESSAGE": _message,
    "FAILURE": _failure,
    "ERROR": _error,
}
