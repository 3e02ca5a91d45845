"""Status updates, reconciliation, kills (Mesos v1 contract, sections 6.1, 6.2, 6.5).

A test's name begins with the section of its "must" row. The master is real; agents answer from memory.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.fake_agent import FakeAgent, finishes
from support.master import NOWHERE, Framework, running_master, task

from edgerm.core.tasks import TaskState
from edgerm.wire.v1 import tasks_pb2
from edgerm_master.core import updating
from edgerm_master.main import Served

PARTITION_AWARE = {"capabilities": [{"type": "PARTITION_AWARE"}]}
LASTING = {**PARTITION_AWARE, "failover_timeout": 1000.0}

# --- 6.1 updates ------------------------------------------------------------------------------------------------


async def test_6_1_updates_come_in_order_one_at_a_time(master: Served) -> None:
    """Only the oldest unacknowledged update of a task is sent; the ack releases the next at once."""
    async with FakeAgent(master.url, on_launch=finishes) as agent, Framework(master.url) as framework:
        offer = await framework.offer()
        await framework.launch(offer, task(offer, "t"))
        first = await framework.status()
        assert first["state"] == "TASK_RUNNING" and first["uuid"]
        assert first["agent_id"]["value"] == agent.agent_id and first["task_id"]["value"] == "t"
        await agent.until(lambda agent: not agent.half._pending)  # the master has both updates
        await framework.call("RECONCILE", tasks=[])
        assert (await framework.status())["reason"] == "REASON_RECONCILIATION"
        await framework.acknowledge(first)
        assert (await framework.status())["state"] == "TASK_FINISHED"


async def test_6_1_updates_of_the_master_have_no_uuid(master: Served) -> None:
    """What the master itself says of a task has no `uuid` field at all."""
    async with Framework(master.url) as framework:
        await framework.call("RECONCILE", tasks=[{"task_id": {"value": "never"}}])
        assert "uuid" not in await framework.status()


async def test_6_1_an_update_is_told_again_until_it_is_acknowledged(
    master: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without an ack the same content comes again with the same uuid, first after 10 s; the ack ends that."""
    assert (updating.RETRY_FIRST_S, updating.RETRY_MAX_S) == (10.0, 600.0)
    monkeypatch.setattr(updating, "RETRY_FIRST_S", 0.02)
    async with FakeAgent(master.url), Framework(master.url) as framework:
        offer = await framework.offer()
        await framework.launch(offer, task(offer, "t"))
        told = [await framework.status() for _ in range(3)]
        assert told[0]["uuid"] and told == [told[0]] * 3
        assert await framework.acknowledge(told[0]) == 202
        await framework.call("RECONCILE", tasks=[])
        while "uuid" in (status := await framework.status()):
            assert status == told[0]  # told before the ack came
        assert status["reason"] == "REASON_RECONCILIATION"
        await framework.hears_nothing()


async def test_6_1_late_and_repeated_acks_are_202_and_ignored(master: Served) -> None:
    """An ack that comes twice changes nothing."""
    async with FakeAgent(master.url) as agent, Framework(master.url) as framework:
        offer = await framework.offer()
        await framework.launch(offer, task(offer, "t"))
        status = await framework.status()
        assert await framework.acknowledge(status) == 202
        assert await framework.acknowledge(status) == 202
        agent.report(agent.launches[0].key, TaskState.FINISHED)
        assert (await framework.status())["state"] == "TASK_FINISHED"


async def test_6_1_a_completed_task_stays_known_until_it_is_acknowledged(tmp_path: Path) -> None:
    """A terminal task answers reconciliation until its update is acknowledged; then the agent may forget it."""
    async with (
        running_master(tmp_path, agents={"beat_interval_s": 0.1}) as master,
        FakeAgent(master.url, on_launch=finishes) as agent,
        Framework(master.url) as framework,
    ):
        offer = await framework.offer()
        await framework.launch(offer, task(offer, "t"))
        await framework.acknowledge(await framework.status())
        last = await framework.status()
        await framework.call("RECONCILE", tasks=[])
        assert (await framework.status())["state"] == "TASK_FINISHED"
        assert not agent.forgotten
        await framework.acknowledge(last)
        await agent.until(lambda agent: bool(agent.forgotten))


# --- 6.2 reconciliation -----------------------------------------------------------------------------------------


async def test_6_2_explicit_reconciliation(master: Served) -> None:
    """Known: its state; unknown on a known agent: gone; elsewhere: unknown; all by the master."""
    async with FakeAgent(master.url) as agent, Framework(master.url, PARTITION_AWARE) as framework:
        offer = await framework.offer()
        await framework.launch(offer, task(offer, "known"))
        await framework.acknowledge(await framework.status())
        here = {"value": agent.agent_id}
        for asked, state in (
            ({"task_id": {"value": "known"}}, "TASK_RUNNING"),
            ({"task_id": {"value": "never"}, "agent_id": here}, "TASK_GONE"),
            ({"task_id": {"value": "never"}, "agent_id": NOWHERE}, "TASK_UNKNOWN"),
            ({"task_id": {"value": "never"}}, "TASK_UNKNOWN"),
        ):
            await framework.call("RECONCILE", tasks=[asked])
            status = await framework.status()
            assert (status["state"], status["source"]) == (state, "SOURCE_MASTER")
            assert status["reason"] == "REASON_RECONCILIATION"


async def test_6_2_answers_carry_neither_uuid_nor_data_nor_labels(master: Served) -> None:
    """What the executor said with its update stands in the update alone, acknowledged or not."""
    labels = {"labels": [{"key": "k", "value": "v"}]}
    extra = tasks_pb2.TaskStatus(data=b"from the executor")
    extra.labels.labels.add(key="k", value="v")
    async with (
        FakeAgent(master.url, extra=extra.SerializePartialToString()),
        Framework(master.url) as framework,
    ):
        offer = await framework.offer()
        await framework.launch(offer, task(offer, "t", labels=labels, data="AAAA"))
        update = await framework.status()
        assert update["labels"] == labels and {"uuid", "data"} <= set(update)
        for acknowledged in (False, True):
            if acknowledged:
                await framework.acknowledge(update)
            for asked in ([], [{"task_id": {"value": "t"}}]):
                await framework.call("RECONCILE", tasks=asked)
                status = await framework.status()
                assert status["state"] == "TASK_RUNNING"
                assert not {"uuid", "data", "labels"} & set(status)


async def test_6_2_without_partition_aware_it_is_lost(master: Served) -> None:
    """Frameworks that do not know finer states are told TASK_LOST."""
    async with Framework(master.url) as framework:
        await framework.call("RECONCILE", tasks=[{"task_id": {"value": "never"}}])
        assert (await framework.status())["state"] == "TASK_LOST"


async def test_6_2_implicit_reconciliation(master: Served) -> None:
    """An empty list asks for every task of the framework."""
    async with FakeAgent(master.url), Framework(master.url) as framework:
        offer = await framework.offer()
        await framework.launch(offer, *(task(offer, name) for name in "abc"))
        for _ in "abc":
            await framework.acknowledge(await framework.status())
        await framework.call("RECONCILE", tasks=[])
        assert {(await framework.status())["task_id"]["value"] for _ in "abc"} == set("abc")


async def test_6_2_unknown_on_an_unreachable_agent_is_unreachable(tmp_path: Path) -> None:
    """A task that nobody knows, on an agent that is unreachable: TASK_UNREACHABLE, for it may be there."""
    beats = {"beat_interval_s": 0.1, "missed_beats": 2}
    async with running_master(tmp_path, agents=beats) as master, Framework(master.url, PARTITION_AWARE) as framework:
        async with FakeAgent(master.url) as agent:
            pass
        await framework.until("FAILURE")
        asked = {"task_id": {"value": "never"}, "agent_id": {"value": agent.agent_id}}
        await framework.call("RECONCILE", tasks=[asked])
        status = await framework.status()
        assert (status["state"], status["reason"]) == ("TASK_UNREACHABLE", "REASON_RECONCILIATION")


async def test_6_2_silence_while_an_agent_is_still_to_come(tmp_path: Path) -> None:
    """After a master's restart nothing is said of tasks on, or perhaps on, an agent that is not back; then it is."""
    async with (
        running_master(tmp_path) as master,
        FakeAgent(master.url) as agent,
        Framework(master.url, LASTING) as framework,
    ):
        offer = await framework.offer()
        await framework.launch(offer, task(offer, "t"))
        await framework.acknowledge(await framework.status())
    async with (
        running_master(tmp_path) as master,
        Framework(master.url, LASTING, framework.framework_id) as framework,
    ):
        known, never, here = {"value": "t"}, {"value": "never"}, {"value": agent.agent_id}
        asked = [{"task_id": known}, {"task_id": never}, {"task_id": never, "agent_id": here}]
        await framework.call("RECONCILE", tasks=asked)
        await framework.call("RECONCILE", tasks=[])
        await framework.hears_nothing()
        async with FakeAgent(master.url, agent_id=agent.agent_id, incarnation=2, tasks=agent.tasks):
            await framework.call("RECONCILE", tasks=asked)
            told = [await framework.status() for _ in asked]
    assert [status["state"] for status in told] == ["TASK_RUNNING", "TASK_UNKNOWN", "TASK_GONE"]


# --- 6.5 kill ---------------------------------------------------------------------------------------------------


async def test_6_5_a_kill_is_forwarded_each_time(master: Served) -> None:
    """A task that does not end is asked again with every KILL."""

    class Stubborn(FakeAgent):
        def report(self, key: Any, state: TaskState, *rest: Any, **named: Any) -> None:
            if state is not TaskState.KILLED:
                super().report(key, state, *rest, **named)

    async with Stubborn(master.url) as agent, Framework(master.url) as framework:
        offer = await framework.offer()
        await framework.launch(offer, task(offer, "t"))
        await framework.acknowledge(await framework.status())
        assert await framework.call("KILL", task_id={"value": "t"}) == 202
        await agent.until(lambda agent: len(agent.kills) == 1)
        grace = {"grace_period": {"nanoseconds": 500_000_000}}
        assert await framework.call("KILL", task_id={"value": "t"}, kill_policy=grace) == 202
        await agent.until(lambda agent: len(agent.kills) == 2)
        assert agent.kills[1].grace_s == 0.5


async def test_6_5_a_kill_with_a_wrong_agent_is_dropped(master: Served) -> None:
    """A KILL that names another agent than the task's reaches nobody."""
    async with FakeAgent(master.url) as agent, Framework(master.url) as framework:
        offer = await framework.offer()
        await framework.launch(offer, task(offer, "t"))
        await framework.acknowledge(await framework.status())
        assert await framework.call("KILL", task_id={"value": "t"}, agent_id={"value": "elsewhere"}) == 202
        await framework.call("KILL", task_id={"value": "t"}, agent_id={"value": agent.agent_id})
        assert (await framework.status())["state"] == "TASK_KILLED"
        assert len(agent.kills) == 1


async def test_6_5_a_kill_of_an_unknown_task_is_answered_as_reconciliation(master: Served) -> None:
    """KILL of a task that is not known tells what is known of it."""
    async with Framework(master.url) as framework:
        assert await framework.call("KILL", task_id={"value": "never"}) == 202
        assert (await framework.status())["state"] == "TASK_LOST"


async def test_6_5_a_kill_before_the_launch_has_left(master: Served) -> None:
    """A task whose launch the agent has not fetched is killed in the master, and the agent never hears of it."""
    async with Framework(master.url) as framework:
        async with FakeAgent(master.url) as agent:
            offer = await framework.offer()
        await framework.launch(offer, task(offer, "t"))  # the agent sleeps
        assert await framework.call("KILL", task_id={"value": "t"}) == 202
        status = await framework.status()
        assert (status["state"], status["reason"]) == ("TASK_KILLED", "REASON_TASK_KILLED_DURING_LAUNCH")
        assert (status["source"], "uuid" in status) == ("SOURCE_MASTER", False)
        async with FakeAgent(master.url, agent_id=agent.agent_id, incarnation=2) as back:
            await framework.until("RESCIND")
            framework.unread.clear()  # among them the offer that is rescinded
            rest = await framework.offer()
            await framework.launch(rest, task(rest, "next"))
            assert (await framework.status())["task_id"]["value"] == "next"
            assert [launch.key.task_id for launch in back.launches] == ["next"]
