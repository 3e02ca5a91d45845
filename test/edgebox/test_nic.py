"""Cards into tasks and home again, on a real-time kernel: VLAN, PTP, IRQs and threads, containers, crashes.

Two cards are on one wire: eth0 is marked and given to tasks, eth1 is the other end. What needs no card is in
test/integration/test_nic.py.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from support.engine import IMAGE

from edgerm.core.ids import AgentId, FrameworkId, LaunchId, TaskId, TaskKey
from edgerm.core.metadata import read
from edgerm.plugin.device import DeviceNode, Given, Grant, Setup
from edgerm.plugin.executor import ContainerSpec, ExitReason, Handle, LaunchFailed, LaunchSpec, PortMapping
from edgerm_agent import netns
from edgerm_agent.config import Nic, NicInterface
from edgerm_agent.devices.hostfs import Host
from edgerm_agent.devices.nic import create, links
from edgerm_agent.devices.nic.plan import Down, Link, Move, settled
from edgerm_agent.devices.nic.plugin import CLASS, NicPlugin
from edgerm_agent.devices.nic.tuning import irq_of, napi_of
from edgerm_agent.devices.threads import Thread, kernel_threads
from edgerm_agent.executors.docker.executor import DockerExecutor

if TYPE_CHECKING:
    from edgebox.conftest import GuestEngine

pytestmark = [
    pytest.mark.edgebox,
    pytest.mark.skipif(os.environ.get("EDGEBOX") != "1", reason="needs the edgebox: make test-edgebox runs it"),
]

DEADLINE_S = 90
AGENT = AgentId("agent-of-test-nic")
KEY = TaskKey(FrameworkId("f"), TaskId("t"), LaunchId("l"))
SETTINGS = Nic(interfaces=(NicInterface("eth0", {"line7": 123, "up": 0}),))
TASK, PEER = "edgerm-test-task", "edgerm-test-peer"
TUNED = {
    "label": "up",
    "prefix": "rt",
    "irq_affinity": "0",
    "irq_threads_affinity": "1",
    "irq_threads_sched": "f60",
    "napi_threads": "true",
    "napi_threads_affinity": "1",
    "napi_threads_sched": "f55",
}
CPUS = (2, 3)
FIFO = 1


def sh(script: str, network: str = "") -> str:
    """What a shell prints; in a task's namespace if there is a path."""
    enter = ("nsenter", f"--net={network}") if network else ()
    return subprocess.run((*enter, "sh", "-ec", script), check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module", autouse=True)
def peer() -> Iterator[str]:
    """The other end of the wire, in a namespace of its own, with an address plain and one in VLAN 123."""
    subprocess.run(("modprobe", "8021q"), check=False)
    path = netns.make(PEER)
    links.Netlink().apply("", [Down("eth1"), Move("eth1", path, "eth1")])
    sh(
        "ip addr add 192.0.2.1/24 dev eth1; ip link set eth1 up;"
        "ip link add link eth1 name tagged type vlan id 123;"
        "ip addr add 198.51.100.1/24 dev tagged; ip link set tagged up",
        path,
    )
    yield path
    netns.remove(PEER)


@pytest.fixture
def task() -> Iterator[str]:
    """A namespace for a task."""
    yield netns.make(TASK)
    netns.remove(TASK)


@pytest.fixture(autouse=True)
def mended() -> Iterator[None]:
    """A test that fails leaves the card to the next one."""
    yield
    for link in look().values():
        if link.bus and link.name != "eth0":
            links.Netlink().apply("", settled(link, "eth0", link.mac, link.mtu))


def make(path: Path) -> NicPlugin:
    """The plugin, or its next life."""
    return create(SETTINGS, Host(path / "notes"))


async def grant(plugin: NicPlugin, network: str, executor: str = "process", **config: str) -> Grant:
    """A claim for the marked card, by a task with two isolated cores."""
    [device] = (await anext(plugin.watch())).devices
    assert device.problem == ""
    assert read(device.metadata) == {
        "labels": {"line7": 123, "up": 0},
        "ptp": "/dev/ptp0",
        "driver": "e1000e",
        "mac": Path("/sys/class/net/eth0/address").read_text().strip(),
    }
    return Grant(KEY, CLASS, (Given("field", config, (device,)),), executor, cpus=CPUS, network=network)


def look(path: str = "") -> dict[str, Link]:
    """The interfaces of a namespace by name."""
    return {link.name: link for link in links.Netlink().look(path)}


def home() -> bool:
    """Whether the card is at home, down and without addresses."""
    card = look().get("eth0")
    return card is not None and not (card.up or card.addresses)


def irqs() -> dict[int, str]:
    """Where the card's IRQs may go."""
    folder = Path("/sys/bus/pci/devices", look()["eth0"].bus, "msi_irqs")
    return {number: affinity(number) for number in sorted(int(entry.name) for entry in folder.iterdir())}


def affinity(number: int) -> str:
    """Where one IRQ may go."""
    return Path(f"/proc/irq/{number}/smp_affinity_list").read_text().strip()


def threads(numbers: list[int], name: str = "eth0") -> tuple[list[Thread], list[Thread]]:
    """Threads of these IRQs, and NAPI threads of the interface with this name."""
    all_ = kernel_threads(Host(Path("/nonexistent")))
    return [each for each in all_ if irq_of(each.name) in numbers], [
        each for each in all_ if napi_of(each.name) == name
    ]


async def until(condition: object, seconds: float = DEADLINE_S) -> None:
    """Until it holds: the kernel does it by itself, and tells nobody."""
    async with asyncio.timeout(seconds):
        while not condition():  # type: ignore[operator]
            await asyncio.sleep(0.05)


async def follow(plugin: NicPlugin) -> None:
    """As the agent does, for ever."""
    async for inventory in plugin.watch():
        assert inventory.classes


def variables(setup: Setup) -> dict[str, str]:
    """Without what they all begin with."""
    return {name.removeprefix("IEDGE_NETWORKS_"): value for name, value in setup.env}


async def test_a_vlan_and_its_clock(tmp_path: Path, task: str) -> None:
    """The label's VLAN is the task's interface: packets go through it tagged; the card below keeps its name, PTP goes
    along; at home again nothing of it is left."""
    plugin = make(tmp_path)
    one = await grant(plugin, task, label="line7", prefix="rt")
    setup = await plugin.prepare(one)
    assert setup.nodes == (DeviceNode("/dev/ptp0", "/dev/ptp0", "rw"),)
    assert Path("/dev/ptp0").is_char_device()
    assert variables(setup) == {
        "PREFIXES": "rt",
        "LABELS": "line7",
        "PTP_DEVICES": "/dev/ptp0",
        "ISOLATED": "eth0",
        "ANNOTATIONS": '[{"line7":123,"up":0}]',
    }
    assert {name: (link.up, link.addresses) for name, link in look(task).items() if name != "lo"} == {
        "eth0": (True, 0),
        "rt0": (True, 0),
    }
    assert "vlan protocol 802.1Q id 123" in sh("ip -d link show rt0", task)
    sh("ip addr add 198.51.100.2/24 dev rt0", task)
    sh("busybox ping -c 1 -w 30 198.51.100.1", task)
    await plugin.release(one)
    assert home()
    assert "rt0" not in look()


async def test_irqs_and_threads_are_tuned(tmp_path: Path, task: str, peer: str) -> None:
    """IRQs, IRQ threads and NAPI threads are where and as the claim wants them, stay so when packets come and when the
    task takes the interface down and up, and are as before afterwards."""
    plugin = make(tmp_path)
    one = await grant(plugin, task, **TUNED)
    before = irqs()
    numbers = sorted(before)
    assert len(numbers) >= 2

    def tuned() -> bool:
        of_irqs, of_napi = threads(numbers)
        return (
            all(affinity(number) == "2" for number in numbers)
            and len(of_irqs) >= 2
            and len(of_napi) >= 1
            and {(each.policy, each.priority) for each in of_irqs} == {(FIFO, 60)}
            and {(each.policy, each.priority) for each in of_napi} == {(FIFO, 55)}
            and {tuple(os.sched_getaffinity(each.pid)) for each in (*of_irqs, *of_napi)} == {(3,)}
        )

    watching = asyncio.create_task(follow(plugin))  # it looks after what tasks have
    await plugin.prepare(one)
    await until(tuned)  # an interrupt may just have moved a thread
    assert all("-rt0" in each.name for each in threads(numbers)[0])  # new ones: they have the name from inside
    sh("ip addr add 192.0.2.2/24 dev rt0; busybox ping -c 1 -w 30 192.0.2.1", task)
    await until(tuned)
    sh("ip link set rt0 down; ip link set rt0 up", task)
    await until(tuned)
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    await make(tmp_path).release(one)  # by the next life
    assert home()
    assert irqs() == before
    assert threads(numbers)[0] == []
    assert {(each.policy, each.priority) for each in threads(numbers)[1]} == {(0, 0)}
    assert Path("/sys/class/net/eth0/threaded").read_text() == "0\n"


@pytest_asyncio.fixture
async def docker(engine: GuestEngine) -> AsyncIterator[DockerExecutor]:
    """The executor of an agent on the guest's engine."""
    executor = DockerExecutor(AGENT, engine.url, privileged=True)
    yield executor
    await executor.end_tasks()
    await executor.close()


async def begin(
    docker: DockerExecutor, plugin: NicPlugin, sandbox: Path, command: str, **config: str
) -> tuple[Grant, Handle]:
    """A container task with the card, as the agent makes one."""
    one = await grant(plugin, await docker.network(KEY), "docker", **config)
    setup = await plugin.prepare(one)
    rights = (("cap-add", "NET_ADMIN"), ("cap-add", "NET_RAW"))
    spec = ContainerSpec(IMAGE, "host", nodes=setup.nodes, parameters=rights)
    argv = ("sh", "-c", command)
    launch = LaunchSpec(KEY, argv[0], argv[1:], setup.env, sandbox, container=spec, network=setup.network)
    return one, await docker.start(launch)


async def end(docker: DockerExecutor, plugin: NicPlugin, one: Grant, handle: Handle) -> None:
    """As the agent does it."""
    await plugin.release(one)
    await docker.drop_network(KEY)
    await docker.release(handle)


async def test_a_container_with_a_card(docker: DockerExecutor, engine: GuestEngine, tmp_path: Path) -> None:
    """A container has the card, its clock and its variables before its entry point runs; an agent that is started anew
    finds the network again; nothing of it is taken for a task; a stop of the task leaves the box clean."""
    plugin = make(tmp_path)
    command = (
        "ip link show rt0 | grep -q UP && test -c /dev/ptp0 && ip addr add 192.0.2.3/24 dev rt0 &&"
        " ping -c 1 -w 30 192.0.2.1 >/dev/null && echo $IEDGE_NETWORKS_ISOLATED; exec sleep 1000"
    )
    one, handle = await begin(docker, plugin, tmp_path, command, label="up", prefix="rt")
    assert (await docker.output(handle, "stdout", 0, 100, DEADLINE_S)).data == b"eth0\n"
    assert "eth0" not in look()
    again = DockerExecutor(AGENT, engine.url)
    assert await again.network(KEY) == one.network
    assert [held.key for held in (await again.inspect()).held] == [KEY]
    await again.close()
    await docker.stop(handle, 0)
    assert (await docker.wait(handle)).signal == signal.SIGKILL
    assert "rt0" in look(one.network)  # the holder keeps it
    await end(docker, make(tmp_path), one, handle)
    assert home()
    with engine.client() as client:
        assert client.containers(all=True) == []


async def test_the_holder_dies(docker: DockerExecutor, engine: GuestEngine, tmp_path: Path) -> None:
    """When the container that held the network is killed the task goes on; with its end the kernel puts the card back
    under the name from inside, and the release gives it its own."""
    plugin = make(tmp_path)
    one, handle = await begin(docker, plugin, tmp_path, "echo up; exec sleep 1000", label="up", prefix="rt")
    assert (await docker.output(handle, "stdout", 0, 100, DEADLINE_S)).data == b"up\n"
    with engine.client() as client:
        [held] = [each for each in client.containers() if each["Names"][0].startswith("/edgerm-net-")]
        client.kill(held["Id"])
        client.wait(held["Id"])
        assert client.inspect_container(handle_name(client))["State"]["Running"]
    await docker.stop(handle, 0)
    await docker.wait(handle)
    await until(lambda: "rt0" in look())
    await end(docker, make(tmp_path), one, handle)
    assert home()


def handle_name(client: object) -> str:
    """The one container of a task."""
    found = client.containers(all=True)  # type: ignore[attr-defined]
    [name] = [each["Names"][0] for each in found if not each["Names"][0].startswith("/edgerm-net-")]
    return str(name)


async def test_the_engine_crashes(docker: DockerExecutor, engine: GuestEngine, tmp_path: Path) -> None:
    """An engine that is killed and started anew ends its containers; the card comes home all the same, also where the
    old engine's mount still holds its namespace."""
    plugin = make(tmp_path)
    one, handle = await begin(docker, plugin, tmp_path, "echo up; exec sleep 1000", label="up", prefix="rt")
    assert (await docker.output(handle, "stdout", 0, 100, DEADLINE_S)).data == b"up\n"
    engine.kill()
    engine.start()
    exit_ = await docker.wait(handle)
    assert exit_.reason in (ExitReason.ENDED, ExitReason.EXECUTOR_DIED)
    await end(docker, make(tmp_path), one, handle)
    assert home()


async def test_what_a_held_network_excludes(docker: DockerExecutor, tmp_path: Path) -> None:
    """Ports, a network by name and a hostname are refused for a task with interfaces, with the reason."""
    for spec, words in (
        (ContainerSpec(IMAGE, "bridge", (PortMapping(8080, 80, "tcp"),)), "can have no port mappings"),
        (ContainerSpec(IMAGE, "mine"), "cannot be in the network 'mine' too"),
        (ContainerSpec(IMAGE, "host", hostname="box"), "can set no hostname"),
    ):
        with pytest.raises(LaunchFailed, match=words):
            await docker.start(LaunchSpec(KEY, "true", (), (), tmp_path, container=spec, network="/any"))
