"""Subscribing, failing over, tearing down, and roles (Mesos v1 contract, sections 6.3 and 6.7).

A test's name begins with the section of its "must" row. The master is real; agents answer from memory.
"""

from __future__ import annotations

from pathlib import Path

import aiohttp
import pytest
from support.fake_agent import FakeAgent
from support.master import INFO, Framework, Json, post, running_master, task

from edgerm.core.tasks import TaskState
from edgerm_master.api import event_stream
from edgerm_master.main import Served

MULTI_ROLE = [{"type": "MULTI_ROLE"}]


@pytest.fixture
def no_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused streams end at once."""
    monkeypatch.setattr(event_stream, "REFUSED_HOLD_S", 0.0)


async def refusal(http: aiohttp.ClientSession, master: Served, info: Json) -> str:
    """The whole answer to this SUBSCRIBE, which must be a refusal."""
    body: Json = {"type": "SUBSCRIBE", "subscribe": {"framework_info": {**INFO, **info}}}
    if "id" in info:
        body["framework_id"] = info["id"]
    status, text = await post(http, master, body)
    assert status == 200 and '"type":"ERROR"' in text
    return text


# --- 6.3 subscription -------------------------------------------------------------------------------------------


async def test_6_3_resubscription(master: Served) -> None:
    """Coming back keeps tasks, gives a new stream id, voids the old one, and ends a live old stream with an ERROR."""
    async with FakeAgent(master.url), Framework(master.url, {"failover_timeout": 1000.0}) as old:
        offer = await old.offer()
        await old.launch(offer, task(offer, "t"))
        await old.acknowledge(await old.status())
        async with Framework(master.url, {"failover_timeout": 1000.0}, old.framework_id) as new:
            assert new.framework_id == old.framework_id and new.stream_id != old.stream_id
            assert (await old.until("ERROR"))["error"]["message"] == "Framework failed over"
            with pytest.raises(EOFError):
                await old.next()
            assert await old.call("REVIVE") == 400
            await new.call("RECONCILE", tasks=[])
            assert (await new.status())["state"] == "TASK_RUNNING"


async def test_6_3_outstanding_offers_are_discarded_without_rescind(master: Served) -> None:
    """On the new stream the old offers are neither rescinded nor usable."""
    async with FakeAgent(master.url), Framework(master.url) as old:
        stale = await old.offer()
        async with Framework(master.url, {}, old.framework_id) as new:
            fresh = await new.event("OFFERS")
            assert fresh["offers"]["offers"][0]["id"] != stale["id"]
            await new.launch(stale, task(stale, "t"))
            assert (await new.status())["reason"] == "REASON_INVALID_OFFERS"


async def test_6_3_suppressed_roles_are_replaced(master: Served) -> None:
    """Each SUBSCRIBE says anew which roles are suppressed; saying nothing means none."""
    async with FakeAgent(master.url), Framework(master.url, suppressed=["*"]) as silent:
        await silent.hears_nothing()
        async with Framework(master.url, {}, silent.framework_id) as open_again:
            await open_again.offer()
            async with Framework(master.url, {}, silent.framework_id, suppressed=["*"]) as silent_again:
                await silent_again.hears_nothing()


@pytest.mark.usefixtures("no_hold")
async def test_6_3_the_principal_cannot_change(master: Served, http: aiohttp.ClientSession) -> None:
    """A SUBSCRIBE of a known id with another principal is refused, and the framework goes on undisturbed."""
    async with Framework(master.url, {"principal": "one"}) as framework:
        for other in ({"principal": "two"}, {}):
            assert "principal" in await refusal(http, master, {"id": {"value": framework.framework_id}, **other})
        await framework.hears_nothing()


@pytest.mark.usefixtures("no_hold")
async def test_6_3_teardown_ends_tasks_and_the_id_for_good(master: Served, http: aiohttp.ClientSession) -> None:
    """After TEARDOWN the stream ends, the tasks are killed, and the id can never subscribe again."""
    async with FakeAgent(master.url) as agent, Framework(master.url, {"failover_timeout": 1000.0}) as framework:
        offer = await framework.offer()
        await framework.launch(offer, task(offer, "t"))
        await framework.status()
        assert await framework.call("TEARDOWN") == 202
        with pytest.raises(EOFError):
            await framework.until("nothing more")
        assert not [event for event in framework.unread if event["type"] == "ERROR"]  # it was its own will
        await agent.until(lambda agent: bool(agent.kills))
        text = await refusal(http, master, {"id": {"value": framework.framework_id}})
        assert "Framework has been removed" in text


async def test_6_3_an_unknown_id_is_accepted_with_its_tasks(tmp_path: Path) -> None:
    """An id that the master has not seen is taken: the framework was another master's, and its tasks are its own."""
    async with (
        running_master(tmp_path / "lost") as lost,
        FakeAgent(lost.url) as agent,
        Framework(lost.url, {"failover_timeout": 1000.0}) as framework,
    ):
        offer = await framework.offer()
        await framework.launch(offer, task(offer, "t"))
        await framework.acknowledge(await framework.status())
    async with running_master(tmp_path / "new") as master:
        moved = FakeAgent(master.url, agent_id=agent.agent_id, incarnation=2, tasks=agent.tasks)
        async with moved, Framework(master.url, {}, framework.framework_id) as returned:
            assert returned.framework_id == framework.framework_id
            await returned.call("RECONCILE", tasks=[])
            status = await returned.status()
            assert (status["task_id"]["value"], status["state"]) == ("t", "TASK_RUNNING")
            moved.report(next(iter(moved.tasks)), TaskState.FINISHED)
            status = await returned.status()
            assert status["state"] == "TASK_FINISHED" and status["uuid"]
            assert not moved.kills


async def test_6_3_without_failover_timeout_a_disconnect_ends_the_framework(master: Served) -> None:
    """The default timeout is 0: the framework's tasks are killed when its stream breaks."""
    async with FakeAgent(master.url) as agent, Framework(master.url) as framework:
        offer = await framework.offer()
        await framework.launch(offer, task(offer, "t"))
        await framework.status()
        framework.answer.close()
        await agent.until(lambda agent: bool(agent.kills))


# --- 6.7 roles --------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_hold")
@pytest.mark.parametrize(
    "role", ["", "-bad", ".", "..", "a b", "a\tb", "a\nb", "a\bb", "/a", "a/", "a//b", "a/./b", "a/../b", "a/-b"]
)
async def test_6_7_bad_role_names_are_refused(master: Served, http: aiohttp.ClientSession, role: str) -> None:
    """No level of a role is empty, `.` or `..`, begins with `-`, or has whitespace or a backspace."""
    await refusal(http, master, {"role": role})
    await refusal(http, master, {"roles": ["good", role], "capabilities": MULTI_ROLE})


@pytest.mark.parametrize("role", ["*", "a", "a-b", "a.b", "a/b/c", "größe"])
async def test_6_7_good_role_names_are_taken(master: Served, role: str) -> None:
    """Everything else is a role, and gets offers."""
    async with FakeAgent(master.url), Framework(master.url, {"role": role}) as framework:
        await framework.offer()


@pytest.mark.usefixtures("no_hold")
@pytest.mark.parametrize("info", [{"roles": ["a"]}, {"role": "a", "capabilities": MULTI_ROLE}])
async def test_6_7_role_or_roles(master: Served, http: aiohttp.ClientSession, info: Json) -> None:
    """Without MULTI_ROLE `roles` must be empty, with it `role` must be unset."""
    await refusal(http, master, info)


@pytest.mark.usefixtures("no_hold")
async def test_6_3_suppressed_roles_are_roles_of_the_framework(master: Served, http: aiohttp.ClientSession) -> None:
    """Suppressing a role that the framework does not have is refused."""
    body = {"type": "SUBSCRIBE", "subscribe": {"framework_info": INFO, "suppressed_roles": ["foreign"]}}
    status, text = await post(http, master, body)
    assert status == 200 and '"type":"ERROR"' in text and "foreign" in text


async def test_6_7_a_foreign_framework_hears_nothing_of_it(master: Served) -> None:
    """Two frameworks on one master have tasks of the same id, and each hears of its own."""
    async with FakeAgent(master.url) as agent, Framework(master.url) as one:
        offer = await one.offer()
        await one.launch(offer, task(offer, "same"), refuse_seconds=1000.0)
        await one.acknowledge(await one.status())
        async with Framework(master.url) as two:
            rest = await two.offer()
            await two.launch(rest, task(rest, "same"))
            await two.acknowledge(await two.status())
            agent.report(agent.launches[1].key, TaskState.FINISHED)
            assert (await two.status())["state"] == "TASK_FINISHED"
            await one.hears_nothing()
