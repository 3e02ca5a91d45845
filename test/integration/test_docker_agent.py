"""Containers through the whole way: command line or framework, master, agent program, engine."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from support.agent import OURSELVES, AgentProcess, sweep
from support.cli import EDGERM
from support.containers import DEADLINE_S, containers_of, executing, launch, new_agent
from support.engine import IMAGE, TestEngine
from support.master import Framework, Json, status_of, task

from edgerm.core.ids import AgentId
from edgerm_agent.executors.docker import container
from edgerm_agent.executors.docker.executor import DockerExecutor
from edgerm_master.main import Served


@pytest.fixture
async def framework(master: Served) -> AsyncIterator[Framework]:
    """A framework."""
    async with Framework(master.url) as made:
        yield made


@asynccontextmanager
async def agent_with(
    engine: TestEngine, folder: Path, url: str, monkeypatch: pytest.MonkeyPatch, lifeline: int | None = None
) -> AsyncIterator[AgentProcess]:
    """An agent program that is not started yet; at the end it and all that it started are gone."""
    monkeypatch.setenv("EDGERM_EXECUTORS_DOCKER_SOCKET", engine.url)
    folder.mkdir()
    agent = AgentProcess(folder, url, f"--process-user={OURSELVES}", lifeline=lifeline)
    try:
        yield agent
    finally:
        await agent.end(kill=True)
        await sweep(folder, agent.agent_id)
        async with executing(engine, agent.agent_id):
            pass


@pytest.fixture
async def agent(
    engine: TestEngine, tmp_path: Path, master: Served, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[AgentProcess]:
    """An agent on the shared engine that is ready."""
    async with agent_with(engine, tmp_path / "agent", master.url, monkeypatch) as made:
        await made.start()
        yield made


async def until_state(framework: Framework, state: str) -> Json:
    """The next status with this state."""
    while (status := await status_of(framework, DEADLINE_S))["state"] != state:
        assert status["state"] in ("TASK_STARTING", "TASK_RUNNING"), status
    return status


async def launch_container(framework: Framework, script: str) -> None:
    """A container that runs a script."""
    offer = await framework.offer()
    docker = {"type": "DOCKER", "docker": {"image": IMAGE, "network": "NONE"}}
    await framework.launch(offer, task(offer, "t1", command={"value": script}, container=docker))


def found_of(engine: TestEngine, agent_id: AgentId) -> dict[str, str]:
    """State by container ID."""
    return {found["Id"]: found["State"] for found in containers_of(engine, f"{container.AGENT}={agent_id}")}


async def test_edgerm_run_docker(agent: AgentProcess, master: Served, tmp_path: Path) -> None:
    """`edgerm run --docker` shows the container's output and ends with its exit status; a wrong image is told."""

    async def run(*args: str) -> tuple[int, str, str]:
        process = await asyncio.create_subprocess_exec(
            *EDGERM,
            "run",
            f"--master={master.url}",
            *args,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(process.communicate(), DEADLINE_S)
        assert process.returncode is not None
        return process.returncode, out.decode(), err.decode()

    script = "echo $GREETING; pwd > $MESOS_SANDBOX/where; cat $MESOS_SANDBOX/where; echo oops >&2; exit 3"
    status, out, err = await run("--network=none", "--env=GREETING=hello", "--docker", IMAGE, "--", "sh", "-c", script)
    assert (status, out) == (3, "hello\n/\n")
    assert "oops" in err
    status, out, err = await run("--network=none", "--docker", "127.0.0.1:9/no/such:1")
    assert status not in (0, 3)
    assert "127.0.0.1:9/no/such:1" in err


async def test_a_killed_agent_takes_its_container_back(
    engine: TestEngine, agent: AgentProcess, framework: Framework
) -> None:
    """After kill -9 and a new start the same container runs on, alone, and its exit status is told."""
    await launch_container(framework, "trap 'exit 7' TERM; while :; do sleep 0.05; done")
    await until_state(framework, "TASK_RUNNING")
    before = found_of(engine, agent.agent_id)
    await agent.end(kill=True)
    await agent.start()
    assert found_of(engine, agent.agent_id) == before
    assert list(before.values()) == ["running"]
    with engine.client() as client:
        client.kill(next(iter(before)), "SIGTERM")
    status = await until_state(framework, "TASK_FAILED")
    assert status["exit_code"] == 7


async def test_a_container_that_nobody_promised_goes(
    engine: TestEngine, agent: AgentProcess, framework: Framework, tmp_path: Path
) -> None:
    """At its start an agent removes containers with its label that its journal does not know, and no other's."""
    await agent.end()
    other = new_agent()
    sandbox = tmp_path / "sandbox"
    sandbox.mkdir()
    async with executing(engine, other) as stranger:
        await stranger.start(launch(sandbox, "sleep", "1000"))
        lost = DockerExecutor(agent.agent_id, engine.url)  # as the agent before it lost its journal
        await lost.start(launch(sandbox, "sleep", "1000"))
        await lost.close()
        assert len(found_of(engine, agent.agent_id)) == 1
        await agent.start()
        async with asyncio.timeout(DEADLINE_S):
            while found_of(engine, agent.agent_id):
                await asyncio.sleep(0.05)
        assert list(found_of(engine, other).values()) == ["running"]


async def test_what_is_waited_for_is_told(
    own_engine: TestEngine, tmp_path: Path, master: Served, framework: Framework, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task for an engine that is away is TASK_STARTING with what it waits for, and runs when the engine is back."""
    async with agent_with(own_engine, tmp_path / "agent", master.url, monkeypatch) as agent:
        await agent.start()
        await asyncio.to_thread(own_engine.stop)
        await launch_container(framework, "exec sleep 1000")
        status = await until_state(framework, "TASK_STARTING")
        while "waits for the Docker engine at" not in status.get("message", ""):
            status = await until_state(framework, "TASK_STARTING")
        assert own_engine.url in status["message"]
        await asyncio.to_thread(own_engine.start)
        await until_state(framework, "TASK_RUNNING")
        assert list(found_of(own_engine, agent.agent_id).values()) == ["running"]


@pytest.mark.parametrize("kill", [False, True])
async def test_the_end_of_the_lifeline_removes_containers(
    engine: TestEngine,
    tmp_path: Path,
    master: Served,
    framework: Framework,
    monkeypatch: pytest.MonkeyPatch,
    kill: bool,
) -> None:
    """When the pipe ends that the agent was given, its containers are gone, even if the agent was killed before."""
    reading, writing = os.pipe()
    try:
        async with agent_with(engine, tmp_path / "agent", master.url, monkeypatch, reading) as agent:
            await agent.start()
            await launch_container(framework, "exec sleep 1000")
            await until_state(framework, "TASK_RUNNING")
            assert len(found_of(engine, agent.agent_id)) == 1
            if kill:
                await agent.end(kill=True)
            os.close(reading)
            os.close(writing)
            async with asyncio.timeout(DEADLINE_S):
                while found_of(engine, agent.agent_id):
                    await asyncio.sleep(0.05)
                await agent.process.wait()
            reading = writing = -1
    finally:
        for end in (reading, writing):
            if end >= 0:
                os.close(end)


async def test_the_end_of_long_output_is_kept(
    engine: TestEngine, agent: AgentProcess, framework: Framework, tmp_path: Path
) -> None:
    """Of a container that wrote more than is kept the last 1 MiB stays, with the offset at which it begins."""
    await launch_container(framework, "seq 1 300000; exit 3")
    await until_state(framework, "TASK_FAILED")
    async with asyncio.timeout(DEADLINE_S):
        while found_of(engine, agent.agent_id):
            await asyncio.sleep(0.05)
    whole = "".join(f"{i}\n" for i in range(1, 300_001)).encode()
    (kept,) = (tmp_path / "agent").rglob("stdout")
    assert kept.read_bytes() == whole[-(1 << 20) :]
    assert int(kept.with_name("stdout.from").read_text()) == len(whole) - (1 << 20)
