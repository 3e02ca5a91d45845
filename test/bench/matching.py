"""What it costs to find devices for claims: 1,000 devices, 50 claims with 5 filters each, by kinds of metadata.

In this process and without a network: `edgerm.core.granting.grant`, as the master does it at each accept.
"""

from __future__ import annotations

import random
from dataclasses import replace
from sys import intern
from time import process_time
from typing import TYPE_CHECKING

from bench.report import Report

from edgerm.core import claims, filters, metadata
from edgerm.core.claims import Claim, Expression, expression
from edgerm.core.devices import Device, DeviceClass, Inventory, resources_of
from edgerm.core.granting import grant
from edgerm.core.ids import AgentId, TaskId
from edgerm.core.resources import Resources
from edgerm.core.scheduler import AgentSpec, TaskSpec

if TYPE_CHECKING:
    from bench.suite import Options

SUBJECT = "matching"
CLASS = "siemens.com/isolated_core"
DEVICES, CLAIMS, FILTERS, COUNT = 1000, 50, 5, 10
GROUPED, GROUPED_MOST_MS = 10, 5.0
DISTINCT_MOST_MS = 250.0
FLAGS = [f"flag{number}" for number in range(120)]


async def measure(report: Report, options: Options) -> None:
    """Few kinds of devices, then all distinct; first as after a start, then again."""
    for groups, most_ms in ((GROUPED, GROUPED_MOST_MS), (DEVICES, DISTINCT_MOST_MS)):
        cold, warm = [], []
        for number in range(options.pick(15, 5)):
            task, agent = _task(number), _agent(groups)
            left = agent.resources
            metadata.read.cache_clear()
            filters.predicate.cache_clear()
            claims.values_of.cache_clear()
            cold.append(_took_ms(task, left, agent))
            warm += [_took_ms(task, left, agent) for _ in range(3)]
        name = f"{DEVICES:,} devices, {groups:,} kinds; {CLAIMS} claims of {COUNT}, {FILTERS} filters, CPU time"
        report.add(SUBJECT, f"{name}: first", "ms", cold)
        report.gate(report.add(SUBJECT, f"{name}: again", "ms", warm), most_ms)


def _took_ms(task: TaskSpec, left: Resources, agent: AgentSpec) -> float:
    """CPU time: other work on the machine only adds to the rest."""
    began = process_time()
    found = grant(task, left, agent)
    took = process_time() - began
    assert not found.fault, found.fault
    return took * 1000


def _agent(groups: int) -> AgentSpec:
    """Cores of which so many differ in what they say of themselves; about 2 KiB each, kept as a join's are."""
    devices = tuple(
        Device(CLASS, f"cpu{number}", metadata=intern(metadata.to_text(_known(number % groups))))
        for number in range(DEVICES)
    )
    return AgentSpec("host", resources=resources_of(devices), inventory=Inventory((DeviceClass(CLASS),), devices, 1))


def _known(group: int) -> dict[str, object]:
    return {
        "cpuset": [group],
        "cpuinfo": {"core id": group, "flags": FLAGS},
        "lscpu": {"Architecture": "x86_64", "CPU max MHz": f"{3000 + group % 7 * 100}"},
        "lscpue": {"cpu": group, "maxmhz": 3000 + group % 7 * 100},
    }


def _task(seed: int) -> TaskSpec:
    rng = random.Random(seed)
    asked = tuple(Claim(f"c{number}", CLASS, COUNT, _filters(rng)) for number in range(CLAIMS))
    return replace(TaskSpec(TaskId("t"), AgentId("a"), Resources()), claims=asked)


def _filters(rng: random.Random) -> tuple[Expression, ...]:
    """Each claim asks for its own, so that none is worked out once for all."""
    return (
        expression("lscpu.Architecture", "In", ["x86_64", f"other{rng.random()}"]),
        expression("cpuinfo.flags", "Contains", rng.sample(FLAGS, 4)),
        expression("cpuinfo.core id", "NotIn", rng.sample(range(4, 1000), 1)),
        expression("lscpue.maxmhz", "In", rng.sample([3000 + step * 100 for step in range(7)], 5)),
        expression("cpuset", "NotContains", rng.sample(range(4, 1000), 2)),
    )
