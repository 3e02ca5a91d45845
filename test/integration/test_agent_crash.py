"""What an agent's end, of whatever kind, does to its tasks: nothing, unless its lifeline says so."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio
from support.agent import OURSELVES, AgentProcess, agent_process, gone, sweep
from support.master import Framework, status_of, task

from edgerm.sdk import Cluster
from edgerm.sdk import framework as spec
from edgerm_agent.keeper import members
from edgerm_master.main import Served

DEADLINE_S = 30
MODULES = Path(__file__).parents[1] / "fixtures" / "wasm"


@pytest_asyncio.fixture
async def agent(tmp_path: Path, master: Served) -> AsyncIterator[AgentProcess]:
    """An agent of that master, in a process of its own."""
    async with agent_process(tmp_path / "agent", master.url) as process:
        yield process


@pytest_asyncio.fixture
async def framework(master: Served) -> AsyncIterator[Framework]:
    """A framework."""
    async with Framework(master.url) as framework:
        yield framework


async def launch(framework: Framework, folder: Path, code: int) -> int:
    """A task that tells its pid, then waits at a FIFO, then exits with `code`; its pid."""
    os.mkfifo(folder / "told")
    os.mkfifo(folder / "go")
    script = f"echo $$ started >> {folder}/ledger; echo $$ > {folder}/told; read x < {folder}/go; exit {code}"
    offer = await framework.offer()
    await framework.launch(offer, task(offer, "t1", command={"value": script}))
    assert (await status_of(framework))["state"] == "TASK_RUNNING"
    return int(await asyncio.to_thread((folder / "told").read_text))


async def test_a_killed_agent_takes_its_task_back(agent: AgentProcess, framework: Framework, tmp_path: Path) -> None:
    """After kill -9 and a new start the same process runs on, is told as running once, and its exit code is kept."""
    pid = await launch(framework, tmp_path, 7)
    first_id = agent.agent_id
    await agent.end(kill=True)
    await agent.start()
    assert agent.agent_id == first_id
    assert members.is_alive(pid)
    await asyncio.to_thread((tmp_path / "go").write_text, "go\n")
    status = await status_of(framework)
    assert (status["state"], status["exit_code"]) == ("TASK_FAILED", 7)
    assert (tmp_path / "ledger").read_text() == f"{pid} started\n"


async def test_a_task_ends_while_its_agent_is_away(agent: AgentProcess, framework: Framework, tmp_path: Path) -> None:
    """A task that ended between a SIGTERM and the next start is told with its exit code; the SIGTERM ended nothing."""
    pid = await launch(framework, tmp_path, 9)
    assert await agent.end() == 0
    assert members.is_alive(pid)
    await asyncio.to_thread((tmp_path / "go").write_text, "go\n")
    await gone(pid)
    await agent.start()
    status = await status_of(framework)
    assert (status["state"], status["exit_code"]) == ("TASK_FAILED", 9)


async def test_keeper_and_agent_die_together(agent: AgentProcess, framework: Framework, tmp_path: Path) -> None:
    """When the agent and its keeper are killed, the next agent ends what is left of the task and tells its loss."""
    pid = await launch(framework, tmp_path, 0)
    await agent.end(kill=True)
    os.kill(agent.holder_pid("keeper"), 9)
    await agent.start()
    status = await status_of(framework)
    assert (status["state"], status["reason"]) == ("TASK_FAILED", "REASON_EXECUTOR_TERMINATED")
    await gone(pid)


async def test_the_end_of_the_lifeline_ends_everything(tmp_path: Path, master: Served, framework: Framework) -> None:
    """When the pipe that the agent was given ends, its task, its keeper, its WASM host and it are gone."""
    reading, writing = os.pipe()
    (tmp_path / "agent").mkdir()
    agent = AgentProcess(tmp_path / "agent", master.url, f"--process-user={OURSELVES}", lifeline=reading)
    try:
        await agent.start()
        os.close(reading)
        pid = await launch(framework, tmp_path, 0)
        cluster = await Cluster(master.url, spec("left alone")).__aenter__()
        await (await cluster.launch(wasm=MODULES / "endless.wasm")).started()
        await cluster.close()
        holders = [agent.holder_pid("keeper"), agent.holder_pid("wasm-host")]
        os.close(writing)
        async with asyncio.timeout(DEADLINE_S):
            assert await agent.process.wait() == 0
            for number in (pid, *holders):
                await gone(number)
    finally:
        await agent.end(kill=True)
        await sweep(agent.data_dir, agent.agent_id)


async def test_a_held_task_is_kept_although_its_executor_is_off(
    agent: AgentProcess, framework: Framework, tmp_path: Path
) -> None:
    """An agent that is started without process tasks looks after the one that runs, and takes no new ones."""
    await launch(framework, tmp_path, 4)
    await agent.end()
    (tmp_path / "off.toml").write_text("[executors.process]\nenabled = false\n")
    agent.flags.append(f"--config={tmp_path / 'off.toml'}")
    await agent.start()
    await asyncio.to_thread((tmp_path / "go").write_text, "go\n")
    assert (await status_of(framework))["exit_code"] == 4
    await framework.call("REVIVE")
    offer = await framework.offer()
    await framework.launch(offer, task(offer, "t2"))
    status = await status_of(framework)
    assert (status["state"], status["reason"]) == ("TASK_FAILED", "REASON_CONTAINER_LAUNCH_FAILED")
    assert "no 'process' executor" in status["message"]
