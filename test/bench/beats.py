"""An idle agent's beat: CPU time at the master, against a bare aiohttp server that answers as many bytes.

Both servers have a core of their own, and the load, which is the same for both, the others. Rounds alternate.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from bench import http_load, machine, programs
from bench.load_agent import PROTOBUF, LoadAgent
from bench.report import Report

if TYPE_CHECKING:
    from bench.suite import Options

SUBJECT = "beats"
AGENTS = 100
CONNECTIONS = 8
MOST = 1.3


async def measure(report: Report, options: Options) -> None:
    """Rounds of both."""
    count, cores = options.pick(20_000, 2000), machine.two_cores()
    usable = os.sched_getaffinity(0)
    costs: dict[str, list[float]] = {"floor": [], "ours": []}
    file = None if options.profile is None else options.profile / "master-beats.prof"
    async with AsyncExitStack() as stack:
        server_core = cores and cores[0]
        master = await stack.enter_async_context(programs.master(options.folder, cores=server_core, profile=file))
        if cores is not None:
            os.sched_setaffinity(0, cores[1])
            stack.callback(os.sched_setaffinity, 0, usable)
        agents = [await stack.enter_async_context(LoadAgent(master.url)) for _ in range(AGENTS)]
        bodies = [agent.idle_beat for agent in agents]
        ours = Load(master.url, master.pid, bodies)
        answer = await ours.open(stack)
        argv = programs.ours("floor_echo", str(len(answer.body)))
        echo = await stack.enter_async_context(programs.program(*argv, cores=server_core))
        floor = Load((await echo.line()).partition("http=")[2], echo.pid, bodies)
        await floor.open(stack)
        report.note(f"a beat without news has {len(bodies[0])} bytes, its answer {len(answer.body)}, without HTTP")
        for _ in range(options.pick(5, 2)):
            costs["floor"].append(await floor.cost_s(count))
            costs["ours"].append(await ours.cost_s(count))
    floor_ = report.add(SUBJECT, "floor: bare aiohttp, CPU per request", "µs", [1e6 * cost for cost in costs["floor"]])
    beat = report.add(SUBJECT, f"a beat at the master, {AGENTS} agents: CPU", "µs", [1e6 * c for c in costs["ours"]])
    report.gate(report.ratio(beat, floor_, "beat / floor"), MOST)


class Load:
    """The same requests to either server, in a closed loop on some connections."""

    def __init__(self, url: str, pid: int, bodies: list[bytes]) -> None:
        self._client = http_load.Client(url)
        self._pid = pid
        self._bodies = bodies
        self._head = self._client.post("/link/v1/beat", PROTOBUF)

    async def open(self, stack: AsyncExitStack) -> http_load.Answer:
        """Connect; an answer."""
        await self._client.open(CONNECTIONS)
        stack.callback(self._client.close)
        return await self._client.ask(self._head, self._bodies[0])

    async def cost_s(self, count: int) -> float:
        """CPU time of the server per request, over so many."""
        share = count // CONNECTIONS
        await asyncio.gather(*(self._ask(share // 10) for _ in range(CONNECTIONS)))
        before_s = machine.cpu_s(self._pid)
        await asyncio.gather(*(self._ask(share) for _ in range(CONNECTIONS)))
        return (machine.cpu_s(self._pid) - before_s) / (share * CONNECTIONS)

    async def _ask(self, count: int) -> None:
        for number in range(count):
            await self._client.ask(self._head, self._bodies[number % len(self._bodies)])
