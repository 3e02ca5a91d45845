"""Agents as values, from what a master answers."""

from __future__ import annotations

from edgerm.core.ids import AgentId
from edgerm.core.resources import Resources, parse
from edgerm.sdk.agents import agents_of
from edgerm.wire.codec.infos import attributes_info
from edgerm.wire.codec.resources import resources_to_messages
from edgerm.wire.v1.infos_pb2 import AgentInfo
from edgerm.wire.v1.master_pb2 import Response

ATTRIBUTES = {"zone": "north", "floor": "7", "caps": "{camera,gpio}", "slots": "[1-3]"}


def view(total: str, allocated: str = "", offered: str = "", link_state: str = "joined") -> Response.GetAgents:
    """An answer with one agent."""
    answer = Response.GetAgents()
    entry = answer.agents.add(active=True, version="1", link_state=link_state)
    entry.agent_info.CopyFrom(AgentInfo.FromString(attributes_info("box.local", ATTRIBUTES)))
    entry.agent_info.id.value = "a1"
    entry.total_resources.extend(resources_to_messages(parse(total)))
    entry.allocated_resources.extend(resources_to_messages(parse(allocated)))
    entry.offered_resources.extend(resources_to_messages(parse(offered)))
    return answer


def test_an_agent_tells_its_attributes_and_what_is_free() -> None:
    """Attributes come by name with values as Python has them; free is what neither a task nor an offer has."""
    agents = agents_of(view("cpus:4;mem:1024;ports:[1-9]", "cpus:1;ports:[1-3]", "mem:24"))
    agent = agents[AgentId("a1")]
    assert dict(agent.attributes) == {
        "zone": "north",
        "floor": 7.0,
        "caps": ("camera", "gpio"),
        "slots": ((1, 3),),
    }
    assert (agent.name, agent.reachable) == ("box.local", True)
    assert agent.free == parse("cpus:3;mem:1000;ports:[4-9]")


def test_an_agent_that_came_back_smaller_has_nothing_free() -> None:
    """More is taken than there is: nothing is free, and nothing breaks."""
    agent = agents_of(view("cpus:1", "cpus:2", link_state="unreachable"))[AgentId("a1")]
    assert (agent.free, agent.reachable) == (Resources(), False)
