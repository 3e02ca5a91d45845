"""A WASM host that sleeps while there is nothing to do: who wakes it, and what an agent's death then does to tasks."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest_asyncio
from support.agent import OURSELVES, AgentProcess, agent_here, agent_process, gone
from support.master import running_master

from edgerm.core.ids import FrameworkId, LaunchId, TaskId, TaskKey
from edgerm.core.tasks import TaskState
from edgerm.plugin.executor import LaunchSpec
from edgerm.sdk import Cluster, Result, connect
from edgerm_agent.cgroups import Cgroups
from edgerm_agent.cgroups.groups import Files
from edgerm_agent.executors.wasm import WasmExecutor
from edgerm_master.main import Served

DEADLINE_S = 60
MODULES = Path(__file__).parents[1] / "fixtures" / "wasm"
IDLE_S = 0.1
EXECUTORS = {"process": {"user": OURSELVES}, "wasm": {"idle_s": IDLE_S}}
ROUNDS = 6
HELD_UP_S = 0.7  # more than a host needs to wake up


@pytest_asyncio.fixture
async def master(tmp_path: Path) -> AsyncIterator[Served]:
    """A master that beats often."""
    async with running_master(tmp_path, agents={"beat_interval_s": 1.0, "missed_beats": 30}) as served:
        yield served


@pytest_asyncio.fixture
async def cluster(master: Served) -> AsyncIterator[Cluster]:
    """A framework."""
    async with asyncio.timeout(DEADLINE_S), connect(master.url) as cluster:
        yield cluster


@asynccontextmanager
async def sleepy_agent(tmp_path: Path, master: Served) -> AsyncIterator[AgentProcess]:
    """An agent in a process of its own, whose host sleeps soon."""
    (tmp_path / "agent.toml").write_text(f"[executors.wasm]\nidle_s = {IDLE_S}\n")
    async with agent_process(tmp_path / "agent", master.url, f"--config={tmp_path / 'agent.toml'}") as agent:
        yield agent


def host_pid(data_dir: Path) -> int:
    """The latest host's."""
    return int((data_dir / "wasm-host.lock").read_text())


async def run(cluster: Cluster, *args: str) -> Result:
    """A module that notes its start and its end in its sandbox, and sleeps so many milliseconds between."""
    return await cluster.run(wasm=MODULES / "ledger.wasm", args=args, cpus=0.1, mem=16)


async def test_the_host_sleeps_and_wakes(tmp_path: Path, master: Served, cluster: Cluster) -> None:
    """There is none before the first task, none after the last; a task longer than that is not disturbed."""
    data_dir = tmp_path / "agent"
    async with agent_here(data_dir, master.url, executors=EXECUTORS):
        assert not (data_dir / "wasm-host.lock").exists()
        assert (await run(cluster, str(round(5000 * IDLE_S)))).ok
        first = host_pid(data_dir)
        await gone(first)
        results = await asyncio.gather(*(run(cluster, "0") for _ in range(10)))
        assert [result.message for result in results if not result.ok] == []
        assert host_pid(data_dir) != first
        await gone(host_pid(data_dir))
    ledgers = [path.read_text() for path in data_dir.rglob("ledger")]
    assert ledgers == ["start\nend\n"] * 11


async def test_a_host_that_never_sleeps(tmp_path: Path, master: Served) -> None:
    """With idle_s = 0 it is there from the agent's start on."""
    executors = {**EXECUTORS, "wasm": {"idle_s": 0}}
    async with agent_here(tmp_path / "agent", master.url, executors=executors):
        assert Path(f"/proc/{host_pid(tmp_path / 'agent')}").exists()


async def test_an_agent_killed_beside_a_sleeping_host(tmp_path: Path, master: Served, cluster: Cluster) -> None:
    """Its successor starts none, and a task wakes one."""
    async with sleepy_agent(tmp_path, master) as agent:
        assert (await run(cluster, "0")).ok
        first = host_pid(agent.data_dir)
        await gone(first)
        await agent.end(kill=True)
        await agent.start()
        assert host_pid(agent.data_dir) == first
        assert (await run(cluster, "0")).ok
        assert host_pid(agent.data_dir) != first


async def test_a_host_that_is_awake_is_adopted(tmp_path: Path, master: Served, cluster: Cluster) -> None:
    """A killed agent's successor finds the module running, and puts the same host to sleep after its end."""
    async with sleepy_agent(tmp_path, master) as agent:
        handle = await cluster.launch(wasm=MODULES / "endless.wasm", cpus=0.1, mem=16)
        await handle.started()
        pid = host_pid(agent.data_dir)
        await agent.end(kill=True)
        await agent.start()
        assert (await handle.kill()).state is TaskState.KILLED
        assert host_pid(agent.data_dir) == pid
        await gone(pid)


async def test_an_agent_killed_while_its_host_wakes_up(tmp_path: Path, master: Served, cluster: Cluster) -> None:
    """Wherever that is between order, wake, start, end and sleep: each task runs once, and is told."""
    chance = random.Random(1)
    async with sleepy_agent(tmp_path, master) as agent:
        for _ in range(ROUNDS):
            running = asyncio.create_task(run(cluster, "50"))
            await asyncio.sleep(chance.uniform(0, HELD_UP_S))
            await agent.end(kill=True)
            await agent.start()
            assert (await running).ok
            await gone(host_pid(agent.data_dir))
        ledgers = [path.read_text() for path in agent.data_dir.rglob("ledger")]
        assert ledgers == ["start\nend\n"] * ROUNDS


async def test_what_holds_a_task_does_not_sleep(tmp_path: Path) -> None:
    """A host refuses while it keeps as much as an exit; then it ends, and is reaped; a start finds the next one."""
    executor = WasmExecutor(tmp_path, Cgroups(Files(), {}))
    key = TaskKey(FrameworkId("f"), TaskId("t"), LaunchId("1"))
    sandbox = tmp_path / "sandbox"
    sandbox.mkdir()
    spec = LaunchSpec(key, "echo", ("echo",), (), sandbox, module=MODULES / "echo.wasm")
    try:
        async with asyncio.timeout(DEADLINE_S):
            assert not await executor.awake()
            handle = await executor.start(spec)
            await executor.wait(handle)
            assert await executor.sleep() == handle.instance
            await executor.release(handle)
            pid = host_pid(tmp_path)
            slept, instance = await asyncio.gather(executor.sleep(), executor.instance())
            assert (slept, instance != handle.instance) == ("", True)
            await gone(pid)
            assert await executor.sleep() == ""
            await gone(host_pid(tmp_path))
    finally:
        await executor.shutdown(force=True)
        await executor.close()
