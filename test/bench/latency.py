"""Submit → RUNNING of a WASM task, one in flight: ours against the bare chain and against Ray's warm no-op.

Ours: the SDK's driver in this process, a real master and a real agent as processes of their own with durable stores;
the module is cached at the agent and compiled. Rounds alternate, so what disturbs the machine disturbs all alike. A
pause before each task lets the one before be acknowledged, forgotten and cleaned up; the chain and Ray get it too.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import wasmtime
from bench import floor_chain, programs
from bench.report import Report, quantile

from edgerm.core.scheduler import BlobRef, Offer, Status
from edgerm.core.tasks import TaskState
from edgerm.sdk import Driver, Scheduler, Session, connect, framework, wasm_task

if TYPE_CHECKING:
    from bench.suite import Options

SUBJECT = "latency"
CHAIN_MOST = 10.0  # times the chain, the first step; 2.5 is the goal
RAY_MOST = 1.0
WAIT_S = 30.0
WARM_UP = 1500  # past the first turn of the floor's write-ahead log: overwriting costs less than growing
PAUSE_S = 0.02  # between two tasks, so that what the last one left to do is done


async def measure(report: Report, options: Options) -> None:
    """Rounds of all, one after the other: with a pause before each task, and without."""
    rounds, count = options.pick(7, 2), options.pick(100, 30)
    taken: dict[str, list[list[float]]] = {name: [] for name in NAMES}
    async with AsyncExitStack() as stack:
        chain = await stack.enter_async_context(_chain(options.folder))
        ours = await stack.enter_async_context(_ours(options.folder, options.profile))
        ray = await _ray(stack, report, options)
        await chain.sample(WARM_UP)
        await ours.sample(WARM_UP // 10)
        for _ in range(rounds):
            taken["chain"].append(await chain.sample(count, PAUSE_S))
            running, ended = await ours.sample(count, PAUSE_S)
            taken["ours"].append(running)
            taken["ended"].append(ended)
            if ray is not None:
                taken["ray"].append(await ray.sample(count, PAUSE_S))
            taken["chain, busy"].append(await chain.sample(count))
            taken["ours, busy"].append((await ours.sample(count))[0])
            if ray is not None:
                taken["ray, busy"].append(await ray.sample(count))
            taken["short"].append(await ours.sample_short(count // 2))
    _tell(report, taken)


NAMES = {
    "chain": "chain floor, WAL FULL: submit → RUNNING",
    "ours": "edgerm, offer in hand: submit → RUNNING",
    "ended": "edgerm, offer in hand: submit → FINISHED",
    "ray": "Ray, warm no-op: submit → result",
    "chain, busy": "chain floor, no pause: submit → RUNNING",
    "ours, busy": "edgerm, no pause: submit → RUNNING",
    "ray, busy": "Ray, no pause: submit → result",
    "short": "edgerm, Cluster.launch, no pause: submit → RUNNING",
}


def _tell(report: Report, taken: dict[str, list[list[float]]]) -> None:
    p50, p99 = (
        {
            name: report.add(SUBJECT, f"{NAMES[name]} {word}", "ms", [1000 * quantile(r, part) for r in rounds])
            for name, rounds in taken.items()
            if rounds
        }
        for word, part in (("p50", 0.5), ("p99", 0.99))
    )
    report.gate(report.ratio(p50["ours"], p50["chain"], "edgerm / chain floor, p50"), CHAIN_MOST)
    busy = report.ratio(p50["ours, busy"], p50["chain, busy"], "edgerm / chain floor, no pause, p50")
    report.gate(busy, CHAIN_MOST)
    report.ratio(p99["ours"], p50["ours"], "edgerm p99 / p50")
    if "ray" in p50:
        report.gate(report.ratio(p50["ours"], p50["ray"], "edgerm / Ray, p50"), RAY_MOST)
        report.ratio(p50["ended"], p50["ray"], "edgerm submit → FINISHED / Ray, p50")
        report.ratio(p50["ours, busy"], p50["ray, busy"], "edgerm / Ray, no pause, p50")


# --- the floor --------------------------------------------------------------------------------------------------


@asynccontextmanager
async def _chain(folder: Path) -> AsyncIterator[programs.Program]:
    async with AsyncExitStack() as stack:
        agent = await stack.enter_async_context(programs.program(*programs.ours("floor_chain", "agent", str(folder))))
        argv = programs.ours("floor_chain", "master", str(folder), await agent.line())
        master = await stack.enter_async_context(programs.program(*argv))
        argv = programs.ours("floor_chain", "framework", await master.line())
        framework_ = await stack.enter_async_context(programs.program(*argv))
        await framework_.line()
        yield framework_


# --- ours -------------------------------------------------------------------------------------------------------


class OneByOne(Scheduler):
    """Launches a task when told to, on an offer that it holds already."""

    def __init__(self) -> None:
        self.changed = asyncio.Event()
        self.running_s = self.ended_s = 0.0
        self.failed: Status | None = None

    def offers(self, driver: Session, offers: tuple[Offer, ...]) -> None:
        """Keep them."""
        self.changed.set()

    def update(self, driver: Session, status: Status) -> None:
        """Note when."""
        if status.state is TaskState.RUNNING:
            self.running_s = perf_counter()
        elif status.state.terminal:
            self.ended_s = perf_counter()
            self.failed = None if status.state is TaskState.FINISHED else status
        self.changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for news until `condition` holds."""
        async with asyncio.timeout(WAIT_S):
            while not condition():
                self.changed.clear()
                await self.changed.wait()


class Ours:
    """A framework on a real master with a real agent."""

    def __init__(self, url: str, driver: Driver, scheduler: OneByOne, module: BlobRef, code: bytes) -> None:
        self._url, self._driver, self._scheduler, self._module, self._code = url, driver, scheduler, module, code
        self._count = 0

    async def sample(self, count: int, pause_s: float = 0.0) -> tuple[list[float], list[float]]:
        """Seconds to RUNNING, and to the end, of `count` tasks, one in flight, with a pause before each."""
        running, ended = [], []
        for _ in range(count):
            to_running, to_end = await self._one(pause_s)
            running.append(to_running)
            ended.append(to_end)
        return running, ended

    async def _one(self, pause_s: float) -> tuple[float, float]:
        session, scheduler = self._driver.session, self._scheduler
        await scheduler.until(lambda: bool(session.held))
        await asyncio.sleep(pause_s)
        self._count += 1
        scheduler.running_s = scheduler.ended_s = 0.0
        offers = list(session.held.values())
        began = perf_counter()
        task = wasm_task(f"bench-{self._count}", self._module)
        session.accept(offers, [task.on(offers[0])], refuse_s=0)
        await scheduler.until(lambda: scheduler.ended_s > 0.0)
        if scheduler.failed is not None:
            raise RuntimeError(f"a task of the bench failed: {scheduler.failed}")
        return scheduler.running_s - began, scheduler.ended_s - began

    async def sample_short(self, count: int) -> list[float]:
        """The same by the SDK's short way: it asks for an offer first, since it holds none while nothing waits."""
        taken = []
        self._driver.session.suppress()
        self._driver.session.decline(list(self._driver.session.held.values()), refuse_s=0)
        async with connect(self._url, framework("bench-short")) as cluster:
            for number in range(-5, count):
                began = perf_counter()
                handle = await cluster.launch(wasm=self._code)
                await handle.started()
                if number >= 0:
                    taken.append(perf_counter() - began)
                await handle.ended()
        self._driver.session.revive()
        return taken


@asynccontextmanager
async def _ours(folder: Path, profile: Path | None) -> AsyncIterator[Ours]:
    code = bytes(wasmtime.wat2wasm(floor_chain.NOOP))
    scheduler = OneByOne()
    async with AsyncExitStack() as stack:
        file = None if profile is None else profile / "master-latency.prof"
        master = await stack.enter_async_context(programs.master(folder, profile=file))
        await stack.enter_async_context(programs.agent(folder, master.url))
        driver = await stack.enter_async_context(Driver(scheduler, master.url, framework("bench")))
        await driver.subscribed()
        module = await driver.keep(code)
        yield Ours(master.url, driver, scheduler, module, code)
        driver.session.teardown()


# --- Ray --------------------------------------------------------------------------------------------------------


async def _ray(stack: AsyncExitStack, report: Report, options: Options) -> programs.Program | None:
    from bench.suite import cache_folder

    home = cache_folder() / "ray"
    python = home / "bin" / "python"
    if not python.exists() and options.ray:
        await _run(sys.executable, "-m", "venv", str(home))
        await _run(str(python), "-m", "pip", "install", "--quiet", "ray")
    if not python.exists():
        report.note("Ray was not measured: it is not installed; --ray makes an environment for it")
        return None
    argv = programs.ours("peer_ray", python=str(python))
    peer = await stack.enter_async_context(programs.program(*argv, log=options.folder / "ray.log"))
    report.note(f"Ray's no-op runs on one warm worker: {await peer.line()}")
    await peer.sample(100)
    return peer


async def _run(*argv: str) -> None:
    process = await asyncio.create_subprocess_exec(*argv)
    if await process.wait():
        raise RuntimeError(f"failed: {' '.join(argv)}")
