"""Constraints: how they are written, and both ways of reading them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgerm.core.alternatives import misfit
from edgerm.core.attributes import AttributeValue, attribute
from edgerm.core.constraints import (
    TEXT_CHARACTERS_MAX,
    Constraint,
    Constraints,
    Test,
    any_of,
    fulfils,
    match_whole,
    parse_constraint,
)
from edgerm.core.errors import Invalid
from edgerm.core.ids import AgentId
from edgerm.core.scheduler import AgentSpec
from edgerm.wire.patterns import matches

AGENT_ID = AgentId("ab12")


def box(**attributes: AttributeValue) -> AgentSpec:
    """An agent with these attributes."""
    said = tuple(attribute(name, value) for name, value in attributes.items())
    return AgentSpec("box.local", "box", attributes=said, region="eu", zone="z1")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("zone=a", Constraint("zone", Test.EQUALS, "a")),
        ("zone!=a", Constraint("zone", Test.NOT_EQUALS, "a")),
        ("zone", Constraint("zone", Test.EXISTS)),
        ("!zone", Constraint("zone", Test.NOT_EXISTS)),
        ("zone~a|b=c", Constraint("zone", Test.MATCHES, "a|b=c")),
        ("zone!~a.*", Constraint("zone", Test.NOT_MATCHES, "a.*")),
        ("@hostname=box 1", Constraint("@hostname", Test.EQUALS, "box 1")),
        ("@@own=x", Constraint("@@own", Test.EQUALS, "x")),
        ("a=b~c", Constraint("a", Test.EQUALS, "b~c")),
    ],
)
def test_six_forms(text: str, expected: Constraint) -> None:
    """Each test has one form, which is also how a constraint is shown."""
    assert parse_constraint(text) == expected
    assert str(expected) == text


@pytest.mark.parametrize(
    "text",
    ["", "!", "=a", "zone=", "zone==a", "zo ne=a", "zone~(", "@nobody=1", "!zone=a", "z" * (TEXT_CHARACTERS_MAX + 1)],
)
def test_a_bad_form_is_told(text: str) -> None:
    """What is no constraint is refused in words that name it."""
    with pytest.raises(Invalid, match=r"constraint|regular expression"):
        parse_constraint(text)


words = st.text(
    st.characters(codec="utf-8", exclude_characters="=!~@", exclude_categories=["Z", "C"]), min_size=1, max_size=8
)


@given(words, st.sampled_from([Test.EQUALS, Test.NOT_EQUALS]), words)
def test_what_is_shown_can_be_read(name: str, test: Test, value: str) -> None:
    """A constraint survives being written down."""
    constraint = Constraint(name, test, value)
    assert parse_constraint(str(constraint)) == constraint


@given(st.text(max_size=20))
def test_any_text_is_read_or_refused(text: str) -> None:
    """No text does anything but parse or raise `Invalid`."""
    try:
        constraint = parse_constraint(text)
    except Invalid:
        return
    assert parse_constraint(str(constraint)) == constraint


MESOS = [  # test, absent, text "a", a number
    (Test.EXISTS, False, True, True),
    (Test.NOT_EXISTS, True, False, False),
    (Test.EQUALS, False, True, True),
    (Test.NOT_EQUALS, True, False, True),
    (Test.MATCHES, False, True, True),
    (Test.NOT_MATCHES, True, False, True),
]


@pytest.mark.parametrize(("test", "absent", "text", "number"), MESOS)
def test_offer_constraints_are_those_of_mesos(test: Test, absent: bool, text: bool, number: bool) -> None:
    """A positive test fails without the attribute, a negative one passes; tests of text let all else through."""
    constraints = Constraints(((Constraint("zone", test, "a"),),))
    assert constraints.admits(box()) is absent
    assert constraints.admits(box(zone="a")) is text
    assert constraints.admits(box(zone=1.0)) is number
    assert constraints.admits(box(zone=((1, 3),))) is number


def test_groups_are_alternatives_and_all_of_one_must_hold() -> None:
    """Groups are OR-ed, the constraints in a group AND-ed."""
    constraints = any_of([["zone=a", "gpu"], ["@hostname=box.local", "!gpu"]])
    assert constraints.admits(box(zone="a", gpu="x"))
    assert constraints.admits(box(zone="b"))
    assert not constraints.admits(box(zone="b", gpu="x"))
    assert str(constraints) == "zone=a and gpu or @hostname=box.local and !gpu"


@pytest.mark.parametrize(("text", "admitted"), [("@hostname~box.*", True), ("@region=eu", True), ("@zone!=z1", False)])
def test_pseudo_attributes_are_told_apart_from_attributes(text: str, admitted: bool) -> None:
    """Host, region and zone are the agent's own; an attribute of that name is written with one more @."""
    named = AgentSpec("h", attributes=(attribute("@zone", "own"),), zone="z1")
    assert any_of([[text]]).admits(box()) is admitted
    assert any_of([["@zone=z1", "@@zone=own"]]).admits(named)
    assert not any_of([["@region"]]).admits(AgentSpec("h"))


def test_the_first_of_two_attributes_counts() -> None:
    """Of a name that stands twice the first is tested, as Mesos does."""
    agent = AgentSpec("h", attributes=(attribute("zone", "a"), attribute("zone", "b")))
    assert any_of([["zone=a"]]).admits(agent) and not any_of([["zone=b"]]).admits(agent)


def test_a_regular_expression_matches_the_whole_text() -> None:
    """A part that matches is not enough."""
    assert not any_of([["zone~a"]]).admits(box(zone="ab"))
    assert match_whole("a.", "ab") and not match_whole("a", "ab")


@pytest.mark.parametrize("groups", [[], [[]], [["zone=a"], []]])
def test_an_empty_group_is_refused(groups: list[list[str]]) -> None:
    """It would admit everything, or nothing, without saying so."""
    with pytest.raises(Invalid, match="at least one"):
        any_of(groups)


@pytest.mark.parametrize(
    ("text", "value", "met"),
    [
        ("line=7", 7.0, True),
        ("line=8", 7.0, False),
        ("line!=8", 7.0, True),
        ("line=0.5", 0.5, True),
        ("line~[5-9]", 7.0, True),
        ("runs=wasm", ("docker", "wasm"), True),
        ("runs=process", ("docker", "wasm"), False),
        ("runs!=wasm", ("docker", "wasm"), False),
        ("slots=2", ((1, 3), (9, 9)), True),
        ("slots=4", ((1, 3), (9, 9)), False),
        ("slots=1-3", ((1, 3), (9, 9)), True),
        ("slots", ((1, 3),), True),
        ("!slots", ((1, 3),), False),
    ],
)
def test_a_tasks_constraints_look_into_numbers_sets_and_ranges(text: str, value: AttributeValue, met: bool) -> None:
    """What a person writes for a number, an item or a range is compared; nothing passes for being no text."""
    constraint = parse_constraint(text)
    assert fulfils(constraint, box(**{constraint.attribute: value}), AGENT_ID) is met


@pytest.mark.parametrize(
    ("text", "met"),
    [("@agent=ab12", True), ("@agent=ab", False), ("@name=box", True), ("@name~b.x", True), ("!@name", False)],
)
def test_a_task_may_name_its_agent(text: str, met: bool) -> None:
    """By id and by name."""
    assert fulfils(parse_constraint(text), box(), AGENT_ID) is met


texts = st.sampled_from(["a", "b", "ab"])
tests = st.sampled_from(Test)


@given(tests, texts, st.none() | texts)
def test_both_readings_agree_on_text(test: Test, wanted: str, value: str | None) -> None:
    """Of text, and of what is not there, a task and an offer constraint say the same."""
    constraint = Constraint("zone", test, wanted)
    agent = box() if value is None else box(zone=value)
    assert fulfils(constraint, agent, AGENT_ID) is Constraints(((constraint,),)).admits(agent)


def test_an_expression_that_the_matcher_does_not_take_is_a_misfit() -> None:
    """The master's engine refuses what Python's takes: that is told as a reason, and raises nothing."""
    constraint = parse_constraint("zone~(?=a).*", lambda regex: None)
    why = misfit("wasm", [constraint], box(zone="a"), AGENT_ID, matches)
    assert why.startswith("cannot take regex")
