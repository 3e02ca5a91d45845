"""The JSON rules of the scheduler API (Mesos v1 contract, section 2), and bytes that nobody here decides on.

A test's name begins with the section of its "must" row.
"""

from __future__ import annotations

import base64
import json

import aiohttp
import pytest
from support.fake_agent import FakeAgent
from support.master import INFO, JSON_TYPE, PROTOBUF_TYPE, SCHEDULER, SUBSCRIBE, Framework, post, task

from edgerm.core.link import Launch
from edgerm.core.tasks import TaskState
from edgerm.wire.v1 import scheduler_pb2
from edgerm_master.main import Served


async def test_2_unknown_fields_are_ignored(master: Served, http: aiohttp.ClientSession) -> None:
    """Fields that no message has are ignored: avmesos sends `slave_id` and `credentials`."""
    body = {**SUBSCRIBE, "subscribe": {"framework_info": {**INFO, "nonsense": 1}, "credentials": {"principal": "x"}}}
    async with http.post(master.url + SCHEDULER, data=json.dumps(body), headers=JSON_TYPE) as answer:
        assert answer.status == 200
    async with http.get(master.url + "/metrics") as answer:
        assert "edgerm_json_names_ignored_total 2.0" in await answer.text()


async def test_2_null_is_absent_and_numbers_may_be_text(master: Served, http: aiohttp.ClientSession) -> None:
    """`null` means unset; numbers and booleans may come as text."""
    info = {**INFO, "hostname": None, "failover_timeout": "10.5", "checkpoint": "true"}
    async with http.post(
        master.url + SCHEDULER,
        data=json.dumps({"type": "SUBSCRIBE", "subscribe": {"framework_info": info}}),
        headers=JSON_TYPE,
    ) as answer:
        assert answer.status == 200
        await answer.content.readline()
        _, text = await post(http, master, {"type": "GET_FRAMEWORKS"}, path="/api/v1")
    shown = json.loads(text)["get_frameworks"]["frameworks"][0]["framework_info"]
    assert (shown["failover_timeout"], shown["checkpoint"], "hostname" in shown) == (10.5, True, False)


async def test_2_a_double_may_be_infinity(master: Served) -> None:
    """A refusal for "Infinity" seconds is taken, and holds."""
    async with FakeAgent(master.url), Framework(master.url) as framework:
        offer = await framework.offer()
        assert await framework.call("DECLINE", offer_ids=[offer["id"]], filters={"refuse_seconds": "Infinity"}) == 202
        await framework.hears_nothing()


@pytest.mark.parametrize("nanoseconds", [2_500_000_000, "2500000000"])
async def test_2_64_bit_integers_are_numbers_or_text(master: Served, nanoseconds: int | str) -> None:
    """A 64-bit integer is read from a number and from text alike."""
    async with FakeAgent(master.url) as agent, Framework(master.url) as framework:
        offer = await framework.offer()
        await framework.launch(offer, task(offer, "t"))
        await framework.status()
        policy = {"grace_period": {"nanoseconds": nanoseconds}}
        assert await framework.call("KILL", task_id={"value": "t"}, kill_policy=policy) == 202
        await agent.until(lambda agent: bool(agent.kills))
        assert agent.kills[0].grace_s == 2.5


async def test_2_uuid_is_base64_of_16_bytes(master: Served) -> None:
    """A status uuid is padded base64 of 16 bytes; an ACKNOWLEDGE with another length is 400."""
    async with FakeAgent(master.url), Framework(master.url) as framework:
        offer = await framework.offer()
        await framework.launch(offer, task(offer, "t"))
        status = await framework.status()
        assert len(base64.b64decode(status["uuid"], validate=True)) == 16
        assert await framework.acknowledge({**status, "uuid": "AAAA"}) == 400
        assert await framework.acknowledge(status) == 202


async def test_2_unknown_enum_name_is_dropped_where_optional(master: Served, http: aiohttp.ClientSession) -> None:
    """A capability that nobody knows is dropped; a resource of an unknown type, which is required, is 400."""
    info = {**INFO, "capabilities": [{"type": "FLYING"}, {"type": "PARTITION_AWARE"}]}
    async with Framework(master.url, info) as framework:
        bad = {"name": "cpus", "type": "COLOUR", "scalar": {"value": 1}}
        launch = {"task_infos": [{**task({"agent_id": {"value": "a"}}, "t"), "resources": [bad]}]}
        body = {"offer_ids": [], "operations": [{"type": "LAUNCH", "launch": launch}]}
        assert await framework.call("ACCEPT", **body) == 400


async def test_2_empty_results_are_left_out(master: Served, http: aiohttp.ClientSession) -> None:
    """An empty result is an empty body that is present."""
    status, text = await post(http, master, {"type": "GET_TASKS"}, path="/api/v1")
    assert (status, text) == (200, '{"type":"GET_TASKS","get_tasks":{}}')


async def test_unknown_protobuf_fields_of_a_task_arrive_unchanged(master: Served, http: aiohttp.ClientSession) -> None:
    """A field that edgerm does not know reaches the agent byte for byte."""
    arrived: list[Launch] = []

    def keep(launch: Launch) -> tuple[TaskState, ...]:
        arrived.append(launch)
        return (TaskState.RUNNING,)

    unknown = b"\xfa\x7f\x03abc"  # field 2047, three bytes
    async with FakeAgent(master.url, on_launch=keep) as agent, Framework(master.url) as framework:
        offer = await framework.offer()
        call = scheduler_pb2.Call(type=scheduler_pb2.Call.ACCEPT)
        call.framework_id.value = framework.framework_id
        call.accept.offer_ids.add(value=offer["id"]["value"])
        info = call.accept.operations.add(type=1).launch.task_infos.add(name="t")
        info.task_id.value, info.agent_id.value, info.command.value = "t", agent.agent_id, "true"
        info.resources.add(name="cpus", type=0).scalar.value = 1
        info.MergeFromString(unknown)
        headers = {**PROTOBUF_TYPE, "Mesos-Stream-Id": framework.stream_id}
        assert (await post(http, master, call.SerializeToString(), headers))[0] == 202
        await framework.status()
    assert unknown in arrived[0].task.info
