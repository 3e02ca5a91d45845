"""The plugin of isolated cores on a recorded board: its inventory, what tasks get, the kernel's threads.

The kernel's threads are those of the recording; who changes one finds it changed. Real ones: test/edgebox/test_cpu.py.
"""

from __future__ import annotations

import asyncio
import errno
import threading
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from edgerm.core.devices import Device, Inventory
from edgerm.core.errors import Conflict, Invalid
from edgerm.core.ids import FrameworkId, LaunchId, TaskId, TaskKey
from edgerm.core.metadata import read
from edgerm.plugin.device import DeviceNode, Given, Grant, HostFiles, NotClean
from edgerm.testing.conformance.device import DevicePluginSuite
from edgerm.testing.hostfs import MemoryNotes, RecordedHost
from edgerm_agent.config import Cpu, CpuOverride, Fake
from edgerm_agent.devices import threads
from edgerm_agent.devices.cpu import create
from edgerm_agent.devices.cpu.plugin import CLASS, Cpus

BOARDS = Path(__file__).parents[2] / "fixtures/boards"
KEY = TaskKey(FrameworkId("f"), TaskId("t"), LaunchId("l"))
ONLINE = "/sys/devices/system/cpu/online"
LATENCY = "/dev/cpu_dma_latency"


class Kernel:
    """Changes the recorded threads."""

    def __init__(self, host: HostFiles) -> None:
        self.host = host
        self.fails = 0  # an errno
        self.stuck: set[str] = set()  # threads that stay as they are
        self.reached, self.gate = threading.Event(), threading.Event()  # each change waits for the gate
        self.gate.set()

    def change(self, pid: int, policy: int, priority: int) -> None:
        self.reached.set()
        assert self.gate.wait(20)
        if self.fails:
            raise OSError(self.fails, "refused")
        path = f"/proc/{pid}/stat"
        head, _, tail = self.host.read(path).rpartition(")")
        fields = tail.split()
        if head.partition(" (")[2] not in self.stuck:
            fields[37:39] = [str(priority), str(policy)]
            self.host.write(path, f"{head}) {' '.join(fields)}\n")

    def scheduling(self, name: str) -> tuple[int, int]:
        """(policy, priority)"""
        found = next(thread for thread in threads.kernel_threads(self.host) if thread.name == name)
        return found.policy, found.priority


class Bench:
    """A plugin on a board."""

    def __init__(
        self, board: str, settings: Cpu | None = None, notes: MemoryNotes | None = None, dynamic_tuning: bool = True
    ) -> None:
        self.host = RecordedHost(BOARDS / board, notes=notes)
        self.kernel = Kernel(self.host)
        self.settings = settings or Cpu()
        self.plugin = Cpus(self.settings, self.host, dynamic_tuning, look_s=0.001, change=self.kernel.change)

    def again(self) -> None:
        """The agent starts anew on the same box."""
        self.plugin = Cpus(self.settings, self.host, look_s=0.001, change=self.kernel.change)

    async def inventory(self) -> Inventory:
        return await anext(self.plugin.watch())


def grant(*ids: str, config: Mapping[str, object] | None = None, claim: str = "rt") -> Grant:
    devices = tuple(Device(CLASS, each) for each in ids)
    return Grant(KEY, CLASS, (Given(claim, config or {}, devices),), "process")


@pytest.fixture
def bench() -> Bench:
    return Bench("hyperthreaded")


async def test_the_inventory(bench: Bench) -> None:
    """One exclusive device per isolated core, by its first CPU, with the core's CPUs and the first one's metadata."""
    found = await bench.inventory()
    assert [(device.id, device.shared, device.offered) for device in found.devices] == [
        ("cpu2", False, True),
        ("cpu4", False, True),
        ("cpu6", False, True),
    ]
    metadata = read(found.devices[1].metadata)
    assert metadata["cpuset"] == [4, 5]
    assert (metadata["cpuinfo"]["core id"], metadata["lscpue"]["cpu"]) == (2, 4)  # type: ignore[index]
    assert metadata["lscpu"]["Architecture"] == "x86_64"  # type: ignore[index]
    assert found.classes[0].config_keys == ("ksoftirqd_sched", "ktimers_sched")
    assert bench.plugin.plain_cpus() == (0, 1)


async def test_without_isolated_cores() -> None:
    """A box that isolates nothing has no such devices, and its tasks run on all CPUs."""
    bench = Bench("hyperthreaded")
    bench.host.put("/sys/devices/system/cpu/isolated", "\n")
    bench.again()
    assert (await bench.inventory()).devices == ()
    assert bench.plugin.plain_cpus() == ()


async def test_without_lscpu(bench: Bench) -> None:
    """Where a program is missing, the cores are there all the same, with fewer metadata."""
    host = RecordedHost(files={**recorded(bench.host), "/proc/cpuinfo": bench.host.read("/proc/cpuinfo")})
    plugin = Cpus(Cpu(), host)
    async for found in plugin.watch():
        assert [device.id for device in found.devices] == ["cpu2", "cpu4", "cpu6"]
        assert set(read(found.devices[0].metadata)) == {"cpuset", "cpuinfo"}
        break


def recorded(host: RecordedHost) -> dict[str, str]:
    """Its files of /sys, without programs."""
    root = BOARDS / "hyperthreaded"
    return {f"/{path.relative_to(root)}": path.read_text() for path in (root / "sys").rglob("*") if path.is_file()}


async def test_what_the_operator_knows_better() -> None:
    """Metadata of the override table go over what was found, deep inside, too; the kind goes into the order."""
    override = CpuOverride("6-7", "efficiency", {"lscpue": {"maxmhz": 1000}, "speed": "low"})
    found = await Bench("hyperthreaded", Cpu(override=(CpuOverride("2-7", "performance"), override))).inventory()
    last = found.devices[-1]
    assert last.id == "cpu6"
    metadata = read(last.metadata)
    assert (metadata["lscpue"]["maxmhz"], metadata["lscpue"]["cpu"], metadata["speed"]) == (1000, 6, "low")  # type: ignore[index]
    assert "efficiency core, CPU 6" in last.gives


async def test_a_core_that_goes_and_comes(bench: Bench) -> None:
    """A CPU that goes offline makes its core ill, with the reason, until it is back; nothing else is told meanwhile."""
    watched: AsyncIterator[Inventory] = bench.plugin.watch()
    before = await anext(watched)
    bench.host.put(ONLINE, "0-3,5-7\n")
    gone = await anext(watched)
    assert {device.id: device.problem for device in gone.devices if device.problem} == {"cpu4": "CPU 4 is offline"}
    bench.host.put(ONLINE, "0-7\n")
    assert await anext(watched) == before


async def test_what_a_task_gets(bench: Bench) -> None:
    """It runs on its CPUs alone, ascending, finds them in the variable, and gets the latency node."""
    bench.host.put(LATENCY, "")
    setup = await bench.plugin.prepare(grant("cpu6", "cpu2"))
    assert setup.env == (("IEDGE_CPUSET_ISOLATED", "2,6"),)
    assert setup.cpus == (2, 6)
    assert setup.nodes == (DeviceNode(LATENCY, LATENCY),)
    assert await bench.plugin.prepare(grant("cpu6", "cpu2")) == setup


@pytest.mark.parametrize("there", [True, False])
async def test_no_latency_node(there: bool) -> None:
    """The node is not passed where the operator does not want it, nor where there is none."""
    bench = Bench("hyperthreaded", Cpu(cpu_dma_latency=not there))
    if there:
        bench.host.put(LATENCY, "")
    assert (await bench.plugin.prepare(grant("cpu2"))).nodes == ()


async def test_threads_of_the_kernel(bench: Bench) -> None:
    """The threads on the task's cores are scheduled as it asks, on no other core, and afterwards as before."""
    config = {"ksoftirqd_sched": "f51", "ktimers_sched": "r007"}
    task = grant("cpu2", "cpu6", config=config)
    before = {name: bench.kernel.scheduling(name) for name in ("ksoftirqd/2", "ktimers/2", "ktimers/6", "ktimers/4")}
    await bench.plugin.prepare(task)
    assert [bench.kernel.scheduling(f"ksoftirqd/{cpu}") for cpu in (2, 6)] == [(1, 51)] * 2
    assert [bench.kernel.scheduling(f"ktimers/{cpu}") for cpu in (2, 6)] == [(2, 7)] * 2
    assert bench.kernel.scheduling("ktimers/4") == before["ktimers/4"]
    await bench.plugin.release(task)
    assert {name: bench.kernel.scheduling(name) for name in before} == before
    assert bench.host.notes.keys() == ()
    await bench.plugin.release(task)


async def test_each_claim_has_its_own(bench: Bench) -> None:
    """Of two claims of one task each has the threads of its own cores tuned."""
    one, other = grant("cpu2", config={"ktimers_sched": "f9"}), grant("cpu4", config={"ktimers_sched": "f8"}, claim="b")
    await bench.plugin.prepare(replace(one, given=one.given + other.given))
    assert (bench.kernel.scheduling("ktimers/2"), bench.kernel.scheduling("ktimers/4")) == ((1, 9), (1, 8))


async def test_after_a_crash(bench: Bench) -> None:
    """An agent that died while the threads were changed finds in its notes how they were, and prepares again alike."""
    task = grant("cpu4", config={"ktimers_sched": "f77"})
    before = bench.kernel.scheduling("ktimers/4")
    await bench.plugin.prepare(task)
    bench.again()
    await bench.plugin.prepare(task)
    assert bench.kernel.scheduling("ktimers/4") == (1, 77)
    bench.again()
    await bench.plugin.release(task)
    assert bench.kernel.scheduling("ktimers/4") == before


async def test_what_was_left_is_undone_for_the_next_task(bench: Bench) -> None:
    """A task that asks for nothing finds threads as they were, though an earlier one was never given back."""
    before = bench.kernel.scheduling("ktimers/4")
    await bench.plugin.prepare(grant("cpu4", config={"ktimers_sched": "f77"}))
    await bench.plugin.prepare(grant("cpu4"))
    assert bench.kernel.scheduling("ktimers/4") == before


async def test_after_a_reboot(bench: Bench) -> None:
    """Notes of an earlier boot are forgotten: the kernel's threads are new, and whoever set them since is right."""
    task = grant("cpu4", config={"ksoftirqd_sched": "f77"})
    await bench.plugin.prepare(task)
    bench.host.put("/proc/sys/kernel/random/boot_id", "another\n")
    await bench.plugin.release(task)
    assert bench.kernel.scheduling("ksoftirqd/4") == (1, 77)
    assert bench.host.notes.keys() == ()


async def test_threads_that_went_are_clean(bench: Bench) -> None:
    """A thread that is not there any more needs nothing."""
    task = grant("cpu4", config={"ktimers_sched": "f77"})
    await bench.plugin.prepare(task)
    pid = next(thread.pid for thread in threads.kernel_threads(bench.host) if thread.name == "ktimers/4")
    bench.host.remove(f"/proc/{pid}/stat")
    await bench.plugin.release(task)
    assert bench.host.notes.keys() == ()


async def test_a_thread_that_stays_changed_is_not_clean(bench: Bench) -> None:
    """What cannot be undone is told with what is and what was, and tried again."""
    task = grant("cpu4", config={"ktimers_sched": "f77"})
    await bench.plugin.prepare(task)
    bench.kernel.stuck.add("ktimers/4")
    with pytest.raises(NotClean, match="ktimers/4 is SCHED_FIFO 77, and was SCHED_FIFO 1"):
        await bench.plugin.release(task)
    with pytest.raises(Conflict, match="ktimers/4 is SCHED_FIFO 77"):
        await bench.plugin.prepare(grant("cpu4"))
    bench.kernel.stuck.clear()
    await bench.plugin.release(task)
    assert bench.kernel.scheduling("ktimers/4") == (1, 1)


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"ksoftirqd_sched": "f100"}, "claim 'rt': ksoftirqd_sched: scheduling 'f100'"),
        ({"ktimers_sched": 51}, "claim 'rt': ktimers_sched: 51 is no scheduling string"),
        ({"ktimers_sched": "f0"}, "claim 'rt': ktimers_sched = 'f0': .* priorities 1 to 99"),
    ],
)
async def test_what_is_no_scheduling(bench: Bench, config: dict[str, object], why: str) -> None:
    """A config that is wrong is refused with its claim and key, and changes nothing."""
    with pytest.raises(Invalid, match=why):
        await bench.plugin.prepare(grant("cpu2", config=config))
    assert bench.host.notes.keys() == ()


async def test_a_priority_without_meaning(bench: Bench) -> None:
    """`o7` is applied with priority 0."""
    await bench.plugin.prepare(grant("cpu2", config={"ktimers_sched": "o7"}))
    assert bench.kernel.scheduling("ktimers/2") == (0, 0)


async def test_without_dynamic_tuning() -> None:
    """Where the operator allows no tuning, a task that asks for it is refused; one that does not is not."""
    bench = Bench("hyperthreaded", dynamic_tuning=False)
    with pytest.raises(Conflict, match=r"claim 'rt': ktimers_sched = 'f5': .*devices.dynamic_tuning is false"):
        await bench.plugin.prepare(grant("cpu2", config={"ktimers_sched": "f5"}))
    assert (await bench.plugin.prepare(grant("cpu2"))).cpus == (2,)


async def test_without_a_real_time_kernel(bench: Bench) -> None:
    """Where there is no such thread the claim is refused, and says what it takes; no other thread was changed."""
    for thread in threads.kernel_threads(bench.host):
        if thread.name.startswith("ktimers/"):
            bench.host.remove(f"/proc/{thread.pid}/stat")
    before = bench.kernel.scheduling("ksoftirqd/2")
    with pytest.raises(Conflict, match="there is no thread ktimers/2; only a kernel with PREEMPT_RT"):
        await bench.plugin.prepare(grant("cpu2", config={"ksoftirqd_sched": "f5", "ktimers_sched": "f5"}))
    assert bench.kernel.scheduling("ksoftirqd/2") == before


async def test_without_rights(bench: Bench) -> None:
    """An agent that may not change the kernel's threads says that it takes root; nothing is left to undo."""
    bench.kernel.fails = errno.EPERM
    task = grant("cpu2", config={"ktimers_sched": "f5"})
    with pytest.raises(Conflict, match="only an agent that runs as root"):
        await bench.plugin.prepare(task)
    await bench.plugin.release(task)
    assert bench.host.notes.keys() == ()


async def test_rights_that_were_lost(bench: Bench) -> None:
    """What the kernel does not let undo is told, and tried again."""
    task = grant("cpu2", config={"ktimers_sched": "f5"})
    await bench.plugin.prepare(task)
    bench.kernel.fails = errno.EPERM
    with pytest.raises(NotClean, match="ktimers/2 cannot be made SCHED_FIFO 1 again"):
        await bench.plugin.release(task)
    bench.kernel.fails = 0
    await bench.plugin.release(task)
    assert bench.kernel.scheduling("ktimers/2") == (1, 1)


async def test_a_process_that_is_called_like_a_thread() -> None:
    """Only threads of the kernel count: a process that took the name of one is left alone."""
    bench = Bench("hyperthreaded")
    stat = f"4711 (ktimers/2) S 1 0 0 0 -1 4194560 {' '.join('0' * 40)}\n"
    bench.host.put("/proc/4711/stat", stat)
    await bench.plugin.prepare(grant("cpu2", config={"ktimers_sched": "f5"}))
    assert bench.host.read("/proc/4711/stat") == stat
    assert bench.kernel.scheduling("ktimers/2") == (1, 5)


async def test_fakes() -> None:
    """A fake has metadata and sets the variable, says that it is one, binds nothing and tunes nothing."""
    bench = Bench("arm", Cpu(fake=(Fake("12", {"lscpu": {"Architecture": "riscv64"}}), Fake("10"))))
    found = [device for device in (await bench.inventory()).devices if device.fake]
    assert [device.id for device in found] == ["cpu12", "cpu10"]
    assert read(found[0].metadata) == {"cpuset": [12], "lscpu": {"Architecture": "riscv64"}}
    task = Grant(KEY, CLASS, (Given("rt", {"ktimers_sched": "f5"}, tuple(found)),), "docker")
    bench.host.put(LATENCY, "")
    setup = await bench.plugin.prepare(task)
    assert setup.env == (("IEDGE_CPUSET_ISOLATED", "10,12"),)
    assert (setup.cpus, setup.nodes) == ((), ())
    await bench.plugin.release(task)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        (Cpu(fake=(Fake("2"),)), "'2' is a core of this box"),
        (Cpu(fake=(Fake("12"), Fake("12"))), "stands twice"),
        (Cpu(fake=(Fake("2-3"),)), r"devices.cpu.fake\[0\].id = '2-3'"),
        (Cpu(fake=(Fake("9", {"on": True}),)), r"devices.cpu.fake\[0\].metadata"),
        (Cpu(override=(CpuOverride("2", metadata={"on": True}),)), r"devices.cpu.override\[0\].metadata"),
        (Cpu(isolated="0-7"), "leaves no CPU"),
    ],
)
def test_settings_that_cannot_be(settings: Cpu, why: str) -> None:
    """Wrong settings are refused with their key when the plugin is made."""
    with pytest.raises(Invalid, match=why):
        create(settings, RecordedHost(BOARDS / "arm"))


class TestCpuPlugin(DevicePluginSuite):
    """What every plugin promises, on the recorded board, with both kinds of threads tuned."""

    config = {"ksoftirqd_sched": "f51", "ktimers_sched": "f52"}  # noqa: RUF012 - as the suite has it
    wrong_configs = ({"ksoftirqd_sched": "f100"}, {"ktimers_sched": 5}, {"ktimers_sched": "r0"})

    def make_host(self, path: Path) -> HostFiles:
        return RecordedHost(BOARDS / "hyperthreaded")

    def make_plugin(self, host: HostFiles) -> Cpus:
        return Cpus(Cpu(), host, change=Kernel(host).change)


async def test_a_release_waits_for_a_prepare_that_was_given_up(bench: Bench) -> None:
    """What a broken off prepare still does in its thread is done before it is undone, and nothing of it is left."""
    before = bench.kernel.scheduling("ksoftirqd/2")
    one = grant("cpu2", config={"ksoftirqd_sched": "f51"})
    bench.kernel.gate.clear()
    preparing = asyncio.create_task(bench.plugin.prepare(one))
    await asyncio.to_thread(bench.kernel.reached.wait, 20)
    preparing.cancel()
    await asyncio.gather(preparing, return_exceptions=True)
    releasing = asyncio.create_task(bench.plugin.release(one))
    assert (await asyncio.wait({releasing}, timeout=0.05))[0] == set()
    bench.kernel.gate.set()
    await releasing
    assert bench.kernel.scheduling("ksoftirqd/2") == before
    assert bench.host.notes.keys() == ()
