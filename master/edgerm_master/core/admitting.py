"""What a framework lets through of the offers it could get: its offer constraints and its least amounts (Mesos).

Both are asked for one framework, role and agent at a time, before an offer is made. What does not live here: refusals
that end with time (`offers`).
"""

from __future__ import annotations

from edgerm.core.resources import MILLI, Amount, Resources
from edgerm.core.scheduler import AgentSpec
from edgerm_master.core.frameworks import Framework
from edgerm_master.core.world import World

MIN_CPUS_MILLI = 10
MIN_MEM_MILLI = 32_000


def admits(world: World, framework: Framework, role: str, agent: AgentSpec) -> bool:
    """Whether the framework's offer constraints let this agent be offered for `role`."""
    return framework.verdicts.admits(role, agent, world.matcher)


def worth_offering(resources: Resources) -> bool:
    """Whether an offer of this is made at all: not below 0.01 cpus and 32 MB of memory (Mesos' MIN_CPUS, MIN_MEM).

    Items of sets are worth one as well, for a task may claim devices alone. Shared resources come along but do not
    count: they are never used up, so there would always be one more offer.
    """
    cpus = mem = 0
    for key, amount in resources.items():
        if key.shared:
            continue
        if isinstance(amount, frozenset):
            return True
        if isinstance(amount, int):
            if key.name == "cpus":
                cpus += amount
            elif key.name == "mem":
                mem += amount
    return cpus >= MIN_CPUS_MILLI or mem >= MIN_MEM_MILLI


def enough(framework: Framework, role: str, resources: Resources) -> bool:
    """Whether an offer of this is made to the framework: its own least amounts for `role` go before ours."""
    for minimum in framework.spec.minimums:
        if minimum.role == role:
            own = _own(resources)
            return bool(own) and (not minimum.any_of or any(_holds(own, amounts) for amounts in minimum.any_of))
    return worth_offering(resources)


def _own(resources: Resources) -> Resources:
    return resources.only(lambda key: not key.shared)


def _holds(resources: Resources, amounts: tuple[tuple[str, int], ...]) -> bool:
    return all(_quantity(resources, name) >= amount for name, amount in amounts)


def _quantity(resources: Resources, name: str) -> int:
    return sum(_count(amount) for key, amount in resources.items() if key.name == name)


def _count(amount: Amount) -> int:
    """In thousandths: a scalar as it is, of ranges and sets how many they hold."""
    if isinstance(amount, int):
        return amount
    if isinstance(amount, tuple):
        return MILLI * sum(end - begin + 1 for begin, end in amount)
    return MILLI * len(amount)
