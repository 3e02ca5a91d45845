"""The keeper and the WASM host under cgroup v2: tasks in groups of their own, the host in its threaded domain.

What both executors promise everywhere is in test/integration; this is what only a v2 kernel can show.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import signal
import time
from collections.abc import AsyncIterator
from contextlib import nullcontext
from pathlib import Path

import pytest
import pytest_asyncio

from edgerm.core.devices import Device
from edgerm.core.errors import Conflict
from edgerm.core.ids import FrameworkId, LaunchId, TaskId, TaskKey
from edgerm.plugin.device import Given, Grant
from edgerm.plugin.executor import Exit, ExitReason, Handle, LaunchSpec, Limits
from edgerm_agent.cgroups import Cgroups, ThreadGroup, open_cgroups
from edgerm_agent.config import Cpu
from edgerm_agent.devices.cpu import create
from edgerm_agent.devices.hostfs import Host
from edgerm_agent.executors.process import ProcessExecutor
from edgerm_agent.executors.wasm import WasmExecutor, remove_group
from edgerm_agent.keeper import members
from edgerm_frameworks.modules import WINDOWED_STATS, windowed_stats_lines

pytestmark = [
    pytest.mark.edgebox,
    pytest.mark.skipif(os.environ.get("EDGEBOX") != "1", reason="needs cgroup v2 as root: make test-edgebox runs it"),
]

DEADLINE_S = 60
ROOT = Path("/sys/fs/cgroup")
SCOPE = "executors"
MIB = 1 << 20
ENDLESS = Path(__file__).parents[1] / "fixtures/wasm/endless.wasm"
OURSELVES = pwd.getpwuid(os.geteuid()).pw_name
FAMILY = "(setsid sh -c 'echo $$ >child; exec sleep 1000' &); until test -s child; do sleep 0.05; done; echo up; wait; "
HOG = "import sys, time; held = bytearray(200 << 20); print(len(held)); time.sleep(1000)"


@pytest_asyncio.fixture
async def cgroups(tmp_path: Path) -> AsyncIterator[Cgroups]:
    """The box's v2 groups; afterwards keeper and hosts are ended, and no folder may be left."""
    found = open_cgroups(SCOPE)
    assert found.version == "v2"
    yield found
    ends = ProcessExecutor(tmp_path, found, user=OURSELVES), WasmExecutor(tmp_path, found)
    await ends[0].holder.shutdown(force=True)
    await ends[1].shutdown(force=True)
    for group in found.orphans(()):
        assert group.kill()
        group.remove()
    for threads in found.orphan_threads(()):
        remove_group(threads)
    until = time.monotonic() + DEADLINE_S
    while (ROOT / "edgerm" / SCOPE).exists():  # a host that has ended is counted as in its group for a moment
        assert time.monotonic() < until
        found.discard()
        await asyncio.sleep(0.01)


def make(path: Path, name: str, *argv: str, **fields: object) -> LaunchSpec:
    """A launch with a sandbox of its own below `path`."""
    sandbox = path / f"sandbox-{name}"
    sandbox.mkdir()
    key = TaskKey(FrameworkId("f"), TaskId(name), LaunchId("1"))
    env = (("PATH", os.environ["PATH"]),)
    return LaunchSpec(key, argv[0], argv, env, sandbox, **fields)  # type: ignore[arg-type]


async def first_line(executor: ProcessExecutor, handle: Handle) -> bytes:
    """What the task has written, once it has written something."""
    return (await executor.output(handle, "stdout", 0, 100, DEADLINE_S)).data


def group_of(pid: int) -> Path:
    """The group that the kernel says a process is in."""
    return ROOT / Path(f"/proc/{pid}/cgroup").read_text().strip().removeprefix("0::/")


async def test_a_process_over_its_memory_limit(tmp_path: Path, cgroups: Cgroups) -> None:
    """A process task that takes more memory than its limit is killed with reason MEMORY; v2 is said to enforce it."""
    executor = ProcessExecutor(tmp_path, cgroups, user=OURSELVES)
    assert (await executor.inspect()).enforced == {
        "cpus": "cgroup-v2",
        "cpuset": "cgroup-v2",
        "mem": "cgroup-v2",
        "disk": "polled",
    }
    spec = make(tmp_path, "hog", "python3", "-I", "-S", "-c", HOG, limits=Limits(memory_bytes=64 * MIB))
    async with asyncio.timeout(DEADLINE_S):
        handle = await executor.start(spec)
        exit_ = await executor.wait(handle)
        assert (exit_.reason, exit_.signal) == (ExitReason.MEMORY, signal.SIGKILL)
        await executor.release(handle)
    assert cgroups.find(spec.key) is None
    await executor.close()


async def test_a_process_task_dies_whole_after_its_adoption(tmp_path: Path, cgroups: Cgroups) -> None:
    """A later agent adopts a task in its group; its stop ends a child in another session too, and the group goes."""
    first = ProcessExecutor(tmp_path, cgroups, user=OURSELVES)
    spec = make(tmp_path, "family", "sh", "-c", FAMILY + "sleep 1000", limits=Limits(memory_bytes=64 * MIB))
    async with asyncio.timeout(DEADLINE_S):
        handle = await first.start(spec)
        assert await first_line(first, handle) == b"up\n"
        await first.close()
        second = ProcessExecutor(tmp_path, open_cgroups(SCOPE), user=OURSELVES)
        assert await second.adopt(handle)
        group, child = cgroups.find(spec.key), int((spec.sandbox / "child").read_text())
        assert group is not None
        assert handle.pid is not None
        assert group.pids() >= {handle.pid, child}
        await second.stop(handle, 0)
        assert (await second.wait(handle)).signal == signal.SIGKILL
        assert not members.is_alive(child)
        await second.release(handle)
    assert not group.exists()
    await second.close()


async def test_a_usual_kernel_has_no_timer_threads(tmp_path: Path) -> None:
    """Without PREEMPT_RT a claim that tunes ktimers is refused and says why; one that tunes ksoftirqd is not."""
    plugin, device = create(Cpu(isolated="1"), Host(tmp_path)), Device("siemens.com/isolated_core", "cpu1")
    key = TaskKey(FrameworkId("f"), TaskId("rt"), LaunchId("1"))
    for kind, fails in (("ksoftirqd", False), ("ktimers", True)):
        grant = Grant(key, device.name, (Given("rt", {f"{kind}_sched": "f5"}, (device,)),), "process")
        with (
            pytest.raises(Conflict, match="no thread ktimers/1; only a kernel with PREEMPT_RT")
            if fails
            else nullcontext()
        ):
            assert (await plugin.prepare(grant)).cpus == (1,)
        await plugin.release(grant)


async def start_endless(executor: WasmExecutor, cgroups: Cgroups, spec: LaunchSpec) -> tuple[Handle, ThreadGroup]:
    """A task that computes for ever, and its group."""
    handle = await executor.start(spec)
    group = cgroups.thread_group(spec.key, spec.limits)
    assert group is not None
    return handle, group


async def test_a_wasm_thread_is_in_a_group_of_its_own(tmp_path: Path, cgroups: Cgroups) -> None:
    """The host is in its threaded domain, each task's thread alone in a group below it, also after an adoption."""
    limits = Limits(cpus_milli=250, memory_bytes=MIB)
    first = WasmExecutor(tmp_path, cgroups)
    enforced = {"cpus": "cgroup-v2", "cpuset": "affinity", "mem": "wasm", "disk": "polled"}
    assert (await first.inspect()).enforced == enforced
    async with asyncio.timeout(DEADLINE_S):
        one, group = await start_endless(first, cgroups, make(tmp_path, "1", "-", module=ENDLESS, limits=limits))
        await first.close()
        cgroups = open_cgroups(SCOPE)
        second = WasmExecutor(tmp_path, cgroups)
        assert await second.adopt(one)
        two, other = await start_endless(second, cgroups, make(tmp_path, "2", "-", module=ENDLESS, limits=limits))
        host = int((tmp_path / "wasm-host.lock").read_text())
        domain = group_of(host)
        assert domain == ROOT / "edgerm" / SCOPE / "threads"
        assert (domain / "cgroup.type").read_text() == "domain threaded\n"
        for mine in (group, other):
            (file,) = map(Path, mine.paths)
            (tid,) = file.read_text().split()
            assert Path(f"/proc/{host}/task/{tid}/cgroup").read_text() == f"0::/{file.parent.relative_to(ROOT)}\n"
            assert (file.parent / "cpu.max").read_text() == "25000 100000\n"
        for handle in (one, two):
            await second.stop(handle, 0)
            assert await second.wait(handle) == Exit(trap="killed", message="killed")
            await second.release(handle)
    assert not group.exists()
    assert not other.exists()
    await second.close()


async def test_a_limited_wasm_task_ends_right(tmp_path: Path, cgroups: Cgroups) -> None:
    """A module that the kernel holds back at its CPU limit ends with the same result as ever."""
    samples = [(at * 7919) % 50_001 - 20_000 for at in range(20_000)]
    (tmp_path / "series").write_text("".join(f"{'-' * (x < 0)}{abs(x) // 1000}.{abs(x) % 1000:03d}\n" for x in samples))
    executor = WasmExecutor(tmp_path, cgroups)
    limits = Limits(cpus_milli=100, memory_bytes=MIB)
    fields = {"module": WINDOWED_STATS, "stdin": tmp_path / "series", "limits": limits}
    spec = make(tmp_path, "stats", "stats", "500", **fields)
    async with asyncio.timeout(DEADLINE_S):
        handle = await executor.start(spec)
        exit_ = await executor.wait(handle)
        group = cgroups.thread_group(spec.key, limits)
        assert group is not None
        stat = dict(line.split() for line in (Path(group.paths[0]).parent / "cpu.stat").read_text().splitlines())
        await executor.release(handle)
    expected = "".join(f"{line}\n" for line in windowed_stats_lines(samples, 500))
    assert (exit_.reason, exit_.code, exit_.tail) == (ExitReason.ENDED, 0, expected[-4096:])
    assert int(stat["nr_throttled"]) > 0
    assert not group.exists()
    await executor.close()
