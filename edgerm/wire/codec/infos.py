"""`FrameworkInfo` and `AgentInfo`: what frameworks and agents say of themselves."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache

from edgerm.core.devices import NO_INVENTORY
from edgerm.core.errors import Invalid
from edgerm.core.ids import AgentId, FrameworkId
from edgerm.core.resources import MILLI, Resources, milli, parse_amount
from edgerm.core.scheduler import AgentSpec, Capability, FrameworkSpec, Minimum
from edgerm.wire.codec.attributes import attributes_of, attributes_to_messages, region_of, zone_of
from edgerm.wire.codec.devices import classes_to_messages, devices_to_messages, inventory_of
from edgerm.wire.codec.resources import resources_from_messages, resources_to_messages
from edgerm.wire.codec.roles import check_role
from edgerm.wire.codec.times import nanoseconds
from edgerm.wire.content import from_protobuf
from edgerm.wire.v1.infos_pb2 import AgentInfo, FrameworkInfo, OfferFilters
from edgerm.wire.v1.resources_pb2 import Value

ROLES_MAX = 1000
KIND_BYTES_MAX = 4096  # of a description that is remembered
_STRUCTURED = re.compile(r"[0-9]+(\.[0-9]+)?|\[.*\]|\{.*\}", re.ASCII)


def framework_spec(message: FrameworkInfo) -> FrameworkSpec:
    """What the framework says of itself; raises `Invalid`, whose text is fit for an ERROR event."""
    capabilities = frozenset(Capability(entry.type) for entry in message.capabilities if entry.type)
    timeout_s = message.failover_timeout
    if not timeout_s >= 0:
        raise Invalid(f"failover_timeout must be a number of seconds, 0 or more, not {timeout_s}")
    nanoseconds("failover_timeout", timeout_s)
    return FrameworkSpec(
        name=message.name,
        user=message.user,
        roles=_roles(message, multiple=Capability.MULTI_ROLE in capabilities),
        failover_timeout_s=timeout_s,
        capabilities=capabilities,
        principal=message.principal,
        info=_without_id(message),
        checkpoint=message.checkpoint,
        minimums=_minimums(message),
    )


def _minimums(message: FrameworkInfo) -> tuple[Minimum, ...]:
    """`offer_filters`, by role; also of roles that the framework does not have (as Mesos)."""
    if len(message.offer_filters) > ROLES_MAX:
        raise Invalid(f"offer_filters has {len(message.offer_filters)} entries, at most {ROLES_MAX} are allowed")
    return tuple(
        Minimum(role, tuple(map(_amounts, filters.min_allocatable_resources.quantities)))
        for role, filters in sorted(message.offer_filters.items())
        if filters.HasField("min_allocatable_resources")
    )


def _amounts(message: OfferFilters.ResourceQuantities) -> tuple[tuple[str, int], ...]:
    if not message.quantities:
        raise Invalid("min_allocatable_resources: quantities must name at least one resource")
    try:
        return tuple((name, milli(scalar.value)) for name, scalar in sorted(message.quantities.items()))
    except Invalid as error:
        raise Invalid(f"min_allocatable_resources: {error}") from None


def _roles(message: FrameworkInfo, *, multiple: bool) -> tuple[str, ...]:
    if not multiple:
        if message.roles:
            raise Invalid("FrameworkInfo.roles is set without the capability MULTI_ROLE; set role, or add MULTI_ROLE")
        return (check_role(message.role),)
    if message.HasField("role"):
        raise Invalid("FrameworkInfo.role is set with the capability MULTI_ROLE; set roles instead")
    if len(message.roles) > ROLES_MAX:
        raise Invalid(f"FrameworkInfo.roles has {len(message.roles)} entries, at most {ROLES_MAX} are allowed")
    roles = tuple(map(check_role, message.roles))
    if len(set(roles)) < len(roles):
        raise Invalid("FrameworkInfo.roles names a role twice")
    return roles


def _without_id(message: FrameworkInfo) -> bytes:
    if message.HasField("id"):
        rest = FrameworkInfo()
        rest.CopyFrom(message)
        rest.ClearField("id")
        message = rest
    return message.SerializeToString(deterministic=True)


def framework_info(spec: FrameworkSpec, framework_id: FrameworkId | None = None) -> FrameworkInfo:
    """`spec` as a message: what `spec.info` says, completed by id and user; without `info`, from the fields."""
    message = from_protobuf(FrameworkInfo, spec.info) if spec.info else _framework_info(spec)
    message.user = spec.user
    if message.checkpoint != spec.checkpoint:
        message.checkpoint = spec.checkpoint
    if framework_id is not None:
        message.id.value = framework_id
    return message


def _framework_info(spec: FrameworkSpec) -> FrameworkInfo:
    message = FrameworkInfo(user=spec.user, name=spec.name)
    if spec.failover_timeout_s:
        message.failover_timeout = spec.failover_timeout_s
    for capability in sorted(spec.capabilities):
        message.capabilities.add(type=FrameworkInfo.Capability.Type.ValueType(capability))
    if spec.principal:
        message.principal = spec.principal
    if Capability.MULTI_ROLE in spec.capabilities:
        message.roles.extend(spec.roles)
    elif len(spec.roles) != 1:
        raise Invalid(f"{len(spec.roles)} roles need the capability MULTI_ROLE")
    elif spec.roles != ("*",):
        message.role = spec.roles[0]
    return message


def agent_spec(message: AgentInfo) -> AgentSpec:
    """What the agent says of itself; raises `Invalid` for resources that are wrong."""
    inventory = inventory_of(message.device_classes, message.devices, message.inventory_generation)
    rest = AgentInfo()
    rest.CopyFrom(message)
    for name in ("id", "name", "port", "devices", "device_classes", "inventory_generation"):
        rest.ClearField(name)
    rest.hostname = ""  # it must be there
    data = rest.SerializeToString(deterministic=True)
    kind = _kind(data) if len(data) <= KIND_BYTES_MAX else _kind.__wrapped__(data)
    return replace(kind, hostname=message.hostname, name=message.name, port=message.port, inventory=inventory)


@lru_cache(maxsize=1024)
def _kind(data: bytes) -> AgentSpec:
    """What boxes of one kind say alike. Thousands of them share it: it is the greater part of what is kept of them."""
    message = AgentInfo.FromString(data)
    only = AgentInfo(hostname="", resources=message.resources).SerializeToString(deterministic=True)
    message.ClearField("resources")
    return AgentSpec(
        hostname="",
        resources=_bag(only) if len(only) <= KIND_BYTES_MAX else _bag.__wrapped__(only),
        info=message.SerializeToString(deterministic=True),
        attributes=attributes_of(message.attributes),
        region=region_of(message.domain),
        zone=zone_of(message.domain),
    )


@lru_cache(maxsize=1024)
def _bag(data: bytes) -> Resources:
    """The resources of an AgentInfo; boxes that differ in their attributes may have equal ones."""
    return resources_from_messages(AgentInfo.FromString(data).resources)


def agent_info(spec: AgentSpec, agent_id: AgentId | None = None, *, refined: bool = True) -> AgentInfo:
    """`spec` as a message, with its resources and devices; `refined` as in `resources_to_messages`."""
    message = AgentInfo()
    if spec.info:
        message = from_protobuf(AgentInfo, spec.info)
    elif spec.attributes:
        message.attributes.extend(attributes_to_messages(spec.attributes))
    message.hostname = spec.hostname
    if message.name != spec.name:
        message.name = spec.name
    if message.port != spec.port:
        message.port = spec.port
    message.resources.extend(resources_to_messages(spec.resources, refined=refined))
    if spec.inventory != NO_INVENTORY:
        message.devices.extend(devices_to_messages(spec.inventory.devices))
        message.device_classes.extend(classes_to_messages(spec.inventory.classes))
        message.inventory_generation = spec.inventory.generation
    if agent_id is not None:
        message.id.value = agent_id
    return message


def attributes_info(hostname: str, attributes: Mapping[str, str]) -> bytes:
    """Attributes as `AgentSpec.info` carries them.

    `4` is a scalar, `[1-3]` ranges, `{a,b}` a set, all else text.

    Raises `Invalid`, naming the attribute.
    """
    message = AgentInfo(hostname=hostname)
    for name, value in attributes.items():
        attribute = message.attributes.add(name=name, type=Value.TEXT)
        if not _STRUCTURED.fullmatch(value):
            attribute.text.value = value
            continue
        amount = parse_amount(name, value)
        if isinstance(amount, int):
            attribute.type = Value.SCALAR
            attribute.scalar.value = amount / MILLI
        elif isinstance(amount, tuple):
            attribute.type = Value.RANGES
            for begin, end in amount:
                attribute.ranges.range.add(begin=begin, end=end)
        else:
            attribute.type = Value.SET
            attribute.set.item.extend(sorted(amount))
    return message.SerializeToString(deterministic=True)
