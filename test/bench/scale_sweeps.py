"""SUBSCRIBE and REVIVE: all agents are looked at and offered, slice by slice; what it costs, and the longest slice.

A slice here is one turn of the real loop: the core's `handle`, and what the face does with the events that it made,
encoding included. What does not live here: single changes (`scale`).
"""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

from bench.fleet import Fleet
from bench.report import Figure, Report

from edgerm.core.scheduler import Decline, Event, FrameworkSpec, Revive
from edgerm.wire.codec.event_bytes import event_to_bytes
from edgerm.wire.content import JSON, PROTOBUF
from edgerm.wire.recordio import frame
from edgerm.wire.v1.infos_pb2 import MasterInfo

if TYPE_CHECKING:
    from bench.suite import Options

SUBJECT = "scale"
AGENTS = (10, 100, 1000, 10_000)
CALLS = ("SUBSCRIBE", "REVIVE")
SLICE_MOST_MS = 5.0
LINEAR_MOST = 1.3  # cost of an agent at 10,000 / at 1,000
INFO = MasterInfo(id="m", ip=0, port=5050, hostname="master.example.net")


def measure(report: Report, options: Options) -> None:
    """Both calls, both encodings, all sizes."""
    sizes = AGENTS[:3] if options.quick else AGENTS
    rounds = options.pick(5, 2)
    for name, media_type in (("protobuf", PROTOBUF), ("JSON", JSON)):
        found: dict[tuple[str, int], list[tuple[float, float]]] = {}
        for agents in sizes:
            for _ in range(rounds if agents > 100 else 5 * rounds):
                for call, told in _sweeps(agents, media_type).items():
                    found.setdefault((call, agents), []).append(told)
        for call in CALLS:
            costs = [
                _tell(report, f"{call}, {name}, {agents:,} agents", agents, found[call, agents]) for agents in sizes
            ]
            growth = min(costs[-1].values) / min(costs[-2].values)
            report.gate(report.add(SUBJECT, f"{call}, {name}: an agent, the last step", "x", [growth]), LINEAR_MOST)


def _tell(report: Report, what: str, agents: int, rounds: list[tuple[float, float]]) -> Figure:
    cost = report.add(SUBJECT, f"{what}: CPU for each agent", "µs", [1000 * total / agents for total, _ in rounds])
    longest = report.add(SUBJECT, f"{what}: longest slice", "ms", [slice_ms for _, slice_ms in rounds])
    report.gate(
        report.add(SUBJECT, f"{what}: longest slice, the best round", "ms", [min(longest.values)]), SLICE_MOST_MS
    )
    return cost


def _sweeps(agents: int, media_type: str) -> dict[str, tuple[float, float]]:
    """Total and longest slice in ms, by call."""
    fleet, spec = Fleet(), FrameworkSpec("framework", "bench")

    def send(event: Event) -> None:
        frame(event_to_bytes(event, spec, media_type, INFO))

    fleet.sink = send
    for number in range(agents):
        fleet.join(number)
    gc.collect()
    gc.freeze()  # a full collection is the process's, not the call's: see `takeover`
    found = {"SUBSCRIBE": _timed(fleet, lambda: fleet.subscribe(0))}
    held = list(fleet.master.offers)
    for first in range(0, len(held), 100):
        fleet.call(fleet.frameworks[0], Decline(tuple(held[first : first + 100]), 1e6))
    fleet.settle()
    assert not fleet.master.offers
    found["REVIVE"] = _timed(fleet, lambda: fleet.call(fleet.frameworks[0], Revive()))
    assert len(fleet.master.offers) == agents
    gc.unfreeze()
    return found


def _timed(fleet: Fleet, do: object) -> tuple[float, float]:
    assert callable(do)
    fleet.longest_ns = 0
    spent_ns = do() + fleet.settle()
    return spent_ns / 1e6, fleet.longest_ns / 1e6
