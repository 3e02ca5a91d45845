"""What an agent costs that has nothing to do: memory and CPU of agent, keeper and WASM host, after first tasks.

Twice: the smallest useful one (CoAP link, WASM modules only), and one with everything (HTTP, processes, containers).
Idle means that the WASM host has gone to sleep; what it takes while it is awake is told beside.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from time import perf_counter
from typing import TYPE_CHECKING

import wasmtime
from bench import engine, floor_chain, machine, programs
from bench.report import Report

from edgerm.sdk import Cluster, Result, connect, framework

if TYPE_CHECKING:
    from bench.suite import Options

SUBJECT = "idle"
SETTLE_S = 5.0
SLEEPY = {"EDGERM_EXECUTORS_WASM_IDLE_S": "2"}  # what is idle sleeps after a minute by default
SMALL = {**SLEEPY, "EDGERM_EXECUTORS_PROCESS_ENABLED": "false", "EDGERM_EXECUTORS_DOCKER_ENABLED": "false"}
SMALL_MOST_MIB = 33.0
WHOLE_MOST_MIB = 60.0


async def measure(report: Report, options: Options) -> None:
    """Both, one after the other."""
    span_s = options.pick(60, 5)
    for name in ("small", "whole"):
        (options.folder / name).mkdir()
    async with AsyncExitStack() as stack:
        master = await stack.enter_async_context(programs.master(options.folder / "small"))
        agent = await stack.enter_async_context(programs.agent(options.folder / "small", master.coap_url, SMALL))
        async with connect(master.url, framework("bench")) as cluster:
            _check(await _module(cluster))
        await _look(report, "CoAP, WASM", master, agent, span_s, SMALL_MOST_MIB)
    async with AsyncExitStack() as stack:
        found = await stack.enter_async_context(engine.running(report))
        env = {**SLEEPY, **({"EDGERM_EXECUTORS_DOCKER_ENABLED": "false"} if found is None else found.env)}
        master = await stack.enter_async_context(programs.master(options.folder / "whole"))
        agent = await stack.enter_async_context(programs.agent(options.folder / "whole", master.url, env))
        async with connect(master.url, framework("bench")) as cluster:
            _check(await cluster.run(process=["/bin/true"]))
            if found is not None:
                _check(await cluster.run(docker=found.image, args=["true"]))
            _check(await _module(cluster))
        await _look(report, "everything", master, agent, span_s, WHOLE_MOST_MIB)


async def _module(cluster: Cluster) -> Result:
    return await cluster.run(wasm=bytes(wasmtime.wat2wasm(floor_chain.NOOP)))


def _check(result: Result) -> None:
    if not result.ok:
        raise RuntimeError(f"a task of the bench failed: {result}")


async def _look(
    report: Report,
    which: str,
    master: programs.MasterProgram,
    agent: programs.AgentProgram,
    span_s: float,
    most_mib: float,
) -> None:
    if (awake := agent.holder_pid("wasm-host")) is not None:
        report.add(SUBJECT, f"{which}: WASM host, awake: PSS", "MiB", [machine.pss_mib(awake)])
    await asyncio.sleep(SETTLE_S)
    pids = {"agent": agent.pid, "keeper": agent.holder_pid("keeper"), "WASM host": agent.holder_pid("wasm-host")}
    box = {name: pid for name, pid in pids.items() if pid is not None}
    known = {**box, "master": master.pid}
    began, before = perf_counter(), {name: machine.cpu_s(pid) for name, pid in known.items()}
    await asyncio.sleep(span_s)
    passed_s = perf_counter() - began
    spent = {name: machine.cpu_s(pid) - before[name] for name, pid in known.items()}
    for name, pid in known.items():
        report.add(SUBJECT, f"{which}: {name}: PSS", "MiB", [machine.pss_mib(pid)])
        report.add(SUBJECT, f"{which}: {name}: RSS", "MiB", [machine.rss_mib(pid)])
        report.add(SUBJECT, f"{which}: {name}: CPU", "% of a core", [100 * spent[name] / passed_s])
    together = " + ".join(box)
    pss = report.add(SUBJECT, f"{which}: {together}: PSS", "MiB", [sum(map(machine.pss_mib, box.values()))])
    report.gate(pss, most_mib)
    cpu = sum(spent[name] for name in box) / passed_s
    report.add(SUBJECT, f"{which}: {together}: CPU", "% of a core", [100 * cpu])
