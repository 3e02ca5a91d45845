"""What an agent costs on the wire: bytes of an idle beat and of the launch of a cached module, over HTTP and over CoAP.

Counted by the kernel (`wiretap`), between a real agent and a real master. Over HTTP the agent goes through a forwarder,
so that its port is not the framework's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import wasmtime
from bench import programs
from bench.floor_chain import NOOP
from bench.report import Report
from bench.wiretap import Count, Tap, tap

from edgerm.sdk import Cluster, connect, framework

if TYPE_CHECKING:
    from bench.suite import Options

SUBJECT = "wire"
BEAT_INTERVAL_S = 1.0
SPINS = '(module (memory (export "memory") 1) (func (export "_start") (loop (br 0))))'
PING_BYTES = {"http": 1307, "coap": 261}  # of the original EdgeRM, measured with headers, both ways
IDLE_MOST_BYTES = 24  # of UDP payload, beat and answer together
LAUNCH_MOST_BYTES = 400
QUIET_S = 0.3


async def measure(report: Report, options: Options) -> None:
    """Both links, one after the other."""
    beats, launches = options.pick(40, 8), options.pick(20, 4)
    for link in ("http", "coap"):
        folder = options.folder / link
        folder.mkdir()
        try:
            join, idle = await _idle(folder / "idle", link, beats)
            launch = await _launch(folder / "launch", link, launches)
        except PermissionError:
            report.note("wire: no right to open a packet socket (root has it), so no bytes are counted")
            return
        _tell(report, link, join, idle, launch)


def _tell(report: Report, link: str, join: Count, idle: Count, launch: list[Count]) -> None:
    name = link.upper() if link == "http" else "CoAP"
    report.add(SUBJECT, f"{name}: join and its answer, with headers", "B", [join.ip_bytes])
    report.add(SUBJECT, f"{name}: join and its answer, payload", "B", [join.payload_bytes])
    report.add(SUBJECT, f"{name}: join and its answer, packets", "", [join.packets])
    per_beat = report.add(SUBJECT, f"{name}: an idle beat and its answer, with headers", "B", [idle.ip_bytes])
    report.add(SUBJECT, f"{name}: an idle beat, packets", "", [idle.packets])
    payload = report.add(SUBJECT, f"{name}: an idle beat and its answer, payload", "B", [idle.payload_bytes])
    floor = report.add(SUBJECT, f"the original EdgeRM's ping over {name}, with headers", "B", [PING_BYTES[link]])
    report.ratio(per_beat, floor, f"{name}: idle beat / EdgeRM's ping")
    report.add(SUBJECT, f"{name}: launch of a cached module, with headers", "B", [one.ip_bytes for one in launch])
    spent = report.add(
        SUBJECT, f"{name}: launch of a cached module, payload", "B", [one.payload_bytes for one in launch]
    )
    report.add(SUBJECT, f"{name}: launch of a cached module, packets", "", [one.packets for one in launch])
    if link == "coap":
        report.gate(payload, IDLE_MOST_BYTES)
        report.gate(spent, LAUNCH_MOST_BYTES)


async def _idle(folder: Path, link: str, count: int) -> tuple[Count, Count]:
    """The join, and one idle beat, as the mean of many, after a task has run."""
    folder.mkdir()
    async with _pair(folder, link, BEAT_INTERVAL_S) as (url, counted):
        join = counted.read()
        async with connect(url, framework("bench")) as cluster:
            await cluster.run(wasm=bytes(wasmtime.wat2wasm(NOOP)))
        await asyncio.sleep(3 * BEAT_INTERVAL_S)
        began, before = asyncio.get_running_loop().time(), counted.read()
        await asyncio.sleep(count * BEAT_INTERVAL_S)
        passed_s = asyncio.get_running_loop().time() - began
        total, beats = counted.read() - before, round(passed_s / BEAT_INTERVAL_S)
    return join, Count(*(round(value / beats) for value in (total.packets, total.ip_bytes, total.payload_bytes)))


async def _launch(folder: Path, link: str, count: int) -> list[Count]:
    """From the launch until the master has persisted RUNNING and the agent knows it."""
    folder.mkdir()
    module, counts = bytes(wasmtime.wat2wasm(SPINS)), []
    async with _pair(folder, link, 3600.0) as (url, counted), connect(url, framework("bench")) as cluster:
        await _started_and_killed(cluster, module, counted)
        for _ in range(count):
            counts.append(await _started_and_killed(cluster, module, counted))
    return counts


async def _started_and_killed(cluster: Cluster, module: bytes, counted: Tap) -> Count:
    before = await _quiet(counted)
    handle = await cluster.launch(wasm=module, name="stats", args=["3"])
    await handle.started()
    after = await _quiet(counted)
    await handle.kill(0.0)
    return after - before


async def _quiet(counted: Tap) -> Count:
    """The count once nothing has passed for a while."""
    last = counted.read()
    while True:
        await asyncio.sleep(QUIET_S)
        now = counted.read()
        if now == last:
            return now
        last = now


@asynccontextmanager
async def _pair(folder: Path, link: str, beat_interval_s: float) -> AsyncIterator[tuple[str, Tap]]:
    """A master and an agent on this link: the master's URL, and what passes between the two."""
    async with AsyncExitStack() as stack:
        env = {"EDGERM_AGENTS_BEAT_INTERVAL_S": str(beat_interval_s)}
        master = await stack.enter_async_context(programs.master(folder, env=env))
        url = master.coap_url if link == "coap" else await stack.enter_async_context(_forwarder(master.url))
        port = urlsplit(url).port
        assert port is not None
        counted = await stack.enter_async_context(tap(port))
        await stack.enter_async_context(programs.agent(folder, url))
        yield master.url, counted


@asynccontextmanager
async def _forwarder(url: str) -> AsyncIterator[str]:
    """The same server on a port of its own."""
    parts = urlsplit(url)

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection(parts.hostname, parts.port)
        await asyncio.gather(copy(reader, there[1]), copy(there[0], writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
