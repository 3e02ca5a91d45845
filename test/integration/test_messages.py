"""Messages between a framework and its tasks, on real parts: processes, modules and containers, over each link."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from support.agent import OURSELVES, agent_here, agent_process, url_of
from support.engine import TestEngine
from support.master import Framework, running_master
from support.relays import Weather, udp_relay

from edgerm.core.ids import AgentId, ExecutorId
from edgerm.core.scheduler import MESSAGE_BYTES_MAX
from edgerm.sdk import Cluster, Conflict, Invalid, TaskHandle, connect
from edgerm.sdk.operator import Name
from edgerm_agent.running import Running

PATIENCE_S = 60
MODULES = Path(__file__).parents[1] / "fixtures/wasm"
LIBRARY = Path(__file__).parents[2] / "edgerm/sdk/mailbox.py"  # which works alone, as in a container without edgerm
PARROT = """
from mailbox_of_task import Mailbox
with Mailbox.open() as mailbox:
    while (message := mailbox.receive(60)) != b"end":
        mailbox.send(message)
"""


def parrot(path: Path) -> list[str]:
    """A program that sends each message back, until one that is "end"."""
    file = path / "parrot.py"
    file.write_text(PARROT)
    shutil.copy(LIBRARY, path / "mailbox_of_task.py")
    path.chmod(0o755)
    return [sys.executable, str(file)]


@asynccontextmanager
async def boxed(tmp_path: Path, face: str, weather: Weather | None = None) -> AsyncIterator[tuple[Cluster, Running]]:
    """A framework, and an agent behind this link."""
    async with AsyncExitStack() as stack:
        master = await stack.enter_async_context(running_master(tmp_path, agents={"beat_interval_s": 2.0}))
        url = url_of(master, face)
        if weather is not None:
            port = int(url.rpartition(":")[2])
            relay = await stack.enter_async_context(udp_relay(("127.0.0.1", port), weather, seed=7))
            url = f"coap://{relay.address[0]}:{relay.address[1]}"
        agent = await stack.enter_async_context(agent_here(tmp_path / "agent", url))
        yield await stack.enter_async_context(connect(master.url)), agent


async def heard(handle: TaskHandle, count: int) -> list[bytes]:
    """The next so many messages of the task."""
    messages: list[bytes] = []
    async with asyncio.timeout(PATIENCE_S):
        async for data in handle.messages():
            messages.append(data)
            if len(messages) == count:
                break
    return messages


@pytest.mark.parametrize("face", ["http", "coap"])
async def test_there_and_back(face: str, tmp_path: Path) -> None:
    """Messages of any size up to 64 KiB reach a process and a module whole and in order, and so do theirs."""
    said = [b"a", b"\n" * 700, os.urandom(5000), os.urandom(MESSAGE_BYTES_MAX), b"z"]
    async with boxed(tmp_path, face) as (cluster, _):
        process = await cluster.launch(process=parrot(tmp_path), messages=True, cpus=0.1)
        module = await cluster.launch(wasm=MODULES / "parrot.wasm", messages=True, cpus=0.1)
        for handle in (process, module):
            for data in said:
                await handle.send(data)
            assert await heard(handle, len(said)) == said
            await handle.send(b"end")
        async with asyncio.timeout(PATIENCE_S):
            assert [(await handle.ended()).state.name for handle in (process, module)] == ["FINISHED"] * 2
        with pytest.raises(Conflict):
            await process.send(b"late")


async def ask_again(handle: TaskHandle) -> None:
    """Now and then a message with a higher number: one may be dropped while the queue is full."""
    for number in range(1000, 2000):
        await handle.send(b"%06d" % number)
        await asyncio.sleep(0.5)


async def test_a_burst_on_a_bad_line(tmp_path: Path) -> None:
    """Over a link that loses and doubles what comes back is in order and without doubles, and at last there is one."""
    weather = Weather(dropped=0.1, doubled=0.2, delay_s=(0.0, 0.05))
    async with boxed(tmp_path, "coap", weather) as (cluster, _):
        handle = await cluster.launch(process=parrot(tmp_path), messages=True, cpus=0.1)
        await handle.started()
        for number in range(300):
            await handle.send(b"%06d" % number)
        asking = asyncio.create_task(ask_again(handle))
        back: list[int] = []
        async with asyncio.timeout(PATIENCE_S):
            async for data in handle.messages():
                back.append(int(data))
                if back[-1] >= 1000:
                    break
        asking.cancel()
        assert back == sorted(set(back))
        assert len(back) > 20
        assert len(back) < 301  # 300 do not fit at once: what does not is dropped, and nobody waits


async def test_kept_for_a_task_that_comes_late(tmp_path: Path) -> None:
    """A task that has not connected gets the latest 64 messages; older ones are dropped and counted."""
    waits = parrot(tmp_path)
    (tmp_path / "parrot.py").write_text(f"input()\n{PARROT}")
    async with boxed(tmp_path, "http") as (cluster, agent):
        handle = await cluster.launch(process=waits, messages=True, stdin_open=True, cpus=0.1)
        for number in range(100):
            await handle.send(b"%d" % number)
        async with asyncio.timeout(PATIENCE_S):
            while agent.tasks._mailboxes.dropped < 36:
                await asyncio.sleep(0.01)
        await handle.write(b"go\n")
        assert await heard(handle, 64) == [b"%d" % number for number in range(36, 100)]


@pytest.mark.parametrize("face", ["http"])
async def test_a_waiting_module_is_killed(face: str, tmp_path: Path) -> None:
    """A module that waits for a message ends at once when it is killed."""
    async with boxed(tmp_path, face) as (cluster, _):
        handle = await cluster.launch(wasm=MODULES / "parrot.wasm", messages=True, cpus=0.1)
        await handle.send(b"hello")
        assert await heard(handle, 1) == [b"hello"]
        async with asyncio.timeout(PATIENCE_S):
            status = await handle.kill()
        assert status.state.name == "KILLED"
        assert "killed" in status.message


async def test_nobody_there(tmp_path: Path) -> None:
    """What is for a task that is not there, or has no mailbox, is taken and dropped; what is too big is refused."""
    async with boxed(tmp_path, "http") as (cluster, _):
        handle = await cluster.launch(process=["sleep", "1000"], cpus=0.1)
        await handle.send(b"it has no mailbox")
        session = cluster.driver.session
        assert handle.agent_id is not None
        session.message(handle.agent_id, ExecutorId("nobody"), b"x")
        session.message(AgentId("elsewhere"), ExecutorId(handle.task_id), b"x")
        for size in (0, MESSAGE_BYTES_MAX + 1):
            with pytest.raises(Invalid):
                session.message(handle.agent_id, ExecutorId(handle.task_id), b"x" * size)
        await handle.kill()
        assert not session.why_ended


async def test_a_client_of_mesos(tmp_path: Path) -> None:
    """A framework that speaks JSON sends MESSAGE and hears MESSAGE, its data in base64; 64 KiB and a byte are a 413."""
    async with AsyncExitStack() as stack:
        master = await stack.enter_async_context(running_master(tmp_path))
        await stack.enter_async_context(agent_here(tmp_path / "agent", master.url))
        async with Framework(master.url) as framework:
            offer = await framework.offer()
            task = {
                "name": "t",
                "task_id": {"value": "t"},
                "agent_id": offer["agent_id"],
                "resources": [{"name": "cpus", "type": "SCALAR", "scalar": {"value": 0.1}}],
                "command": {"shell": False, "value": sys.executable, "arguments": parrot(tmp_path)},
                "messages": True,
            }
            await framework.launch(offer, task)
            while (status := await framework.status())["state"] != "TASK_RUNNING":
                await framework.acknowledge(status)
            await framework.acknowledge(status)
            to = {"agent_id": offer["agent_id"], "executor_id": {"value": "t"}}
            assert await framework.call("MESSAGE", **to, data="aGVsbG8=") == 202
            event = await framework.until("MESSAGE")
            assert event["message"] == {**to, "data": "aGVsbG8="}
            assert await framework.call("MESSAGE", **to, data="AAAA" * 21846) == 413
            assert await framework.call("MESSAGE", **to, data="") == 400


async def test_over_a_restart(tmp_path: Path) -> None:
    """After kill -9 of the agent its task's socket is there again, and what is being written to one goes on where it
    stood."""
    data = os.urandom(4_000_000)
    async with AsyncExitStack() as stack:
        master = await stack.enter_async_context(running_master(tmp_path))
        cluster = await stack.enter_async_context(connect(master.url))
        agent = await stack.enter_async_context(agent_process(tmp_path / "agent", master.url))
        talks = await cluster.launch(process=parrot(tmp_path), messages=True, cpus=0.1)
        reads = await cluster.launch(process=["sha256sum"], stdin_open=True, cpus=0.1)
        async with asyncio.timeout(PATIENCE_S):
            await talks.send(b"before")
            assert await heard(talks, 1) == [b"before"]
            await reads.write(data[:1000])
            writing = asyncio.create_task(reads.write(data[1000:]))
            taken = 1000
            while taken < 500_000:
                taken, _ = await cluster.operator.write_input(Name(reads.task_id))
            await agent.end(kill=True)
            await agent.start()
            await talks.send(b"after")
            assert await heard(talks, 1) == [b"after"]
            await writing
            await reads.close_input()
            result = await reads.wait()
    assert result.output.split()[0].decode() == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("user", ["0", "1000:1000"])
async def test_a_container(user: str, engine: TestEngine, tmp_path: Path) -> None:
    """A container finds the socket in its sandbox, below /mnt/mesos/sandbox, and may use both, whoever its user is."""
    base = Path(os.path.realpath(sys.executable)).parents[1]
    volumes = [f"{path}:{place}:ro" for path, place in ((base, base), ("/usr/lib", "/lib"), ("/usr/lib64", "/lib64"))]
    volumes.append(f"{tmp_path}:/parrot:ro")
    parrot(tmp_path)
    engine.import_image(image := f"user:{user.partition(':')[0]}", user=user)
    executors = {
        "process": {"user": OURSELVES},
        "docker": {"socket": engine.url, "volumes": [str(base), "/usr", "/lib", str(tmp_path)]},
    }
    async with AsyncExitStack() as stack:
        master = await stack.enter_async_context(running_master(tmp_path))
        cluster = await stack.enter_async_context(connect(master.url))
        await stack.enter_async_context(agent_here(tmp_path / "agent", master.url, executors=executors))
        python = os.path.realpath(sys.executable)
        handle = await cluster.launch(
            docker=image,
            args=["sh", "-c", f"touch /mnt/mesos/sandbox/mine && exec {python} -S /parrot/parrot.py"],
            volumes=volumes,
            network="none",
            messages=True,
            mem=64,
        )
        await handle.send(b"hello")
        assert await heard(handle, 1) == [b"hello"]
        await handle.send(b"end")
        assert (await handle.wait()).ok
