"""An idle agent's beat: CPU time at the master, against a bare server of the same library that answers as many bytes.

Over HTTP the floor is aiohttp, over CoAP aiocoap. Both servers have a core of their own, and the load, which is the
same for both, the others. Rounds alternate.
"""

from __future__ import annotations

import asyncio
import os
import socket
from abc import ABC, abstractmethod
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, NamedTuple

from bench import coap_load, http_load, machine, programs
from bench.load_agent import PROTOBUF, LoadAgent
from bench.report import Report

if TYPE_CHECKING:
    from bench.suite import Options

AGENTS = 100
CALLERS = 8
MOST = 1.3


class Load(ABC):
    """The same beats to either server, in a closed loop by some callers."""

    def __init__(self, url: str, pid: int, bodies: list[bytes]) -> None:
        self._url = url
        self._pid = pid
        self._bodies = bodies

    @abstractmethod
    async def open(self, stack: AsyncExitStack) -> int:
        """Connect; how many bytes an answer's body has."""

    @abstractmethod
    async def ask(self, caller: int, body: bytes) -> object:
        """One beat."""

    async def cost_s(self, count: int) -> float:
        """CPU time of the server per request, over so many."""
        share = count // CALLERS
        await asyncio.gather(*(self._ask(caller, share // 10) for caller in range(CALLERS)))
        before_s = machine.cpu_s(self._pid)
        await asyncio.gather(*(self._ask(caller, share) for caller in range(CALLERS)))
        return (machine.cpu_s(self._pid) - before_s) / (share * CALLERS)

    async def _ask(self, caller: int, count: int) -> None:
        for number in range(count):
            await self.ask(caller, self._bodies[number % len(self._bodies)])


class HttpLoad(Load):
    """Over connections that are kept."""

    async def open(self, stack: AsyncExitStack) -> int:
        self._client = http_load.Client(self._url)
        self._head = self._client.post("/link/v1/beat", PROTOBUF)
        await self._client.open(CALLERS)
        stack.callback(self._client.close)
        return len((await self._client.ask(self._head, self._bodies[0])).body)

    async def ask(self, caller: int, body: bytes) -> object:
        del caller
        return await self._client.ask(self._head, body)


class CoapLoad(Load):
    """A socket for each caller."""

    async def open(self, stack: AsyncExitStack) -> int:
        self._sockets = [await coap_load.open_socket(self._url) for _ in range(CALLERS)]
        for opened in self._sockets:
            stack.callback(opened.close)
        answer = await self._sockets[0].ask("b", self._bodies[0])
        if answer.code != coap_load.CHANGED:
            raise RuntimeError(f"the server answers {answer.code >> 5}.{answer.code & 31:02d}")
        return len(answer.payload)

    async def ask(self, caller: int, body: bytes) -> object:
        return await self._sockets[caller].ask("b", body)


class Link(NamedTuple):
    """What is measured, and how."""

    subject: str
    library: str
    load: type[Load]
    floor: str  # the program in this folder
    requests: int  # in a round


HTTP = Link("beats", "aiohttp", HttpLoad, "floor_echo", 20_000)
COAP = Link("coap-beats", "aiocoap", CoapLoad, "floor_coap_echo", 8000)


async def measure(report: Report, options: Options) -> None:
    """Over HTTP."""
    await _measure(report, options, HTTP)


async def measure_coap(report: Report, options: Options) -> None:
    """Over CoAP."""
    await _measure(report, options, COAP)


async def _measure(report: Report, options: Options, link: Link) -> None:
    count, cores = options.pick(link.requests, link.requests // 5), machine.two_cores()
    usable = os.sched_getaffinity(0)
    costs: dict[str, list[float]] = {"floor": [], "ours": []}
    file = None if options.profile is None else options.profile / f"master-{link.subject}.prof"
    async with AsyncExitStack() as stack:
        server_core = cores and cores[0]
        master = await stack.enter_async_context(programs.master(options.folder, cores=server_core, profile=file))
        if cores is not None:
            os.sched_setaffinity(0, cores[1])
            stack.callback(os.sched_setaffinity, 0, usable)
        agents = [await stack.enter_async_context(LoadAgent(master.url)) for _ in range(AGENTS)]
        bodies = [agent.idle_beat for agent in agents]
        ours = link.load(master.coap_url if link is COAP else master.url, master.pid, bodies)
        answer_bytes = await ours.open(stack)
        argv = programs.ours(link.floor, str(answer_bytes), *([str(_free_port())] if link is COAP else []))
        echo = await stack.enter_async_context(programs.program(*argv, cores=server_core))
        floor = link.load((await echo.line()).partition("=")[2], echo.pid, bodies)
        await floor.open(stack)
        report.note(f"{link.subject}: a beat without news has {len(bodies[0])} bytes, its answer {answer_bytes}")
        for _ in range(options.pick(5, 2)):
            costs["floor"].append(await floor.cost_s(count))
            costs["ours"].append(await ours.cost_s(count))
    what = f"floor: bare {link.library}, CPU per request"
    floor_ = report.add(link.subject, what, "µs", [1e6 * cost for cost in costs["floor"]])
    what = f"a beat at the master, {AGENTS} agents: CPU"
    beat = report.add(link.subject, what, "µs", [1e6 * cost for cost in costs["ours"]])
    report.gate(report.ratio(beat, floor_, "beat / floor"), MOST)


def _free_port() -> int:
    """One that nobody uses now: aiocoap cannot tell which it was given."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
