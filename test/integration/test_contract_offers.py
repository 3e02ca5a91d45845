"""Offers, filters and launches (Mesos v1 contract, sections 6.4 and 6.7).

A test's name begins with the section of its "must" row. The master is real; agents answer from memory.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from support.fake_agent import FakeAgent
from support.master import Framework, Json, running_master, task

from edgerm.wire.v1 import infos_pb2
from edgerm_master.main import Served

DAY_S = 86_400.0
MULTI_ROLE = [{"type": "MULTI_ROLE"}]


def launching(*tasks: Json) -> list[Json]:
    """The operations of an ACCEPT that launches these."""
    return [{"type": "LAUNCH", "launch": {"task_infos": list(tasks)}}]


# --- what an offer says -----------------------------------------------------------------------------------------


async def test_6_4_an_offer_is_exact_sorted_and_old_fashioned(master: Served) -> None:
    """Without capabilities an offer has role `*`, no allocation_info, and sorted, coalesced ranges."""
    resources = "cpus:0.3;mem:64;ports:[31005-31010,31000-31004,32000-32000]"
    async with FakeAgent(master.url, resources), Framework(master.url) as framework:
        offer = await framework.offer()
        assert "allocation_info" not in offer
        by_name = {resource["name"]: resource for resource in offer["resources"]}
        assert all(resource["role"] == "*" and "allocation_info" not in resource for resource in by_name.values())
        assert by_name["cpus"]["scalar"]["value"] == 0.3
        ranges = [{"begin": 31000, "end": 31010}, {"begin": 32000, "end": 32000}]
        assert by_name["ports"]["ranges"]["range"] == ranges


async def test_6_7_with_multi_role_an_offer_says_whose_it_is(master: Served) -> None:
    """With MULTI_ROLE the offer and each of its resources carry allocation_info with the role."""
    info = {"roles": ["a/b"], "capabilities": MULTI_ROLE}
    async with FakeAgent(master.url), Framework(master.url, info) as framework:
        offer = await framework.offer()
        assert offer["allocation_info"] == {"role": "a/b"}
        assert len(offer["resources"]) == 4
        assert all(resource["allocation_info"] == {"role": "a/b"} for resource in offer["resources"])
        asked = [resource for resource in offer["resources"] if resource["name"] == "cpus"]
        await framework.launch(offer, task(offer, "t", resources=asked))  # as it came
        assert (await framework.status())["state"] == "TASK_RUNNING"


async def test_6_4_leftover_scalars_are_exact(master: Served) -> None:
    """0.3 less 0.1 is offered as 0.2, not as what floats make of it."""
    async with FakeAgent(master.url, "cpus:0.3;mem:64"), Framework(master.url) as framework:
        offer = await framework.offer()
        await framework.launch(offer, task(offer, "t"), refuse_seconds=0.0)
        rest = await framework.offer()
        cpus = [resource for resource in rest["resources"] if resource["name"] == "cpus"]
        assert cpus[0]["scalar"]["value"] == 0.2


@pytest.mark.parametrize("value", ["NaN", "Infinity", -1])
async def test_6_4_amounts_that_are_no_amounts_are_refused(master: Served, value: object) -> None:
    """NaN, infinite and negative amounts make a TASK_ERROR of that task."""
    async with FakeAgent(master.url), Framework(master.url) as framework:
        offer = await framework.offer()
        bad = [{"name": "cpus", "type": "SCALAR", "scalar": {"value": value}}]
        await framework.launch(offer, task(offer, "bad", resources=bad), task(offer, "good"))
        states = {(status := await framework.status())["task_id"]["value"]: status["state"] for _ in range(2)}
        assert states == {"bad": "TASK_ERROR", "good": "TASK_RUNNING"}


async def test_6_4_an_offers_event_is_bounded(master: Served) -> None:
    """Offers that come together are divided into events of about 256 kB."""
    attributes = infos_pb2.AgentInfo(hostname="big")
    attributes.attributes.add(name="big", type=3).text.value = "x" * 50_000
    async with Framework(master.url, suppressed=["*"]) as framework:
        agents = [FakeAgent(master.url, info=attributes.SerializePartialToString()) for _ in range(12)]
        for agent in agents:
            await agent.__aenter__()
        await framework.call("REVIVE")
        offered: list[int] = []
        while sum(offered) < len(agents):
            event = await framework.event("OFFERS")
            offered.append(len(event["offers"]["offers"]))
            assert len(json.dumps(event)) < 300_000
        assert len(offered) > 1 and max(offered) > 1
        for agent in agents:
            await agent.__aexit__()


# --- how offers are used ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("capabilities", "state"), [([], "TASK_LOST"), (["PARTITION_AWARE"], "TASK_DROPPED")])
async def test_6_4_an_offer_is_used_once(master: Served, capabilities: list[str], state: str) -> None:
    """A used, unknown or missing offer makes each task of the call TASK_LOST or TASK_DROPPED, by the master."""
    info = {"capabilities": [{"type": name} for name in capabilities]}
    async with FakeAgent(master.url) as agent, Framework(master.url, info) as framework:
        offer = await framework.offer()
        await framework.launch(offer, task(offer, "first"))
        await framework.status()
        for offer_ids in ([offer["id"]], [{"value": "never"}], []):
            operations = [{"type": "LAUNCH", "launch": {"task_infos": [task(offer, "second")]}}]
            assert await framework.call("ACCEPT", offer_ids=offer_ids, operations=operations) == 202
            status = await framework.status()
            assert (status["state"], status["source"]) == (state, "SOURCE_MASTER")
            assert status["reason"] == "REASON_INVALID_OFFERS"
        assert len(agent.launches) == 1


async def test_6_4_several_offers_of_one_agent(master: Served) -> None:
    """An ACCEPT may put offers of one agent together; the sum is what its tasks must fit into, in order."""
    async with FakeAgent(master.url, "cpus:2;mem:512"), Framework(master.url) as framework:
        offer = await framework.offer()
        half = task(offer, "one", cpus=1)
        await framework.launch(offer, half, refuse_seconds=0.0)
        await framework.acknowledge(await framework.status())
        small = await framework.offer()
        await framework.call("KILL", task_id={"value": "one"})
        await framework.acknowledge(await framework.status())
        other = await framework.offer()
        tasks = [task(offer, "most", cpus=1.75), task(offer, "too much", cpus=0.5), task(offer, "rest", cpus=0.25)]
        offer_ids = [small["id"], other["id"]]
        assert await framework.call("ACCEPT", offer_ids=offer_ids, operations=launching(*tasks)) == 202
        states = {(status := await framework.status())["task_id"]["value"]: status["state"] for _ in tasks}
        assert states == {"most": "TASK_RUNNING", "too much": "TASK_ERROR", "rest": "TASK_RUNNING"}


async def test_6_4_offers_of_two_agents_do_not_mix(master: Served) -> None:
    """Offers of two agents in one ACCEPT: its tasks are lost by invalid offers, and both agents are offered anew."""
    async with FakeAgent(master.url) as one, FakeAgent(master.url) as other, Framework(master.url) as framework:
        offers: list[Json] = []
        while len(offers) < 2:
            offers += (await framework.event("OFFERS"))["offers"]["offers"]
        offer_ids = [offer["id"] for offer in offers]
        assert await framework.call("ACCEPT", offer_ids=offer_ids, operations=launching(task(offers[0], "t"))) == 202
        status = await framework.status()
        assert (status["state"], status["reason"]) == ("TASK_LOST", "REASON_INVALID_OFFERS")
        assert (status["source"], "uuid" in status) == ("SOURCE_MASTER", False)
        fresh: list[Json] = []
        while len(fresh) < 2:
            fresh += (await framework.until("OFFERS"))["offers"]["offers"]
        assert {offer["agent_id"]["value"] for offer in fresh} == {one.agent_id, other.agent_id}
        assert not [offer for offer in fresh if offer["id"] in offer_ids]
        assert not one.launches and not other.launches


@pytest.mark.parametrize("again", ["itself", "never"])
async def test_6_4_the_valid_offers_of_a_bad_call_are_returned(master: Served, again: str) -> None:
    """An offer named twice, or beside one that never was: the task is lost, the offer is void and comes back anew."""
    async with FakeAgent(master.url) as agent, Framework(master.url) as framework:
        offer = await framework.offer()
        offer_ids = [offer["id"], offer["id"] if again == "itself" else {"value": "never"}]
        filters = {"refuse_seconds": 1000.0}
        operations = launching(task(offer, "t"))
        assert await framework.call("ACCEPT", offer_ids=offer_ids, operations=operations, filters=filters) == 202
        assert (await framework.status())["reason"] == "REASON_INVALID_OFFERS"
        fresh = await framework.offer()
        assert fresh["id"] != offer["id"] and fresh["resources"] == offer["resources"]
        assert not agent.launches


async def test_6_4_a_bad_task_is_an_error_and_the_others_go_ahead(master: Served) -> None:
    """Too much, or a wrong agent: TASK_ERROR with REASON_TASK_INVALID for that task alone."""
    async with FakeAgent(master.url), Framework(master.url) as framework:
        offer = await framework.offer()
        await framework.launch(
            offer,
            task(offer, "greedy", cpus=100),
            task({"agent_id": {"value": "elsewhere"}}, "lost"),
            task(offer, "fine"),
            task(offer, "fine"),
        )
        told = [await framework.status() for _ in range(4)]
        errors = [status for status in told if status["state"] == "TASK_ERROR"]
        assert sorted(status["task_id"]["value"] for status in errors) == ["fine", "greedy", "lost"]
        assert {status["reason"] for status in errors} == {"REASON_TASK_INVALID"}
        assert [status["state"] for status in told if status not in errors] == ["TASK_RUNNING"]


async def test_6_4_an_unanswered_offer_is_rescinded(tmp_path: Path) -> None:
    """After the offer timeout the offer is void, and its framework is told."""
    async with (
        running_master(tmp_path, offer_timeout_s=0.05) as master,
        FakeAgent(master.url),
        Framework(master.url) as framework,
    ):
        offer = await framework.offer()
        event = await framework.event("RESCIND")
        assert event["rescind"] == {"offer_id": offer["id"]}
        await framework.launch(offer, task(offer, "t"))
        assert (await framework.status())["reason"] == "REASON_INVALID_OFFERS"


# --- filters, suppression ---------------------------------------------------------------------------------------


async def test_6_4_a_refusal_withholds_and_revive_brings_back(master: Served) -> None:
    """A declined offer is withheld for its filter's time; REVIVE clears that."""
    async with FakeAgent(master.url), Framework(master.url) as framework:
        first = await framework.offer()
        assert await framework.call("DECLINE", offer_ids=[first["id"]], filters={"refuse_seconds": 1000.0}) == 202
        await framework.call("RECONCILE", tasks=[{"task_id": {"value": "marker"}}])
        await framework.event("UPDATE")  # and no OFFERS before it
        assert await framework.call("REVIVE") == 202
        assert (await framework.offer())["id"] != first["id"]


@pytest.mark.parametrize(
    ("asked", "length_s"),
    [(None, 5.0), (-1, 5.0), ("NaN", 5.0), (1000, 1000.0), (1e12, 365 * DAY_S), ("Infinity", 365 * DAY_S)],
)
async def test_6_4_how_long_a_refusal_lasts(master: Served, asked: object, length_s: float) -> None:
    """5 s unless said otherwise, also for what is no length of time, and a year at most."""
    now_s = asyncio.get_running_loop().time
    async with FakeAgent(master.url) as agent, Framework(master.url) as framework:
        offer = await framework.offer()
        filters = {} if asked is None else {"refuse_seconds": asked}
        before_s = now_s()
        assert await framework.call("DECLINE", offer_ids=[offer["id"]], filters=filters) == 202
        after_s = now_s()
        [core] = master.shell.core.frameworks.values()
        [refusal] = core.filters["*", agent.agent_id]
        assert before_s + length_s <= refusal.until_s <= after_s + length_s


async def test_6_4_a_refusal_ends(master: Served) -> None:
    """What was declined for a moment is offered again without anybody asking."""
    async with FakeAgent(master.url), Framework(master.url) as framework:
        offer = await framework.offer()
        assert await framework.call("DECLINE", offer_ids=[offer["id"]], filters={"refuse_seconds": 0.0}) == 202
        assert (await framework.offer())["id"] != offer["id"]


async def test_6_4_a_refusal_ends_when_the_agent_goes(tmp_path: Path) -> None:
    """An agent that was lost and is back is offered, whatever was refused of it before."""
    beats = {"beat_interval_s": 0.2, "missed_beats": 3}
    async with running_master(tmp_path, agents=beats) as master, Framework(master.url) as framework:
        async with FakeAgent(master.url) as agent:
            offer = await framework.offer()
            await framework.call("DECLINE", offer_ids=[offer["id"]], filters={"refuse_seconds": 1000.0})
            await framework.hears_nothing()
        await framework.event("FAILURE")
        async with FakeAgent(master.url, agent_id=agent.agent_id, incarnation=2):
            await framework.event("OFFERS")


async def test_6_4_suppress_stops_offers_until_revive(master: Served) -> None:
    """Nothing is offered to a framework that asked for silence."""
    async with Framework(master.url) as framework:
        assert await framework.call("SUPPRESS") == 202
        async with FakeAgent(master.url):
            await framework.call("RECONCILE", tasks=[{"task_id": {"value": "marker"}}])
            await framework.event("UPDATE")
            assert await framework.call("REVIVE") == 202
            await framework.event("OFFERS")


async def test_6_4_suppress_and_revive_of_single_roles(master: Served) -> None:
    """SUPPRESS and REVIVE with roles concern these alone; a refusal is of one role, too."""
    filters = {"refuse_seconds": 1000.0}
    async with Framework(master.url, {"roles": ["a", "b"], "capabilities": MULTI_ROLE}) as framework:
        assert await framework.call("SUPPRESS", roles=["a"]) == 202
        async with FakeAgent(master.url):
            offer = await framework.offer()
            assert offer["allocation_info"]["role"] == "b"
            await framework.call("DECLINE", offer_ids=[offer["id"]], filters=filters)
            await framework.hears_nothing()
            for role in ("a", "b", "a"):
                assert await framework.call("REVIVE", roles=[role]) == 202
                offer = await framework.offer()
                assert offer["allocation_info"]["role"] == role
                await framework.call("DECLINE", offer_ids=[offer["id"]], filters=filters)
                await framework.hears_nothing()


async def test_6_4_launch_without_tasks_declines(master: Served) -> None:
    """An ACCEPT that launches nothing gives the offer back, with its filter."""
    async with FakeAgent(master.url), Framework(master.url) as framework:
        offer = await framework.offer()
        assert await framework.launch(offer) == 202
        await framework.hears_nothing()
        await framework.call("REVIVE")
        fresh = await framework.offer()
        assert fresh["id"] != offer["id"] and fresh["resources"] == offer["resources"]
