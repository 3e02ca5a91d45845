"""The short way against a real master over HTTP; the agent answers from memory."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.fake_agent import FakeAgent, finishes

from edgerm.core.errors import Invalid, Unavailable
from edgerm.core.tasks import TaskState
from edgerm.sdk import Cluster, connect, framework
from edgerm.sdk.driver import Driver
from edgerm.sdk.scheduler import Scheduler
from edgerm_frameworks.modules import WINDOWED_STATS
from edgerm_master.main import Served


class Unforgotten(dict[Any, Any]):
    """Tasks whose output can be read after the master said that they may be forgotten, as a real agent's can."""

    def pop(self, key: Any, default: Any = None) -> Any:
        """Keep it."""
        return self.get(key, default)


async def test_a_task_runs_to_its_end_and_its_output_comes_back(master: Served) -> None:
    """`run` uploads the module, launches, waits for the end and fetches stdout."""
    remembering = FakeAgent(master.url, on_launch=finishes, output=b"1 2 3\n", tasks=Unforgotten())
    async with remembering as agent, connect(master.url) as cluster:
        result = await cluster.run(wasm=WINDOWED_STATS, args=["2"], input=b"1\n2\n", name="stats")
        assert (result.ok, result.state, result.output) == (True, TaskState.FINISHED, b"1 2 3\n")
        launched = agent.launches[0].task
        assert launched.executor == "wasm"
        assert [blob.size_bytes for blob in launched.blobs] == [WINDOWED_STATS.stat().st_size, 4]


async def test_many_tasks_share_offers(master: Served) -> None:
    """Hundreds of tasks are launched in few calls and all end."""
    resources = "cpus:64;mem:65536;ports:[31000-32000]"
    async with FakeAgent(master.url, resources, finishes), connect(master.url) as cluster:
        results = await asyncio.gather(*(cluster.run(process=["/bin/true"], name=f"t{n}") for n in range(300)))
        assert {result.state for result in results} == {TaskState.FINISHED}


async def test_tasks_that_do_not_fit_wait_for_room(master: Served) -> None:
    """A task for which there is no room now is placed when another one has ended."""
    async with FakeAgent(master.url, "cpus:1;mem:64") as agent, connect(master.url) as cluster:
        first = await cluster.launch(process=["/bin/true"], cpus=1, mem=32)
        await first.started()
        second = await cluster.launch(process=["/bin/true"], cpus=1, mem=32)
        key = agent.launches[0].key
        agent.report(key, TaskState.FINISHED)
        assert (await first.ended()).state is TaskState.FINISHED
        assert (await second.started()).state is TaskState.RUNNING


async def test_cancelling_a_run_kills_its_task(master: Served) -> None:
    """A cancelled `run` asks for the task's end and returns only after it."""
    async with FakeAgent(master.url) as agent, connect(master.url) as cluster:
        run = asyncio.create_task(cluster.run(process=["/bin/sleep", "1000"]))
        await agent.until(lambda agent: bool(agent.launches))
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        assert [kill.key for kill in agent.kills] == [agent.launches[0].key]


async def test_a_task_without_a_place_is_killed_at_once(master: Served) -> None:
    """Where no agent is, a kill needs nobody's answer."""
    async with connect(master.url) as cluster:
        handle = await cluster.launch(process=["/bin/true"])
        assert (await handle.kill()).state is TaskState.KILLED


async def test_leaving_the_block_ends_what_runs(master: Served) -> None:
    """The cluster's framework is torn down with its tasks."""
    async with FakeAgent(master.url) as agent:
        async with connect(master.url) as cluster:
            await (await cluster.launch(process=["/bin/sleep", "1000"])).started()
        await agent.until(lambda agent: bool(agent.kills))
    assert not master.shell.core.frameworks


async def test_leaving_without_teardown_keeps_tasks_for_a_later_process(master: Served) -> None:
    """A framework that only left comes back by its id, and hears of tasks that it watches."""
    spec = framework("comes back")
    async with FakeAgent(master.url):
        cluster = await Cluster(master.url, spec).__aenter__()
        handle = await cluster.launch(process=["/bin/sleep", "1000"])
        await handle.started()
        await cluster.close()
        assert cluster.framework_id in master.shell.core.frameworks
        async with Cluster(master.url, spec, cluster.framework_id) as later:
            (task,) = (await later.operator.tasks()).tasks
            assert task.task_id.value == handle.task_id


async def test_no_master_is_said_at_once() -> None:
    """Connecting to nothing raises one line that names the address."""
    with pytest.raises(Unavailable, match=r"cannot reach http://127\.0\.0\.1:1: "):
        async with connect("http://127.0.0.1:1"):
            pass


async def test_options_that_fit_no_task_change_nothing(master: Served) -> None:
    """Neither a module nor a program, or a file that is not there, is `Invalid`."""
    async with connect(master.url) as cluster:
        with pytest.raises(Invalid, match="one of wasm="):
            await cluster.launch(name="nothing")
        with pytest.raises(Invalid, match="cannot read"):
            await cluster.launch(wasm="/nowhere/m.wasm")


async def test_json_carries_the_same_session(master: Served) -> None:
    """A driver that speaks JSON subscribes and ends like one that speaks protobuf."""
    async with Driver(Scheduler(), master.url, framework("json"), json=True, patient=False) as driver:
        assert await driver.subscribed() in master.shell.core.frameworks
        driver.session.teardown()
        await driver.ended()
    assert not master.shell.core.frameworks
