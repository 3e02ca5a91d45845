"""UPDATE_FRAMEWORK, REQUEST, offer constraints and least amounts, over HTTP (mesos-v1 1.3, 3.1, 6.3, 6.4)."""

from __future__ import annotations

import json
from typing import Any

import aiohttp
import pytest
from support.fake_agent import FakeAgent
from support.master import INFO, JSON_TYPE, PROTOBUF_TYPE, Framework, Json, post, task

from edgerm.wire.codec.infos import attributes_info
from edgerm.wire.content import JSON, PROTOBUF, decode, encode
from edgerm.wire.recordio import Decoder
from edgerm.wire.v1 import scheduler_pb2
from edgerm.wire.v1.infos_pb2 import AgentInfo
from edgerm_master.main import Served

MULTI_ROLE = [{"type": "MULTI_ROLE"}]
API = "/api/v1"
EDGERM = "/api/v1/edgerm"


def zone(name: str, **more: str) -> bytes:
    """What an agent in this zone says of itself."""
    return attributes_info("", {"zone": name, **more})


def meeting(predicate: Json, selector: Json | None = None, role: str = "*") -> Json:
    """OfferConstraints: one test of one attribute, of `zone` unless said otherwise."""
    asked = {"attribute_name": "zone"} if selector is None else selector
    constraint = {"selector": asked, "predicate": predicate}
    return {"role_constraints": {role: {"groups": [{"attribute_constraints": [constraint]}]}}}


IN_A = meeting({"text_equals": {"value": "a"}})


async def subscribe(http: aiohttp.ClientSession, master: Served, constraints: Json) -> list[Json]:
    """SUBSCRIBE with constraints, and all events until the stream ends."""
    body = {"type": "SUBSCRIBE", "subscribe": {"framework_info": INFO, "offer_constraints": constraints}}
    status, text = await post(http, master, body)
    assert status == 200, text
    return [json.loads(record) for record in Decoder(1 << 20).feed(text.encode())]


async def update(framework: Framework, info: Json | None = None, **more: Any) -> tuple[int, str]:
    """UPDATE_FRAMEWORK with this info beside what it said before; status and text."""
    whole = {**INFO, **framework.info, **(info or {}), "id": {"value": framework.framework_id}}
    message = {
        "type": "UPDATE_FRAMEWORK",
        "framework_id": {"value": framework.framework_id},
        "update_framework": {"framework_info": whole, **more},
    }
    return await framework.post(message)


async def shown(http: aiohttp.ClientSession, master: Served) -> Json:
    """The one framework as operators see it."""
    status, text = await post(http, master, {"type": "GET_FRAMEWORKS"}, path=API)
    assert status == 200
    [framework] = json.loads(text)["get_frameworks"]["frameworks"]
    result: Json = framework
    return result


async def offered(framework: Framework) -> list[str]:
    """The agents in the next OFFERS event."""
    event = await framework.until("OFFERS")
    return sorted(offer["agent_id"]["value"] for offer in event["offers"]["offers"])


# --- UPDATE_FRAMEWORK -------------------------------------------------------------------------------------------


async def test_3_1_update_framework_is_answered_200_and_shown(master: Served, http: aiohttp.ClientSession) -> None:
    """What the framework says of itself changes in place; its stream and its id stay."""
    async with Framework(master.url) as framework:
        labels = {"labels": [{"key": "k", "value": "v"}]}
        status, text = await update(framework, {"name": "new", "failover_timeout": 9.5, "labels": labels})
        assert (status, text) == (200, "")
        info = (await shown(http, master))["framework_info"]
        assert (info["name"], info["failover_timeout"], info["labels"]) == ("new", 9.5, labels)
        assert info["id"] == {"value": framework.framework_id}
        async with FakeAgent(master.url):
            await framework.offer()


async def test_6_4_a_dropped_role_is_rescinded(master: Served) -> None:
    """An offer for a role that goes is rescinded; the new role is offered the same, in the new form."""
    async with FakeAgent(master.url), Framework(master.url, {"role": "a"}) as framework:
        offer = await framework.offer()
        framework.info = {}
        status, text = await update(framework, {"roles": ["b"], "capabilities": MULTI_ROLE})
        assert status == 200, text
        assert (await framework.event("RESCIND"))["rescind"]["offer_id"] == offer["id"]
        assert (await framework.offer())["allocation_info"] == {"role": "b"}, "MULTI_ROLE counts from now on"


async def test_3_1_update_framework_replaces_suppressed_roles(master: Served) -> None:
    """Named roles fall silent, those that are not named speak again."""
    info = {"roles": ["a", "b"], "capabilities": MULTI_ROLE}
    async with Framework(master.url, info, suppressed=["a"]) as framework:
        assert (await update(framework, suppressed_roles=["b"]))[0] == 200
        async with FakeAgent(master.url):
            assert (await framework.offer())["allocation_info"] == {"role": "a"}


@pytest.mark.parametrize(
    ("info", "more", "words"),
    [
        ({"user": "else"}, {}, "FrameworkInfo.user cannot change"),
        ({"checkpoint": True}, {}, "FrameworkInfo.checkpoint cannot change"),
        ({"principal": "else"}, {}, "principal 'else'"),
        ({"roles": ["a"]}, {}, "MULTI_ROLE"),
        ({"role": "not ok"}, {}, "contains a space"),
        ({"failover_timeout": -1}, {}, "failover_timeout"),
        ({"id": {"value": "else"}}, {}, "must be equal"),
        ({"labels": {"labels": [{"key": "k", "value": "x" * 70_000}]}}, {}, "at most 65536"),
        ({"offer_filters": {"*": {"min_allocatable_resources": {"quantities": [{}]}}}}, {}, "at least one"),
        ({}, {"suppressed_roles": ["b"]}, "suppressed role 'b'"),
        ({}, {"offer_constraints": meeting({})}, "exactly one of exists"),
        ({}, {"offer_constraints": meeting({"text_matches": {"regex": "("}})}, "regex"),
        ({}, {"offer_constraints": meeting({"exists": {}}, role="b")}, "role 'b'"),
        ({}, {"offer_constraints": {"role_constraints": {"*": {}}}}, "no groups"),
    ],
)
async def test_3_1_a_bad_update_is_400_and_changes_nothing(
    master: Served, http: aiohttp.ClientSession, info: Json, more: Json, words: str
) -> None:
    """The text says what is wrong; offers that are out stay valid."""
    async with FakeAgent(master.url), Framework(master.url) as framework:
        offer = await framework.offer()
        before = await shown(http, master)
        message: Json = {
            "type": "UPDATE_FRAMEWORK",
            "framework_id": {"value": framework.framework_id},
            "update_framework": {
                "framework_info": {**INFO, "name": "new", "id": {"value": framework.framework_id}, **info},
                **more,
            },
        }
        status, text = await framework.post(message)
        assert status == 400
        assert words in text
        assert await shown(http, master) == before
        await framework.launch(offer, task(offer, "t"))
        assert (await framework.status())["state"] == "TASK_RUNNING"


async def test_3_1_update_framework_needs_its_stream(master: Served) -> None:
    """Without the stream's id, or without a body, it is 400 like any other call."""
    async with Framework(master.url) as framework:
        framework.stream_id = "else"
        assert (await update(framework))[0] == 400
    async with Framework(master.url) as framework:
        message = {"type": "UPDATE_FRAMEWORK", "framework_id": {"value": framework.framework_id}}
        assert (await framework.post(message))[0] == 400


async def test_3_1_request_is_taken_and_changes_nothing(master: Served, http: aiohttp.ClientSession) -> None:
    """202; it counts as a call that is built, and offers come as they came."""
    async with FakeAgent(master.url) as agent, Framework(master.url) as framework:
        offer = await framework.offer()
        cpus = {"name": "cpus", "type": "SCALAR", "scalar": {"value": 64}}
        asked = [{"resources": [cpus]}, {"agent_id": {"value": agent.agent_id}, "resources": []}]
        assert await framework.call("REQUEST", requests=asked) == 202
        await framework.hears_nothing()
        assert offer["id"]["value"] in master.shell.core.offers
        async with http.get(master.url + "/metrics") as answer:
            metrics = await answer.text()
        assert 'type="REQUEST"' in metrics or 'call="REQUEST"' in metrics
        assert not [line for line in metrics.splitlines() if "not_built" in line and "REQUEST" in line]


# --- offer constraints ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("media_type", [JSON, PROTOBUF])
async def test_3_1_constraints_of_subscribe_filter_offers(
    master: Served, http: aiohttp.ClientSession, media_type: str
) -> None:
    """Only agents that meet them are offered, whichever encoding they came in."""
    body = {"type": "SUBSCRIBE", "subscribe": {"framework_info": INFO, "offer_constraints": IN_A}}
    call = decode(scheduler_pb2.Call, JSON, json.dumps(body).encode(), max_bytes=1 << 20)
    headers = {**(PROTOBUF_TYPE if media_type == PROTOBUF else JSON_TYPE), "Accept": media_type}
    async with (
        FakeAgent(master.url, info=zone("b")),
        FakeAgent(master.url, info=zone("a")) as fit,
        http.post(master.url + "/api/v1/scheduler", data=encode(call, media_type), headers=headers) as answer,
    ):
        decoder = Decoder(1 << 20)
        events: list[scheduler_pb2.Event] = []
        while not [event for event in events if event.type == scheduler_pb2.Event.OFFERS]:
            for record in decoder.feed(await answer.content.readany()):
                events.append(decode(scheduler_pb2.Event, media_type, record, max_bytes=1 << 20))
        offers = [offer for event in events for offer in event.offers.offers]
        assert [offer.agent_id.value for offer in offers] == [fit.agent_id]
        assert offers[0].attributes[0].text.value == "a"


PREDICATES: list[tuple[Json, list[str]]] = [
    ({"exists": {}}, ["a", "b", "number"]),
    ({"not_exists": {}}, ["none"]),
    ({"text_equals": {"value": "a"}}, ["a", "number"]),
    ({"text_not_equals": {"value": "a"}}, ["b", "none", "number"]),
    ({"text_matches": {"regex": "[ax]"}}, ["a", "number"]),
    ({"text_not_matches": {"regex": "[ax]"}}, ["b", "none", "number"]),
]


async def test_3_1_all_predicates(master: Served) -> None:
    """As Mesos has them: absent fails what is positive, and what is no text passes each test of text."""
    said = {"a": zone("a"), "b": zone("b"), "number": zone("7"), "none": attributes_info("", {})}
    agents = {name: FakeAgent(master.url, info=info) for name, info in said.items()}
    names = {agent.agent_id: name for name, agent in agents.items()}
    for agent in agents.values():
        await agent.__aenter__()
    for predicate, expected in PREDICATES:
        async with Framework(master.url, suppressed=["*"]) as framework:
            assert (await update(framework, offer_constraints=meeting(predicate)))[0] == 200
            found: list[str] = []
            while len(found) < len(expected):
                found += [names[agent_id] for agent_id in await offered(framework)]  # type: ignore[index]
            await framework.hears_nothing()
            assert sorted(found) == expected, predicate
            await framework.call("TEARDOWN")
    for agent in agents.values():
        await agent.__aexit__()


async def test_3_1_pseudo_attributes(master: Served) -> None:
    """Host, region and zone of the fault domain are tested like text."""
    info = AgentInfo(hostname="")
    info.domain.fault_domain.region.name, info.domain.fault_domain.zone.name = "eu", "z1"
    async with FakeAgent(master.url, info=info.SerializeToString()) as agent, FakeAgent(master.url):
        for kind, value in (("REGION", "eu"), ("ZONE", "z1")):
            async with Framework(master.url, suppressed=["*"]) as framework:
                constraints = meeting({"text_equals": {"value": value}}, {"pseudoattribute_type": kind})
                assert (await update(framework, offer_constraints=constraints))[0] == 200
                assert await offered(framework) == [agent.agent_id]
                await framework.hears_nothing()
                await framework.call("TEARDOWN")
        async with Framework(master.url, suppressed=["*"]) as framework:
            nowhere = meeting({"text_not_equals": {"value": "127.0.0.1"}}, {"pseudoattribute_type": "HOSTNAME"})
            assert (await update(framework, offer_constraints=nowhere))[0] == 200
            await framework.hears_nothing()


@pytest.mark.parametrize(
    ("constraints", "words"),
    [
        (meeting({}), "exactly one of exists"),
        (meeting({"exists": {}}, {"pseudoattribute_type": "UNKNOWN"}), "HOSTNAME, REGION or ZONE"),
        (meeting({"exists": {}}, {}), "exactly one of attribute_name"),
        (meeting({"text_matches": {"regex": "(a+"}}), "regex"),
        (meeting({"text_matches": {"regex": "((a{9}){9}){9}"}}), "regex"),
        (meeting({"exists": {}}, role="web"), "'web'"),
        ({"role_constraints": {"*": {"groups": [{}]}}}, "without attribute_constraints"),
    ],
)
async def test_1_3_malformed_constraints_of_subscribe_are_an_error_event(
    master: Served, http: aiohttp.ClientSession, constraints: Json, words: str
) -> None:
    """200, ERROR with what is wrong, and the end of the stream; no framework comes of it."""
    [event] = await subscribe(http, master, constraints)
    assert event["type"] == "ERROR"
    assert words in event["error"]["message"]
    assert not master.shell.core.frameworks


async def test_6_4_offers_that_no_longer_fit_are_rescinded(master: Served, http: aiohttp.ClientSession) -> None:
    """An update's constraints take back what they leave out, are shown to operators, and can be taken away again."""
    async with FakeAgent(master.url, info=zone("b")) as agent, Framework(master.url) as framework:
        offer = await framework.offer()
        assert (await update(framework, offer_constraints=IN_A))[0] == 200
        assert (await framework.event("RESCIND"))["rescind"]["offer_id"] == offer["id"]
        assert (await shown(http, master))["offer_constraints"] == IN_A
        framework_id = {"value": framework.framework_id}
        body = {"type": "EXPLAIN", "explain": {"framework_id": framework_id}}
        _, text = await post(http, master, body, path=EDGERM)
        [reason] = json.loads(text)["explain"]["reasons"]
        assert (reason["code"], reason["agent_id"]["value"]) == ("constrained", agent.agent_id)
        assert "zone=a" in reason["message"]
        await framework.hears_nothing()
        assert (await update(framework))[0] == 200
        assert (await framework.offer())["agent_id"]["value"] == agent.agent_id
        assert "offer_constraints" not in await shown(http, master)


async def test_6_4_an_expression_that_would_stall_others_does_no_harm(master: Served) -> None:
    """What takes a backtracking engine for ever is answered at once, and the master goes on."""
    async with FakeAgent(master.url, info=zone("a" * 5000 + "b")), Framework(master.url) as framework:
        await framework.offer()
        assert (await update(framework, offer_constraints=meeting({"text_matches": {"regex": "(a+)+(a+)+"}})))[0] == 200
        await framework.event("RESCIND")


# --- least amounts ----------------------------------------------------------------------------------------------


async def test_6_4_least_amounts_of_a_role(master: Served) -> None:
    """`offer_filters`: an offer must hold one of the amounts; what is less waits until it has grown."""
    least = {"quantities": [{"quantities": {"cpus": {"value": 2.0}}}, {"quantities": {"ports": {"value": 5}}}]}
    info = {"offer_filters": {"*": {"min_allocatable_resources": least}}}
    async with FakeAgent(master.url, "cpus:2;mem:512;ports:[1-4]") as agent, Framework(master.url, info) as framework:
        offer = await framework.offer()
        await framework.launch(offer, task(offer, "t"), refuse_seconds=0.0)
        await framework.acknowledge(await framework.status())
        await framework.hears_nothing()
        await framework.call("KILL", task_id={"value": "t"})
        await framework.acknowledge(await framework.status())
        assert (await framework.offer())["resources"] == offer["resources"]
        assert len(agent.launches) == 1


async def test_7_operators_are_told_of_an_update(master: Served, http: aiohttp.ClientSession) -> None:
    """FRAMEWORK_UPDATED has the framework as it is from now on, its constraints too."""
    async with (
        Framework(master.url) as framework,
        http.post(master.url + API, data=b'{"type": "SUBSCRIBE"}', headers=JSON_TYPE) as stream,
    ):
        assert (await update(framework, {"name": "new"}, offer_constraints=IN_A))[0] == 200
        decoder = Decoder(1 << 20)
        events: list[Json] = []
        while not [event for event in events if event["type"] == "FRAMEWORK_UPDATED"]:
            events += map(json.loads, decoder.feed(await stream.content.readany()))
        told = next(event for event in events if event["type"] == "FRAMEWORK_UPDATED")["framework_updated"]["framework"]
        assert (told["framework_info"]["name"], told["offer_constraints"]) == ("new", IN_A)
