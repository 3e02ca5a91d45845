"""What executors say of a task's use: processes and modules, with the cgroups that this box allows and without."""

from __future__ import annotations

import asyncio
import os
import pwd
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from edgerm.core.ids import FrameworkId, LaunchId, TaskId, TaskKey
from edgerm.plugin.executor import Handle, LaunchSpec, Limits, Usage
from edgerm_agent.cgroups import Cgroups, open_cgroups
from edgerm_agent.cgroups.groups import Files
from edgerm_agent.executors.process import ProcessExecutor
from edgerm_agent.executors.wasm import WasmExecutor, remove_group

DEADLINE_S = 60
MODULES = Path(__file__).parents[1] / "fixtures/wasm"
OURSELVES = pwd.getpwuid(os.geteuid()).pw_name
ENV = (("PATH", "/usr/local/bin:/usr/bin:/bin"),)
WORK = "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done"
UP = "echo up; exec sleep 1000"


@pytest.fixture(params=["none", "box"])
def cgroups(request: pytest.FixtureRequest) -> Cgroups:
    """None, and what this box allows."""
    return Cgroups(Files(), {}) if request.param == "none" else open_cgroups(f"usage-{os.getpid()}")


@pytest_asyncio.fixture
async def process(tmp_path: Path, cgroups: Cgroups) -> AsyncIterator[ProcessExecutor]:
    """The process executor."""
    executor = ProcessExecutor(tmp_path, cgroups, user=OURSELVES)
    yield executor
    held = (await executor.inspect()).held
    await executor.holder.shutdown(force=True)
    for handle in held:
        await executor.clean(handle.key)
    await executor.close()
    cgroups.discard()


@pytest_asyncio.fixture
async def wasm(tmp_path: Path, cgroups: Cgroups) -> AsyncIterator[WasmExecutor]:
    """The WASM executor."""
    executor = WasmExecutor(tmp_path, cgroups)
    yield executor
    await executor.shutdown(force=True)
    await executor.close()
    for group in cgroups.orphan_threads(()):
        remove_group(group)
    cgroups.discard()


def launch(sandbox: Path, task_id: str, script: str = "") -> LaunchSpec:
    """A task with a sandbox of its own."""
    key = TaskKey(FrameworkId("f"), TaskId(task_id), LaunchId("1"))
    folder = sandbox / task_id
    folder.mkdir()
    limits = Limits(cpus_milli=1000, memory_bytes=256 << 20)
    return LaunchSpec(key, "sh", ("sh", "-c", script), ENV, folder, limits=limits)


async def up(executor: ProcessExecutor, spec: LaunchSpec) -> Handle:
    """Start the task and wait until it says so."""
    async with asyncio.timeout(DEADLINE_S):
        handle = await executor.start(spec)
        assert (await executor.output(handle, "stdout", 0, 10, DEADLINE_S)).data == b"up\n"
    return handle


async def known(executor: ProcessExecutor | WasmExecutor, handle: Handle) -> Usage:
    """Its usage, which must be known."""
    usage = await executor.usage(handle)
    assert usage is not None
    return usage


async def test_a_process_and_its_children(process: ProcessExecutor, tmp_path: Path) -> None:
    """CPU of the task itself and of children that have ended counts; a sleeper has some memory and next to no CPU."""
    worker = await up(process, launch(tmp_path, "worker", f"{WORK}; {UP}"))
    parent = await up(process, launch(tmp_path, "parent", f"sh -c '{WORK}'; {UP}"))
    idle = await up(process, launch(tmp_path, "idle", UP))
    for handle in (worker, parent):
        usage = await known(process, handle)
        assert usage.cpu_s >= 0.02
    sleeper = await known(process, idle)
    assert sleeper.cpu_s < 0.02
    assert 0 < sleeper.memory_bytes < 64 << 20
    await process.stop(idle, 0)
    await process.wait(idle)
    assert (await known(process, idle)).memory_bytes < 1 << 20
    assert await process.usage(replace(idle, key=idle.key._replace(task_id=TaskId("never")))) is None


async def test_many_tasks(process: ProcessExecutor, tmp_path: Path) -> None:
    """Each of many tasks is known, a new one at once."""
    handles = await asyncio.gather(*(up(process, launch(tmp_path, f"t{n}", UP)) for n in range(20)))
    usages = [await process.usage(handle) for handle in handles]
    assert all(usage is not None and usage.memory_bytes > 0 for usage in usages)


async def test_a_module(wasm: WasmExecutor, tmp_path: Path) -> None:
    """CPU grows while a module runs, its memory is that of the guest; a sleeping one uses none."""
    specs = {name: launch(tmp_path, name) for name in ("endless", "sleep")}
    handles = {}
    for name, spec in specs.items():
        arguments = (name, "100000000") if name == "sleep" else (name,)
        module = LaunchSpec(
            spec.key, name, arguments, (), spec.sandbox, limits=spec.limits, module=MODULES / f"{name}.wasm"
        )
        handles[name] = await wasm.start(module)
    async with asyncio.timeout(DEADLINE_S):
        while (await known(wasm, handles["endless"])).cpu_s < 0.2:
            pass  # each look is a request to the host
    assert (await known(wasm, handles["endless"])).memory_bytes == 65536
    assert (await known(wasm, handles["sleep"])).cpu_s < 0.2
