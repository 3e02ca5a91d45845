"""Live standard input on real parts: bytes arrive once and in order, the end arrives, a full pipe holds nobody up."""

from __future__ import annotations

import asyncio
import hashlib
import os
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from support.agent import FACES, OURSELVES, agent_here, url_of
from support.cli import EDGERM
from support.engine import IMAGE, TestEngine
from support.master import running_master

from edgerm.core.ids import FrameworkId, LaunchId, TaskId, TaskKey
from edgerm.plugin.device import Mount
from edgerm.plugin.executor import Handle, LaunchFailed, LaunchSpec
from edgerm.sdk import Cluster, Conflict, Invalid, NotFound, TaskHandle, connect
from edgerm.sdk.operator import Name
from edgerm.sdk.talking import PIECE_BYTES
from edgerm_agent.cgroups import open_cgroups
from edgerm_agent.executors.process import ProcessExecutor
from edgerm_agent.executors.wasm import WasmExecutor
from edgerm_agent.keeper import protocol
from edgerm_master.main import Served

PATIENCE_S = 60
MODULES = Path(__file__).parents[1] / "fixtures/wasm"


@asynccontextmanager
async def boxed(tmp_path: Path, face: str = "http", **settings: Any) -> AsyncIterator[tuple[Served, Cluster]]:
    """A framework, and an agent behind this link."""
    async with AsyncExitStack() as stack:
        master = await stack.enter_async_context(running_master(tmp_path))
        await stack.enter_async_context(agent_here(tmp_path / "agent", url_of(master, face), **settings))
        yield master, await stack.enter_async_context(connect(master.url))


async def told(handle: TaskHandle) -> str:
    """How the task ended."""
    async with asyncio.timeout(PATIENCE_S):
        return (await handle.ended()).state.name


async def echoes(handle: TaskHandle) -> None:
    """Line after line, each is there before the next one is written; then the end."""
    shown = handle.logs()
    text = b""
    async with asyncio.timeout(PATIENCE_S):
        for line in (b"first, from a file\n", b"second\n", b"third" * 1000 + b"\n"):
            if not line.startswith(b"first"):
                await handle.write(line)
            while not text.endswith(line):
                text += await anext(shown)
        await handle.close_input()
    assert await told(handle) == "FINISHED"


@pytest.mark.parametrize("face", FACES)
async def test_line_by_line(face: str, tmp_path: Path) -> None:
    """A process and a module read their file, then what is written while they run, then the end."""
    async with boxed(tmp_path, face) as (_, cluster):
        first = b"first, from a file\n"
        process = await cluster.launch(process=["cat"], input=first, stdin_open=True, cpus=0.1)
        module = await cluster.launch(wasm=MODULES / "echo.wasm", input=first, stdin_open=True, cpus=0.1)
        await echoes(process)
        await echoes(module)
        with pytest.raises(NotFound):
            await process.write(b"late")


async def test_every_byte_once(tmp_path: Path) -> None:
    """What is much larger than any pipe arrives whole, behind a file that is so too."""
    first, rest = os.urandom(300_000), os.urandom(1_500_000)
    async with boxed(tmp_path) as (_, cluster):
        handle = await cluster.launch(process=["sha256sum"], input=first, stdin_open=True, cpus=0.1)
        async with asyncio.timeout(PATIENCE_S):
            await handle.write(rest)
            await handle.close_input()
            result = await handle.wait()
    assert result.output.split()[0].decode() == hashlib.sha256(first + rest).hexdigest()


async def test_a_task_that_does_not_read(tmp_path: Path) -> None:
    """A full pipe holds up its writer alone; a kill ends the task, and the writer is told."""
    async with boxed(tmp_path) as (_, cluster):
        handle = await cluster.launch(process=["sleep", "1000"], stdin_open=True, cpus=0.1)
        writing = asyncio.create_task(handle.write(bytes(1_000_000)))
        other = await cluster.launch(process=["cat"], stdin_open=True, cpus=0.1)
        async with asyncio.timeout(PATIENCE_S):
            await other.write(b"x" * 100_000)
            await other.close_input()
            assert len((await other.wait()).output) > 60_000
            assert not writing.done()
            assert (await handle.kill()).state.name == "KILLED"
            with pytest.raises(NotFound):
                await writing


async def test_a_module_that_waits_is_killed(tmp_path: Path) -> None:
    """A module that is blocked in a read of its input ends at once when it is killed."""
    async with boxed(tmp_path) as (_, cluster):
        handle = await cluster.launch(wasm=MODULES / "echo.wasm", stdin_open=True, cpus=0.1)
        async with asyncio.timeout(PATIENCE_S):
            await handle.write(b"x")
            assert await anext(handle.logs()) == b"x"
            status = await handle.kill()
        assert status.state.name == "KILLED"


async def interactive(master: Served, *words: str) -> tuple[Process, asyncio.StreamWriter, asyncio.StreamReader]:
    """`edgerm run -i` of a process, its input and its output."""
    process = await asyncio.create_subprocess_exec(
        *(*EDGERM, "run", f"--master={master.url}", "-i", "--process", "--", *words),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    return process, process.stdin, process.stdout


async def test_edgerm_run_interactive(tmp_path: Path) -> None:
    """`edgerm run -i` shows what `cat` is given as it is given it, and ends when our input does."""
    async with boxed(tmp_path) as (master, _):
        process, given, shown = await interactive(master, "cat")
        async with asyncio.timeout(PATIENCE_S):
            for line in (b"one\n", b"two\n"):
                given.write(line)
                assert await shown.readline() == line
            given.close()
            assert await shown.read() == b""
            assert await process.wait() == 0


async def test_edgerm_run_ends_with_its_task(tmp_path: Path) -> None:
    """`edgerm run -i` of a task that reads no more ends with it, although our input goes on."""
    async with boxed(tmp_path) as (master, _):
        process, given, shown = await interactive(master, "head", "-n", "1")
        async with asyncio.timeout(PATIENCE_S):
            given.write(b"one\n")
            assert await shown.read() == b"one\n"
            assert await process.wait() == 0


async def test_what_is_refused(tmp_path: Path) -> None:
    """Places that leave a gap, pieces too large, and tasks without an open input are refused with words; an end twice
    is one end."""
    async with boxed(tmp_path) as (_, cluster):
        plain = await cluster.launch(process=["sleep", "1000"], cpus=0.1)
        handle = await cluster.launch(process=["cat"], stdin_open=True, cpus=0.1)
        await asyncio.gather(plain.started(), handle.started())
        write, name = cluster.operator.write_input, Name(handle.task_id)
        with pytest.raises(NotFound, match="not started with an open standard input"):
            await write(Name(plain.task_id), b"x", offset=0)
        with pytest.raises(Invalid, match="without offset"):
            await write(name, b"x")
        with pytest.raises(Invalid, match="at most 65536"):
            await write(name, bytes(PIECE_BYTES + 1), offset=0)
        assert await write(name, b"abc", offset=0) == (3, False)
        assert await write(name, b"bcd", offset=1) == (4, False)  # what it has of it is skipped
        with pytest.raises(Conflict, match="cannot be written yet"):
            await write(name, b"x", offset=5)
        assert await write(name, close=True) == (4, True)
        assert (await handle.wait()).output == b"abcd"


async def test_a_container(engine: TestEngine, tmp_path: Path) -> None:
    """A container reads what is written, to the end."""
    executors = {"process": {"user": OURSELVES}, "docker": {"socket": engine.url}}
    async with boxed(tmp_path, executors=executors) as (_, cluster):
        handle = await cluster.launch(docker=IMAGE, args=["sha256sum"], network="none", stdin_open=True, cpus=0.1)
        data = os.urandom(700_000)
        async with asyncio.timeout(PATIENCE_S):
            await handle.write(data)
            await handle.close_input()
            result = await handle.wait()
    assert result.output.split()[0].decode() == hashlib.sha256(data).hexdigest()


async def test_an_older_keeper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Held by a keeper that does not know it, a task with an open input is refused with the remedy."""
    executor = ProcessExecutor(tmp_path, open_cgroups("test-old"), user=OURSELVES)
    spec = LaunchSpec(
        TaskKey(FrameworkId("f"), TaskId("t"), LaunchId("l")), "cat", ("cat",), (), tmp_path, stdin_open=True
    )
    monkeypatch.setattr(protocol, "VERSION_MAX", 1)  # of ours: the keeper answers as an older one would
    try:
        with pytest.raises(LaunchFailed, match="older edgerm"):
            await executor.start(spec)
        with pytest.raises(NotFound):
            await executor.put_input(Handle(spec.key, "process", await executor.instance()), 0, b"x", False, 0)
    finally:
        await executor.end_tasks()
        await executor.close()


@pytest.mark.parametrize("newer", ["mounts", "messages"])
async def test_an_older_host(newer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module is not started without the directories and messages that an older host would overlook."""
    executor = WasmExecutor(tmp_path, open_cgroups("test-old"))
    wants: dict[str, Any] = {"mounts": (Mount("/d", str(tmp_path), True, False),), "messages": tmp_path / "socket"}
    key = TaskKey(FrameworkId("f"), TaskId("t"), LaunchId("l"))
    spec = LaunchSpec(key, "m", ("m",), (), tmp_path, module=MODULES / "say.wasm", **{newer: wants[newer]})
    monkeypatch.setattr(protocol, "VERSION_MAX", 1)
    try:
        with pytest.raises(LaunchFailed, match="older edgerm"):
            await executor.start(spec)
    finally:
        await executor.end_tasks()
        await executor.close()
