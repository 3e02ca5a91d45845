"""Which cores tasks may have, in the order in which they are given, and which CPUs are left for all others. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from edgerm.core import cpulists
from edgerm.core.errors import Invalid
from edgerm_agent.config import Cpu
from edgerm_agent.devices.cpu.box import Box

Kind = Literal["", "performance", "efficiency"]


@dataclass(frozen=True, slots=True)
class Rules:
    """What the operator says, as numbers."""

    housekeeping: frozenset[int] = frozenset()
    isolated: frozenset[int] = frozenset()  # empty: as the kernel has it
    kinds: Mapping[int, Kind] = field(default_factory=dict)

    def wanted(self, box: Box) -> frozenset[int]:
        """The CPUs that are to be isolated."""
        return (self.isolated or box.isolated) - self.housekeeping


@dataclass(frozen=True, slots=True)
class Core:
    """A physical core. A task gets its first CPU; the others rest meanwhile."""

    cpus: tuple[int, ...]  # ascending
    kind: Kind
    problem: str  # why it cannot be had; empty: it can
    nodes: tuple[int, ...] = ()

    @property
    def cpu(self) -> int:
        """The one that its holder gets."""
        return self.cpus[0]


def rules_of(settings: Cpu) -> Rules:
    """Raises `Invalid`, naming the key."""
    kinds: dict[int, Kind] = {}
    for number, override in enumerate(settings.override):
        cpus = parse_list(f"devices.cpu.override[{number}].cpus", override.cpus)
        if override.kind:
            kinds |= dict.fromkeys(cpus, override.kind)
    return Rules(
        frozenset(parse_list("devices.cpu.housekeeping", settings.housekeeping)),
        frozenset(parse_list("devices.cpu.isolated", settings.isolated)),
        kinds,
    )


def parse_list(where: str, text: str) -> tuple[int, ...]:
    """A CPU list of the settings; raises `Invalid` with its key."""
    try:
        return cpulists.parse(text)
    except Invalid as error:
        raise Invalid(f"{where}: {error}") from None


def remembered(known: Mapping[int, tuple[int, ...]], box: Box) -> dict[int, tuple[int, ...]]:
    """Who shares a core with whom, by all that was ever seen: of CPUs that are offline the kernel does not tell."""
    found = dict(known)
    for cpu, siblings in box.siblings.items():
        together = tuple(sorted({*siblings, *found.get(cpu, ())}))
        found |= dict.fromkeys(together, together)
    return found


def cores(box: Box, rules: Rules, siblings: Mapping[int, tuple[int, ...]]) -> tuple[Core, ...]:
    """All that are to be isolated, performance before efficiency, faster before slower, then by number.

    No housekeeping CPU is the first of any. `siblings`: as `remembered`.
    """
    wanted = rules.wanted(box)
    groups = {siblings.get(cpu, (cpu,)) for cpu in wanted}
    found = [
        Core(group, kind_of(group[0], box, rules), _problem(group, box, rules), box.nodes.get(group[0], ()))
        for group in groups
        if group[0] not in rules.housekeeping
    ]
    return tuple(sorted(found, key=lambda core: (core.kind == "efficiency", -_capacity(box, core.cpu), core.cpu)))


def apart(box: Box, rules: Rules, siblings: Mapping[int, tuple[int, ...]]) -> frozenset[int]:
    """The CPUs on which only those run that have claimed them, or nobody: isolated ones, and who shares their core."""
    claimable = (core for core in cores(box, rules, siblings) if not _unfit(core.cpus, box, rules))
    return rules.wanted(box) | frozenset(cpu for core in claimable for cpu in core.cpus)


def plain(box: Box, aside: frozenset[int]) -> tuple[int, ...]:
    """The CPUs of tasks that have claimed none; none: they are not bound, because nothing is kept apart."""
    return tuple(sorted((box.allowed & box.online) - aside or box.online - aside)) if aside else ()


def kind_of(cpu: int, box: Box, rules: Rules) -> Kind:
    """As the operator has it, else as the kernel (x86: cpu_core; others: cpu_capacity); empty: all are alike."""
    if cpu in rules.kinds:
        return rules.kinds[cpu]
    if box.fast:
        return "performance" if cpu in box.fast else "efficiency"
    if len(set(box.capacities.values())) > 1:
        return "performance" if _capacity(box, cpu) == max(box.capacities.values()) else "efficiency"
    return ""


def _capacity(box: Box, cpu: int) -> int:
    return 0 if box.fast else box.capacities.get(cpu, 0)


def _unfit(group: tuple[int, ...], box: Box, rules: Rules) -> str:
    """What would have to be set otherwise."""
    wanted = rules.wanted(box)
    if group[0] not in wanted:
        other = next(cpu for cpu in group if cpu in wanted)
        return f"CPU {other} is isolated, but CPU {group[0]}, the first of its core, is not"
    busy = sorted(rules.housekeeping.intersection(group))
    return f"CPU {busy[0]} of the same core is a housekeeping CPU" if busy else ""


def _problem(group: tuple[int, ...], box: Box, rules: Rules) -> str:
    if unfit := _unfit(group, box, rules):
        return unfit
    cpu = group[0]
    if cpu not in box.present:
        return f"there is no CPU {cpu}: this box has {cpulists.to_text(box.present)}"
    if cpu in box.online:
        return ""
    smt_off = box.smt in ("off", "forceoff")
    return f"CPU {cpu} is offline" + (f" (hyper-threading is {box.smt}: it may be a second sibling)" if smt_off else "")
