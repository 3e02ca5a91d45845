"""The operator API: what people's commands read, kills, explanations and outputs."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path

import aiohttp
import pytest
from support.fake_agent import FakeAgent
from support.master import Framework, Json, running_master, task

from edgerm.core.ids import TaskId
from edgerm.core.link import OpenStats, TaskUsage
from edgerm_master.api import usage
from edgerm_master.api.upstream import CREDIT_BYTES
from edgerm_master.main import Served


async def ask(master: Served, kind: str, path: str = "/api/v1", **body: object) -> tuple[int, str]:
    """Status and text of the answer to an operator call."""
    message: Json = {"type": kind, **({kind.lower(): body} if body else {})}
    async with aiohttp.request("POST", master.url + path, json=message) as answer:
        return answer.status, await answer.text()


async def ask_own(master: Served, kind: str, **body: object) -> Json:
    """The body of the answer to one of our own calls, which must succeed."""
    status, text = await ask(master, kind, "/api/v1/edgerm", **body)
    assert status == 200, text
    answer: Json = json.loads(text)[kind.lower()]
    return answer


async def test_state_shows_agents_frameworks_and_tasks(master: Served) -> None:
    """GET_STATE has what runs where, with ids, resources and states."""
    async with FakeAgent(master.url) as agent, Framework(master.url) as framework:
        offer = await framework.offer()
        await framework.launch(offer, task(offer, "t", labels={"labels": [{"key": "k", "value": "v"}]}))
        await framework.status()
        state = json.loads((await ask(master, "GET_STATE"))[1])["get_state"]
        [shown] = state["get_agents"]["agents"]
        assert shown["agent_info"]["id"]["value"] == agent.agent_id and shown["link_state"] == "joined"
        assert shown["allocated_resources"] == [{"name": "cpus", "type": "SCALAR", "scalar": {"value": 0.1}}]
        [known] = state["get_frameworks"]["frameworks"]
        assert known["framework_info"]["id"]["value"] == framework.framework_id and known["connected"]
        [running] = state["get_tasks"]["tasks"]
        assert (running["task_id"]["value"], running["state"]) == ("t", "TASK_RUNNING")
        assert running["labels"]["labels"] == [{"key": "k", "value": "v"}]


@pytest.mark.parametrize("kind", ["GET_VERSION", "GET_METRICS", "GET_MASTER", "GET_EXECUTORS", "GET_OPERATIONS"])
async def test_small_queries_answer(master: Served, kind: str) -> None:
    """Each answers with its own body, which is there even when it is empty."""
    status, text = await ask(master, kind)
    assert status == 200 and kind.lower() in json.loads(text)


@pytest.mark.parametrize(
    ("kind", "status"), [("LIST_FILES", 501), ("GET_QUOTA", 501), ("UNKNOWN", 501), ("NONSENSE", 400)]
)
async def test_calls_that_are_not_built(master: Served, kind: str, status: int) -> None:
    """A known call that is not built is 501; one that nobody knows is 400."""
    assert (await ask(master, kind))[0] == status


async def test_teardown_ends_a_framework(master: Served) -> None:
    """The operator's TEARDOWN ends the framework's stream; for an unknown one it is 400."""
    async with Framework(master.url) as framework:
        assert (await ask(master, "TEARDOWN", framework_id={"value": framework.framework_id}))[0] == 200
        with pytest.raises(EOFError):
            await framework.until("nothing more")
    assert (await ask(master, "TEARDOWN", framework_id={"value": "never"}))[0] == 400


async def test_kill_by_a_unique_beginning(master: Served) -> None:
    """A kill takes a unique beginning of the id; its framework is told; an ambiguous one is 409 with the choices."""
    async with FakeAgent(master.url), Framework(master.url) as framework:
        offer = await framework.offer()
        await framework.launch(offer, task(offer, "alpha"), task(offer, "alps"))
        for _ in range(2):
            await framework.acknowledge(await framework.status())
        status, text = await ask(master, "KILL_TASK", "/api/v1/edgerm", task_id={"value": "al"})
        assert status == 409 and "alpha" in text and "alps" in text
        killed = await ask_own(master, "KILL_TASK", task_id={"value": "alph"}, grace_period_s=0.5)
        assert killed == {"state": "TASK_RUNNING"}
        told = await framework.status()
        assert (told["task_id"]["value"], told["state"]) == ("alpha", "TASK_KILLED")
    assert (await ask(master, "KILL_TASK", "/api/v1/edgerm", task_id={"value": "never"}))[0] == 404


async def test_explain_says_why(master: Served) -> None:
    """Reason codes for a framework without offers, and for a task."""
    async with Framework(master.url) as framework:
        why = await ask_own(master, "EXPLAIN", framework_id={"value": framework.framework_id})
        assert [reason["code"] for reason in why["reasons"]] == ["no-agents"]
        async with FakeAgent(master.url) as agent:
            offer = await framework.offer()
            why = await ask_own(master, "EXPLAIN", framework_id={"value": framework.framework_id})
            assert [reason["code"] for reason in why["reasons"]] == ["offered"]
            await framework.launch(offer, task(offer, "t"))
            await framework.acknowledge(await framework.status())
            why = await ask_own(master, "EXPLAIN", task_id={"value": "t"})
            assert why["reasons"][0]["code"] == "running"
            assert why["reasons"][0]["agent_id"]["value"] == agent.agent_id


async def test_open_offers_are_listed(master: Served) -> None:
    """GET_OFFERS shows what nobody has answered."""
    async with FakeAgent(master.url), Framework(master.url) as framework:
        offer = await framework.offer()
        listed = await ask_own(master, "GET_OFFERS")
        assert [entry["offer"]["id"] for entry in listed["offers"]] == [offer["id"]]


async def read_log(master: Served, **body: object) -> tuple[bytes, bool]:
    """The bytes of a READ_LOG, and whether they were said to be the end."""
    message = {"type": "READ_LOG", "read_log": {"task_id": {"value": "t"}, **body}}
    data, end, expected = b"", False, None
    async with aiohttp.request("POST", master.url + "/api/v1/edgerm", json=message) as answer:
        assert answer.status == 200, await answer.text()
        while line := await answer.content.readline():
            record = json.loads(await answer.content.readexactly(int(line)))["read_log"]
            assert expected in (None, record["offset"])
            data += base64.b64decode(record.get("data", ""))
            expected = record["offset"] + len(base64.b64decode(record.get("data", "")))
            end = record["end"]
    return data, end


async def test_logs_are_streamed_within_credit(master: Served) -> None:
    """An output of many times the credit comes whole and in order; a limit and an offset are kept."""
    output = bytes(range(256)) * (CREDIT_BYTES // 64)
    async with FakeAgent(master.url, output=output) as agent, Framework(master.url) as framework:
        offer = await framework.offer()
        await framework.launch(offer, task(offer, "t"))
        await framework.status()
        assert await read_log(master) == (output, True)
        assert await read_log(master, max_bytes=1000) == (output[:1000], False)
        assert await read_log(master, offset=-10) == (output[-10:], True)
        agent.tasks.clear()
        status, text = await ask(master, "READ_LOG", "/api/v1/edgerm", task_id={"value": "t"})
        assert status == 404 and "not found" in text


async def test_logs_of_an_agent_that_is_away_are_503(tmp_path: Path) -> None:
    """Who cannot be reached is said at once, not after a deadline."""
    beats = {"beat_interval_s": 0.1, "missed_beats": 2}
    async with running_master(tmp_path, agents=beats) as master, Framework(master.url) as framework:
        async with FakeAgent(master.url):
            offer = await framework.offer()
            await framework.launch(offer, task(offer, "t"))
            await framework.status()
        await framework.until("FAILURE")
        status, text = await ask(master, "READ_LOG", "/api/v1/edgerm", task_id={"value": "t"})
        assert status == 503 and "not connected" in text


async def test_stats_come_from_the_agents(master: Served) -> None:
    """READ_STATS asks an agent once for all who ask together; a task that it does not know is not listed."""
    async with FakeAgent(master.url) as agent, Framework(master.url) as framework:
        assert await ask_own(master, "READ_STATS", framework_id={"value": framework.framework_id}) == {}
        offer = await framework.offer()
        await framework.launch(offer, task(offer, "t"), task(offer, "quiet"))
        for _ in range(2):
            await framework.status()
        key = next(key for key in agent.tasks if key.task_id == "t")
        agent.usages = (TaskUsage(key, 12.5, 1500, 1 << 20), TaskUsage(key._replace(task_id=TaskId("x")), 1, 1, 1))
        body: Json = {"type": "READ_STATS", "read_stats": {}}
        answers = await asyncio.gather(*(post_own(master, body) for _ in range(3)))
        expected = {
            "framework_id": {"value": framework.framework_id},
            "task_id": {"value": "t"},
            "launch_id": key.launch_id,
            "agent_id": {"value": agent.agent_id},
            "cpu_s": 12.5,
            "cpus": 1.5,
            "memory_bytes": 1 << 20,
        }
        for answer in answers:
            assert answer["read_stats"]["tasks"] == [expected]
        assert (await ask_own(master, "READ_STATS", task_id={"value": "qui"})) == {}
        assert len([opened for opened in agent.opened if isinstance(opened, OpenStats)]) == 1
        assert (await ask(master, "READ_STATS", "/api/v1/edgerm", task_id={"value": "never"}))[0] == 404


async def post_own(master: Served, body: Json) -> Json:
    """The answer to one of our own calls, which must succeed."""
    async with aiohttp.request("POST", master.url + "/api/v1/edgerm", json=body) as answer:
        assert answer.status == 200, await answer.text()
        told: Json = await answer.json()
        return told


async def test_agents_that_do_not_answer_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stats of the others are told; the silent agent and the one that is away are named with the reason."""
    monkeypatch.setattr(usage, "DEADLINE_S", 0.5)
    beats = {"beat_interval_s": 0.1, "missed_beats": 3}
    async with (
        running_master(tmp_path, agents=beats) as master,
        Framework(master.url, info={"capabilities": [{"type": "PARTITION_AWARE"}]}) as framework,
        FakeAgent(master.url) as good,
        FakeAgent(master.url, usages=None) as silent,
    ):
        async with FakeAgent(master.url) as away:
            for task_id in ("a", "b", "c"):
                offer = await framework.offer()
                await framework.launch(offer, task(offer, task_id))
                await framework.acknowledge(await framework.status())
        await framework.until("FAILURE")
        [key] = good.tasks
        good.usages = (TaskUsage(key, 1.0, 0, 1),)
        told = (await post_own(master, {"type": "READ_STATS", "read_stats": {}}))["read_stats"]
        assert [used["task_id"]["value"] for used in told["tasks"]] == [key.task_id]
        reasons = {missing["agent_id"]["value"]: missing["reason"] for missing in told["missing"]}
        assert reasons.keys() == {silent.agent_id, away.agent_id}
        assert "not connected" in reasons[away.agent_id]
        assert "did not answer" in reasons[silent.agent_id]
