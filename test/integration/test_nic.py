"""The nic plugin and the process executor's networks on this kernel: veth pairs as the marked interfaces.

What only a real card has (IRQs, NAPI, VLAN, PTP, coming home by itself) is in test/edgebox/test_nic.py.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.agent import OURSELVES, agent_here

from edgerm.core.claims import Granted
from edgerm.core.errors import Conflict
from edgerm.core.ids import AgentId, FrameworkId, LaunchId, TaskId, TaskKey
from edgerm.core.metadata import read
from edgerm.plugin.device import Given, Grant, HostFiles, NotClean
from edgerm.plugin.executor import LaunchSpec, Networks
from edgerm.sdk import connect
from edgerm.testing.conformance.device import DevicePluginSuite
from edgerm_agent import netns, purge
from edgerm_agent.cgroups import open_cgroups
from edgerm_agent.config import Config, Nic, NicInterface
from edgerm_agent.core.records import GrantRecord
from edgerm_agent.devices.hostfs import Host, doors
from edgerm_agent.devices.nic import links, plan
from edgerm_agent.devices.nic.plan import Link, Step
from edgerm_agent.devices.nic.plugin import CLASS, NicPlugin
from edgerm_agent.devices.nic.tuning import Tuner
from edgerm_agent.executors.process import ProcessExecutor
from edgerm_master.main import Served

PAIRS = (("edgm0", "edgm0p"), ("edgm1", "edgm1p"))
NAMESPACE = "edgerm-test-nic"
LABELS = {"line7": 0, "spare": 0}
SETTINGS = Nic(interfaces=(NicInterface("edgm0", LABELS), NicInterface("edgm1", {"up": 0}), NicInterface("edgm9")))
KEY = TaskKey(FrameworkId("f"), TaskId("t"), LaunchId("l"))
DEADLINE_S = 60


def ip(*argv: str) -> subprocess.CompletedProcess[str]:
    """The box's own tool."""
    return subprocess.run(("ip", *argv), check=False, capture_output=True, text=True)


def can_make_interfaces() -> bool:
    """Whether this kernel gives us a veth pair."""
    if os.geteuid() != 0:
        return False
    made = ip("link", "add", "edgmx", "type", "veth", "peer", "name", "edgmxp").returncode == 0
    ip("link", "del", "edgmx")
    return made


pytestmark = [pytest.mark.root, pytest.mark.skipif(not can_make_interfaces(), reason="needs root and veth interfaces")]


@pytest.fixture(autouse=True)
def interfaces() -> Iterator[str]:
    """Two marked interfaces with an address each, and a namespace; nothing of them is left. The namespace's path."""
    for number, (name, peer) in enumerate(PAIRS):
        assert ip("link", "add", name, "type", "veth", "peer", "name", peer).returncode == 0
        ip("addr", "add", f"198.51.100.{number + 1}/32", "dev", name)
    yield netns.make(NAMESPACE)
    for _, peer in PAIRS:
        ip("link", "del", peer)  # takes the other end with it, wherever that is
    for name in netns.names():
        if name.startswith(NAMESPACE):
            netns.remove(name)


def make(host: HostFiles) -> NicPlugin:
    """The plugin on the real kernel."""
    return NicPlugin(SETTINGS, host, links.Netlink(), Tuner(host))


def inside(name: str = NAMESPACE) -> tuple[Link, ...]:
    """What is in the task's namespace, but the loopback."""
    return tuple(link for link in links.Netlink().look(netns.path_of(name)) if link.name != "lo")


def at_home() -> set[str]:
    """Which marked interfaces are on the box."""
    return {link.name for link in links.Netlink().look("")} & {name for name, _ in PAIRS}


async def grant(plugin: NicPlugin, *claims: tuple[dict[str, object], int]) -> Grant:
    """Claims with their configs, each for an interface by its number."""
    devices = (await anext(plugin.watch())).devices
    given = tuple(Given(f"c{at}", config, (devices[each],)) for at, (config, each) in enumerate(claims))
    return Grant(KEY, CLASS, given, "process", cpus=(0,), network=netns.path_of(NAMESPACE))


class TestNicPlugin(DevicePluginSuite):
    """The suite, on a veth pair; power is cut at every note, and (below) at every step of the kernel's."""

    class_name = CLASS
    executor = "process"
    config = {"prefix": "rt", "label": ""}  # noqa: RUF012 - the suite's own words
    wrong_configs = (
        {"prefix": "9"},
        {"label": "nothing"},
        {"irq_affinity": "0,,1"},
        {"napi_threads": "yes"},
        {"irq_threads_sched": "d5"},
    )

    def make_host(self, path: Path) -> HostFiles:
        return Host(path / "notes")

    def make_plugin(self, host: HostFiles) -> NicPlugin:
        return NicPlugin(replace_labels(), host, links.Netlink(), Tuner(host))

    def look(self, host: HostFiles) -> object:
        there = [link for name in netns.names() if name.startswith(NAMESPACE) for link in inside(name)]
        return sorted(at_home()), [(link.name, link.up, link.addresses, link.mac) for link in there], host.notes.keys()

    def adapt(self, grant: Grant) -> Grant:
        return replace(grant, network=netns.make(f"{NAMESPACE}-{grant.task.task_id}"))


def replace_labels() -> Nic:
    """One label each: no config has to say which."""
    return Nic(interfaces=(NicInterface("edgm0", {"line7": 0}), NicInterface("edgm1", {"up": 0})))


async def test_two_networks_of_one_task(tmp_path: Path) -> None:
    """Interfaces arrive up, renamed by prefix and counter, without addresses; position i is one network in all five."""
    plugin = make(Host(tmp_path))
    one = await grant(plugin, ({"label": "line7", "prefix": "rt"}, 0), ({}, 1))
    setup = await plugin.prepare(one)
    assert [(link.name, link.up, link.addresses) for link in inside()] == [("rt0", True, 0), ("eth0", True, 0)]
    assert at_home() == set()
    assert dict(setup.env) == {
        "IEDGE_NETWORKS_PREFIXES": "rt,eth",
        "IEDGE_NETWORKS_LABELS": "line7,up",
        "IEDGE_NETWORKS_PTP_DEVICES": ",",
        "IEDGE_NETWORKS_ISOLATED": "edgm0,edgm1",
        "IEDGE_NETWORKS_ANNOTATIONS": '[{"line7":0,"spare":0},{"up":0}]',
    }
    held = (await anext(plugin.watch())).devices
    assert [(device.id, device.problem) for device in held] == [
        ("edgm0", ""),
        ("edgm1", ""),
        ("edgm9", "interface edgm9 is missing"),
    ]
    assert read(held[0].metadata)["labels"] == LABELS
    await plugin.release(one)
    assert at_home() == {"edgm0", "edgm1"}
    assert all(not (link.up or link.addresses) for link in links.Netlink().look("") if link.name in at_home())


async def test_what_a_task_changed_is_undone(tmp_path: Path) -> None:
    """Addresses, another name and another packet size inside are gone when the interface is home."""
    plugin = make(Host(tmp_path))
    one = await grant(plugin, ({"label": "line7"}, 0))
    await plugin.prepare(one)
    subprocess.run(
        ("nsenter", f"--net={netns.path_of(NAMESPACE)}", "sh", "-ec",
         "ip addr add 198.51.100.7/24 dev eth0; ip link set eth0 mtu 1200 promisc on; ip link set eth0 down;"
         "ip link set eth0 name mine; ip link set mine up"),
        check=True,
    )  # fmt: skip
    await plugin.release(one)
    [home] = [link for link in links.Netlink().look("") if link.name == "edgm0"]
    assert (home.mtu, home.up, home.addresses) == (1500, False, 0)


async def test_an_interface_that_is_lost(tmp_path: Path) -> None:
    """What goes with its namespace is not clean, and says so, until an interface of that name is there again."""
    plugin = make(Host(tmp_path))
    one = await grant(plugin, ({"label": "line7"}, 0))
    await plugin.prepare(one)
    netns.remove(NAMESPACE)  # a virtual interface ends with it; a card would come back
    await gone("edgm0p")
    with pytest.raises(NotClean, match="edgm0 is neither on the box nor in its task's network"):
        await plugin.release(one)
    ip("link", "add", "edgm0", "type", "veth", "peer", "name", "edgm0p")
    await make(Host(tmp_path)).release(one)


async def gone(name: str) -> None:
    """Until the kernel has cleaned up, which it does by itself."""
    async with asyncio.timeout(DEADLINE_S):
        while name in {link.name for link in links.Netlink().look("")}:
            await asyncio.sleep(0.01)


async def test_one_interface_has_one_task(tmp_path: Path) -> None:
    """While a task has it, another one's prepare is refused, naming the holder, and its release touches nothing."""
    plugin = make(Host(tmp_path))
    one = await grant(plugin, ({"label": "line7"}, 0))
    await plugin.prepare(one)
    other = replace(one, task=KEY._replace(task_id=TaskId("other")))
    with pytest.raises(Conflict, match="'c0': interface edgm0 is not home yet from task f/t/l"):
        await plugin.prepare(other)
    await plugin.release(other)
    assert at_home() == {"edgm1"}
    await plugin.release(one)


async def test_an_interface_in_use(tmp_path: Path) -> None:
    """An interface that another one of the box is on has a problem that says so, and is given to nobody."""
    made = ip("link", "add", "edgmv", "link", "edgm1", "type", "macvlan")
    if made.returncode:
        pytest.skip(f"needs macvlan: {made.stderr.strip()}")
    try:
        devices = (await anext(make(Host(tmp_path)).watch())).devices
        assert devices[1].problem == "interface edgm1 is below edgmv on the box"
    finally:
        ip("link", "del", "edgmv")


class CutKernel(links.Netlink):
    """The power is cut after so many steps."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def apply(self, path: str, steps: Iterable[Step]) -> None:
        for step in steps:
            if self.left == 0:
                raise PowerGone
            self.left -= 1
            super().apply(path, [step])


class PowerGone(BaseException):
    """Nothing runs on."""


@pytest.mark.parametrize("steps", range(4))
async def test_a_power_cut_at_a_step_of_the_kernel(tmp_path: Path, steps: int) -> None:
    """Wherever the way in is cut, the next life brings the interface home, and so does one after a cut way home."""
    host = Host(tmp_path)
    one = await grant(make(host), ({"label": "line7"}, 0))
    cut = NicPlugin(SETTINGS, host, CutKernel(steps), Tuner(host))
    with pytest.raises(PowerGone):
        await cut.prepare(one)
    cut = NicPlugin(SETTINGS, host, CutKernel(1), Tuner(host))
    with_power = make(host)
    try:
        await cut.release(one)
    except PowerGone:
        await with_power.release(one)
    assert at_home() == {"edgm0", "edgm1"}
    assert host.notes.keys() == ()
    assert inside() == ()


async def test_a_purge_brings_interfaces_home(tmp_path: Path) -> None:
    """What a task of a stopped agent had of interfaces is given back by the purge of that agent's data."""
    host = doors(tmp_path / "devices")("nic")
    plugin = make(host)
    await plugin.prepare(await grant(plugin, ({"label": "line7"}, 0)))
    record = GrantRecord(KEY, CLASS, (Granted("c0", CLASS, ("edgm0",)),), "process")
    found = purge.Found(tmp_path, AgentId("a"), 0, frozenset(), 0, 0, 0, (), (record,))
    assert await purge.give_back(found, Config()) == []
    assert at_home() == {"edgm0", "edgm1"}
    assert host.notes.keys() == ()


async def test_the_end_of_all_tasks_brings_interfaces_home(tmp_path: Path, master: Served) -> None:
    """An agent that ends with its tasks brings home what they had of interfaces, before their networks go."""
    devices = {"nic": {"interfaces": [{"name": "edgm0", "labels": {"line7": 0}}]}}
    executors = {"process": {"user": OURSELVES}, "docker": {"enabled": False}}
    running = agent_here(tmp_path / "agent", master.url, devices=devices, executors=executors)
    async with asyncio.timeout(DEADLINE_S), running as agent, connect(master.url) as cluster:
        task = await cluster.launch(process=["/bin/sleep", "1000"], claims=[f"{CLASS}=1"])
        await task.started()
        assert at_home() == {"edgm1"}
        await agent.end_tasks()
    assert at_home() == {"edgm0", "edgm1"}


async def test_a_process_in_a_network_of_its_own(tmp_path: Path) -> None:
    """A process sees what is in its namespace and nothing of the box's; a later life finds the namespace again."""
    cgroups = open_cgroups("nictest1")
    executor = ProcessExecutor(tmp_path, cgroups, user="root")
    assert isinstance(executor, Networks)
    try:
        path = await executor.network(KEY)
        assert path == await executor.network(KEY)
        sandbox = tmp_path / "sandbox"
        sandbox.mkdir()
        shell = "test -d /proc/self/net && cut -d: -f1 -s /proc/self/net/dev"
        env = (("PATH", os.environ["PATH"]),)
        spec = LaunchSpec(KEY, "sh", ("sh", "-c", shell), env, sandbox, network=path)
        handle = await executor.start(spec)
        assert (await executor.wait(handle)).code == 0
        seen = await executor.output(handle, "stdout", 0, 4096, DEADLINE_S)
        assert seen.data.split() == [b"lo"]
        await executor.release(handle)
        later = ProcessExecutor(tmp_path, cgroups, user="root")
        assert await later.network(KEY) == path
        assert later.clear_networks([KEY]) == []
        assert netns.is_namespace(path)
        await later.drop_network(KEY)
        await later.drop_network(KEY)
        assert not Path(path).exists()
        await later.close()
    finally:
        await executor.holder.shutdown(force=True)
        await executor.close()
        executor.clear_networks(())
        cgroups.discard()


async def test_a_network_that_is_gone(tmp_path: Path) -> None:
    """A process whose namespace is not there does not start, and says why."""
    from edgerm.plugin.executor import LaunchFailed

    cgroups = open_cgroups("nictest2")
    executor = ProcessExecutor(tmp_path, cgroups, user="root")
    spec = LaunchSpec(KEY, "true", ("true",), (), tmp_path, network="/run/edgerm/netns/none")
    try:
        with pytest.raises(LaunchFailed, match="cannot enter the network /run/edgerm/netns/none: No such file"):
            await executor.start(spec)
    finally:
        await executor.holder.shutdown(force=True)
        await executor.close()
        cgroups.discard()


def test_namespaces_by_name_and_number() -> None:
    """A namespace is found by its number as long as something holds it, and not any more after that."""
    path = netns.make(NAMESPACE)
    number = netns.number_of(path)
    assert netns.find(number) == path
    assert number != netns.number_of()
    holder = subprocess.Popen(("nsenter", f"--net={path}", "cat"), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdin is not None
    assert holder.stdout is not None
    holder.stdin.write(b"x\n")
    holder.stdin.flush()
    assert holder.stdout.readline() == b"x\n"  # it is in
    netns.remove(NAMESPACE)
    assert netns.find(number) == netns.path_of_process(holder.pid)
    assert {link.name for link in links.Netlink().look(netns.path_of_process(holder.pid))} == {"lo"}
    holder.communicate()
    assert netns.find(number) == ""


def test_errors_of_the_kernel_name_the_interface() -> None:
    """A step that cannot be done is a conflict that says which interface, and what was refused."""
    kernel = links.Netlink()
    with pytest.raises(Conflict, match=r"interface edgm7: the kernel refuses \(rename\): No such device"):
        kernel.apply("", [plan.Rename("edgm7", "x")])
    with pytest.raises(Conflict, match="another interface is called edgm1 where it is to go"):
        kernel.apply("", [plan.Rename("edgm0", "edgm1")])
