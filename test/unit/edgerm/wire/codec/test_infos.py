"""FrameworkInfo and AgentInfo."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from strategies import agents, frameworks

from edgerm.core.alternatives import executors_of
from edgerm.core.errors import Invalid
from edgerm.core.ids import AgentId, FrameworkId
from edgerm.core.resources import parse
from edgerm.core.scheduler import AgentSpec, Capability, FrameworkSpec
from edgerm.wire.codec.infos import (
    agent_info,
    agent_spec,
    attributes_info,
    framework_info,
    framework_spec,
)
from edgerm.wire.v1.infos_pb2 import AgentInfo, FrameworkInfo
from edgerm.wire.v1.resources_pb2 import Value


def info(**fields: object) -> FrameworkInfo:
    return FrameworkInfo(user="u", name="n", **fields)  # type: ignore[arg-type]


MULTI_ROLE = [FrameworkInfo.Capability(type=FrameworkInfo.Capability.MULTI_ROLE)]


@given(frameworks())
def test_a_framework_survives_the_wire(spec: FrameworkSpec) -> None:
    """A framework's words are read back as they were, with or without an id."""
    assert framework_spec(framework_info(spec)) == spec
    assert framework_spec(framework_info(spec, FrameworkId("f"))) == spec


@given(agents())
def test_an_agent_survives_the_wire(spec: AgentSpec) -> None:
    """An agent's words are read back as they were, with or without an id."""
    assert agent_spec(agent_info(spec)) == spec
    assert agent_spec(agent_info(spec, AgentId("a"))) == spec


def test_unknown_fields_of_a_framework_are_kept() -> None:
    """What a newer client says of itself is not lost, its id is no part of it."""
    message = FrameworkInfo.FromString(info().SerializeToString() + b"\xc2\xbb\x01\x03new")
    message.id.value = "f"
    kept = framework_spec(message).info
    assert kept.endswith(b"\x03new")
    assert not FrameworkInfo.FromString(kept).HasField("id")


@pytest.mark.parametrize("timeout_s", [math.nan, math.inf, -1.0, 1e300])
def test_a_failover_timeout_that_is_no_time_is_refused(timeout_s: float) -> None:
    """NaN, infinite, negative and absurd time-outs are Invalid, by name."""
    with pytest.raises(Invalid, match="failover_timeout"):
        framework_spec(info(failover_timeout=timeout_s))


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (info(roles=["a"]), "without the capability MULTI_ROLE"),
        (info(role="a", capabilities=MULTI_ROLE), "set roles instead"),
        (info(roles=["a", "a"], capabilities=MULTI_ROLE), "twice"),
        (info(roles=[f"r{n}" for n in range(1001)], capabilities=MULTI_ROLE), "at most"),
        *[
            (info(role=role), "role")
            for role in ("", "-a", ".", "..", "a b", "a\b", "a//b", "/a", "a/", "a/../b", "a/*")
        ],
        (info(role="r" * 300), "characters"),
    ],
)
def test_a_wrong_role_is_refused(message: FrameworkInfo, why: str) -> None:
    """Each rule on roles has its own words."""
    with pytest.raises(Invalid, match=why):
        framework_spec(message)


def test_roles_follow_the_capability() -> None:
    """One role, `*` by default; with MULTI_ROLE as many as are named, none included."""
    assert framework_spec(info()).roles == ("*",)
    assert framework_spec(info(role="a/b")).roles == ("a/b",)
    assert framework_spec(info(roles=["a", "b"], capabilities=MULTI_ROLE)).roles == ("a", "b")
    assert framework_spec(info(capabilities=MULTI_ROLE)).roles == ()


def test_several_roles_are_not_written_without_the_capability() -> None:
    """The SDK's user learns at once what is missing."""
    with pytest.raises(Invalid, match="MULTI_ROLE"):
        framework_info(FrameworkSpec("n", roles=("a", "b")))


def test_a_restored_framework_keeps_its_user() -> None:
    """The user that the master holds on to stands above the one in the bytes."""
    spec = framework_spec(info())
    assert framework_info(FrameworkSpec("n", user="old", info=spec.info)).user == "old"


def test_an_unknown_capability_changes_nothing() -> None:
    """UNKNOWN and capabilities of the future are passed over."""
    known = info(capabilities=[FrameworkInfo.Capability(type=FrameworkInfo.Capability.PARTITION_AWARE)])
    newer = FrameworkInfo.FromString(known.SerializeToString() + b"\x52\x02\x08\x63\x52\x02\x08\x00")
    assert framework_spec(newer).capabilities == {Capability.PARTITION_AWARE}


def test_attributes_have_the_type_of_their_text() -> None:
    """Numbers, ranges and sets are told as such; everything else is text."""
    data = attributes_info("h", {"n": "0.5", "r": "[1-2,5-6]", "s": "{b,a}", "t": "1.2.3"})
    number, ranges, items, text = AgentInfo.FromString(data).attributes
    assert (number.type, number.scalar.value) == (Value.SCALAR, 0.5)
    assert (ranges.type, [(part.begin, part.end) for part in ranges.ranges.range]) == (Value.RANGES, [(1, 2), (5, 6)])
    assert (items.type, list(items.set.item)) == (Value.SET, ["a", "b"])
    assert (text.type, text.text.value) == (Value.TEXT, "1.2.3")


def test_a_broken_attribute_is_named() -> None:
    """Ranges that are none are Invalid and no text."""
    with pytest.raises(Invalid, match="'line'"):
        attributes_info("h", {"line": "[1-x]"})


def test_attributes_reach_the_agents_message() -> None:
    """An agent made from settings tells host, name, port, resources and attributes."""
    spec = AgentSpec("h", "box", 7, parse("cpus:1"), attributes_info("h", {"zone": "a"}))
    message = agent_info(spec)
    assert (message.hostname, message.name, message.port, message.resources[0].name) == ("h", "box", 7, "cpus")
    assert message.attributes[0].text.value == "a"


def test_what_an_agent_runs_is_read_from_its_attribute() -> None:
    """A set of executors, maybe an empty one; text of that name, or no such attribute, tells nothing."""

    def told(value: str) -> tuple[str, ...] | None:
        info = AgentInfo.FromString(attributes_info("h", {"edgerm.executors": value}))
        return executors_of(agent_spec(info))

    assert [told("{b,a}"), told("{}"), told("a")] == [("a", "b"), (), None]
    assert executors_of(AgentSpec("h")) is None
