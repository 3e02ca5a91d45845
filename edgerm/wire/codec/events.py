"""Events of the scheduler API as the master writes them: messages. The SDK's side is `scheduler_client`.

What does not live here: events as bytes on a stream (`event_bytes`), calls (`scheduler`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from edgerm.core.devices import NO_INVENTORY
from edgerm.core.resources import Amount, ResourceKey
from edgerm.core.scheduler import (
    Capability,
    Error,
    Event,
    Failure,
    FrameworkSpec,
    Heartbeat,
    InverseOffer,
    InverseOffers,
    Message,
    Offer,
    Offers,
    Rescind,
    RescindInverse,
    Subscribed,
    Update,
)
from edgerm.wire.codec.devices import classes_to_messages, devices_to_messages, offered_devices
from edgerm.wire.codec.resources import resource_to_message
from edgerm.wire.codec.status import status_to_message
from edgerm.wire.codec.times import nanoseconds
from edgerm.wire.v1 import offers_pb2, scheduler_pb2
from edgerm.wire.v1.infos_pb2 import AgentInfo, MasterInfo

SMALL = 16  # ranges or items up to which a resource's encoded form is remembered


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
    if offer.agent.name:
        message.agent_name = offer.agent.name
    if offer.agent.inventory is not NO_INVENTORY:
        message.devices.extend(devices_to_messages(offered_devices(offer)))
        message.device_classes.extend(classes_to_messages(offer.agent.inventory.classes, schema=False))


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


def _write_inverse_offers(message: scheduler_pb2.Event, event: InverseOffers, framework: FrameworkSpec) -> None:
    message.type = scheduler_pb2.Event.INVERSE_OFFERS
    message.inverse_offers.SetInParent()
    for offer in event.offers:
        write_inverse_offer(message.inverse_offers.inverse_offers.add(), offer)


def write_inverse_offer(message: offers_pb2.InverseOffer, offer: InverseOffer) -> None:
    """Fill an empty InverseOffer message."""
    message.id.value = offer.offer_id
    message.framework_id.value = offer.framework_id
    message.agent_id.value = offer.agent_id
    message.unavailability.start.nanoseconds = nanoseconds("the deadline", offer.start_wall_s)
    if offer.starts_in_s is not None:
        message.starts_in_s = offer.starts_in_s


def _write_rescind_inverse(message: scheduler_pb2.Event, event: RescindInverse, framework: FrameworkSpec) -> None:
    message.type = scheduler_pb2.Event.RESCIND_INVERSE_OFFER
    message.rescind_inverse_offer.inverse_offer_id.value = event.offer_id


def _write_update(message: scheduler_pb2.Event, event: Update, framework: FrameworkSpec) -> None:
    message.type = scheduler_pb2.Event.UPDATE
    message.update.status.CopyFrom(status_to_message(event.status))


def _write_failure(message: scheduler_pb2.Event, event: Failure, framework: FrameworkSpec) -> None:
    message.type = scheduler_pb2.Event.FAILURE
    message.failure.agent_id.value = event.agent_id
    if event.executor_id is not None:
        message.failure.executor_id.value = event.executor_id
        message.failure.status = event.exit_status or 0  # clients index it when there is an executor


def _write_message(message: scheduler_pb2.Event, event: Message, framework: FrameworkSpec) -> None:
    message.type = scheduler_pb2.Event.MESSAGE
    message.message.agent_id.value = event.agent_id
    message.message.executor_id.value = event.executor_id
    message.message.data = event.data


def _write_error(message: scheduler_pb2.Event, event: Error, framework: FrameworkSpec) -> None:
    message.type = scheduler_pb2.Event.ERROR
    message.error.message = event.message


def _write_heartbeat(message: scheduler_pb2.Event, event: Heartbeat, framework: FrameworkSpec) -> None:
    message.type = scheduler_pb2.Event.HEARTBEAT


_WRITERS: dict[type, Callable[..., None]] = {
    Subscribed: _write_subscribed,
    Offers: _write_offers,
    Rescind: _write_rescind,
    InverseOffers: _write_inverse_offers,
    RescindInverse: _write_rescind_inverse,
    Update: _write_update,
    Message: _write_message,
    Failure: _write_failure,
    Error: _write_error,
    Heartbeat: _write_heartbeat,
}
