"""Docker tasks: submit → RUNNING and sustained starts, against the bare Docker API on the same engine and round.

Bare: create and start by the `docker` package, image present, same limits, log driver and network as ours.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from time import perf_counter
from typing import TYPE_CHECKING, Any

import docker
from bench import engine, programs
from bench.report import Report

from edgerm.sdk import Cluster, connect, framework

if TYPE_CHECKING:
    from bench.suite import Options

SUBJECT = "containers"
SLOWER_MOST = 1.10
RATE_LEAST = 0.95
CALLERS = 2
ARGS = ["sleep", "3600"]
CPUS, MEM_MIB = 0.1, 32
LOOK_S = 0.05
PAUSE_S = 0.2  # for what the engine does after it said that a container is gone


async def measure(report: Report, options: Options) -> None:
    """Rounds of one at a time, then of some callers at once; both sides alternate."""
    rounds, count = options.pick(5, 2), options.pick(8, 2)
    taken: dict[str, list[float]] = {name: [] for name in ("bare", "ours", "bare rate", "our rate")}
    async with AsyncExitStack() as stack:
        found = await stack.enter_async_context(engine.running(report))
        if found is None:
            return
        master = await stack.enter_async_context(programs.master(options.folder))
        await stack.enter_async_context(programs.agent(options.folder, master.url, found.env))
        cluster = await stack.enter_async_context(connect(master.url, framework("bench")))
        bare = stack.enter_context(_Bare(found))
        await bare.start_and_end()
        await _start_and_end(cluster, found.image)
        for _ in range(rounds):
            pairs = [await _pair(bare, cluster, found.image) for _ in range(count)]
            taken["bare"].append(_middle([pair[0] for pair in pairs]))
            taken["ours"].append(_middle([pair[1] for pair in pairs]))
            taken["bare rate"].append(await _rate(bare.start_and_end, count))
            taken["our rate"].append(await _rate(lambda: _start_and_end(cluster, found.image), count))
    _tell(report, taken)


def _tell(report: Report, taken: dict[str, list[float]]) -> None:
    floor = report.add(SUBJECT, "floor: Docker API create + start, p50", "ms", [1e3 * t for t in taken["bare"]])
    ours = report.add(SUBJECT, "submit → RUNNING of a container, p50", "ms", [1e3 * t for t in taken["ours"]])
    report.gate(report.ratio(ours, floor, "submit → RUNNING / create + start"), SLOWER_MOST)
    floor = report.add(SUBJECT, f"floor: Docker API, {CALLERS} callers, start and end", "/s", taken["bare rate"])
    ours = report.add(SUBJECT, f"containers, {CALLERS} at once, start and end", "/s", taken["our rate"])
    report.gate(report.ratio(ours, floor, "sustained starts / Docker API"), RATE_LEAST, at_most=False)


async def _pair(bare: _Bare, cluster: Cluster, image: str) -> tuple[float, float]:
    """One start of each, both when the engine has nothing left to clear away."""
    await bare.nothing_left()
    theirs = await bare.start_and_end()
    await bare.nothing_left()
    return theirs, await _start_and_end(cluster, image)


async def _start_and_end(cluster: Cluster, image: str) -> float:
    """Seconds from the launch until RUNNING; then it is ended and gone."""
    began = perf_counter()
    handle = await cluster.launch(docker=image, args=ARGS, cpus=CPUS, mem=MEM_MIB)
    status = await handle.started()
    passed_s = perf_counter() - began
    if status.state.terminal:
        raise RuntimeError(f"a container of the bench failed: {status.message}")
    await handle.kill(0.0)
    return passed_s


async def _rate(one: Any, count: int) -> float:
    """How many a second, start and end, by some callers at once."""

    async def caller() -> None:
        for _ in range(count):
            await one()

    began = perf_counter()
    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    return CALLERS * count / (perf_counter() - began)


class _Bare:
    """The Docker API without us."""

    def __init__(self, found: engine.Engine) -> None:
        self._client = docker.DockerClient(base_url=found.url)
        self._image = found.image
        self._pool = ThreadPoolExecutor(CALLERS)

    def __enter__(self) -> _Bare:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()
        self._client.close()

    async def nothing_left(self) -> None:
        """Return when the engine has no container."""
        while await asyncio.get_running_loop().run_in_executor(self._pool, self._containers):
            await asyncio.sleep(LOOK_S)
        await asyncio.sleep(PAUSE_S)

    def _containers(self) -> int:
        return len(self._client.api.containers(all=True))

    async def start_and_end(self) -> float:
        """Seconds that create and start took; the container is gone afterwards."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._start_and_end)

    def _start_and_end(self) -> float:
        began = perf_counter()
        container = self._client.containers.create(
            self._image,
            ARGS,
            network_mode="host",
            nano_cpus=int(CPUS * 1e9),
            mem_limit=MEM_MIB << 20,
            memswap_limit=MEM_MIB << 20,
            log_config=docker.types.LogConfig(type="local"),
        )
        container.start()
        passed_s = perf_counter() - began
        container.remove(force=True)
        return passed_s


def _middle(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]
