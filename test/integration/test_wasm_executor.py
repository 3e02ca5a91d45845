"""The WASM executor on a real host process and real modules, with the cgroups that this box allows and without."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from edgerm.core.ids import FrameworkId, LaunchId, TaskId, TaskKey
from edgerm.plugin.executor import Exit, ExitReason, Handle, LaunchFailed, LaunchSpec, Limits
from edgerm.testing.conformance.executor import ExecutorSuite
from edgerm_agent.cgroups import Cgroups, open_cgroups
from edgerm_agent.cgroups.groups import Files
from edgerm_agent.executors import wasm
from edgerm_agent.executors.wasm import WasmExecutor
from edgerm_agent.keeper.ring import RING_BYTES
from edgerm_frameworks.modules import WINDOWED_STATS, windowed_stats_lines

DEADLINE_S = 60
MODULES = Path(__file__).parents[1] / "fixtures/wasm"
MIB = 1 << 20
KILLED = Exit(trap="killed", message="killed")


def cgroups_of(path: Path, kind: str) -> Cgroups:
    """This box's cgroups for a data directory, or none."""
    return Cgroups(Files(), {}) if kind == "none" else open_cgroups(f"test-{os.getpid()}-{path.stat().st_ino}")


async def end(path: Path, kind: str = "none") -> None:
    """End the hosts of `path` with all their tasks; remove their cgroups."""
    await WasmExecutor(path, cgroups_of(path, kind)).shutdown(force=True)
    cgroups = cgroups_of(path, kind)
    for group in cgroups.orphan_threads(()):
        wasm.remove_group(group)
    cgroups.discard()


def module(spec: LaunchSpec, name: str, *args: str, **fields: object) -> LaunchSpec:
    """`spec` as a test module."""
    changed = {"module": MODULES / f"{name}.wasm", "argv": (name, *args), **fields}
    return replace(spec, **changed)  # type: ignore[arg-type]


class WasmSuite(ExecutorSuite):
    """Tasks are modules."""

    kind = "none"

    async def make_executor(self, path: Path) -> WasmExecutor:
        """On the host of `path`."""
        return WasmExecutor(path, cgroups_of(path, self.kind))

    async def close_executor(self, executor: WasmExecutor) -> None:  # type: ignore[override]
        """The host goes on."""
        await executor.close()

    async def discard(self, path: Path) -> None:
        """End the host."""
        await end(path, self.kind)

    def task_that_ends(self, spec: LaunchSpec, code: int, stdout: bytes, stderr: bytes) -> LaunchSpec:
        """A module that says what it is told."""
        return module(spec, "say", str(code), stdout.decode(), stderr.decode(), limits=self.limits())

    def task_that_runs(self, spec: LaunchSpec) -> LaunchSpec:
        """A module that sleeps."""
        return module(spec, "sleep", "100000000", limits=self.limits())

    def task_that_cannot_start(self, spec: LaunchSpec) -> LaunchSpec:
        """A module that has no `_start`."""
        return module(spec, "no_start", limits=self.limits())

    def limits(self) -> Limits:
        """Of each task."""
        return Limits(cpus_milli=None if self.kind == "none" else 500, memory_bytes=MIB)


class TestWithoutCgroups(WasmSuite):
    """As on a box whose user may make no cgroup."""


class TestWithCgroups(WasmSuite):
    """With what this box allows."""

    kind = "box"


@pytest_asyncio.fixture
async def executor(tmp_path: Path) -> AsyncIterator[WasmExecutor]:
    """An executor without cgroups; its hosts are ended afterwards."""
    path = tmp_path / "data"
    path.mkdir()
    executor = WasmExecutor(path, cgroups_of(path, "none"))
    yield executor
    await executor.close()
    await end(path)


NewTask = Callable[..., LaunchSpec]


@pytest.fixture
def task(tmp_path: Path) -> NewTask:
    """Makes launches of test modules."""
    count = 0

    def make(name: str, *args: str, **fields: object) -> LaunchSpec:
        nonlocal count
        count += 1
        sandbox = tmp_path / f"sandbox-{count}"
        sandbox.mkdir()
        key = TaskKey(FrameworkId("f"), TaskId(f"{name}-{count}"), LaunchId("1"))
        return module(LaunchSpec(key, name, (), (), sandbox), name, *args, **fields)

    return make


async def finish(executor: WasmExecutor, spec: LaunchSpec) -> Exit:
    """Run a task to its end."""
    async with asyncio.timeout(DEADLINE_S):
        return await executor.wait(await executor.start(spec))


async def kill(executor: WasmExecutor, handle: Handle) -> Exit:
    """Kill a task and wait."""
    async with asyncio.timeout(DEADLINE_S):
        await executor.stop(handle, 0)
        return await executor.wait(handle)


async def up(executor: WasmExecutor, handle: Handle) -> None:
    """Wait until a task has said so."""
    chunk = await executor.output(handle, "stdout", 0, 10, DEADLINE_S)
    assert chunk.data == b"up\n"


async def host_pid(executor: WasmExecutor) -> int:
    """The pid of the host that takes new tasks."""
    return int(executor._file(executor.holder, "lock").read_text())


async def gone(pid: int) -> None:
    """Wait for a process to end."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(pidfd, ended.set)
    try:
        async with asyncio.timeout(DEADLINE_S):
            await ended.wait()
    finally:
        asyncio.get_running_loop().remove_reader(pidfd)
        os.close(pidfd)


def series(tmp_path: Path, window: int) -> tuple[dict[str, object], str]:
    """Fields of a task that computes statistics, and what it must print."""
    samples = [(at * 7919) % 50_001 - 20_000 for at in range(20_000)]
    text = "".join(f"{'-' if x < 0 else ''}{abs(x) // 1000}.{abs(x) % 1000:03d}\n" for x in samples)
    (tmp_path / "series").write_text(text)
    lines = windowed_stats_lines(samples, window)
    fields = {"module": WINDOWED_STATS, "argv": ("stats", str(window)), "stdin": tmp_path / "series"}
    return {**fields, "limits": Limits(memory_bytes=MIB)}, "".join(f"{line}\n" for line in lines)


async def test_an_endless_loop_dies_beside_others(executor: WasmExecutor, task: NewTask) -> None:
    """Of 50 spinning tasks one is killed; it alone ends, as killed."""
    async with asyncio.timeout(DEADLINE_S):
        handles = await asyncio.gather(*(executor.start(task("endless")) for _ in range(50)))
        assert await kill(executor, handles[17]) == KILLED
        others = [asyncio.create_task(executor.wait(handle)) for handle in handles if handle != handles[17]]
        usage = await executor.usage(handles[3])
        assert not any(other.done() for other in others)
        assert usage is not None
        assert usage.memory_bytes == 65536
        for handle in handles:
            await executor.stop(handle, 30)  # no grace is waited for: WASM code cannot be asked
        assert await asyncio.gather(*others) == [KILLED] * 49


async def test_a_sleeper_is_woken_by_its_kill(executor: WasmExecutor, task: NewTask) -> None:
    """A task that sleeps for a day ends at its kill, and does nothing more."""
    handle = await executor.start(task("sleep", "86400000"))
    await up(executor, handle)
    exit_ = await kill(executor, handle)
    assert (exit_.trap, exit_.tail) == ("killed", "up\n")


async def test_neighbours_of_a_flood_and_a_hog(executor: WasmExecutor, task: NewTask, tmp_path: Path) -> None:
    """Beside tasks that flood their output and take memory, others end with their right results; rings stay bounded."""
    fields, expected = series(tmp_path, 500)
    async with asyncio.timeout(DEADLINE_S):
        floods = await asyncio.gather(*(executor.start(task("flood")) for _ in range(5)))
        before = await executor.output(floods[0], "stdout", -1, 1, DEADLINE_S)
        results = await asyncio.gather(
            *(finish(executor, task("hog", limits=Limits(memory_bytes=32 * MIB))) for _ in range(3)),
            *(finish(executor, task("stats", **fields)) for _ in range(5)),
        )
        assert [result.reason for result in results[:3]] == [ExitReason.MEMORY] * 3
        assert [(result.code, result.tail) for result in results[3:]] == [(0, expected[-4096:])] * 5
        later = await executor.output(floods[0], "stdout", 0, 10 * MIB, DEADLINE_S)
        assert later.offset > before.offset
        assert len(later.data) == RING_BYTES
        for flood in floods:
            assert (await kill(executor, flood)).trap == "killed"


async def test_a_memory_failure_is_told(executor: WasmExecutor, task: NewTask) -> None:
    """A task that fails at its memory limit ends with reason MEMORY, its code, and both numbers."""
    exit_ = await finish(executor, task("hog", limits=Limits(memory_bytes=2 * MIB)))
    assert (exit_.reason, exit_.code) == (ExitReason.MEMORY, 1)
    assert exit_.message == f"failed with {2 * MIB} bytes of memory, its limit is {2 * MIB}"


async def test_a_full_sandbox_is_told(executor: WasmExecutor, task: NewTask) -> None:
    """A task whose sandbox is over its quota is stopped, with reason DISK and both numbers."""
    spec = task("sleep", "86400000", limits=Limits(disk_bytes=10_000))
    (spec.sandbox / "large").write_bytes(bytes(20_000))
    exit_ = await finish(executor, spec)
    assert exit_.reason is ExitReason.DISK
    assert "10000 are allowed" in exit_.message


async def test_traps_are_told(executor: WasmExecutor, task: NewTask) -> None:
    """A trap is an end with the engine's text, and its first line is the message."""
    exit_ = await finish(executor, task("trap"))
    assert (exit_.reason, exit_.code, exit_.signal) == (ExitReason.ENDED, None, None)
    assert exit_.trap is not None
    assert exit_.trap.splitlines()[0] == exit_.message == "wasm trap: wasm `unreachable` instruction executed"


async def test_the_sandbox_is_the_guests_root(executor: WasmExecutor, task: NewTask) -> None:
    """A task writes into its sandbox, and environment and arguments are as given."""
    spec = task("files", "closing")
    assert (await finish(executor, spec)).code == 0
    assert (spec.sandbox / "f").read_text() == "ok"
    spec = task("surroundings", "one two", env=(("A", "1"), ("B", "")))
    assert (await finish(executor, spec)).tail == "surroundings\0one two\0A=1\0B=\0"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"module": None}, "names no WASM module"),
        ({"module": Path("/nowhere.wasm")}, "there is no WASM module /nowhere.wasm"),
        ({"module": Path(__file__)}, "this is no WebAssembly"),
        ({"module": MODULES / "foreign_import.wasm"}, "unknown import: `env::telephone`"),
        ({"entry_point": "main"}, "exports no function 'main'"),
        ({"stdin": Path("/dev/zero")}, "stdin /dev/zero is no file"),
        ({"argv": ("nul\0inside",)}, "argv holds a NUL"),
        ({"limits": Limits(memory_bytes=1000)}, "starts with 65536 bytes of memory, its limit is 1000"),
    ],
)
async def test_what_cannot_start(executor: WasmExecutor, task: NewTask, fields: dict[str, object], reason: str) -> None:
    """A launch that can never succeed says in one line why, and the host holds nothing of it."""
    with pytest.raises(LaunchFailed) as caught:
        await executor.start(replace(task("endless"), **fields))  # type: ignore[arg-type]
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
    assert (await executor.inspect()).held == ()


async def test_damaged_code_is_compiled_again(executor: WasmExecutor, task: NewTask) -> None:
    """A host that finds damaged code in its cache runs the module all the same."""
    assert (await finish(executor, task("say", "7"))).code == 7
    await executor.shutdown(force=True)
    codes = list((executor.holder.data_dir / "wasm-code").glob("*.cwasm"))
    assert codes
    for code in codes:
        code.write_bytes(code.read_bytes()[:-1000] + bytes(1000))
    assert (await finish(executor, task("say", "8"))).code == 8


async def test_a_dead_host(executor: WasmExecutor, task: NewTask) -> None:
    """When the host is killed its tasks end as EXECUTOR_DIED, and the next start gets a new host."""
    async with asyncio.timeout(DEADLINE_S):
        handle = await executor.start(task("endless"))
        waiter = asyncio.create_task(executor.wait(handle))
        os.kill(await host_pid(executor), signal.SIGKILL)
        assert (await waiter).reason is ExitReason.EXECUTOR_DIED
        assert not await executor.adopt(handle)
        later = await executor.start(task("say", "5"))
        assert later.instance != handle.instance
        assert (await executor.wait(later)).code == 5


async def test_a_task_that_does_not_die(executor: WasmExecutor, task: NewTask) -> None:
    """A host with a task that outlives its kill takes no new ones; another host does, and the first leaves at last."""
    stuck, other = task("reader"), task("sleep", "86400000")
    os.mkfifo(stuck.sandbox / "f")
    async with asyncio.timeout(DEADLINE_S):
        bad, neighbour = await executor.start(stuck), await executor.start(other)
        pid = await host_pid(executor)
        await up(executor, bad)
        await up(executor, neighbour)
        await executor.stop(bad, 0)
        moved: list[Handle] = []
        while not moved or moved[-1].instance == bad.instance:
            moved.append(await executor.start(task("say", "0")))
            await executor.wait(moved[-1])
        assert await executor.start(other) == neighbour  # a start that is asked again finds its task in the old host
        assert set((await executor.inspect()).held) == {bad, neighbour, *moved}
        assert await kill(executor, neighbour) == replace(KILLED, tail="up\n")
        for handle in (neighbour, *moved):
            await executor.release(handle)
        await gone(pid)
        assert (await executor.wait(bad)).reason is ExitReason.EXECUTOR_DIED
        again = await executor.start(task("say", "6"))
        assert (again.instance, (await executor.wait(again)).code) == (moved[-1].instance, 6)


async def test_the_lifeline(tmp_path: Path, task: NewTask) -> None:
    """The end of the inherited pipe ends the host and its tasks."""
    path = tmp_path / "data"
    path.mkdir()
    read_end, write_end = os.pipe()
    executor = WasmExecutor(path, cgroups_of(path, "none"), lifeline=read_end)
    try:
        handle = await executor.start(task("endless"))
        pid = await host_pid(executor)
    finally:
        os.close(write_end)
        os.close(read_end)
    await gone(pid)
    async with asyncio.timeout(DEADLINE_S):
        assert not await executor.adopt(handle)
    await executor.close()


async def test_a_thread_is_in_its_group(tmp_path: Path, task: NewTask) -> None:
    """Where CPU can be limited a task's thread runs in a group with its quota, and the group goes with the release."""
    path = tmp_path / "data"
    path.mkdir()
    cgroups = cgroups_of(path, "box")
    if cgroups.enforced()["cpus"] == "none":
        pytest.skip("no cgroup with a CPU limit can be made here")
    executor = WasmExecutor(path, cgroups)
    try:
        handle = await executor.start(task("endless", limits=Limits(cpus_milli=250)))
        group = cgroups.thread_group(handle.key, Limits(cpus_milli=250))
        assert group is not None
        pid = await host_pid(executor)
        tids = {int(tid) for file in group.paths for tid in Path(file).read_text().split()}
        assert len(tids) == 1
        assert tids < {int(thread.name) for thread in Path(f"/proc/{pid}/task").iterdir()} - {pid}
        assert (await executor.inspect()).enforced["cpus"] == cgroups.enforced()["cpus"]
        await kill(executor, handle)
        await executor.release(handle)
        assert not group.exists()
    finally:
        await executor.close()
        await end(path, "box")


async def test_a_box_without_the_engine(executor: WasmExecutor, task: NewTask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without wasmtime the executor says what to install, as a problem and at each start; nothing is spawned."""
    monkeypatch.setattr(wasm, "find_spec", lambda name: None)
    assert (await executor.inspect()).problems == (wasm.NEEDS_WASMTIME,)
    with pytest.raises(LaunchFailed, match="pip install 'edgerm\\[wasm\\]'"):
        await executor.start(task("say", "0"))
    assert list(executor.holder.data_dir.iterdir()) == []


async def test_fifty_of_one_module_at_once(executor: WasmExecutor, task: NewTask) -> None:
    """Fifty tasks of a module that was never compiled start together, and it is compiled once."""
    shutil.rmtree(executor.holder.data_dir / "wasm-code", ignore_errors=True)
    exits = await asyncio.gather(*(finish(executor, task("say", str(code))) for code in range(50)))
    assert [exit_.code for exit_ in exits] == list(range(50))
    assert len(list((executor.holder.data_dir / "wasm-code").glob("*.cwasm"))) == 2  # the module, and the guard
