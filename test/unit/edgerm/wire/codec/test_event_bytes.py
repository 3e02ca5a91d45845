"""Events as they go on a stream: offers put together from remembered pieces are as the writer makes them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import events, frameworks, offer_events

from edgerm.core.errors import Invalid
from edgerm.core.ids import AgentId, FrameworkId, OfferId
from edgerm.core.resources import Reservation, ResourceKey, Resources, parse
from edgerm.core.scheduler import AgentSpec, Capability, Event, FrameworkSpec, Offer, Offers
from edgerm.wire.codec.event_bytes import event_to_bytes
from edgerm.wire.codec.events import event_to_message
from edgerm.wire.codec.infos import attributes_info
from edgerm.wire.content import JSON, PROTOBUF, encode
from edgerm.wire.v1.infos_pb2 import AgentInfo

PLAIN = FrameworkSpec("n")
MODERN = FrameworkSpec("n", roles=("web",), capabilities=frozenset({Capability.MULTI_ROLE}))
MEDIA_TYPES = (JSON, PROTOBUF)


@given(st.data(), st.sampled_from(MEDIA_TYPES))
def test_offers_are_as_the_writer_makes_them(data: st.DataObject, media_type: str) -> None:
    """Whatever is offered to whomever: byte for byte, in both encodings."""
    framework = data.draw(frameworks().filter(lambda spec: bool(spec.roles)))
    event = data.draw(offer_events(framework))
    assert event_to_bytes(event, framework, media_type) == encode(event_to_message(event, framework), media_type)


@given(events, st.sampled_from(MEDIA_TYPES))
def test_other_events_are_as_the_writer_makes_them(event: Event, media_type: str) -> None:
    """What is no offer goes the way of all messages."""
    assert event_to_bytes(event, PLAIN, media_type) == encode(event_to_message(event, PLAIN), media_type)


@pytest.mark.parametrize("framework", [PLAIN, MODERN])
def test_what_an_agent_says_stands_in_its_offers(framework: FrameworkSpec) -> None:
    """Attributes, fault domain and a name that is no ASCII are told in the order of the writer, the second time too."""
    info = AgentInfo.FromString(attributes_info("h", {"zone": "a", "line": '\u00e9"'}))
    info.domain.fault_domain.region.name, info.domain.fault_domain.zone.name = "eu", "eu-1"
    box = AgentSpec("h\u00fc", 'b"x', resources=parse("cpus:4"), info=info.SerializeToString(deterministic=True))
    many = parse("cpus:1.5;mem:64;ports:[1-2,7-9];gpus:{" + ",".join(f"g{n}" for n in range(50)) + "}")
    offers = [Offer(OfferId(f"o{n}"), FrameworkId("f"), "web", AgentId("a"), many, box) for n in range(2)]
    event = Offers(tuple(offers))
    assert event_to_bytes(event, framework, JSON) == encode(event_to_message(event, framework), JSON)


def test_a_refined_reservation_is_refused_in_both() -> None:
    """Who does not understand refined reservations is not told of them, whatever the encoding."""
    key = ResourceKey("cpus", (Reservation("a"), Reservation("a/b")))
    offer = Offer(OfferId("o"), FrameworkId("f"), "a/b", AgentId("a"), Resources({key: 1000}), AgentSpec("h"))
    for media_type in MEDIA_TYPES:
        with pytest.raises(Invalid):
            event_to_bytes(Offers((offer,)), PLAIN, media_type)
