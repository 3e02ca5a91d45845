"""One task, several builds: two agents that differ, the SDK, a bare Mesos client, and what people are shown."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.agent import OURSELVES, agent_here
from support.cli import edgerm
from support.master import Framework, Json, task

from edgerm.core.tasks import TaskState
from edgerm.sdk import Build, Cluster, connect
from edgerm_agent import host
from edgerm_master.main import Served

MODULES = Path(__file__).parents[1] / "fixtures/wasm"
DEADLINE_S = 60
SAY = ["/bin/sh", "-c", "echo $BUILD"]


def settings(process: bool) -> Json:
    return {"docker": {"enabled": False}, "process": {"user": OURSELVES, "enabled": process}}


@pytest.fixture
async def agents(tmp_path: Path, master: Served) -> AsyncIterator[dict[str, str]]:
    """The ids of a big arm64 box that runs modules only, and of an amd64 one that runs both."""
    async with (
        agent_here(
            tmp_path / "arm", master.url, name="arm", attributes="arch:arm64;zone:a", executors=settings(process=False)
        ) as arm,
        agent_here(
            tmp_path / "pc", master.url, name="pc", attributes="arch:amd64;zone:b", executors=settings(process=True)
        ) as pc,
    ):
        yield {"arm": arm.agent_id, "pc": pc.agent_id}


@pytest.fixture
async def cluster(master: Served, agents: dict[str, str]) -> AsyncIterator[Cluster]:
    """A framework of the SDK."""
    async with connect(master.url) as made:
        yield made


async def test_the_build_follows_the_agent(cluster: Cluster, agents: dict[str, str]) -> None:
    """Each task runs as the first of its builds that fits an offer, on an agent for which that build is."""
    module = Build(wasm=MODULES / "surroundings.wasm", args=["x"], env={"BUILD": "module"}, constraints=["arch=arm64"])
    native = Build(process=SAY, env={"BUILD": "native"}, name="native")
    async with asyncio.timeout(DEADLINE_S):
        first = await cluster.run(alternatives=[module, native], constraints=["zone=a"])
        assert (first.status.agent_id, b"BUILD=module" in first.output) == (agents["arm"], True)
        second = await cluster.run(alternatives=[module, native], constraints=["zone=b"])
        assert (second.status.agent_id, second.output) == (agents["pc"], b"native\n")
        third = await cluster.run(alternatives=[native, module])
        assert (third.status.agent_id, third.output) == (agents["pc"], b"native\n")


async def test_people_see_which_build_runs(cluster: Cluster, master: Served) -> None:
    """`edgerm ps` and `edgerm explain` name the build."""
    sleep = Build(process=["/bin/sleep", "1000"], name="native")
    async with asyncio.timeout(DEADLINE_S):
        handle = await cluster.launch(alternatives=[Build(docker="none:1"), sleep], task_id="t1")
        await handle.started()
        [row] = json.loads(await edgerm("ps", "--json", f"--master={master.url}"))
        assert (row["task"], row["build"], row["agent"]) == ("t1", "native", "pc")
        assert "as its build 'native'" in await edgerm("explain", "t1", f"--master={master.url}")
        assert (await handle.kill()).state is TaskState.KILLED


async def test_it_is_told_what_no_agent_is_for(cluster: Cluster) -> None:
    """While no build fits any agent, the reasons for each are there to be shown."""
    builds = [Build(docker="none:1"), Build(wasm=b"\0asm", constraints=["arch=riscv64"])]
    async with asyncio.timeout(DEADLINE_S):
        await cluster.run(process=["/bin/true"])  # by now both agents have made offers
        handle = await cluster.launch(alternatives=builds)
        assert "docker" in (cluster.lacking(handle.task_id) or "")
        assert "arch=riscv64" in (cluster.lacking(handle.task_id) or "")


def build(name: str, path: str, *constraints: str, cpus: float = 0.5) -> Json:
    return {
        "name": name,
        "command": {"value": path, "shell": False},
        "resources": [{"name": "cpus", "type": "SCALAR", "scalar": {"value": cpus}}],
        "constraints": list(constraints),
    }


async def test_the_master_decides_for_any_client(master: Served, agents: dict[str, str]) -> None:
    """A TaskInfo with alternatives is resolved at accept; if none fits, TASK_ERROR says why of each."""
    async with Framework(master.url) as framework, asyncio.timeout(DEADLINE_S):
        offers: list[Json] = []
        while len(offers) < 2:
            offers += (await framework.until("OFFERS"))["offers"]["offers"]
        pc = next(offer for offer in offers if offer["agent_id"]["value"] == agents["pc"])
        wrong = task(pc, "wrong", resources=[])
        wrong["alternatives"] = [build("arm", "/bin/true", "arch~arm.*"), build("huge", "/bin/true", cpus=999.0)]
        right = task(pc, "right", resources=[])
        right["alternatives"] = [build("arm", "/bin/false", "arch~arm.*"), build("pc", "/bin/true", "arch!~arm.*")]
        for spec in (wrong, right):
            del spec["command"]
        assert await framework.launch(pc, wrong, right) == 202
        status = await framework.status()
        assert (status["task_id"]["value"], status["state"]) == ("wrong", "TASK_ERROR")
        reasons = "no alternative fits: arm: arch~arm.* does not hold; huge: it asks for cpus:999, of the offer "
        assert status["message"].startswith(reasons)
        assert status["reason"] == "REASON_TASK_INVALID"
        states = []
        while "TASK_FINISHED" not in states:
            status = await framework.status()
            await framework.acknowledge(status)
            states.append(status["state"])
        assert states == ["TASK_RUNNING", "TASK_FINISHED"]


async def test_agents_say_what_they_are(tmp_path: Path, master: Served) -> None:
    """Without a word of the operator an agent tells its architecture and system, as container images name them."""
    async with (
        asyncio.timeout(DEADLINE_S),
        agent_here(tmp_path / "box", master.url, executors=settings(process=True)),
        connect(master.url) as cluster,
    ):
        here = host.kind()
        assert here["arch"] in ("amd64", "arm64")
        constraints = [f"{name}={value}" for name, value in here.items()]
        result = await cluster.run(alternatives=[Build(process=["/bin/true"], constraints=constraints)])
        assert result.ok
