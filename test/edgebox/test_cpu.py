"""Isolated cores on a real-time kernel with `--isolate 2-3`: cpusets of tasks, and threads of the kernel, for real."""

from __future__ import annotations

import asyncio
import os
import pwd
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from support.engine import IMAGE

from edgerm.core.devices import Device, Inventory
from edgerm.core.errors import Conflict
from edgerm.core.ids import AgentId, FrameworkId, LaunchId, TaskId, TaskKey
from edgerm.core.metadata import read
from edgerm.plugin.device import Given, Grant, Setup
from edgerm.plugin.executor import ContainerSpec, LaunchSpec, Limits
from edgerm_agent.cgroups import Cgroups, open_cgroups
from edgerm_agent.config import Cpu
from edgerm_agent.devices.cpu import create
from edgerm_agent.devices.cpu.plugin import CLASS, LATENCY, Cpus
from edgerm_agent.devices.hostfs import Host
from edgerm_agent.devices.threads import kernel_threads
from edgerm_agent.executors.docker import container
from edgerm_agent.executors.process import ProcessExecutor

if TYPE_CHECKING:
    from edgebox.conftest import GuestEngine

ISOLATED = Path("/sys/devices/system/cpu/isolated")

pytestmark = [
    pytest.mark.edgebox,
    pytest.mark.skipif(os.environ.get("EDGEBOX") != "1", reason="needs the edgebox: make test-edgebox runs it"),
    pytest.mark.skipif(ISOLATED.read_text().strip() != "2-3", reason="needs --rt --smp 4 --isolate 2-3"),
]

DEADLINE_S = 60
ROOT = Path("/sys/fs/cgroup")
SCOPE = "cpus"
OURSELVES = pwd.getpwuid(os.geteuid()).pw_name
KEY = TaskKey(FrameworkId("f"), TaskId("rt"), LaunchId("1"))
TUNED = {"ksoftirqd_sched": "f51", "ktimers_sched": "r52"}
LOOK = ("grep", "Cpus_allowed_list", "/proc/self/status")


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path / "notes")


@pytest.fixture
def plugin(host: Host) -> Cpus:
    return create(Cpu(), host)


@pytest_asyncio.fixture
async def cgroups(tmp_path: Path) -> AsyncIterator[Cgroups]:
    """The box's v2 groups; afterwards the keeper is ended, and no folder may be left."""
    found = open_cgroups(SCOPE)
    yield found
    await ProcessExecutor(tmp_path, found, user=OURSELVES).holder.shutdown(force=True)
    for group in found.orphans(()):
        assert group.kill()
        group.remove()
    found.discard()
    assert not (ROOT / "edgerm" / SCOPE).exists()


def grant(*ids: str, config: Mapping[str, object] | None = None) -> Grant:
    return Grant(KEY, CLASS, (Given("rt", config or {}, tuple(Device(CLASS, each) for each in ids)),), "process")


def scheduling(host: Host) -> dict[str, tuple[int, int]]:
    """(policy, priority) of the threads of the kernel that can be tuned."""
    names = ("ksoftirqd/", "ktimers/")
    return {each.name: (each.policy, each.priority) for each in kernel_threads(host) if each.name.startswith(names)}


async def first(plugin: Cpus) -> Inventory:
    return await anext(plugin.watch())


def spec_of(path: Path, name: str, setup: Setup, cpus: tuple[int, ...]) -> LaunchSpec:
    sandbox = path / f"sandbox-{name}"
    sandbox.mkdir()
    key = TaskKey(FrameworkId("f"), TaskId(name), LaunchId("1"))
    env = (("PATH", os.environ["PATH"]), *setup.env)
    return LaunchSpec(key, LOOK[0], LOOK, env, sandbox, cpus=cpus, limits=Limits(memory_bytes=64 << 20))


async def test_the_isolated_cores_are_here(plugin: Cpus) -> None:
    """The cores that the kernel isolates can be had, with what the kernel and `lscpu` say; the others are for all."""
    found = (await first(plugin)).devices
    assert [(device.id, device.offered) for device in found] == [("cpu2", True), ("cpu3", True)]
    metadata = read(found[1].metadata)
    assert metadata["cpuset"] == [3]
    assert metadata["lscpu"]["Architecture"] == "x86_64"  # type: ignore[index]
    assert metadata["cpuinfo"]["processor"] == metadata["lscpue"]["cpu"] == 3  # type: ignore[index]
    assert plugin.plain_cpus() == (0, 1)


async def test_threads_of_the_kernel(plugin: Cpus, host: Host, tmp_path: Path) -> None:
    """ksoftirqd and ktimers of the task's cores run as it asks, and as before after it, also after a crash between."""
    before = scheduling(host)
    task = grant("cpu2", config=TUNED)
    await plugin.prepare(task)
    assert scheduling(host) == {**before, "ksoftirqd/2": (1, 51), "ktimers/2": (2, 52)}
    again = create(Cpu(), Host(tmp_path / "notes"))
    await again.release(task)
    assert scheduling(host) == before
    assert host.notes.keys() == ()


async def test_without_dynamic_tuning(host: Host) -> None:
    """Where the operator allows no tuning, a task that asks for it is refused and nothing is changed."""
    before = scheduling(host)
    with pytest.raises(Conflict, match="ksoftirqd_sched = 'f51': this agent tunes nothing"):
        await create(Cpu(), host, dynamic_tuning=False).prepare(grant("cpu2", config=TUNED))
    assert scheduling(host) == before


async def test_a_process_with_cores(plugin: Cpus, tmp_path: Path, cgroups: Cgroups) -> None:
    """A process task runs on its isolated cores and no other CPU; one that claims none keeps off them."""
    executor = ProcessExecutor(tmp_path, cgroups, user=OURSELVES)
    setup = await plugin.prepare(grant("cpu3", "cpu2"))
    assert setup.env == (("IEDGE_CPUSET_ISOLATED", "2-3"),)
    assert [node.host_path for node in setup.nodes] == [LATENCY]
    seen = []
    async with asyncio.timeout(DEADLINE_S):
        assert (await executor.inspect()).enforced["cpuset"] == "cgroup-v2"
        for name, cpus in (("rt", setup.cpus), ("plain", plugin.plain_cpus())):
            handle = await executor.start(spec_of(tmp_path, name, setup, cpus))
            assert (await executor.wait(handle)).code == 0
            seen.append((await executor.output(handle, "stdout", 0, 100, 0)).data.split()[1])
            await executor.release(handle)
    assert seen == [b"2-3", b"0-1"]
    await plugin.release(grant("cpu3", "cpu2"))
    await executor.close()


async def test_a_container_with_cores(plugin: Cpus, tmp_path: Path, engine: GuestEngine) -> None:
    """A container runs on its isolated core and no other CPU, and finds /dev/cpu_dma_latency."""
    setup = await plugin.prepare(grant("cpu3"))
    box = ContainerSpec(IMAGE, "none", nodes=setup.nodes)
    spec = LaunchSpec(KEY, "", ("sh", "-c", f"{' '.join(LOOK)}; ls {LATENCY}"), setup.env, tmp_path, cpus=setup.cpus,
                      container=box)  # fmt: skip
    body = container.body_of(AgentId("a"), spec, privileged=False, log_bytes=1 << 20, cpus=4)
    with engine.client() as client:
        made = client.create_container_from_config(body)  # type: ignore[no-untyped-call]
        client.start(made)
        assert client.wait(made)["StatusCode"] == 0
        assert client.logs(made).split() == [b"Cpus_allowed_list:", b"3", LATENCY.encode()]
        client.remove_container(made)
    await plugin.release(grant("cpu3"))
