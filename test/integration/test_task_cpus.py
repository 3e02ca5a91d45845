"""Tasks with CPUs of their own: held to them by a cpuset where this box has one, else by their affinity."""

from __future__ import annotations

import asyncio
import os
import pwd
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from edgerm.core import cpulists
from edgerm.core.ids import FrameworkId, LaunchId, TaskId, TaskKey
from edgerm.plugin.executor import LaunchFailed, LaunchSpec, Limits
from edgerm_agent.cgroups import Cgroups, open_cgroups
from edgerm_agent.cgroups.groups import Files
from edgerm_agent.executors.process import ProcessExecutor
from edgerm_agent.executors.wasm import WasmExecutor

pytestmark = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two CPUs")

DEADLINE_S = 60
OURSELVES = pwd.getpwuid(os.geteuid()).pw_name
LAST = (max(os.sched_getaffinity(0)),)
ENDLESS = Path(__file__).parents[1] / "fixtures/wasm/endless.wasm"
LOOK = "grep Cpus_allowed_list /proc/self/status"
TELL = f"{LOOK}; taskset -p ff $$ >&2; {LOOK}"  # what it may run on, before and after it asked for more


@pytest_asyncio.fixture(params=["box", "none"])
async def cgroups(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Cgroups]:
    """This box's groups, and none; afterwards all that holds tasks is ended."""
    name = f"test-cpus-{os.getpid()}"
    found = Cgroups(Files(), {}) if request.param == "none" else open_cgroups(name)
    yield found
    await ProcessExecutor(tmp_path, found, user=OURSELVES).holder.shutdown(force=True)
    await WasmExecutor(tmp_path, found).shutdown(force=True)
    for group in found.orphans(()):
        assert group.kill()
        group.remove()
    found.discard()


def make(path: Path, *argv: str, **fields: object) -> LaunchSpec:
    sandbox = path / "sandbox"
    sandbox.mkdir()
    key = TaskKey(FrameworkId("f"), TaskId("t"), LaunchId("1"))
    return LaunchSpec(key, argv[0], argv, (("PATH", os.environ["PATH"]),), sandbox, **fields)  # type: ignore[arg-type]


async def test_a_process_runs_on_its_cpus(tmp_path: Path, cgroups: Cgroups) -> None:
    """It sees exactly its CPUs, with a limit of CPU time beside them too; from a cpuset it cannot free itself."""
    executor = ProcessExecutor(tmp_path, cgroups, user=OURSELVES)
    spec = make(tmp_path, "sh", "-c", TELL, cpus=LAST, limits=Limits(cpus_milli=500))
    async with asyncio.timeout(DEADLINE_S):
        handle = await executor.start(spec)
        assert (await executor.wait(handle)).code == 0
        lines = (await executor.output(handle, "stdout", 0, 4096, 0)).data.decode().split()
        held = (await executor.inspect()).enforced["cpuset"]
        await executor.release(handle)
    assert held == cgroups.cpuset
    assert lines[1] == cpulists.to_text(LAST)
    assert lines[3] == lines[1] or held == "affinity"
    assert cgroups.find(spec.key) is None
    await executor.close()


async def test_a_module_runs_on_its_cpus(tmp_path: Path, cgroups: Cgroups) -> None:
    """The thread of a module sees its CPUs, and those of its host stay what they were."""
    executor = WasmExecutor(tmp_path, cgroups)
    async with asyncio.timeout(DEADLINE_S):
        handle = await executor.start(make(tmp_path, "endless", module=ENDLESS, cpus=LAST))
        host = int((tmp_path / "wasm-host.lock").read_text())
        bound = [1 for each in Path(f"/proc/{host}/task").iterdir() if os.sched_getaffinity(int(each.name)) == {*LAST}]
        assert len(bound) == 1
        assert os.sched_getaffinity(host) == os.sched_getaffinity(0)
        assert (await executor.inspect()).enforced["cpuset"] == "affinity"
        await executor.stop(handle, 0)
        await executor.wait(handle)
        await executor.release(handle)
    await executor.close()


async def test_cpus_that_are_not_there(tmp_path: Path, cgroups: Cgroups) -> None:
    """A task whose CPUs the kernel does not have is not started, and says so."""
    for executor in (ProcessExecutor(tmp_path, cgroups, user=OURSELVES), WasmExecutor(tmp_path, cgroups)):
        folder = tmp_path / executor.name
        folder.mkdir()
        spec = make(folder, "true", module=ENDLESS, cpus=(8000,))
        with pytest.raises(LaunchFailed, match=r"cannot run on the CPUs \[8000\]"):
            await executor.start(spec)
        assert cgroups.find(spec.key) is None
        await executor.close()
