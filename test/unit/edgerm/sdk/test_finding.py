"""Choosing among offers: agents that are fit and have room, and the part of their offers that is needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgerm.core.attributes import Attribute, AttributeValue
from edgerm.core.ids import AgentId, FrameworkId, OfferId
from edgerm.core.resources import Resources, parse
from edgerm.core.scheduler import AgentSpec, Offer
from edgerm.sdk import Task, find, process_task


def task(constraints: Sequence[str] = (), **options: int) -> Task:
    """A small task."""
    return process_task("t", ["/bin/true"], cpus=0.5, mem=64, constraints=constraints, **options)  # type: ignore[arg-type]


def offer(agent: str, resources: str = "cpus:4;mem:1024", number: int = 0, **attributes: AttributeValue) -> Offer:
    """An offer of an agent that says this of itself."""
    told = tuple(Attribute(name, value) for name, value in attributes.items())
    spec = AgentSpec(f"{agent}.local", f"{agent}-name", attributes=told)
    return Offer(OfferId(f"{agent}-{number}"), FrameworkId("f"), "*", AgentId(agent), parse(resources), spec)


OFFERS = [
    offer("a", zone="north", sensor="boiler"),
    offer("b", zone="south", caps=("camera", "gpio")),
    offer("c", zone="west", floor=7.0),
]


@pytest.mark.parametrize(
    ("constraints", "agents"),
    [
        ([], "abc"),
        (["sensor"], "a"),  # it must be there
        (["!sensor"], "bc"),
        (["zone=south"], "b"),  # a text
        (["zone~north|south"], "ab"),  # one of several
        (["caps=gpio"], "b"),  # in a set
        (["floor=7"], "c"),  # a number
        (["@agent=b"], "b"),
        (["@name=c-name"], "c"),
        (["zone=north", "caps=gpio"], ""),  # all must hold
    ],
)
def test_agents_are_found_by_what_they_say(constraints: list[str], agents: str) -> None:
    """Each form of a constraint finds the agents that it should, in the order of their offers."""
    assert [found.agent_id for found in find(OFFERS, task(constraints))] == list(agents)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3), st.integers(0, 200)), max_size=12))
def test_what_is_found_is_cut_to_what_is_needed(given_offers: list[tuple[str, int, int]]) -> None:
    """An agent is found if its offers together have room; of these exactly what is needed is named."""
    offers = [
        offer(agent, f"cpus:{cpus / 4};mem:{mem};names:{{x}}", number)
        for number, (agent, cpus, mem) in enumerate(given_offers)
    ]
    found = {one.agent_id: one for one in find(offers, task())}
    for agent in "abc":
        theirs = [one for one in offers if one.agent_id == agent]
        enough = sum(cpus for name, cpus, _ in given_offers if name == agent) >= 2 and (
            sum(mem for name, _, mem in given_offers if name == agent) >= 64
        )
        assert (agent in found) is enough
        if enough:
            assert found[AgentId(agent)].offers == tuple(theirs)
            assert found[AgentId(agent)].task.resources == Resources.of(cpus=0.5, mem=64)


def test_a_task_is_placed_with_what_was_found() -> None:
    """The task goes to the agent that was found, with the resources that were found, ports too."""
    (found,) = find([offer("a"), offer("b", "cpus:4;mem:1024;ports:[31000-31009]")], task(ports=2))
    assert (found.agent_id, found.task.agent_id) == ("b", "b")
    assert found.task.resources == parse("cpus:0.5;mem:64;ports:[31000-31001]")


def test_an_agent_that_runs_no_such_tasks_is_no_place() -> None:
    """What an agent tells of its executors counts; one that does not tell is tried."""
    offers = [offer("a"), offer("b"), offer("c")]
    spec = AgentSpec("b.local", attributes=(Attribute("edgerm.executors", ("docker", "wasm")),))
    offers[1] = replace(offers[1], agent=spec)
    assert [found.agent_id for found in find(offers, task())] == ["a", "c"]
