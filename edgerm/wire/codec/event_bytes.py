"""Events of the scheduler API as they go on a stream.

Offers in JSON are put together from remembered pieces, since thousands of them repeat the same few kinds of agents and
amounts; byte for byte as the writer of all messages makes them. What does not live here: events as messages
(`events`).
"""

from __future__ import annotations

from functools import lru_cache
from json.encoder import encode_basestring_ascii as text

from edgerm.core.devices import NO_INVENTORY, Device, DeviceClass
from edgerm.core.resources import Amount, ResourceKey
from edgerm.core.scheduler import Capability, Event, FrameworkSpec, Offer, Offers
from edgerm.wire.codec.devices import classes_to_messages, device_to_message, offered_devices
from edgerm.wire.codec.events import SMALL, event_to_message
from edgerm.wire.codec.resources import resource_to_message
from edgerm.wire.content import JSON, encode
from edgerm.wire.json import to_json
from edgerm.wire.v1.infos_pb2 import AgentInfo, MasterInfo

METADATA_REMEMBERED = 4096  # characters of a device's metadata up to which its text is remembered


def event_to_bytes(event: Event, framework: FrameworkSpec, media_type: str, master: MasterInfo | None = None) -> bytes:
    """The event, encoded; raises as `event_to_message` and `encode` do."""
    if isinstance(event, Offers) and event.offers and media_type == JSON:
        offers = ",".join(_offer(offer, framework.capabilities) for offer in event.offers)
        return b'{"type":"OFFERS","offers":{"offers":[%b]}}' % offers.encode("ascii")
    return encode(event_to_message(event, framework, master), media_type)


def _offer(offer: Offer, capabilities: frozenset[Capability]) -> str:
    """In the order of the fields' numbers, as everywhere."""
    role = offer.role if Capability.MULTI_ROLE in capabilities else None
    refined = Capability.RESERVATION_REFINEMENT in capabilities
    resources = []
    for key, amount in sorted(offer.resources.items()):
        small = isinstance(amount, int) or len(amount) <= SMALL
        resources.append((_remembered if small else _resource)(key, amount, role, refined))
    attributes, domain = _agent(offer.agent.info)
    parts = (
        f'{{"id":{{"value":{text(offer.offer_id)}}},"framework_id":{{"value":{text(offer.framework_id)}}}',
        f',"agent_id":{{"value":{text(offer.agent_id)}}},"hostname":{text(offer.agent.hostname)}',
        f',"resources":[{",".join(resources)}]' if resources else "",
        attributes,
        "" if role is None else f',"allocation_info":{{"role":{text(role)}}}',
        domain,
        f',"agent_name":{text(offer.agent.name)}' if offer.agent.name else "",
        "" if offer.agent.inventory is NO_INVENTORY else _devices(offer),
        "}",
    )
    return "".join(parts)


def _devices(offer: Offer) -> str:
    devices = ",".join(map(_device, offered_devices(offer)))
    classes = _classes(offer.agent.inventory.classes)
    return (devices and f',"devices":[{devices}]') + (classes and f',"device_classes":[{classes}]')


def _device(device: Device) -> str:
    return (_remembered_device if len(device.metadata) <= METADATA_REMEMBERED else _device_text)(device)


def _device_text(device: Device) -> str:
    return to_json(device_to_message(device)).decode("ascii")


_remembered_device = lru_cache(maxsize=4096)(_device_text)


@lru_cache(maxsize=1024)
def _classes(classes: tuple[DeviceClass, ...]) -> str:
    return ",".join(to_json(each).decode("ascii") for each in classes_to_messages(classes, schema=False))


def _resource(key: ResourceKey, amount: Amount, role: str | None, refined: bool) -> str:
    return to_json(resource_to_message(key, amount, role, refined)).decode("ascii")


_remembered = lru_cache(maxsize=16384)(_resource)


@lru_cache(maxsize=4096)
def _agent(info: bytes) -> tuple[str, str]:
    """What offers of an agent repeat: its attributes, and its domain."""
    agent = AgentInfo.FromString(info)
    attributes = ",".join(to_json(attribute).decode("ascii") for attribute in agent.attributes)
    domain = to_json(agent.domain).decode("ascii") if agent.HasField("domain") else ""
    return attributes and f',"attributes":[{attributes}]', domain and f',"domain":{domain}'
