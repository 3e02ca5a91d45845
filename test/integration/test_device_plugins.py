"""An installed device plugin through the whole way: prepared, given back, and what goes wrong on the way."""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from support.agent import OURSELVES, agent_here

from edgerm.cli.devices import listing
from edgerm.core.errors import Conflict
from edgerm.core.tasks import Reason, TaskState
from edgerm.plugin.device import NotClean
from edgerm.sdk import Cluster, connect
from edgerm.testing.devices import NAME, FakeDevices
from edgerm.transport.local import ask
from edgerm_agent.running import Running
from edgerm_master.main import Served

DEADLINE_S = 60
EXECUTORS = {"process": {"user": OURSELVES}, "docker": {"enabled": False}}
SLEEP = ["/bin/sleep", "1000"]
MODULE = "edgerm_fake_plugin"
TEXT = """
from edgerm.testing import devices
made = []
def create(config, host):
    made.append(devices.create(config, host))
    return made[-1]
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One more distribution in this Python, with a plugin that a test can reach."""
    info = tmp_path / "site" / "a_plugin-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: a-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[edgerm.devices]\nfake = {MODULE}:create\n")
    (tmp_path / "site" / f"{MODULE}.py").write_text(TEXT)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    yield
    sys.modules.pop(MODULE, None)


@pytest.fixture
async def agent(installed: None, tmp_path: Path, master: Served) -> AsyncIterator[Running]:
    """An agent with the plugin, which has one device."""
    devices = {"plugins": {"fake": {"ids": ["one"]}}}
    async with agent_here(tmp_path / "agent", master.url, devices=devices, executors=EXECUTORS, name="gate-1") as made:
        yield made


@pytest.fixture
def plugin(agent: Running) -> FakeDevices:
    """The plugin as the agent has it."""
    return cast(FakeDevices, importlib.import_module(MODULE).made[-1])


@pytest.fixture
async def cluster(master: Served, agent: Running) -> AsyncIterator[Cluster]:
    """A framework of the SDK."""
    async with connect(master.url) as made:
        yield made


async def listed(cluster: Cluster, fits: Callable[[list[dict[str, Any]]], bool]) -> list[dict[str, Any]]:
    """The devices, as soon as they are so; what an agent finds comes with its next beat."""
    async with asyncio.timeout(DEADLINE_S):
        while not fits(rows := (await listing(cluster.operator)).rows):
            await asyncio.sleep(0.02)
    return rows


async def test_a_task_gets_it_and_gives_it_back(cluster: Cluster, plugin: FakeDevices) -> None:
    """The task has what the plugin gives; once its end is told, the device was given back."""
    async with asyncio.timeout(DEADLINE_S):
        result = await cluster.run(process=["/bin/sh", "-c", "echo $FAKE_DEVICES $EDGERM_DEVICES"], devices=[NAME])
    assert (result.output, result.ok) == (f"one {NAME}=one\n".encode(), True)
    assert plugin.held == {}
    assert [call[0] for call in plugin.calls] == ["prepare", "release"]


async def test_what_cannot_be_prepared(cluster: Cluster, plugin: FakeDevices) -> None:
    """The task fails with the plugin's words, nothing is kept, and the next task has the device."""
    plugin.failures.prepare = Conflict("the lamp is broken")
    async with asyncio.timeout(DEADLINE_S):
        failed = await cluster.run(process=["/bin/true"], devices=[NAME])
        assert (failed.state, failed.status.reason) == (TaskState.FAILED, Reason.CONTAINER_LAUNCH_FAILED)
        assert "the lamp is broken" in failed.message
        assert plugin.held == {}
        plugin.failures.prepare = None
        assert (await cluster.run(process=["/bin/true"], devices=[NAME])).ok


async def test_what_is_not_clean_is_given_to_nobody(cluster: Cluster, plugin: FakeDevices) -> None:
    """It is listed with what was found, a task that wants it waits, and has it as soon as it is clean."""
    plugin.failures.release = NotClean("the lamp is still hot")
    async with asyncio.timeout(DEADLINE_S):
        assert (await cluster.run(process=["/bin/true"], devices=[NAME])).ok
        [row] = await listed(cluster, lambda rows: bool(rows[0]["quarantine"]))
        assert (row["quarantine"], row["holder"], row["fake"]) == ("the lamp is still hot", "", True)
        waits = await cluster.launch(process=SLEEP, devices=[NAME])
        plugin.failures.release = None
        assert (await waits.started()).state is TaskState.RUNNING
        [row] = await listed(cluster, lambda rows: bool(rows[0]["holder"]))
        assert (row["quarantine"], row["holder"]) == ("", waits.task_id)
        assert list(plugin.held.values()) == [("one",)]
        await waits.kill()


async def test_a_plugin_that_fails(cluster: Cluster, plugin: FakeDevices) -> None:
    """Who has a device runs on; its class is listed with the reason; nothing is lost when it works again."""
    async with asyncio.timeout(DEADLINE_S):
        holder = await cluster.launch(process=SLEEP, devices=[NAME])
        await holder.started()
        plugin.fail(OSError("the bus is gone"))
        while not (remarks := (await listing(cluster.operator)).remarks):
            await asyncio.sleep(0.02)
        assert remarks == [f"gate-1: nothing of class {NAME} can be claimed: its plugin failed: the bus is gone"]
        plugin.fail(None)
        [row] = await listed(cluster, lambda rows: bool(rows and rows[0]["health"] == "Healthy"))
        assert row["holder"] == holder.task_id
        assert holder.status.state is TaskState.RUNNING
        await holder.kill()
    assert plugin.held == {}


async def test_the_end_of_all_tasks_gives_their_devices_back(
    agent: Running, cluster: Cluster, plugin: FakeDevices
) -> None:
    """An agent that ends with its tasks leaves no device prepared, not even one that is clean only later."""
    async with asyncio.timeout(DEADLINE_S):
        await (await cluster.launch(process=SLEEP, devices=[NAME])).started()
        assert list(plugin.held.values()) == [("one",)]
        plugin.failures.release = NotClean("its last holder is just dying")
        ending = asyncio.create_task(agent.end_tasks())
        while plugin.calls[-1][0] != "release":
            await asyncio.sleep(0)
        plugin.failures.release = None
        await ending
    assert plugin.held == {}


async def test_a_local_grant_that_cannot_be_told_again_is_kept(
    tmp_path: Path, agent: Running, plugin: FakeDevices
) -> None:
    """Who asks again for what he has may get an error, but loses nothing by that."""
    claims = [{"type": NAME}]
    folder = tmp_path / "agent"
    await ask(folder, "grant", id="plc", claims=claims)
    plugin.failures.prepare = Conflict("the lamp is in use")
    with pytest.raises(Conflict, match="the lamp is in use"):
        await ask(folder, "grant", id="plc", claims=claims)
    assert list(plugin.held.values()) == [("one",)]
    plugin.failures.prepare = None
    await ask(folder, "release", id="plc")
    assert plugin.held == {}
