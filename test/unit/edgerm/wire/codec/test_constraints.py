"""OfferConstraints and attributes as messages."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgerm.core.attributes import Attribute, AttributeValue
from edgerm.core.constraints import CONSTRAINTS_MAX, Constraint, Constraints, Test, any_of
from edgerm.core.errors import Invalid
from edgerm.core.ids import AgentId, FrameworkId, OfferId
from edgerm.core.resources import parse
from edgerm.core.scheduler import AgentSpec, FrameworkSpec, Offer, Offers
from edgerm.sdk import attributes
from edgerm.wire.codec.attributes import attributes_of, attributes_to_messages
from edgerm.wire.codec.constraints import constraints_from_message, constraints_to_message
from edgerm.wire.codec.events import event_to_message
from edgerm.wire.codec.infos import agent_info, agent_spec
from edgerm.wire.codec.scheduler_client import event_from_message
from edgerm.wire.content import JSON, PROTOBUF, decode, encode
from edgerm.wire.patterns import check
from edgerm.wire.v1 import scheduler_pb2 as pb

names = st.text(st.characters(codec="utf-8"), max_size=6)
plain = st.sampled_from([Test.EXISTS, Test.NOT_EXISTS])
with_value = st.sampled_from([Test.EQUALS, Test.NOT_EQUALS])
with_regex = st.sampled_from([Test.MATCHES, Test.NOT_MATCHES])
selectors = st.sampled_from(["@hostname", "@region", "@zone"]) | names.map(
    lambda n: f"@{n}" if n.startswith("@") else n
)
constraints = st.one_of(
    st.builds(Constraint, selectors, plain),
    st.builds(Constraint, selectors, with_value, names),
    st.builds(Constraint, selectors, with_regex, st.sampled_from(["a", "a|b", "[0-9]+", ""])),
)
groups = st.lists(st.lists(constraints, min_size=1, max_size=3).map(tuple), min_size=1, max_size=3).map(tuple)
by_role = st.dictionaries(st.sampled_from(["*", "a", "a/b"]), groups.map(Constraints), max_size=2)


@given(by_role, st.sampled_from([JSON, PROTOBUF]))
def test_constraints_survive_the_wire(asked: Mapping[str, Constraints], media_type: str) -> None:
    """Roles, groups, selectors and predicates are read back as they were written, in both encodings."""
    body = encode(constraints_to_message(asked), media_type)
    message = decode(pb.OfferConstraints, media_type, body, max_bytes=1 << 20)
    assert constraints_from_message(message, ("*", "a", "a/b"), check) == asked


GOOD: dict[str, Any] = {"selector": {"attribute_name": "zone"}, "predicate": {"exists": {}}}


def message_of(*listed: dict[str, Any], role: str = "*") -> pb.OfferConstraints:
    """One group with these constraints."""
    body = {"role_constraints": {role: {"groups": [{"attribute_constraints": list(listed)}]}}}
    return decode(pb.OfferConstraints, JSON, json.dumps(body).encode(), max_bytes=1 << 20)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"selector": {}}, "exactly one of attribute_name"),
        ({"selector": {"attribute_name": "a", "pseudoattribute_type": "ZONE"}}, "exactly one of attribute_name"),
        ({"selector": {"pseudoattribute_type": "UNKNOWN"}}, "HOSTNAME, REGION or ZONE"),
        ({"predicate": {}}, "exactly one of exists"),
        ({"predicate": {"exists": {}, "not_exists": {}}}, "exactly one of exists"),
        ({"predicate": {"text_matches": {"regex": "("}}}, "regex"),
        ({"predicate": {"text_not_matches": {"regex": "(a)\\1"}}}, "regex"),
        ({"predicate": {"text_equals": {"value": "x" * 2000}}}, "at most"),
        ({"selector": {"attribute_name": "x" * 2000}}, "at most"),
    ],
)
def test_a_malformed_constraint_is_refused(bad: dict[str, Any], words: str) -> None:
    """The text says which rule is broken, and for which role."""
    with pytest.raises(Invalid, match=f"'\\*'.*{words}"):
        constraints_from_message(message_of(GOOD, {**GOOD, **bad}), ("*",), check)


def test_a_role_that_is_not_the_frameworks_is_refused() -> None:
    """Constraints are for roles that the framework has."""
    with pytest.raises(Invalid, match="'other'"):
        constraints_from_message(message_of(GOOD, role="other"), ("*",), check)


@pytest.mark.parametrize("body", [{}, {"groups": []}, {"groups": [{}]}])
def test_empty_groups_are_refused(body: dict[str, Any]) -> None:
    """A role without groups, and a group without constraints, are refused as Mesos does."""
    text = json.dumps({"role_constraints": {"*": body}}).encode()
    message = decode(pb.OfferConstraints, JSON, text, max_bytes=1000)
    with pytest.raises(Invalid, match=r"group"):
        constraints_from_message(message, ("*",), check)


def test_their_number_is_bounded() -> None:
    """Each is tested for each agent, so there may be only so many."""
    constraints_from_message(message_of(*[GOOD] * CONSTRAINTS_MAX), ("*",), check)
    with pytest.raises(Invalid, match="at most"):
        constraints_from_message(message_of(*[GOOD] * (CONSTRAINTS_MAX + 1)), ("*",), check)


def test_what_only_the_sdk_tests_is_not_sent() -> None:
    """`@name` and `@agent` are no offer constraints."""
    with pytest.raises(Invalid, match="@name cannot be an offer constraint"):
        constraints_to_message({"*": any_of([["@name=box"]])})


values: st.SearchStrategy[AttributeValue] = st.one_of(
    names,
    st.floats(allow_nan=False, allow_infinity=False),
    st.lists(st.tuples(st.integers(0, 99), st.integers(100, 199)), min_size=1, max_size=3).map(tuple),
    st.lists(names, unique=True, max_size=3).map(lambda items: tuple(sorted(items))),
)
attribute_lists = st.lists(st.builds(Attribute, names, values), max_size=4).map(tuple)


@given(attribute_lists)
def test_attributes_of_all_four_types_survive(said: tuple[Attribute, ...]) -> None:
    """Text, scalar, ranges and set are read back as they were written, in their order."""
    assert attributes_of(attributes_to_messages(said)) == said


@given(attribute_lists, names, st.sampled_from([JSON, PROTOBUF]))
def test_a_scheduler_sees_the_agents_attributes(said: tuple[Attribute, ...], name: str, media_type: str) -> None:
    """Through an OFFERS event in either encoding; of a name that stands twice the first counts."""
    spec = agent_spec(agent_info(AgentSpec("h", name, attributes=said)))
    framework = FrameworkSpec("f", capabilities=frozenset())
    offer = Offer(OfferId("o"), FrameworkId("f"), "*", AgentId("a"), parse("cpus:1"), spec)
    body = encode(event_to_message(Offers((offer,)), framework), media_type)
    event = event_from_message(decode(pb.Event, media_type, body, max_bytes=1 << 20), framework)
    assert isinstance(event, Offers)
    [told] = event.offers
    assert told.agent.attributes == said
    assert (told.agent.name, told.agent.hostname) == (name, "h")
    assert dict(attributes(told)) == {key: next(one.value for one in said if one.name == key) for key, _ in said}


def test_equal_attributes_are_one_object() -> None:
    """A fleet that says the same thing keeps it once."""
    one, other = (agent_spec(agent_info(AgentSpec("h", attributes=(Attribute("zone", "a"),)))) for _ in range(2))
    assert one.attributes[0] is other.attributes[0]
