"""Thousands of live agents at one real master: CPU and memory by carrier, and launches meanwhile.

The master has a core of its own; the crowd, which is one lean process, has the others.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import islice
from statistics import median
from time import monotonic
from typing import TYPE_CHECKING, Any

from bench import machine, programs
from bench.holder import Holder
from bench.report import Report, quantile

if TYPE_CHECKING:
    from bench.suite import Options

SUBJECT = "live"
LAUNCHES = 40
POLL_S = 0.2
PATIENCE_S = 120.0
KINDS = (("HTTP", False), ("HTTP", True), ("CoAP", False), ("CoAP", True))


class Crowd:
    """The program `crowd`."""

    def __init__(self, program: programs.Program) -> None:
        self._program = program

    async def ask(self, command: str = "status") -> dict[str, Any]:
        """What the crowd knows of itself."""
        stdin = self._program.process.stdin
        assert stdin is not None
        stdin.write(command.encode() + b"\n")
        await stdin.drain()
        told: dict[str, Any] = json.loads(await self._program.line())
        return told

    async def until_joined(self, agents: int) -> dict[str, Any]:
        """Wait until so many have a session."""
        ends_s = monotonic() + PATIENCE_S
        while (told := await self.ask())["joined"] < agents:
            if monotonic() > ends_s:
                raise TimeoutError(f"only {told['joined']} of {agents} agents have joined: {told['faults'][-3:]}")
            await asyncio.sleep(POLL_S)
        return told


@asynccontextmanager
async def crowd(url: str, agents: int, doorbells: bool, cores: set[int] | None) -> AsyncIterator[Crowd]:
    """So many agents in a process of their own, not all joined yet."""
    argv = programs.ours("crowd", url, str(agents), str(int(doorbells)))
    async with programs.program(*argv, cores=cores) as started:
        yield Crowd(started)


async def measure(report: Report, options: Options) -> None:
    """Each carrier, with and without doorbells."""
    agents, span_s = options.pick(2000, 200), options.pick(30, 16)
    for carrier, doorbells in KINDS:
        folder = options.folder / f"{carrier}-{doorbells}"
        folder.mkdir()
        await _one(report, options, folder, carrier, doorbells, agents, span_s)


async def _one(
    report: Report, options: Options, folder: Any, carrier: str, doorbells: bool, agents: int, span_s: float
) -> None:
    name = f"{agents:,} agents, {carrier}, " + ("doorbells" if doorbells else "no doorbells")
    cores = machine.two_cores()
    file = None if options.profile is None else options.profile / f"master-live-{carrier}-{doorbells}.prof"
    async with programs.master(folder, cores=cores and cores[0], profile=file) as master:
        empty_mib, cpu_s, began = machine.rss_mib(master.pid), machine.cpu_s(master.pid), monotonic()
        url = master.url if carrier == "HTTP" else master.coap_url
        async with crowd(url, agents, doorbells, cores and cores[1]) as people:
            told = await people.until_joined(agents)
            report.add(SUBJECT, f"{name}: all joined", "s", [monotonic() - began])
            cost_us = 1e6 * (machine.cpu_s(master.pid) - cpu_s) / agents
            report.add(SUBJECT, f"{name}: CPU for each join, its record and its first beat", "µs", [cost_us])
            await asyncio.sleep(2.0)
            told, cpu_s, began = await people.ask(), machine.cpu_s(master.pid), monotonic()
            await asyncio.sleep(span_s)
            spent_s, later = machine.cpu_s(master.pid) - cpu_s, await people.ask()
            beats = later["beats"] - told["beats"]
            report.add(SUBJECT, f"{name}: the master's core busy", "%", [100 * spent_s / (monotonic() - began)])
            report.add(SUBJECT, f"{name}: CPU for each beat", "µs", [1e6 * spent_s / max(beats, 1)])
            kib = 1024 * (machine.rss_mib(master.pid) - empty_mib) / agents
            report.add(SUBJECT, f"{name}: memory (RSS) for each agent", "KiB", [kib])
            if doorbells:
                await _launches(report, name, master, agents, options.pick(LAUNCHES, 10))
            faults = (await people.ask())["faults"]
            if faults:
                report.note(f"{name}: {len(faults)} faults of the load, the first: {faults[0]}")


async def _launches(report: Report, name: str, master: programs.MasterProgram, agents: int, launches: int) -> None:
    began, cpu_s = monotonic(), machine.cpu_s(master.pid)
    async with Holder(master.url) as framework:
        await framework.until(lambda: len(framework.offers) >= agents)
        report.add(SUBJECT, f"{name}: SUBSCRIBE → all are offered", "s", [monotonic() - began])
        cost_us = 1e6 * (machine.cpu_s(master.pid) - cpu_s) / agents
        report.add(SUBJECT, f"{name}: SUBSCRIBE, CPU for each agent", "µs", [cost_us])
        chosen = list(islice(framework.offers, 0, None, max(1, agents // launches)))
        taken_ms = [1000 * await framework.launch(agent_id) for agent_id in chosen]
    report.add(SUBJECT, f"{name}: launch → RUNNING, p50", "ms", [median(taken_ms)])
    report.add(SUBJECT, f"{name}: launch → RUNNING, p90", "ms", [quantile(taken_ms, 0.9)])
