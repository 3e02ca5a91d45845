"""What an agent costs that has nothing to do: memory and CPU of agent, keeper and WASM host, after a first task."""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import TYPE_CHECKING

import wasmtime
from bench import floor_chain, machine, programs
from bench.report import Report

from edgerm.sdk import connect, framework

if TYPE_CHECKING:
    from bench.suite import Options

SUBJECT = "idle"
SETTLE_S = 5.0


async def measure(report: Report, options: Options) -> None:
    """One master, one agent that ran a WASM and a process task, then quiet."""
    span_s = options.pick(60, 5)
    async with programs.master(options.folder) as master, programs.agent(options.folder, master.url) as agent:
        async with connect(master.url, framework("bench")) as cluster:
            results = [
                await cluster.run(wasm=bytes(wasmtime.wat2wasm(floor_chain.NOOP))),
                await cluster.run(process=["/bin/true"]),
            ]
        if not all(result.ok for result in results):
            raise RuntimeError(f"a task of the bench failed: {results}")
        await asyncio.sleep(SETTLE_S)
        pids = {"agent": agent.pid, "keeper": agent.holder_pid("keeper"), "WASM host": agent.holder_pid("wasm-host")}
        known = {name: pid for name, pid in {**pids, "master": master.pid}.items() if pid is not None}
        began, before = perf_counter(), {name: machine.cpu_s(pid) for name, pid in known.items()}
        await asyncio.sleep(span_s)
        passed_s = perf_counter() - began
        spent = {name: machine.cpu_s(pid) - before[name] for name, pid in known.items()}
        for name, pid in known.items():
            report.add(SUBJECT, f"{name}: PSS", "MiB", [machine.pss_mib(pid)])
            report.add(SUBJECT, f"{name}: RSS", "MiB", [machine.rss_mib(pid)])
            report.add(SUBJECT, f"{name}: CPU over {span_s} s", "% of a core", [100 * spent[name] / passed_s])
        box = [name for name in known if name != "master"]
        report.add(SUBJECT, "agent + keeper + WASM host: PSS", "MiB", [sum(machine.pss_mib(known[n]) for n in box)])
        cpu = sum(spent[name] for name in box) / passed_s
        report.add(SUBJECT, f"agent + keeper + WASM host: CPU over {span_s} s", "% of a core", [100 * cpu])
