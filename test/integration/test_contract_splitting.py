"""Offers split into tasks, put together, and shared; what they say of their agents (mesos-v1 6.4).

A test's name begins with the section of its "must" row. The master is real; agents answer from memory.
"""

from __future__ import annotations

import json

import aiohttp
import pytest
from support.fake_agent import FakeAgent
from support.master import INFO, Framework, Json, task

from edgerm.core.ids import TaskId
from edgerm.core.resources import parse
from edgerm.wire.codec.infos import attributes_info
from edgerm.wire.content import decode
from edgerm.wire.recordio import Decoder
from edgerm.wire.v1 import infos_pb2, offers_pb2, scheduler_pb2
from edgerm_master.main import Served

ALL_KINDS = "cpus:2;mem:512;ports:[31000-31009];names:{a,b,c}"


def taking(offer: Json, task_id: str, cpus: float, ports: tuple[int, int], *items: str) -> Json:
    """A task that takes CPUs, a range of ports, and items of a set."""
    begin, end = ports
    resources = [
        {"name": "cpus", "type": "SCALAR", "scalar": {"value": cpus}},
        {"name": "ports", "type": "RANGES", "ranges": {"range": [{"begin": begin, "end": end}]}},
        *([{"name": "names", "type": "SET", "set": {"item": list(items)}}] if items else []),
    ]
    return task(offer, task_id, resources=resources)


def plain(offer: Json) -> Json:
    """What an offer holds, by name: a number, pairs, or items."""
    found: Json = {}
    for resource in offer["resources"]:
        name = resource["name"]
        if resource["type"] == "SCALAR":
            found[name] = resource["scalar"]["value"]
        elif resource["type"] == "RANGES":
            found[name] = [(part["begin"], part["end"]) for part in resource["ranges"]["range"]]
        else:
            found[name] = resource["set"]["item"]
    return found


async def test_6_4_an_offer_is_split_into_tasks_of_every_kind_of_resource(master: Served) -> None:
    """Scalars, parts of a range and items go to the tasks exactly; what they leave is offered again."""
    async with FakeAgent(master.url, ALL_KINDS) as agent, Framework(master.url) as framework:
        offer = await framework.offer()
        tasks = [
            taking(offer, "one", 0.5, (31000, 31001), "b"),
            taking(offer, "two", 0.7, (31005, 31005)),
            taking(offer, "taken", 0.1, (31001, 31002)),  # 31001 is gone
            taking(offer, "gone", 0.1, (31009, 31009), "b"),  # and so is b
            taking(offer, "three", 0.1, (31002, 31002), "a"),
        ]
        await framework.launch(offer, *tasks, refuse_seconds=0.0)
        states = {(status := await framework.status())["task_id"]["value"]: status["state"] for _ in tasks}
        assert states == {
            "one": "TASK_RUNNING",
            "two": "TASK_RUNNING",
            "taken": "TASK_ERROR",
            "gone": "TASK_ERROR",
            "three": "TASK_RUNNING",
        }
        assert plain(await framework.offer()) == {
            "cpus": 0.7,
            "mem": 512,
            "ports": [(31003, 31004), (31006, 31009)],
            "names": ["c"],
        }
        launched = {launch.key.task_id: launch.task.resources for launch in agent.launches}
        assert launched[TaskId("one")] == parse("cpus:0.5;ports:[31000-31001];names:{b}")


async def test_6_4_one_task_over_several_offers(master: Served) -> None:
    """Ranges and sets of several offers of one agent are put together for one task that needs parts of each."""
    async with FakeAgent(master.url, ALL_KINDS) as agent, Framework(master.url) as framework:
        whole = await framework.offer()
        await framework.launch(whole, taking(whole, "one", 1, (31000, 31004), "a", "b"), refuse_seconds=0.0)
        await framework.acknowledge(await framework.status())
        rest = await framework.offer()
        await framework.call("KILL", task_id={"value": "one"})
        await framework.acknowledge(await framework.status())
        other = await framework.offer()
        assert plain(other) == {"cpus": 1, "ports": [(31000, 31004)], "names": ["a", "b"]}
        wide = taking(rest, "wide", 2, (31004, 31005), "b", "c")
        launch = [{"type": "LAUNCH", "launch": {"task_infos": [wide]}}]
        offer_ids, filters = [rest["id"], other["id"]], {"refuse_seconds": 0.0}
        await framework.call("ACCEPT", offer_ids=offer_ids, operations=launch, filters=filters)
        assert (await framework.status())["state"] == "TASK_RUNNING"
        assert agent.launches[-1].task.resources == parse("cpus:2;ports:[31004-31005];names:{b,c}")
        left = {"mem": 512, "ports": [(31000, 31003), (31006, 31009)], "names": ["a"]}
        assert plain(await framework.offer()) == left


async def test_6_4_two_frameworks_share_one_agent(master: Served) -> None:
    """What one leaves goes to the other, and when both are served nothing is left or held twice."""
    async with (
        FakeAgent(master.url, ALL_KINDS) as agent,
        Framework(master.url, {"name": "first"}) as first,
        Framework(master.url, {"name": "second"}) as second,
    ):
        offer = await first.offer()
        await first.launch(offer, taking(offer, "one", 1.5, (31000, 31004), "a"))
        assert (await first.status())["state"] == "TASK_RUNNING"
        rest = await second.offer()
        assert plain(rest) == {"cpus": 0.5, "mem": 512, "ports": [(31005, 31009)], "names": ["b", "c"]}
        everything = {"resources": rest["resources"]}
        await second.launch(rest, task(rest, "two", **everything))
        assert (await second.status())["state"] == "TASK_RUNNING"
        await first.call("REVIVE")
        await first.hears_nothing()
        held = [launch.task.resources for launch in agent.launches]
        assert held[0] + held[1] == parse(ALL_KINDS)


async def test_6_4_a_refusal_is_of_the_same_or_less(master: Served) -> None:
    """When the agent has more than was refused it is offered, though the filter stands; others are offered anyway."""
    refusing = {"refuse_seconds": 1000.0}
    async with FakeAgent(master.url, ALL_KINDS), Framework(master.url) as framework:
        offer = await framework.offer()
        await framework.launch(offer, taking(offer, "one", 1, (31000, 31004)), refuse_seconds=0.0)
        await framework.acknowledge(await framework.status())
        rest = await framework.offer()
        await framework.call("DECLINE", offer_ids=[rest["id"]], filters=refusing)
        await framework.hears_nothing()
        async with Framework(master.url, {"name": "other"}) as other:
            assert plain(await other.offer()) == plain(rest)
        await framework.hears_nothing()
        await framework.call("KILL", task_id={"value": "one"})
        await framework.acknowledge(await framework.status())
        assert plain(await framework.offer()) == plain(offer), "more than was refused"


@pytest.mark.parametrize("accept", ["application/json", "application/x-protobuf"])
async def test_6_4_attributes_of_all_types_are_in_offers(
    master: Served, http: aiohttp.ClientSession, accept: str
) -> None:
    """TEXT, SCALAR, RANGES and SET arrive as the agent said them, in both encodings."""
    info = infos_pb2.AgentInfo.FromString(attributes_info("", {"line": "7", "slots": "[1-3,9-9]", "runs": "{a,b}"}))
    info.attributes.add(name="zone", type=3).text.value = "7"
    body = json.dumps({"type": "SUBSCRIBE", "subscribe": {"framework_info": INFO}})
    headers = {"Content-Type": "application/json", "Accept": accept}
    async with (
        FakeAgent(master.url, info=info.SerializeToString()),
        http.post(master.url + "/api/v1/scheduler", data=body, headers=headers) as answer,
    ):
        decoder = Decoder(1 << 20)
        offers: list[offers_pb2.Offer] = []
        while not offers:
            for record in decoder.feed(await answer.content.readany()):
                offers += decode(scheduler_pb2.Event, accept, record, max_bytes=1 << 20).offers.offers
        assert list(offers[0].attributes) == list(info.attributes)
