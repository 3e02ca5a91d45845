"""`Attribute` messages and attributes as values; where an agent stands (its fault domain)."""

from __future__ import annotations

from collections.abc import Iterable
from sys import intern

from edgerm.core.attributes import Attribute, AttributeValue, attribute
from edgerm.wire.v1 import resources_pb2 as pb
from edgerm.wire.v1.infos_pb2 import DomainInfo


def attributes_of(messages: Iterable[pb.Attribute]) -> tuple[Attribute, ...]:
    """The attributes as values, in order. Equal ones are one object."""
    return tuple(attribute(intern(message.name), _value(message)) for message in messages)


def _value(message: pb.Attribute) -> AttributeValue:
    if message.type == pb.Value.SCALAR:
        return message.scalar.value
    if message.type == pb.Value.RANGES:
        return tuple((part.begin, part.end) for part in message.ranges.range)
    if message.type == pb.Value.SET:
        return tuple(sorted(message.set.item))
    return message.text.value


def attributes_to_messages(attributes: Iterable[Attribute]) -> list[pb.Attribute]:
    """The messages, in order; a tuple without parts is an empty set."""
    return [_message(attribute) for attribute in attributes]


def _message(attribute: Attribute) -> pb.Attribute:
    message, value = pb.Attribute(name=attribute.name), attribute.value
    if isinstance(value, str):
        message.type = pb.Value.TEXT
        message.text.value = value
    elif isinstance(value, float):
        message.type = pb.Value.SCALAR
        message.scalar.value = value
    else:
        _fill(message, value)
    return message


def _fill(message: pb.Attribute, parts: tuple[str | tuple[int, int], ...]) -> None:
    items = [part for part in parts if isinstance(part, str)]
    if items or not parts:
        message.type = pb.Value.SET
        message.set.SetInParent()
        message.set.item.extend(items)
        return
    message.type = pb.Value.RANGES
    for part in parts:
        if not isinstance(part, str):
            message.ranges.range.add(begin=part[0], end=part[1])


def region_of(domain: DomainInfo) -> str | None:
    """The region of its fault domain; None: it has none."""
    return domain.fault_domain.region.name if domain.HasField("fault_domain") else None


def zone_of(domain: DomainInfo) -> str | None:
    """The zone of its fault domain; None: it has none."""
    return domain.fault_domain.zone.name if domain.HasField("fault_domain") else None
