"""The operator API's pictures: the same in JSON and protobuf, and the same in whole and in parts."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aiohttp
import pytest
from google.protobuf import json_format
from support.fake_agent import FakeAgent
from support.master import Framework, Json, task

from edgerm.wire.v1 import master_pb2
from edgerm_master.main import Served

QUERIES = (
    "GET_HEALTH",
    "GET_VERSION",
    "GET_FLAGS",
    "GET_METRICS",
    "GET_STATE",
    "GET_AGENTS",
    "GET_FRAMEWORKS",
    "GET_EXECUTORS",
    "GET_OPERATIONS",
    "GET_TASKS",
    "GET_ROLES",
    "GET_MASTER",
)
MOVES = ("last_beat_s", "master/uptime_secs", "system/")  # what is another number each time


@asynccontextmanager
async def busy(master: Served) -> AsyncIterator[Framework]:
    """Two agents, two frameworks in their own roles, tasks that run and one that has ended, an offer that is open."""
    info: Json = {"capabilities": [{"type": "MULTI_ROLE"}], "roles": ["blue", "green"]}
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(FakeAgent(master.url))
        framework = await stack.enter_async_context(Framework(master.url, info))
        offer = await framework.offer()
        labels = {"labels": [{"key": "k", "value": "ü"}]}
        await framework.launch(offer, task(offer, "runs", labels=labels), task(offer, "ends"))
        for _ in range(2):
            await framework.acknowledge(await framework.status())
        await framework.call("KILL", task_id={"value": "ends"})
        await framework.acknowledge(await framework.status())
        await framework.call("SUPPRESS")
        other = await stack.enter_async_context(Framework(master.url))
        await stack.enter_async_context(FakeAgent(master.url))
        await other.offer()
        yield framework


async def ask(master: Served, message: Json, path: str = "/api/v1", accept: str = "application/json") -> bytes:
    """The body of the answer."""
    headers = {"Accept": accept}
    async with aiohttp.request("POST", master.url + path, json=message, headers=headers) as answer:
        assert answer.status == 200 and answer.headers["Content-Type"] == accept, await answer.text()
        return await answer.read()


def still(value: Any) -> Any:
    """The value without what moves by itself."""
    if isinstance(value, dict):
        if str(value.get("name", "")).startswith(MOVES):
            return {"name": value["name"]}
        return {name: still(item) for name, item in value.items() if name not in MOVES}
    return [still(item) for item in value] if isinstance(value, list) else value


def as_json(message: master_pb2.Response) -> Json:
    """The message by another hand than our own codec's; 64-bit integers as numbers."""
    text = json_format.MessageToDict(message, preserving_proto_field_name=True)
    return {name: _numbers(value) for name, value in text.items()}


def _numbers(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            name: int(item) if name in ("nanoseconds", "begin", "end") and isinstance(item, str) else _numbers(item)
            for name, item in value.items()
        }
    return [_numbers(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("path", ["/api/v1", "/api/v1/operator"])
async def test_json_and_protobuf_say_the_same(master: Served, path: str) -> None:
    """Every query says the same in both encodings, field by field, while there is much to say."""
    async with busy(master):
        for kind in QUERIES:
            told = json.loads(await ask(master, {"type": kind}, path))
            packed = await ask(master, {"type": kind}, path, "application/x-protobuf")
            message = master_pb2.Response.FromString(packed)
            assert still(told) == still(as_json(message)), kind
            assert told["type"] == kind and kind.lower() in told


async def test_the_whole_is_its_parts(master: Served) -> None:
    """A quiet GET_STATE says what GET_AGENTS, GET_FRAMEWORKS, GET_EXECUTORS and GET_TASKS say together."""
    async with busy(master):
        state = json.loads(await ask(master, {"type": "GET_STATE"}))["get_state"]
        assert sorted(state) == ["get_agents", "get_executors", "get_frameworks", "get_tasks"]
        for part in state:
            alone = json.loads(await ask(master, {"type": part.upper()}))
            assert still(state[part]) == still(alone[part]), part


async def test_tasks_have_their_statuses(master: Served) -> None:
    """A task shows the status of each state it was in, acknowledged or not, and who it runs as."""
    async with busy(master) as framework:
        tasks = json.loads(await ask(master, {"type": "GET_TASKS"}))["get_tasks"]
        [runs], [ended] = tasks["tasks"], tasks["completed_tasks"]
        assert [status["state"] for status in runs["statuses"]] == ["TASK_RUNNING"]
        assert [status["state"] for status in ended["statuses"]][-1] == "TASK_KILLED"
        assert ended["state"] == "TASK_KILLED" and runs["user"] == "tester"
        assert runs["framework_id"]["value"] == framework.framework_id and "status_update_uuid" not in runs


async def test_roles_have_members_and_resources(master: Served) -> None:
    """Each role names its frameworks and what is used or offered in it."""
    async with busy(master) as framework:
        roles = {
            role["name"]: role for role in json.loads(await ask(master, {"type": "GET_ROLES"}))["get_roles"]["roles"]
        }
        assert sorted(roles) == ["*", "blue", "green"]
        assert [one["value"] for one in roles["green"]["frameworks"]] == [framework.framework_id]
        used = [role for role in ("blue", "green") if roles[role].get("resources")]
        assert len(used) >= 1 and roles["*"]["resources"] and roles["*"]["weight"] == 1.0


async def test_flags_are_the_settings(master: Served) -> None:
    """GET_FLAGS has every setting by its name in the file, with the value that holds."""
    flags = json.loads(await ask(master, {"type": "GET_FLAGS"}))["get_flags"]["flags"]
    values = {flag["name"]: flag.get("value") for flag in flags}
    assert values["agents.beat_interval_s"] == "15.0" and values["insecure"] == "false"
    assert values["http"] == "127.0.0.1:0" and "log.level" in values and "log" not in values


async def test_metrics_keep_mesos_names(master: Served) -> None:
    """GET_METRICS, with the timeout that clients send, has Mesos' names; `/metrics/snapshot` has the same ones."""
    async with busy(master):
        call: Json = {"type": "GET_METRICS", "get_metrics": {"timeout": {"nanoseconds": 5_000_000_000}}}
        told = json.loads(await ask(master, call, "/api/v1/operator"))["get_metrics"]["metrics"]
        values = {metric["name"]: metric["value"] for metric in told}
        assert values["master/tasks_running"] == 1 and values["master/tasks_killed"] == 1
        assert values["master/slaves_active"] == 2 and values["master/frameworks_active"] == 2
        assert values["master/cpus_used"] > 0 and values["master/elected"] == 1
        async with aiohttp.request("GET", master.url + "/metrics/snapshot") as answer:
            assert (await answer.json()).keys() == values.keys()
