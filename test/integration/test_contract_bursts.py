"""Streams on which much comes at once: whoever reads is not cut off, and nobody else waits for it.

Beyond single rows of the Mesos v1 contract: 6.1 (at least once), 6.2 (an answer for each task), in great numbers.
"""

from __future__ import annotations

from pathlib import Path

import aiohttp
from support.fake_agent import FakeAgent
from support.master import NOWHERE, Framework, running_master, task

from edgerm.core.link import Launch
from edgerm.core.tasks import TaskState
from edgerm_master.main import Served

BURST = 4_000
ASKED = 20_000


def stays_staging(launch: Launch) -> tuple[TaskState, ...]:
    """The agent takes the task and says nothing of it yet."""
    return ()


async def test_a_framework_that_comes_back_gets_all_that_it_is_owed(tmp_path: Path) -> None:
    """4,000 tasks ended with 2 KiB of text each while it was away: more than waits for a slow reader, yet all come."""
    info = {"failover_timeout": 1000.0}
    limits = {"stream_bytes": BURST * 2048 // 4}
    async with (
        running_master(tmp_path, limits=limits) as master,
        FakeAgent(master.url, "cpus:100;mem:1000", on_launch=stays_staging) as agent,
    ):
        async with Framework(master.url, info) as framework:
            offer = await framework.offer()
            tasks = [task(offer, f"t{number}", cpus=0.001) for number in range(BURST)]
            assert await framework.launch(offer, *tasks) == 202
            await agent.until(lambda agent: len(agent.launches) == BURST)
        for key in list(agent.tasks):
            agent.report(key, TaskState.FINISHED, "x" * 2048)
        await agent.until(lambda agent: not agent.half._pending)
        async with Framework(master.url, info, framework.framework_id) as framework:
            told = {(status := await framework.status())["task_id"]["value"]: status for _ in range(BURST)}
    assert len(told) == BURST
    assert all(len(status["message"]) >= 2048 and status["uuid"] for status in told.values())


async def test_a_long_reconcile_is_answered_whole_and_stops_nobody(master: Served, http: aiohttp.ClientSession) -> None:
    """20,000 ids are answered one by one; calls made after the first answer are served before the last."""
    async with Framework(master.url) as framework:
        names = [f"t{number}" for number in range(ASKED)]
        asked = [{"task_id": {"value": name}, "agent_id": NOWHERE} for name in names]
        assert await framework.call("RECONCILE", tasks=asked) == 202
        answered = [(await framework.status())["task_id"]["value"]]
        async with http.get(master.url + "/health") as answer:
            assert answer.status == 200
        bad = task({"agent_id": NOWHERE}, "by the way")
        operations = [{"type": "LAUNCH", "launch": {"task_infos": [bad]}}]
        assert await framework.call("ACCEPT", offer_ids=[], operations=operations) == 202
        while len(answered) <= ASKED:
            answered.append((await framework.status())["task_id"]["value"])
    assert 0 < answered.index("by the way") < ASKED
    answered.remove("by the way")
    assert answered == names
