"""Inventories as messages: by name, whole, in an AgentInfo; what an offer tells of devices."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import CHIP, GPIO, inventories

from edgerm.core.blobs import digest_of
from edgerm.core.devices import CLASSES_MAX, DEVICES_MAX, NO_INVENTORY, Device, DeviceClass, Inventory, resources_of
from edgerm.core.errors import Invalid, TooLarge
from edgerm.core.ids import AgentId, FrameworkId, OfferId
from edgerm.core.link import Join
from edgerm.core.resources import parse
from edgerm.core.scheduler import AgentSpec, Capability, FrameworkSpec, Offer, Offers
from edgerm.wire.codec.devices import decode_inventory, encode_inventory
from edgerm.wire.codec.event_bytes import event_to_bytes
from edgerm.wire.codec.infos import agent_info, agent_spec
from edgerm.wire.codec.link import decode_join, encode_join
from edgerm.wire.codec.scheduler_client import event_from_message
from edgerm.wire.content import JSON, PROTOBUF, decode, from_protobuf
from edgerm.wire.v1 import infos_pb2 as pb
from edgerm.wire.v1 import link_pb2, scheduler_pb2

AGENT_ID = AgentId("0" * 32)


@given(inventories)
def test_an_inventory_survives_the_wire(inventory: Inventory) -> None:
    """Classes and devices are read as written, in order; in an AgentInfo the generation too, which is no part of it."""
    data = encode_inventory(inventory)
    assert decode_inventory(data, digest_of(data)) == replace(inventory, generation=0)
    assert agent_spec(agent_info(AgentSpec("h", inventory=inventory))).inventory == inventory


@given(st.binary(max_size=60) | st.lists(st.integers(0, 5), max_size=4).map(bytes))
def test_no_bytes_lead_to_another_error(data: bytes) -> None:
    """Arbitrary bytes are an inventory or Invalid."""
    try:
        found = decode_inventory(data, digest_of(data))
    except Invalid:
        return
    assert decode_inventory(encode_inventory(found), digest_of(encode_inventory(found))) == found


def test_an_inventory_has_the_name_of_its_bytes() -> None:
    """Nobody can put another inventory under a name that an agent gives."""
    with pytest.raises(Invalid, match="was named"):
        decode_inventory(encode_inventory(GPIO), digest_of(b"another"))


@pytest.mark.parametrize(
    "text", ["[]", "7", "{", '{"a":true}', '{"a":null}', '{"a":NaN}', '{"a":"\\ud800"}', "{" * 9999]
)
def test_metadata_are_checked(text: str) -> None:
    """Whoever matches claims relies on metadata being an object of texts, numbers, lists and objects."""
    data = pb.Inventory(devices=[pb.Device(name="g", id="x", metadata=text)]).SerializeToString()
    with pytest.raises(Invalid, match=r"device 'x' of class 'g'"):
        decode_inventory(data, digest_of(data))


def test_metadata_are_made_canonical_and_shared() -> None:
    """Two devices that say the same hold the same text."""
    texts = ['{"b":1, "a":[]}', '{"a": [],"b":1}']
    devices = [pb.Device(name="g", id=f"{n}", metadata=text) for n, text in enumerate(texts)]
    data = pb.Inventory(devices=devices).SerializeToString()
    one, other = decode_inventory(data, digest_of(data)).devices
    assert one.metadata == '{"a":[],"b":1}'
    assert one.metadata is other.metadata


@pytest.mark.parametrize(
    "inventory",
    [
        Inventory(devices=tuple(Device("g", f"{n}") for n in range(DEVICES_MAX + 1))),
        Inventory(tuple(DeviceClass(f"{n}") for n in range(CLASSES_MAX + 1))),
        Inventory(devices=(CHIP, CHIP)),
        Inventory((DeviceClass("g"),) * 2),
        Inventory(devices=(Device("g", ""),)),
        Inventory(devices=(Device("g" * 256, "x"),)),
    ],
)
def test_an_inventory_is_bounded(inventory: Inventory) -> None:
    """Too many devices and classes, one twice, and one without a name are refused."""
    data = encode_inventory(inventory)
    with pytest.raises(Invalid):
        decode_inventory(data, digest_of(data))


def test_an_inventory_that_is_too_long_is_not_written() -> None:
    """More than a join may carry is TooLarge."""
    long = Inventory(devices=tuple(Device("g", f"{n}", quarantine="x" * 1000) for n in range(600)))
    with pytest.raises(TooLarge):
        encode_inventory(long)


def test_an_older_agents_devices_are_its_inventory() -> None:
    """Devices that stand in the AgentInfo of a join, as edgerm told them once, are named like any others."""
    plain = encode_join(Join(AGENT_ID, 1, AgentSpec("h")))
    assert decode_join(plain).named is None
    message = link_pb2.Join.FromString(plain)
    about = from_protobuf(pb.AgentInfo, message.agent_info)
    about.devices.add(name="camera", id="front", gives=["/dev/front"])
    message.agent_info = about.SerializeToString()
    read = decode_join(message.SerializeToString())
    assert read.agent.inventory == Inventory(devices=(Device("camera", "front", gives=("/dev/front",)),))
    assert (read.named, read.devices) == (digest_of(encode_inventory(read.agent.inventory)), True)
    assert read.agent.info == decode_join(plain).agent.info


@pytest.mark.parametrize("media_type", [JSON, PROTOBUF])
def test_an_offer_tells_of_its_devices_in_order(media_type: str) -> None:
    """Those among its resources, the ones to be taken first come first; classes too, of which nothing is left."""
    first, second, taken = (Device("g", name, metadata='{"a":1}', gives=("x",)) for name in "cab")
    sick = Device("h", "z", problem="unplugged")
    inventory = Inventory((DeviceClass("g", schema="{}"), DeviceClass("h")), (first, taken, second, sick), 9)
    left = resources_of([second, first]) + parse("cpus:1")
    spec = AgentSpec("h", resources=resources_of(inventory.devices), inventory=inventory)
    offer = Offer(OfferId("o"), FrameworkId("f"), "*", AGENT_ID, left, spec)
    framework = FrameworkSpec("f", capabilities=frozenset({Capability.SHARED_RESOURCES}))
    body = event_to_bytes(Offers((offer,)), framework, media_type)
    message = decode(scheduler_pb2.Event, media_type, body)
    read = event_from_message(message, framework)
    assert isinstance(read, Offers)
    found = read.offers[0].agent.inventory
    assert [(device.id, device.metadata, device.gives) for device in found.devices] == [
        ("c", '{"a":1}', ()),
        ("a", '{"a":1}', ()),
    ]
    assert [(each.name, each.schema) for each in found.classes] == [("g", ""), ("h", "")]


def test_a_plain_client_sees_sets() -> None:
    """Without our fields an offer is whole: devices are items of a set that is named as their class."""
    spec = AgentSpec("h", resources=resources_of(GPIO.devices), inventory=GPIO)
    offer = Offer(OfferId("o"), FrameworkId("f"), "*", AGENT_ID, spec.resources, spec)
    body = event_to_bytes(Offers((offer,)), FrameworkSpec("f"), PROTOBUF)
    message = scheduler_pb2.Event.FromString(body)
    [told] = message.offers.offers
    assert len(told.devices) == 2
    for name in ("devices", "device_classes", "agent_name"):
        told.ClearField(name)
    read = event_from_message(from_protobuf(scheduler_pb2.Event, message.SerializeToString()), FrameworkSpec("f"))
    assert isinstance(read, Offers)
    assert read.offers[0].resources == parse("siemens.com/gpio:{chip0,chip1}")
    assert read.offers[0].agent.inventory == NO_INVENTORY
