"""An idle agent's beat over CoAP: CPU time at the master, against a bare aiocoap server that answers as many bytes.

Both servers have a core of their own, and the load, which is the same for both, the others. Rounds alternate.
"""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from bench import coap_load, machine, programs
from bench.load_agent import LoadAgent
from bench.report import Report

if TYPE_CHECKING:
    from bench.suite import Options

SUBJECT = "coap-beats"
AGENTS = 100
SOCKETS = 8
MOST = 1.3


async def measure(report: Report, options: Options) -> None:
    """Rounds of both."""
    count, cores = options.pick(8000, 1600), machine.two_cores()
    usable = os.sched_getaffinity(0)
    costs: dict[str, list[float]] = {"floor": [], "ours": []}
    file = None if options.profile is None else options.profile / "master-coap-beats.prof"
    async with AsyncExitStack() as stack:
        server_core = cores and cores[0]
        master = await stack.enter_async_context(programs.master(options.folder, cores=server_core, profile=file))
        if cores is not None:
            os.sched_setaffinity(0, cores[1])
            stack.callback(os.sched_setaffinity, 0, usable)
        agents = [await stack.enter_async_context(LoadAgent(master.url)) for _ in range(AGENTS)]
        bodies = [agent.idle_beat for agent in agents]
        ours = Load(master.coap_url, master.pid, bodies)
        answer_bytes = await ours.open(stack)
        argv = programs.ours("floor_coap_echo", str(answer_bytes), str(_free_port()))
        echo = await stack.enter_async_context(programs.program(*argv, cores=server_core))
        floor = Load((await echo.line()).partition("coap=")[2], echo.pid, bodies)
        await floor.open(stack)
        for _ in range(options.pick(5, 2)):
            costs["floor"].append(await floor.cost_s(count))
            costs["ours"].append(await ours.cost_s(count))
    floor_ = report.add(SUBJECT, "floor: bare aiocoap, CPU per request", "µs", [1e6 * cost for cost in costs["floor"]])
    beat = report.add(SUBJECT, f"a beat over CoAP, {AGENTS} agents: CPU", "µs", [1e6 * c for c in costs["ours"]])
    report.gate(report.ratio(beat, floor_, "beat / floor"), MOST)


def _free_port() -> int:
    """One that nobody uses now: aiocoap cannot tell which it was given."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Load:
    """The same requests to either server, in a closed loop on some sockets."""

    def __init__(self, url: str, pid: int, bodies: list[bytes]) -> None:
        self._url = url
        self._pid = pid
        self._bodies = bodies
        self._sockets: list[coap_load.Socket] = []

    async def open(self, stack: AsyncExitStack) -> int:
        """Connect; how many bytes an answer's payload has."""
        for _ in range(SOCKETS):
            opened = await coap_load.open_socket(self._url)
            stack.callback(opened.close)
            self._sockets.append(opened)
        answer = await self._sockets[0].ask("b", self._bodies[0])
        if answer.code != coap_load.CHANGED:
            raise RuntimeError(f"the server answers {answer.code >> 5}.{answer.code & 31:02d}")
        _, marked, payload = answer.datagram[6:].partition(bytes((coap_load.PAYLOAD,)))
        return len(payload) if marked else 0

    async def cost_s(self, count: int) -> float:
        """CPU time of the server per request, over so many."""
        share = count // SOCKETS
        await asyncio.gather(*(self._ask(one, share // 10) for one in self._sockets))
        before_s = machine.cpu_s(self._pid)
        await asyncio.gather(*(self._ask(one, share) for one in self._sockets))
        return (machine.cpu_s(self._pid) - before_s) / (share * SOCKETS)

    async def _ask(self, opened: coap_load.Socket, count: int) -> None:
        for number in range(count):
            await opened.ask("b", self._bodies[number % len(self._bodies)])
