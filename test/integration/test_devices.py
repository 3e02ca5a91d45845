"""Config-declared devices through the whole way: agent.toml, offers, tasks of each kind, `edgerm devices`."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from support.agent import FACES, OURSELVES, agent_here, agent_process, url_of
from support.cli import edgerm
from support.containers import executing
from support.engine import IMAGE, TestEngine
from support.master import Framework, Json, task

from edgerm.cli.devices import rows
from edgerm.core.tasks import Reason, TaskState
from edgerm.sdk import Cluster, connect
from edgerm_agent.devices import declared
from edgerm_agent.running import Running
from edgerm_master.main import Served

MODULES = Path(__file__).parents[1] / "fixtures/wasm"
DEADLINE_S = 60
NULL, ZERO = os.makedev(1, 3), os.makedev(1, 5)
EXECUTORS = {"process": {"user": OURSELVES}, "docker": {"enabled": False}}
SLEEP = ["/bin/sleep", "1000"]


def node(path: Path, device: int) -> str:
    """A device node of our own, which is as good as any."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to make device nodes: run it with sudo")
    os.mknod(path, 0o666 | stat.S_IFCHR, device)
    return str(path)


@pytest.fixture
def devices(tmp_path: Path) -> dict[str, Any]:
    """Two cameras with a node each, a library that both mount, and a shared light that gives a variable only."""
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/version").write_text("7")

    def camera(name: str, device: int) -> dict[str, Any]:
        return {
            "name": "camera",
            "id": name,
            "device_nodes": [{"host_path": node(tmp_path / name, device), "container_path": f"/dev/{name}"}],
            "volumes": [{"host_path": str(tmp_path / "lib"), "container_path": "/opt/lib", "read_only": True}],
            "environment": {f"CAMERA_{name.upper()}": f"/dev/{name}"},
        }

    light = {"name": "light", "id": "led0", "shared": True, "environment": {"LIGHT": "led0"}}
    return {"declared": [camera("front", NULL), camera("rear", ZERO), light]}


@pytest.fixture
async def agent(tmp_path: Path, master: Served, devices: dict[str, Any]) -> AsyncIterator[Running]:
    """An agent with these devices, for processes and modules."""
    async with agent_here(tmp_path / "agent", master.url, devices=devices, executors=EXECUTORS, name="gate-1") as made:
        yield made


@pytest.fixture
async def cluster(master: Served, agent: Running) -> AsyncIterator[Cluster]:
    """A framework of the SDK."""
    async with connect(master.url) as made:
        yield made


async def holders(cluster: Cluster) -> dict[str, str]:
    """Who has which device, as `edgerm devices` lists it."""
    return {row["id"]: row["holder"] for row in await rows(cluster.operator)}


async def test_a_container_gets_what_it_claims(
    tmp_path: Path, master: Served, engine: TestEngine, devices: dict[str, Any]
) -> None:
    """Node, volume and variable of the claimed camera are there, of the other one nothing, and no right to write."""
    executors = {"process": {"enabled": False}, "docker": {"socket": engine.url, "volumes": []}}
    script = (
        "test -c /dev/front && echo node; test -e /dev/rear || echo no other; cat /opt/lib/version 2>/dev/null; echo;"
        "touch /opt/lib/x 2>/dev/null || echo read-only; echo $CAMERA_FRONT$CAMERA_REAR $EDGERM_DEVICES $LIGHT;"
        "echo x > /dev/front && echo written"
    )
    async with agent_here(tmp_path / "agent", master.url, devices=devices, executors=executors) as agent:
        try:
            async with asyncio.timeout(DEADLINE_S), connect(master.url) as cluster:
                wanted = {"camera": ["front"], "light": 1}
                result = await cluster.run(docker=IMAGE, args=["sh", "-c", script], network="none", devices=wanted)
                plain = await cluster.run(docker=IMAGE, args=["sh", "-c", script], network="none")
        finally:
            async with executing(engine, agent.agent_id):
                pass
    lines = ["node", "no other", "7", "read-only", "/dev/front camera=front light=led0 led0", "written"]
    assert (result.output.decode().splitlines(), result.ok) == (lines, True), result.status
    assert plain.output.decode().splitlines()[0] == "no other"


async def test_a_process_gets_variables(cluster: Cluster, devices: dict[str, Any]) -> None:
    """A process is told its device; what would have to lie elsewhere it cannot have, and is told so."""
    async with asyncio.timeout(DEADLINE_S):
        shell = ["/bin/sh", "-c", "echo $LIGHT $EDGERM_DEVICES"]
        assert (await cluster.run(process=shell, devices=["light"])).output == b"led0 light=led0\n"
        own = await cluster.run(process=shell, devices=["light"], env={"LIGHT": "mine"})
        assert own.output == b"mine light=led0\n"
        failed = await cluster.run(process=shell, devices=["camera"])
    assert (failed.state, failed.status.reason) == (TaskState.FAILED, Reason.CONTAINER_LAUNCH_FAILED)
    assert "at '/opt/lib', which a process cannot have: run the task in a container" in failed.message


async def test_a_module_gets_directories(cluster: Cluster, agent: Running, tmp_path: Path) -> None:
    """A module sees a device's volume beside its sandbox, and cannot write where it may only read."""
    async with asyncio.timeout(DEADLINE_S):
        seen = await cluster.run(wasm=MODULES / "mounted.wasm", devices=["camera"])
        told = await cluster.run(wasm=MODULES / "surroundings.wasm", devices=["camera=rear"])
    assert (seen.output, seen.state) == (b"/opt/lib", TaskState.FAILED)
    assert seen.exit_code not in (0, 8)  # 8: there is no such descriptor
    assert not (tmp_path / "lib/f").exists()
    assert b"CAMERA_REAR=/dev/rear" in told.output + told.status.output_tail.encode()


async def test_a_module_writes_where_it_may(tmp_path: Path, master: Served) -> None:
    """A volume that is not read-only is the box's own directory."""
    volumes = [{"host_path": str(tmp_path / "out"), "container_path": "/out"}]
    (tmp_path / "out").mkdir()
    devices = {"declared": [{"name": "store", "id": "usb", "volumes": volumes}]}
    async with (
        asyncio.timeout(DEADLINE_S),
        agent_here(tmp_path / "agent", master.url, devices=devices, executors=EXECUTORS),
        connect(master.url) as cluster,
    ):
        result = await cluster.run(wasm=MODULES / "mounted.wasm", devices=["store"])
    assert (result.output, result.ok) == (b"/out", True)
    assert (tmp_path / "out/f").read_text() == "ok"


async def test_edgerm_devices(master: Served, cluster: Cluster) -> None:
    """`edgerm devices` lists every device with its pool, its health, its holders and what it gives."""
    lamp = await cluster.launch(process=SLEEP, devices=["light"], task_id="lamp")
    async with asyncio.timeout(DEADLINE_S):
        await lamp.started()
        listed = json.loads(await edgerm("devices", "--json", f"--master={master.url}"))
        assert [(row["agent"], row["class"], row["id"], row["pool"], row["health"]) for row in listed] == [
            ("gate-1", "camera", "front", "exclusive", "Healthy"),
            ("gate-1", "camera", "rear", "exclusive", "Healthy"),
            ("gate-1", "light", "led0", "shared", "Healthy"),
        ]
        assert [row["holder"] for row in listed] == ["", "", "lamp"]
        assert listed[2]["holders"] == [{"framework": cluster.framework_id, "task": "lamp"}]
        assert listed[0]["gives"][0].endswith("front as /dev/front rwm")
        table = await edgerm("devices", f"--master={master.url}")
        assert table.splitlines()[0].split()[:5] == ["AGENT", "NAME", "ID", "POOL", "HEALTH"]
        await lamp.kill()
        assert await holders(cluster) == {"front": "", "rear": "", "led0": ""}


@pytest.fixture
async def plain(tmp_path: Path, master: Served) -> AsyncIterator[Running]:
    """An agent with two exclusive devices and a shared one that any task can have."""
    entries = [{"name": "slot", "id": "s1"}, {"name": "slot", "id": "s2"}, {"name": "hub", "id": "h", "shared": True}]
    async with agent_here(tmp_path / "plain", master.url, devices={"declared": entries}, executors=EXECUTORS) as made:
        yield made


async def test_who_comes_too_late_waits(master: Served, plain: Running) -> None:
    """A third task for two slots is placed when one is free again; one that all share takes as many as come."""
    async with asyncio.timeout(DEADLINE_S), connect(master.url) as cluster:
        first = await cluster.launch(process=SLEEP, devices=["slot", "hub"], task_id="first")
        second = await cluster.launch(process=SLEEP, devices=["slot", "hub"], task_id="second")
        await asyncio.gather(first.started(), second.started())
        third = await cluster.launch(process=SLEEP, devices=["slot=s1"], task_id="third")
        found = await holders(cluster)
        assert sorted((found["s1"], found["s2"])) == ["first", "second"]
        assert found["h"] == "first,second"
        assert third.status.state is TaskState.STAGING
        await (first if found["s1"] == "first" else second).kill()
        assert (await third.started()).state is TaskState.RUNNING
        assert (await holders(cluster))["s1"] == "third"


async def test_shared_sets_are_for_those_who_know_them(master: Served, plain: Running) -> None:
    """A plain Mesos client is offered exclusive devices as sets, shared ones only with SHARED_RESOURCES."""

    def sets(offer: Json) -> dict[str, tuple[list[str], bool]]:
        found = [resource for resource in offer["resources"] if resource["type"] == "SET"]
        return {resource["name"]: (resource["set"]["item"], "shared" in resource) for resource in found}

    async with asyncio.timeout(DEADLINE_S):
        async with Framework(master.url) as framework:
            offer = await framework.offer()
            assert sets(offer) == {"slot": (["s1", "s2"], False)}
            asked = {"name": "slot", "type": "SET", "set": {"item": ["s2"]}}
            spec = task(offer, "t1", command={"value": "exit 0"})
            spec["resources"].append(asked)
            assert await framework.launch(offer, spec) == 202
            assert (await framework.status())["state"] == "TASK_RUNNING"
        async with Framework(master.url, {"capabilities": [{"type": "SHARED_RESOURCES"}]}) as framework:
            assert sets(await framework.offer())["hub"] == (["h"], True)


async def test_a_device_comes_and_goes(tmp_path: Path, master: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device whose node is missing is listed as Unhealthy and not given; a task waits until it is plugged in."""
    monkeypatch.setattr(declared, "LOOK_S", 0.05)
    path = tmp_path / "stick"
    entry = {"name": "stick", "id": "usb1", "device_nodes": [{"host_path": str(path)}]}
    devices = {"declared": [entry]}
    async with (
        asyncio.timeout(DEADLINE_S),
        agent_here(tmp_path / "agent", master.url, devices=devices, executors=EXECUTORS),
        connect(master.url) as cluster,
    ):
        await (await cluster.launch(process=SLEEP, task_id="other")).started()
        [row] = await rows(cluster.operator)
        assert (row["health"], row["problem"]) == ("Unhealthy", f"{path} is missing")
        waits = await cluster.launch(process=SLEEP, devices=["stick"])
        node(path, NULL)
        assert (await waits.started()).state is TaskState.RUNNING
        [row] = await rows(cluster.operator)
        assert (row["health"], row["holder"]) == ("Healthy", waits.task_id)


async def test_holders_survive_the_agent(tmp_path: Path, master: Served) -> None:
    """After the agent's death and return its device is still the running task's, and not offered to another."""
    file = tmp_path / "agent.toml"
    file.write_text('[[devices.declared]]\nname = "slot"\nid = "s1"\n[[devices.declared]]\nname = "slot"\nid = "s2"\n')
    (tmp_path / "data").mkdir()
    async with (
        asyncio.timeout(DEADLINE_S),
        agent_process(tmp_path / "data", master.url, f"--config={file}") as agent,
        connect(master.url) as cluster,
    ):
        holder = await cluster.launch(process=SLEEP, devices=["slot=s1"], task_id="holder")
        await holder.started()
        await agent.end(kill=True)
        await agent.start()
        assert await holders(cluster) == {"s1": "holder", "s2": ""}
        other = await cluster.launch(process=SLEEP, devices=["slot"], task_id="other")
        await other.started()
        assert await holders(cluster) == {"s1": "holder", "s2": "other"}
        assert holder.status.state is TaskState.RUNNING


async def test_edgerm_run_device(master: Served, plain: Running) -> None:
    """`edgerm run --device NAME=ID` takes this one."""
    shell = ["sh", "-c", "echo $EDGERM_DEVICES"]
    flags = [f"--master={master.url}", "--device=slot=s2", "--device=hub", "--process", "--", *shell]
    assert await edgerm("run", *flags) == "hub=h slot=s2\n"


@pytest.mark.parametrize("face", FACES)
async def test_many_devices(face: str, tmp_path: Path, master: Served) -> None:
    """An inventory that fits no datagram arrives whole over either face of the link."""
    declared = [{"name": "sensor", "id": f"bus/{number}", "environment": {"A": "1"}} for number in range(200)]
    devices = {"declared": declared}
    async with (
        asyncio.timeout(DEADLINE_S),
        agent_here(tmp_path / "agent", url_of(master, face), devices=devices, executors=EXECUTORS),
        connect(master.url) as cluster,
    ):
        assert (await cluster.run(process=["/bin/true"], devices={"sensor": 200})).ok
        assert len(await rows(cluster.operator)) == 200
