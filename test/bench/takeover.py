"""A master is killed with thousands of agents and ten times as many tasks, and another one takes its registry over.

Everything is built through the real API: agents of a lean crowd join over the real link, a lean framework launches.
Times count from the start of the new process. Agents come back by themselves, as the real ones do: an HTTP doorbell
breaks at once and is tried again after a second, over CoAP the next beat is told to join.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from bench import live, machine, programs
from bench.holder import Holder
from bench.report import Report

if TYPE_CHECKING:
    from bench.suite import Options

SUBJECT = "takeover"
TASKS_EACH = 10
OFFERS_MOST_S = 1.0
RETRY_S = 0.05  # of the framework that comes back


async def measure(report: Report, options: Options) -> None:
    """With agents over HTTP, and over CoAP."""
    agents = options.pick(2000, 100)
    for carrier in ("HTTP", "CoAP"):
        folder = options.folder / carrier
        folder.mkdir()
        await _one(report, options, folder, carrier, agents)


async def _one(report: Report, options: Options, folder: Path, carrier: str, agents: int) -> None:
    name = f"{agents:,} agents, {agents * TASKS_EACH:,} tasks, {carrier}"
    cores, ports = machine.two_cores(), (_free(socket.SOCK_STREAM), _free(socket.SOCK_DGRAM))
    url = f"http://127.0.0.1:{ports[0]}"
    link = url if carrier == "HTTP" else f"coap://127.0.0.1:{ports[1]}"
    argv = _argv(folder, ports, None)
    async with programs.program(*argv, cores=cores and cores[0], log=folder / "master.log") as first:
        await first.line()
        async with live.crowd(link, agents, doorbells=True, cores=cores and cores[1]) as people:
            await people.until_joined(agents)
            began = monotonic()
            async with Holder(url, batch=TASKS_EACH) as framework:
                await framework.until(lambda: framework.running >= agents * TASKS_EACH)
                report.add(SUBJECT, f"{name}: to launch them", "s", [monotonic() - began])
                await framework.settled()
            report.add(SUBJECT, f"{name}: memory (RSS) of the master", "MiB", [machine.rss_mib(first.pid)])
            first.process.kill()
            await first.process.wait()
            await people.ask("mark")
            profile = None if options.profile is None else options.profile / f"master-takeover-{carrier}.prof"
            argv, began = _argv(folder, ports, profile), monotonic()
            async with programs.program(*argv, cores=cores and cores[0], log=folder / "again.log") as second:
                back = asyncio.create_task(_come_back(url, framework.framework_id))
                await second.line()
                ready_s = monotonic() - began
                report.add(SUBJECT, f"{name}: start → ready", "s", [ready_s])
                report.add(SUBJECT, f"{name}: start → ready, its CPU", "s", [machine.cpu_s(second.pid)])
                framework = await back
                try:
                    await framework.until(lambda: framework.first_offer_s > 0)
                    told = await _all_back(people, framework, agents)
                    _tell(report, name, began, ready_s, framework.first_offer_s - began, told)
                    cost_us = 1e6 * machine.cpu_s(second.pid) / agents
                    report.add(SUBJECT, f"{name}: the new master's CPU until then, for each agent", "µs", [cost_us])
                    report.add(SUBJECT, f"{name}: its memory (RSS)", "MiB", [machine.rss_mib(second.pid)])
                finally:
                    await framework.__aexit__(None, None, None)


async def _all_back(people: live.Crowd, framework: Holder, agents: int) -> dict[str, Any]:
    """Wait until all agents have joined anew and are offered; what the crowd says then."""
    told = await people.until_joined(agents)
    while told["joins"] < agents:
        await asyncio.sleep(live.POLL_S)
        told = await people.ask()
    await framework.until(lambda: len(framework.offers) >= agents)
    return told


def _tell(report: Report, name: str, began: float, ready_s: float, first_s: float, told: dict[str, Any]) -> None:
    offers = report.add(SUBJECT, f"{name}: start → first offers", "s", [first_s])
    report.gate(report.add(SUBJECT, f"{name}: ready → first offers", "s", [first_s - ready_s]), OFFERS_MOST_S)
    report.gate(offers, 2 * OFFERS_MOST_S)
    report.add(SUBJECT, f"{name}: start → first agent back", "s", [told["first_join_s"] - began])
    report.add(SUBJECT, f"{name}: start → all agents back", "s", [told["last_join_s"] - began])
    report.add(SUBJECT, f"{name}: start → all offered again", "s", [monotonic() - began])
    report.note(f"{name}: {told['joins']} joins answered; of the load: {told['faults'][:1] or 'no faults'}")


async def _come_back(url: str, framework_id: str) -> Holder:
    """The framework tries again and again until the master answers."""
    while True:
        framework = Holder(url, framework_id)
        try:
            return await framework.__aenter__()
        except (OSError, asyncio.IncompleteReadError):
            await framework.__aexit__(None, None, None)
            await asyncio.sleep(RETRY_S)


def _argv(folder: Path, ports: tuple[int, int], profile: Path | None) -> list[str]:
    code = programs.SERVE if profile is None else programs.PROFILED.format(path=str(profile))
    where = [f"--http=127.0.0.1:{ports[0]}", f"--coap=127.0.0.1:{ports[1]}", f"--data-dir={folder / 'master'}"]
    return [sys.executable, "-c", code, *where, "--log-level=warning"]


def _free(kind: socket.SocketKind) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
