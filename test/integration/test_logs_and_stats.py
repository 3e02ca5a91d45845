"""Outputs and stats of tasks on a real agent, over each link: who reads, what it costs the line, what tasks use."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import pytest
import pytest_asyncio
from support.agent import agent_here
from support.master import running_master
from support.relays import Weather, udp_relay

from edgerm.core.link import Close, Credit, Frame, OpenLog, OpenStats
from edgerm.sdk import Cluster, connect
from edgerm.sdk.operator import Name, Operator
from edgerm.transport.http_client import HttpClient
from edgerm_master.api import usage
from edgerm_master.core.events import Event, SendFrame
from edgerm_master.main import Served

PATIENCE_S = 60
MODULES = Path(__file__).parents[1] / "fixtures/wasm"
BYTES_S = 8192
BURST_BYTES = BYTES_S // 2


@dataclass
class Box:
    """A master, an agent behind a link, and the frames that the master sent."""

    master: Served
    link: str
    path: Path
    cluster: Cluster
    operator: Operator
    sent: list[tuple[float, Frame]] = field(default_factory=list)  # with the event loop's clock
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def watch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Note what the master sends."""
        post = self.master.shell.post

        def noting(event: Event) -> None:
            if isinstance(event, SendFrame):
                self.sent.append((asyncio.get_running_loop().time(), event.frame))
                self.changed.set()
            post(event)

        monkeypatch.setattr(self.master.shell, "post", noting)

    def opened(self, kind: type[OpenLog | OpenStats] = OpenLog) -> list[OpenLog | OpenStats]:
        """The streams that the master opened."""
        return [frame.body for _, frame in self.sent if isinstance(frame.body, kind)]

    async def until(self, holds: Callable[[Box], bool]) -> None:
        """Wait until the master has sent something by which `holds` is true."""
        async with asyncio.timeout(PATIENCE_S):
            while not holds(self):
                self.changed.clear()
                await self.changed.wait()

    async def echo(self) -> tuple[Name, BinaryIO]:
        """A task that writes what the file takes, and ends when that is closed."""
        fifo = self.path / "fifo"
        os.mkfifo(fifo)
        fifo.chmod(0o644)
        handle = await self.cluster.launch(process=["cat", str(fifo)], cpus=0.1, mem=32)
        await handle.started()
        pen = await asyncio.to_thread(fifo.open, "wb", buffering=0)
        return Name(handle.task_id), pen


@asynccontextmanager
async def boxed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, link: str, weather: Weather | None = None
) -> AsyncIterator[Box]:
    """An agent behind this link; only its datagrams suffer from the weather."""
    async with AsyncExitStack() as stack:
        master = await stack.enter_async_context(running_master(tmp_path, agents={"coap_log_bytes_s": BYTES_S}))
        assert master.coap_url is not None
        url = master.url if link == "http" else master.coap_url
        if weather is not None:
            port = int(master.coap_url.rpartition(":")[2])
            relay = await stack.enter_async_context(udp_relay(("127.0.0.1", port), weather, seed=7))
            url = f"coap://{relay.address[0]}:{relay.address[1]}"
        await stack.enter_async_context(agent_here(tmp_path / "agent", url))
        cluster = await stack.enter_async_context(connect(master.url))
        client = await stack.enter_async_context(HttpClient(master.url))
        box = Box(master, link, tmp_path, cluster, Operator(client))
        box.watch(monkeypatch)
        yield box


@pytest_asyncio.fixture(params=["http", "coap"])
async def box(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Box]:
    """An agent behind this link."""
    async with boxed(tmp_path, monkeypatch, str(request.param)) as box:
        yield box


async def read(operator: Operator, name: Name, offset: int = 0) -> bytes:
    """An output to its end; nothing may be missing."""
    text = b""
    async for chunk in operator.read_log(name, follow=True, offset=offset):
        assert chunk.offset == offset + len(text)
        text += chunk.data
    return text


async def edgerm(master: str, *words: str) -> tuple[str, str]:
    """What a command of ours says, to stdout and stderr."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "edgerm.cli.main", *words, "--master", master),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(PATIENCE_S):
        out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return out.decode(), err.decode()


async def test_many_viewers_one_stream(box: Box) -> None:
    """However many follow an output, its agent sends it once, and each of them has all of it."""
    name, pen = await box.echo()
    pen.write(b"first\n")
    viewers = [asyncio.create_task(read(box.operator, name)) for _ in range(8)]
    await box.until(lambda box: len(box.opened()) == 1)
    text = b"first\n"
    for number in range(20):
        line = b"line %d " % number + b"x" * 100 + b"\n"
        pen.write(line)
        text += line
        await asyncio.sleep(0)
    viewers.append(asyncio.create_task(read(box.operator, name)))
    pen.close()
    async with asyncio.timeout(PATIENCE_S):
        assert await asyncio.gather(*viewers) == [text] * 9
    assert len(box.opened()) <= 2  # the last may have come when all had been said


async def test_logs_of_an_ended_task(box: Box) -> None:
    """`edgerm logs -f` prints both streams of a task and ends with it, also when the output is long."""
    script = "i=0; while [ $i -lt 300 ]; do echo out $i; i=$((i+1)); done; echo err >&2; exit 3"
    handle = await box.cluster.launch(process=["sh", "-c", script], cpus=0.1, mem=32)
    await handle.started()
    out, err = await edgerm(box.master.url, "logs", "-f", handle.task_id)
    assert out.splitlines() == [f"out {number}" for number in range(300)]
    assert err == "err\n"


async def test_a_viewer_who_leaves(box: Box) -> None:
    """When the last viewer hangs up, the agent is told to stop; who comes then begins anew and misses nothing."""
    name, pen = await box.echo()
    pen.write(b"one\n")
    stream = box.operator.read_log(name, follow=True)
    assert (await anext(aiter(stream))).data == b"one\n"
    await stream.aclose()  # type: ignore[attr-defined]
    [number] = [frame.stream for _, frame in box.sent if isinstance(frame.body, OpenLog)]
    await box.until(lambda box: any(frame == Frame(number, Close("")) for _, frame in box.sent))
    pen.write(b"two\n")
    pen.close()
    async with asyncio.timeout(PATIENCE_S):
        assert await read(box.operator, name) == b"one\ntwo\n"


async def test_the_pace_of_a_thin_line(box: Box) -> None:
    """Behind CoAP credit is granted no faster than the setting; over HTTP a reader has it all at once."""
    size = 30_000
    text = bytes(ord("a") + index % 26 for index in range(size))
    name, pen = await box.echo()
    await asyncio.to_thread(pen.write, text)
    pen.close()
    async with asyncio.timeout(PATIENCE_S):
        assert await read(box.operator, name) == text
    granted = [(at_s, frame.body.credit_bytes) for at_s, frame in box.sent if isinstance(frame.body, OpenLog | Credit)]
    begin_s, total = granted[0][0], 0
    for at_s, credit_bytes in granted:
        total += credit_bytes
        if box.link == "coap":
            assert total <= BURST_BYTES + BYTES_S * (at_s - begin_s) + 1
    assert total >= size
    if box.link == "http":
        assert len(granted) == 1


async def test_a_bad_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Datagrams that are lost, doubled and late cost time; an output has each byte once, and stats come, too."""
    monkeypatch.setattr(usage, "DEADLINE_S", PATIENCE_S)
    weather = Weather(dropped=0.05, doubled=0.2, delay_s=(0.0, 0.02))
    text = bytes(ord("a") + index % 26 for index in range(4000))
    async with boxed(tmp_path, monkeypatch, "coap", weather) as box:
        name, pen = await box.echo()
        await asyncio.to_thread(pen.write, text)
        used = await box.operator.stats(name)
        assert [task.task_id.value for task in used.tasks] == [name.task_id]
        viewers = [asyncio.create_task(read(box.operator, name)) for _ in range(2)]
        await box.until(lambda box: bool(box.opened()))
        pen.close()
        async with asyncio.timeout(PATIENCE_S):
            assert await asyncio.gather(*viewers) == [text] * 2


async def test_stats_of_a_process_and_a_module(box: Box) -> None:
    """`edgerm ps --stats` shows what tasks use beside what they asked for, and nothing for those that have ended."""
    busy = await box.cluster.launch(process=["sh", "-c", "while :; do :; done"], name="busy", cpus=0.5, mem=64)
    spinning = await box.cluster.launch(wasm=MODULES / "endless.wasm", name="spinning", cpus=0.5, mem=64)
    idle = await box.cluster.launch(process=["sleep", "1000"], name="idle", cpus=0.1, mem=32)
    ended = await box.cluster.launch(process=["true"], name="ended")
    await ended.ended()
    for handle in (busy, spinning, idle):
        await handle.started()
    out, err = await edgerm(box.master.url, "ps", "--stats", "--all", "--json")
    rows = {row["task"]: row for row in json.loads(out)}
    assert err == ""
    for handle in (busy, spinning):
        row = rows[handle.task_id]
        assert row["cpu_s"] > 0 and row["cpus"] == 0.5
        assert row["cpus_used"] > 0.01
        assert row["mem_used"] > 0
    assert rows[idle.task_id]["cpus_used"] < 0.05
    assert 0 < rows[idle.task_id]["mem_used"] < 32
    assert [rows[ended.task_id][name] for name in ("cpus_used", "mem_used", "cpu_s")] == [None] * 3
    assert len(box.opened(OpenStats)) == 1
    out, _ = await edgerm(box.master.url, "ps", "--stats", "--all")
    lines = out.splitlines()
    assert lines[0].split() == ["TASK", "STATE", "AGENT", "CPU", "MEMORY", "FRAMEWORK"]
    [line] = [line for line in lines if line.startswith(ended.task_id)]
    assert "-/0.1" in line
