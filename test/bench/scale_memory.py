"""A program of its own: what the core's records of idle agents weigh, and whether offer rounds leave anything behind.

Prints one JSON object. What does not live here: faces, connections, the link's sockets (see `live`).
"""

from __future__ import annotations

import gc
import json
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any


def main() -> int:
    """`kind agents rounds`: kind is `traced` (tracemalloc) or `resident` (RSS, and the rounds)."""
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    kind, agents, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    print(json.dumps(_weigh(agents, traced=kind == "traced", rounds=rounds)))
    return 0


def _weigh(agents: int, *, traced: bool, rounds: int) -> dict[str, Any]:
    from bench.fleet import Box, Fleet

    from edgerm_master.core.world import Settings

    warm = Fleet()  # what is made once is not an agent's
    warm.subscribe(0)
    for number in range(50):
        warm.join(number)
    warm.settle()
    gc.collect()
    if traced:
        tracemalloc.start()
    weight = _traced if traced else _resident
    fleet = Fleet(Settings(1e12, offer_timeout_s=300.0))
    fleet.boxes = [Box() for _ in range(agents + 1000)]  # the load's, not the core's
    steps = [weight()]
    for number in range(agents):
        fleet.join(number + 1000)
        fleet.now_s += 0.001
    steps.append(weight())
    for number in range(agents):
        fleet.beat(number + 1000)
    steps.append(weight())
    fleet.subscribe(0)
    fleet.settle()
    assert len(fleet.master.offers) == agents
    steps.append(weight())
    found = {
        "idle_bytes": (steps[1] - steps[0]) / agents,
        "beaten_bytes": (steps[2] - steps[0]) / agents,
        "offer_bytes": (steps[3] - steps[2]) / agents,
    }
    return {**found, "rounds": _rounds(fleet, rounds, weight)}


def _rounds(fleet: Any, rounds: int, weight: Callable[[], int]) -> list[tuple[int, int]]:
    """Bytes after so many rounds: all offers declined, or expired; refusals end; all is offered again."""
    from edgerm.core.scheduler import Decline

    samples = []
    agents = len(fleet.master.agents)
    for number in range(rounds):
        if number % 10 == 9:
            fleet.wait(fleet.master.settings.offer_timeout_s)
        else:
            held = list(fleet.master.offers)
            for first in range(0, len(held), 100):
                fleet.call(fleet.frameworks[0], Decline(tuple(held[first : first + 100]), 1.0 + number % 3))
        fleet.wait(5.0)
        assert len(fleet.master.offers) == agents, "not all agents are offered again"
        if number % max(rounds // 20, 1) == 0 or number == rounds - 1:
            samples.append((number + 1, weight()))
    return samples


def _traced() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


def _resident() -> int:
    gc.collect()
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss_Anon:"):
            return int(line.split()[1]) * 1024
    raise LookupError("smaps_rollup has no Pss_Anon")


if __name__ == "__main__":
    sys.exit(main())
