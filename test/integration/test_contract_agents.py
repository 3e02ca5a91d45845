"""Agents that are lost and come back, as frameworks see them (Mesos v1 contract, section 6.6).

A test's name begins with the section of its "must" row. The master is real; agents answer from memory.
"""

from __future__ import annotations

from pathlib import Path

from support.fake_agent import FakeAgent
from support.master import Framework, running_master, task


async def test_6_4_and_6_6_a_lost_agent(tmp_path: Path) -> None:
    """A silent agent: its offers are rescinded, FAILURE, TASK_LOST with REASON_AGENT_REMOVED and no uuid."""
    beats = {"beat_interval_s": 0.2, "missed_beats": 3}
    async with running_master(tmp_path, agents=beats) as master, Framework(master.url) as framework:
        async with FakeAgent(master.url) as agent:
            offer = await framework.offer()
            await framework.launch(offer, task(offer, "t"), refuse_seconds=0.0)
            await framework.acknowledge(await framework.status())
            rest = await framework.offer()
        told = {(event := await framework.next())["type"]: event for _ in range(3)}
        assert told["RESCIND"]["rescind"]["offer_id"] == rest["id"]
        assert told["FAILURE"]["failure"] == {"agent_id": {"value": agent.agent_id}}
        status = told["UPDATE"]["update"]["status"]
        assert (status["state"], status["reason"]) == ("TASK_LOST", "REASON_AGENT_REMOVED")
        assert "uuid" not in status


async def test_6_6_an_agent_that_returns_brings_its_tasks_back(tmp_path: Path) -> None:
    """The tasks of an agent that comes back are kept, and the framework is told their present state."""
    beats = {"beat_interval_s": 0.2, "missed_beats": 3}
    info = {"capabilities": [{"type": "PARTITION_AWARE"}]}
    async with running_master(tmp_path, agents=beats) as master, Framework(master.url, info) as framework:
        async with FakeAgent(master.url) as agent:
            offer = await framework.offer()
            await framework.launch(offer, task(offer, "t"))
            await framework.acknowledge(await framework.status())
        assert (await framework.status())["state"] == "TASK_UNREACHABLE"
        back = FakeAgent(master.url, agent_id=agent.agent_id, incarnation=2, tasks=agent.tasks)
        async with back:
            status = await framework.status()
            assert (status["state"], status["reason"]) == ("TASK_RUNNING", "REASON_AGENT_REREGISTERED")
            assert not back.kills


async def test_6_6_what_is_owed_waits_while_the_agent_is_unreachable(tmp_path: Path) -> None:
    """After TASK_UNREACHABLE no older update is told, not even on a new stream; it is once the agent is back."""
    beats = {"beat_interval_s": 0.2, "missed_beats": 3}
    info = {"capabilities": [{"type": "PARTITION_AWARE"}], "failover_timeout": 1000.0}
    async with running_master(tmp_path, agents=beats) as master, Framework(master.url, info) as old:
        async with FakeAgent(master.url) as agent:
            offer = await old.offer()
            await old.launch(offer, task(offer, "t"))
            owed = await old.status()
        assert (await old.status())["state"] == "TASK_UNREACHABLE"
        async with Framework(master.url, info, old.framework_id) as new:
            await new.hears_nothing()
            async with FakeAgent(master.url, agent_id=agent.agent_id, incarnation=2, tasks=agent.tasks):
                status = await new.status()
                assert (status["state"], status["reason"]) == ("TASK_RUNNING", "REASON_AGENT_REREGISTERED")
                assert await new.status() == owed
