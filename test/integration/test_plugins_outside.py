"""Device plugins in processes of their own through the whole way: agent, master, tasks, and what becomes of each."""

from __future__ import annotations

import asyncio
import json
import os
import posixpath
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest
from support.agent import OURSELVES, agent_here, agent_process
from support.cli import edgerm
from support.engine import IMAGE, TestEngine

from edgerm.cli.devices import listing
from edgerm.core.devices import Inventory
from edgerm.core.errors import Conflict, Unavailable
from edgerm.core.tasks import TaskState
from edgerm.plugin.device import DevicePlugin, Grant, HostFiles, Setup
from edgerm.plugin_rpc import RemotePlugin, serving
from edgerm.sdk import Cluster, connect
from edgerm.testing.conformance.device import DevicePluginSuite
from edgerm.testing.cutting import PowerCut
from edgerm.testing.devices import NAME, FakeDevices
from edgerm.transport.local import ask
from edgerm_master.main import Served

SUPPORT = Path(__file__).parents[1] / "support"
BOARD, LAMP = "vendor.example/board", "vendor.example/lamp"
EXECUTORS = {"process": {"user": OURSELVES}, "docker": {"enabled": False}}
SLEEP = ["/bin/sleep", "1000"]
DEADLINE_S = 60
SERVE = (
    "import asyncio, sys; from edgerm.plugin_rpc import serve; from edgerm.testing.devices import FakeDevices\n"
    "asyncio.run(serve(FakeDevices(), sys.argv[1]))"
)


class Others:
    """Plugins in processes of their own, which end with the test."""

    def __init__(self) -> None:
        self._running: list[subprocess.Popen[bytes]] = []

    def start(self, *argv: str) -> subprocess.Popen[bytes]:
        paths = os.pathsep.join(sys.path)
        process = subprocess.Popen(
            [sys.executable, *argv],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": paths},
        )
        self._running.append(process)
        return process

    def kubelets(self, folder: Path, *flags: str, resource: str = BOARD) -> subprocess.Popen[bytes]:
        """One for Kubernetes, with three devices."""
        endpoint = f"{posixpath.basename(resource)}.sock"
        return self.start(str(SUPPORT / "kubelet_plugin.py"), str(folder), resource, endpoint, *flags)

    def end(self, process: subprocess.Popen[bytes]) -> None:
        process.kill()
        process.communicate()

    def end_all(self) -> None:
        for process in self._running:
            self.end(process)


@pytest.fixture
def others() -> Iterator[Others]:
    made = Others()
    yield made
    made.end_all()


@pytest.fixture
async def cluster(master: Served) -> AsyncIterator[Cluster]:
    async with connect(master.url) as made, asyncio.timeout(DEADLINE_S):
        yield made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where plugins for Kubernetes register."""
    made = tmp_path / "device-plugins"
    made.mkdir()
    return made


async def seen(cluster: Cluster, fits: Callable[[dict[str, str], list[str]], bool]) -> dict[str, str]:
    """Who has what, such as board-one, as soon as they and the remarks are so."""
    while True:
        found = await listing(cluster.operator)
        holders = {f"{posixpath.basename(row['class'])}-{row['id']}": row["holder"] for row in found.rows}
        if fits(holders, found.remarks):
            return holders
        await asyncio.sleep(0.02)


async def test_a_plugin_for_kubernetes_serves_tasks(
    tmp_path: Path, folder: Path, others: Others, master: Served, cluster: Cluster
) -> None:
    """It is claimable at once, chooses, and its tasks run on without it; who wants its class is told."""
    where = tmp_path / "agent"
    async with agent_here(where, master.url, devices={"kubelet_dir": str(folder)}, executors=EXECUTORS, name="box"):
        plugin = others.kubelets(folder, "--plain", "--prefers")
        await seen(cluster, lambda holders, remarks: len(holders) == 3)
        holder = await cluster.launch(process=SLEEP, claims=[f"{BOARD}=2"])
        await holder.started()
        holders = await seen(cluster, lambda holders, remarks: "" in holders.values() and any(holders.values()))
        assert holders == {"board-one": "", "board-two": holder.task_id, "board-three": holder.task_id}  # as it prefers
        rest = await cluster.run(process=["/bin/sh", "-c", "echo $BOARDS $EDGERM_DEVICES"], claims=[f"{BOARD}=1"])
        assert rest.output == f"one {BOARD}=one\n".encode()

        others.end(plugin)
        await seen(cluster, lambda holders, remarks: any(f"class {BOARD} can be claimed" in each for each in remarks))
        refused = await cluster.run(process=["/bin/true"], claims=[f"{BOARD}=1"])
        assert refused.state is TaskState.ERROR
        assert f"class {BOARD}: nothing of it can be claimed" in refused.message
        with pytest.raises(Conflict, match=f"class {BOARD}: nothing of it can be claimed"):
            await ask(where, "grant", id="plc", claims=[{"type": BOARD}])
        assert holder.status.state is TaskState.RUNNING

        others.kubelets(folder, "--plain", "--prefers")
        await seen(cluster, lambda holders, remarks: not remarks and len(holders) == 3)
        waits = await cluster.launch(process=SLEEP, claims=[f"{BOARD}=2"])
        got = await ask(where, "grant", id="plc", claims=[{"type": BOARD}])
        assert dict(got["setup"]["env"]) == {"BOARDS": "one"}
        await ask(where, "release", id="plc")
        await holder.kill()
        await waits.started()
        await waits.kill()


async def test_a_task_keeps_its_device_over_a_kill_of_the_agent(
    tmp_path: Path, folder: Path, others: Others, master: Served, cluster: Cluster
) -> None:
    """After kill -9 plugins register with the next agent, by either way that they have; the task runs on."""
    async with agent_process(tmp_path / "agent", master.url, f"--kubelet-dir={folder}") as agent:
        others.kubelets(folder, "--plain")
        others.kubelets(folder, "--plain", "--watches-own", resource=LAMP)
        await seen(cluster, lambda holders, remarks: len(holders) == 6)
        holder = await cluster.launch(process=SLEEP, claims=[f"{BOARD}=2", f"{LAMP}=2"])
        await holder.started()
        await agent.end(kill=True)
        await agent.start()
        rest = await cluster.run(process=["/usr/bin/env"], claims=[f"{BOARD}=1", f"{LAMP}=1"])
        assert f"EDGERM_DEVICES={BOARD}=three {LAMP}=three\n".encode() in rest.output
        holders = await seen(cluster, lambda holders, remarks: len(holders) == 6 and not holders["board-three"])
        kept = {name for name, task in holders.items() if task == holder.task_id}
        assert kept == {"board-one", "board-two", "lamp-one", "lamp-two"}
        assert holder.status.state is TaskState.RUNNING
        await holder.kill()


async def test_a_container_has_all_that_the_plugin_allocates(
    engine: TestEngine, tmp_path: Path, folder: Path, others: Others, master: Served, cluster: Cluster
) -> None:
    """Variables, mounts and nodes are in the container; a process is told that it cannot have the mounts."""
    executors = {"process": {"user": OURSELVES}, "docker": {"socket": engine.url}}
    devices = {"kubelet_dir": str(folder)}
    async with agent_here(tmp_path / "agent", master.url, devices=devices, executors=executors) as agent:
        others.kubelets(folder, "--without-cdi", "--pre-start")
        await seen(cluster, lambda holders, remarks: len(holders) == 3)
        script = "echo $BOARDS; test -c /dev/board && test -d /opt/boards && ! touch /opt/boards/x 2>/dev/null"
        result = await cluster.run(docker=IMAGE, args=["sh", "-c", script], network="none", claims=[f"{BOARD}=2"])
        assert (result.ok, result.output.splitlines()[0]) == (True, b"one,two")
        refused = await cluster.run(process=["/bin/true"], claims=[f"{BOARD}=1"])
        assert "'/usr/share' at '/opt/boards', which a process cannot have" in refused.message
        assert agent.shell.core.grants == {}


def test_a_directory_that_cannot_be_had(tmp_path: Path) -> None:
    """A living kubelet, no directory, and no directory at all: a line that says so, and exit status 1."""
    (tmp_path / "file").touch()
    (tmp_path / "living").mkdir()
    kubelet = socket.socket(socket.AF_UNIX)
    kubelet.bind(str(tmp_path / "living" / "kubelet.sock"))
    kubelet.listen()
    (tmp_path / "agent.toml").write_text("[executors]\nprocess = {enabled = false}\ndocker = {enabled = false}\n")
    code = (
        "import sys; from pathlib import Path; from edgerm_agent.main import main\n"
        "for name in ('living', 'missing', 'file'):\n"
        "    flags = {'data_dir': 'data', 'devices': {'kubelet_dir': name}}\n"
        "    print(main(Path('agent.toml'), flags, None))"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    kubelet.close()
    assert ran.stdout == "1\n1\n1\n"
    assert [line for line in ran.stderr.splitlines() if not line.startswith("{")] == [
        "edgerm agent: living/kubelet.sock is served by another process: stop that first, or choose another place",
        "edgerm agent: missing is not there: make the directory, or choose another",
        "edgerm agent: file is no directory: choose another",
    ]


async def test_what_is_no_plugin_keeps_its_socket(tmp_path: Path, folder: Path) -> None:
    """An agent that starts removes the sockets of living plugins alone."""
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(folder / "left.sock"))
    left.close()
    (folder / "file").touch()
    devices = {"kubelet_dir": str(folder)}
    async with (
        serving(FakeDevices(), str(folder / "other.sock")),
        agent_here(tmp_path / "agent", "", devices=devices, executors=EXECUTORS),
    ):
        assert {path.name for path in folder.iterdir()} == {"left.sock", "file", "other.sock", "kubelet.sock"}


async def test_a_plugin_of_ours_in_a_process_of_its_own(
    tmp_path: Path, others: Others, master: Served, cluster: Cluster
) -> None:
    """A plugin at a socket of the settings serves tasks, and once more after it was ended and started anew."""
    path = tmp_path / "fake.sock"
    async with agent_here(tmp_path / "agent", master.url, devices={"sockets": [str(path)]}, executors=EXECUTORS):
        plugin = others.start("-c", SERVE, str(path))
        run = ["/bin/sh", "-c", "echo $FAKE_DEVICES"]
        await seen(cluster, lambda holders, remarks: len(holders) == 2)
        assert (await cluster.run(process=run, claims=[f"{NAME}=2"])).output == b"one,two\n"
        others.end(plugin)
        await seen(cluster, lambda holders, remarks: any(f"{path} does not answer" in each for each in remarks))
        others.start("-c", SERVE, str(path))
        await seen(cluster, lambda holders, remarks: not remarks)
        assert (await cluster.run(process=run, claims=[f"{NAME}=1"])).output == b"one\n"


async def test_the_command_for_a_plugin_that_is_gone(tmp_path: Path, folder: Path, others: Others) -> None:
    """`edgerm devices --data-dir` names the class and why, and lists its devices as not healthy."""
    where = tmp_path / "agent"
    async with agent_here(where, "", devices={"kubelet_dir": str(folder)}, executors=EXECUTORS):
        plugin = others.kubelets(folder, "--plain")
        async with asyncio.timeout(DEADLINE_S):
            while len((await ask(where, "devices"))["devices"]) < 3:
                await asyncio.sleep(0.02)
            others.end(plugin)
            while not (rows := (await ask(where, "devices"))["devices"])[0]["problem"]:
                await asyncio.sleep(0.02)
        listed = json.loads(await edgerm("devices", "--json", "--data-dir", str(where)))
        assert [row["health"] for row in listed] == ["Unhealthy"] * 3 == [row["health"] for row in rows]


# --- the suite that every plugin passes, over the socket ----------------------------------------------------------


class Far:
    """A plugin behind a socket, served from its first use on."""

    name = "far"

    def __init__(self, plugin: DevicePlugin, path: Path, stack: AsyncExitStack) -> None:
        self._plugin, self._path, self._stack = plugin, path, stack
        self._remote: RemotePlugin | None = None

    async def _served(self) -> RemotePlugin:
        if self._remote is None:
            await self._stack.enter_async_context(serving(self._plugin, str(self._path)))
            self._remote = RemotePlugin(self.name, str(self._path))
        return self._remote

    async def watch(self) -> AsyncIterator[Inventory]:
        async for inventory in (await self._served()).watch():
            yield inventory

    async def prepare(self, grant: Grant) -> Setup:
        return await (await self._served()).prepare(grant)

    async def release(self, grant: Grant) -> None:
        await (await self._served()).release(grant)


class Mortal(FakeDevices):
    """gRPC's server is not made for a power cut."""

    async def prepare(self, grant: Grant) -> Setup:
        try:
            return await super().prepare(grant)
        except PowerCut:
            raise OSError("the power is gone") from None

    async def release(self, grant: Grant) -> None:
        try:
            await super().release(grant)
        except PowerCut:
            raise OSError("the power is gone") from None


class TestFarDevices(DevicePluginSuite):
    """A fake behind a socket is a plugin like any other."""

    config: ClassVar[dict[str, object]] = {"colour": "red"}
    wrong_configs: ClassVar[tuple[dict[str, object], ...]] = ({"colour": 3},)

    @pytest.fixture(autouse=True)
    async def _serving(self, tmp_path: Path) -> AsyncIterator[None]:
        self.folder, self.made = tmp_path, 0
        async with AsyncExitStack() as self.stack:
            yield

    def make_plugin(self, host: HostFiles) -> DevicePlugin:
        self.made += 1
        fake = Mortal(host=host)
        [its] = fake.inventory.classes
        fake.set(*fake.inventory.devices, classes=[replace(its, config_keys=("colour",))])
        return Far(fake, self.folder / f"{self.made}.sock", self.stack)

    async def cut(self, host: HostFiles, steps: int, grant: Grant, prepares: bool) -> tuple[bool, Setup | None]:
        try:
            return await super().cut(host, steps, grant, prepares)
        except Unavailable:
            return False, None
