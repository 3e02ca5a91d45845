"""How long the event loop of a real master is held while thousands of offers are made, declined and withdrawn.

Agents here only join, by the real link; a framework subscribes, declines all it holds in one call, revives and goes.
Holds are wall clock, so what else runs on the machine is in them. What does not live here: the core alone
(`scale_sweeps`).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

from bench import http_load, machine, programs
from bench.fleet import agent_id, make_spec
from bench.load_agent import PROTOBUF as LINK
from bench.load_framework import EVENT_BYTES_MAX, PATH, JsonSpeech, Offered, ProtobufSpeech, Speech
from bench.report import Report, quantile

from edgerm.core.ids import FrameworkId, OfferId
from edgerm.core.link import Join
from edgerm.core.scheduler import Call, Decline, Revive
from edgerm.wire.codec import link as codec
from edgerm.wire.codec.scheduler_client import call_to_message
from edgerm.wire.content import encode
from edgerm.wire.recordio import Decoder

if TYPE_CHECKING:
    from bench.suite import Options

SUBJECT = "scale"
JOINS_AT_ONCE = 16
SPANS = ("SUBSCRIBE", "DECLINE of all", "REVIVE", "its stream breaks")
UNTIL_OFFERED = ("SUBSCRIBE", "REVIVE")
CALM_S = 1.0


async def measure(report: Report, options: Options) -> None:
    """Both encodings."""
    agents = options.pick(10_000, 500)
    for speech in (ProtobufSpeech(), JsonSpeech()):
        name = "protobuf" if isinstance(speech, ProtobufSpeech) else "JSON"
        folder = options.folder / f"holds-{name}"
        folder.mkdir()
        spans, holds = await _one(folder, agents, speech)
        collected_ms = max(1000 * collected for _, _, collected in holds)
        report.add(
            SUBJECT, f"real master, {agents:,} agents, {name}: longest full garbage collection", "ms", [collected_ms]
        )
        for span, (began, ended) in zip(SPANS, spans, strict=True):
            found_ms = [1000 * (took - collected) for at, took, collected in holds if began <= at <= ended]
            what = f"real master, {agents:,} agents, {name}, {span}"
            if span in UNTIL_OFFERED:
                report.add(SUBJECT, f"{what} → all offered", "s", [ended - began])
            report.add(SUBJECT, f"{what}: longest hold, collections left out", "ms", [max(found_ms, default=0.0)])
            report.add(SUBJECT, f"{what}: p90 of holds > 0.5 ms", "ms", [quantile(found_ms or [0.0], 0.9)])


async def _one(
    folder: Path, agents: int, speech: Speech
) -> tuple[list[tuple[float, float]], list[tuple[float, float, float]]]:
    """When each span began and ended, and all holds."""
    cores, file = machine.two_cores(), folder / "holds.json"
    where = ("--http=127.0.0.1:0", "--coap=", f"--data-dir={folder / 'master'}", "--log-level=warning")
    argv = programs.ours("watched_master", str(file), *where)
    async with programs.program(*argv, cores=cores and cores[0], log=folder / "master.log") as master:
        url = (await master.line()).split("http=")[1].split()[0]
        await _join(url, agents)
        await asyncio.sleep(CALM_S)
        spans = await _spans(url, agents, speech)
    return spans, json.loads(file.read_text())


async def _join(url: str, agents: int) -> None:
    client = await http_load.Client(url).open(JOINS_AT_ONCE)
    head, numbers = client.post("/link/v1/join", LINK), iter(range(agents))

    async def some() -> None:
        for number in numbers:
            await client.ask(head, codec.encode_join(Join(agent_id(number), 1, make_spec(number))))

    try:
        await asyncio.gather(*(some() for _ in range(JOINS_AT_ONCE)))
    finally:
        client.close()


async def _spans(url: str, agents: int, speech: Speech) -> list[tuple[float, float]]:
    client, times = await http_load.Client(url).open(1), [monotonic()]
    headers = {"Content-Type": speech.media_type, "Accept": speech.media_type}
    body = speech.subscribe()
    request = client.post(PATH, headers) + b"Content-Length: %d\r\n\r\n" % len(body) + body
    async with http_load.stream(url, request) as (answer, chunks):
        head = client.post(PATH, {**headers, "Mesos-Stream-Id": answer.header("Mesos-Stream-Id")})
        told = _told(speech, chunks)
        framework_id, _, _ = await anext(told)
        held = await _offered(told, agents)
        times.append(monotonic())

        async def call(call: Call) -> None:
            message = call_to_message(call, FrameworkId(framework_id))
            await client.ask(head, encode(message, speech.media_type))

        await call(Decline(tuple(held), 1e6))
        await asyncio.sleep(CALM_S)
        times.append(monotonic())
        await call(Revive())
        await _offered(told, agents)
        times.append(monotonic())
    await asyncio.sleep(CALM_S)
    times.append(monotonic())
    client.close()
    return list(pairwise(times))


async def _told(speech: Speech, chunks: AsyncIterator[bytes]) -> AsyncIterator[tuple[str, list[Offered], object]]:
    decoder = Decoder(EVENT_BYTES_MAX)
    async for chunk in chunks:
        for record in decoder.feed(chunk):
            yield speech.read(record)


async def _offered(told: AsyncIterator[tuple[str, list[Offered], object]], agents: int) -> list[OfferId]:
    """The next so many offers."""
    held: list[OfferId] = []
    while len(held) < agents:
        held += [OfferId(offer_id) for offer_id, _ in (await anext(told))[1]]
    return held
