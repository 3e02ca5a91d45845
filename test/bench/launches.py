"""Durable launches a second at one core of the master, by encoding and batch, and the CPU time of each.

A launch is the whole of it: ACCEPT, the order, RUNNING and FINISHED from the agent, both events and both
acknowledgements, every step durable at a real master. The load (instant agents and a framework, in this process) has
the other cores. On a machine that others use too neither core is ours alone: `busy` tells how much of its core the
master had, and CPU time per launch is the figure that such neighbours disturb least.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack
from itertools import product
from time import perf_counter
from typing import TYPE_CHECKING

from bench import machine, programs
from bench.load_agent import LoadAgent
from bench.load_framework import JsonSpeech, LoadFramework, ProtobufSpeech, Speech
from bench.report import Report

if TYPE_CHECKING:
    from bench.suite import Options

SUBJECT = "launches"
AGENTS = 16
WINDOW = 800  # tasks in flight
RATE_LEAST = 1500.0  # the first step; 3,750 is the goal
RATE_GOAL = 3750.0
BATCHES = (1, 10, 100)
SPEECHES: dict[str, type[Speech]] = {"JSON": JsonSpeech, "protobuf": ProtobufSpeech}


async def measure(report: Report, options: Options) -> None:
    """Every encoding with every batch size in each round."""
    span_s, cores = options.pick(30, 10) / 10, machine.two_cores()
    if cores is None:
        report.note("launches: one core only, so master and load shared it")
    usable = os.sched_getaffinity(0)
    found: dict[tuple[str, int], list[tuple[float, float, float]]] = {}
    file = None if options.profile is None else options.profile / "master-launches.prof"
    async with AsyncExitStack() as stack:
        master = await stack.enter_async_context(
            programs.master(options.folder, cores=cores and cores[0], profile=file)
        )
        os.sched_setaffinity(0, cores[1] if cores else usable)
        stack.callback(os.sched_setaffinity, 0, usable)
        for _ in range(AGENTS):
            await stack.enter_async_context(LoadAgent(master.url))
        for _ in range(options.pick(3, 1)):
            for (name, speech), batch in product(SPEECHES.items(), BATCHES):
                taken = await _round(master, speech(), batch, span_s)
                found.setdefault((name, batch), []).append(taken)
    _tell(report, found)


async def _round(
    master: programs.MasterProgram, speech: Speech, batch: int, span_s: float
) -> tuple[float, float, float]:
    """Launches a second, CPU µs of the master for each, and how busy its core was."""
    async with LoadFramework(master.url, speech, batch, max(WINDOW, 2 * batch)) as load:
        began, updates, spent_s = perf_counter(), load.updates, machine.cpu_s(master.pid)
        await asyncio.sleep(span_s)
        passed_s, done = perf_counter() - began, (load.updates - updates) / 2  # two of each task; they come in waves
        spent_s = machine.cpu_s(master.pid) - spent_s
        if load.failed is not None:
            raise load.failed
    return done / passed_s, 1e6 * spent_s / max(done, 1), spent_s / passed_s


def _tell(report: Report, found: dict[tuple[str, int], list[tuple[float, float, float]]]) -> None:
    best = cheapest = None
    for (name, batch), rounds in found.items():
        what = f"{name}, {batch} task{'s' if batch > 1 else ''} per ACCEPT"
        rate = report.add(SUBJECT, f"{what}: durable launches", "/s", [taken[0] for taken in rounds])
        cost = report.add(SUBJECT, f"{what}: master's CPU per launch", "µs", [taken[1] for taken in rounds])
        report.add(SUBJECT, f"{what}: master's core busy", "x", [taken[2] for taken in rounds])
        if best is None or rate.median > best.median:
            best = rate
        if cheapest is None or cost.median < cheapest.median:
            cheapest = cost
    assert best is not None
    assert cheapest is not None
    name = "launches in a second of the master's CPU time, at best"
    capacity = report.add(SUBJECT, name, "/s", [1e6 / cost for cost in cheapest.values])
    report.gate(best, RATE_LEAST, at_most=False)
    report.gate(capacity, RATE_LEAST, at_most=False)
    report.gate(best, RATE_GOAL, at_most=False)
