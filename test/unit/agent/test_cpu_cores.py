"""Which cores tasks may have, in which order, and what is left for others: on three boards, and on drawn ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgerm.core.errors import Invalid
from edgerm.testing.hostfs import RecordedHost
from edgerm_agent.config import Cpu, CpuOverride
from edgerm_agent.devices.cpu import cores
from edgerm_agent.devices.cpu.box import Box, look
from edgerm_agent.devices.cpu.cores import Core, Rules

NO_RULES = Rules()
BOARDS = Path(__file__).parents[2] / "fixtures/boards"


def box_of(board: str) -> Box:
    return look(RecordedHost(BOARDS / board))


def found(box: Box, rules: Rules = NO_RULES) -> tuple[Core, ...]:
    return cores.cores(box, rules, cores.remembered({}, box))


def aside(box: Box, rules: Rules = NO_RULES) -> frozenset[int]:
    return cores.apart(box, rules, cores.remembered({}, box))


def test_performance_cores_come_first() -> None:
    """On a hybrid CPU the performance core is given before the efficiency cores, and only its first sibling."""
    assert [(core.cpu, core.kind) for core in found(box_of("hybrid"))] == [
        (2, "performance"),
        *((cpu, "efficiency") for cpu in (4, 5, 6, 7)),
    ]


def test_faster_cores_come_first_on_arm() -> None:
    """Where the kernel tells capacities, the cores of the highest are the performance cores."""
    assert [(core.cpu, core.kind) for core in found(box_of("arm"))] == [
        *((cpu, "performance") for cpu in (4, 5, 6, 7)),
        *((cpu, "efficiency") for cpu in (2, 3)),
    ]


def test_one_cpu_of_each_core() -> None:
    """On a hyper-threaded CPU each core is there once, by its first sibling, and all are alike."""
    box = box_of("hyperthreaded")
    assert [(core.cpus, core.kind, core.problem) for core in found(box)] == [
        ((2, 3), "", ""),
        ((4, 5), "", ""),
        ((6, 7), "", ""),
    ]
    assert aside(box) == {2, 3, 4, 5, 6, 7}
    assert cores.plain(box, aside(box)) == (0, 1)


def test_numa_nodes_are_seen() -> None:
    """The recorded machine has one node, which all its cores are near to."""
    box = replace(box_of("hyperthreaded"), nodes={2: (0,), 4: (1,)})
    assert [core.nodes for core in found(box)] == [(0,), (1,), ()]


def test_the_operators_list_goes_before_the_kernels() -> None:
    """`isolated` of the settings counts instead of what the kernel isolates, also where that isolates nothing."""
    box = replace(box_of("hyperthreaded"), isolated=frozenset())
    rules = cores.rules_of(Cpu(isolated="6-7"))
    assert found(box) == ()
    assert (aside(box), cores.plain(box, aside(box))) == (frozenset(), ())
    assert [core.cpu for core in found(box, rules)] == [6]


def test_housekeeping_is_never_claimable() -> None:
    """A core whose first CPU is for housekeeping is not there, whoever isolates it."""
    box = box_of("hyperthreaded")
    rules = cores.rules_of(Cpu(housekeeping="0,2-4"))
    left = {core.cpus: core.problem for core in found(box, rules)}
    assert left == {(6, 7): ""}
    assert aside(box, rules) == {5, 6, 7}


def test_a_busy_sibling_makes_a_core_unfit() -> None:
    """A core of which another CPU is for housekeeping, or whose first CPU is not isolated, says so and is not given."""
    box = box_of("hyperthreaded")
    rules = cores.rules_of(Cpu(isolated="2,5-7", housekeeping="3"))
    assert {core.cpu: core.problem for core in found(box, rules)} == {
        2: "CPU 3 of the same core is a housekeeping CPU",
        4: "CPU 5 is isolated, but CPU 4, the first of its core, is not",
        6: "",
    }


def test_the_sibling_rests_though_it_is_not_isolated() -> None:
    """The other CPU of a core that can be claimed is used by nobody, isolated or not."""
    box = replace(box_of("hyperthreaded"), isolated=frozenset({4}))
    assert aside(box) == {4, 5}
    assert cores.plain(replace(box, allowed=box.online), aside(box)) == (0, 1, 2, 3, 6, 7)


def test_the_operator_knows_better_which_cores_are_fast() -> None:
    """The kind of the override table is taken where it says one; the last one counts."""
    rules = cores.rules_of(
        Cpu(override=(CpuOverride("2-7", "efficiency"), CpuOverride("6", "performance"), CpuOverride("7")))
    )
    assert [(core.cpu, core.kind) for core in found(box_of("hyperthreaded"), rules)] == [
        (6, "performance"),
        (2, "efficiency"),
        (4, "efficiency"),
    ]


def test_an_offline_core_is_ill_and_keeps_its_name() -> None:
    """A core that goes offline is there with the reason, and its sibling does not become a core of its own."""
    before = box_of("hyperthreaded")
    siblings = {cpu: group for cpu, group in before.siblings.items() if cpu != 4} | {5: (5,)}
    box = replace(before, online=before.online - {4}, siblings=siblings)
    known = cores.remembered(cores.remembered({}, before), box)
    assert [(core.cpu, core.problem) for core in cores.cores(box, Rules(), known)] == [
        (2, ""),
        (4, "CPU 4 is offline"),
        (6, ""),
    ]


def test_what_is_not_there_is_said() -> None:
    """A CPU that the operator isolates and the box does not have is ill, and so is one without hyper-threading."""
    box = replace(box_of("arm"), smt="off", online=frozenset(range(7)))
    problems = {core.cpu: core.problem for core in found(box, cores.rules_of(Cpu(isolated="7,99")))}
    assert problems[99] == "there is no CPU 99: this box has 0-7"
    assert problems[7].startswith("CPU 7 is offline (hyper-threading is off")


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        (Cpu(isolated="4-2"), "devices.cpu.isolated"),
        (Cpu(housekeeping="x"), "devices.cpu.housekeeping"),
        (Cpu(override=(CpuOverride("0"), CpuOverride("1-"))), r"devices.cpu.override\[1\].cpus"),
    ],
)
def test_a_wrong_list_is_refused(settings: Cpu, key: str) -> None:
    """A list that is none is refused with its key."""
    with pytest.raises(Invalid, match=key):
        cores.rules_of(settings)


CPUS = st.frozensets(st.integers(0, 15))


@st.composite
def boxes(draw: st.DrawFn) -> tuple[Box, Rules]:
    """A box of up to 8 cores with 1 or 2 CPUs, siblings neighbours or far apart."""
    threads, far = draw(st.sampled_from([(1, False), (2, False), (2, True)]))
    count = draw(st.integers(1, 8))
    groups = [(n,) if threads == 1 else (n, n + count) if far else (2 * n, 2 * n + 1) for n in range(count)]
    present = frozenset(cpu for group in groups for cpu in group)
    online = present - draw(CPUS)
    siblings = {cpu: tuple(each for each in group if each in online) for group in groups for cpu in group}
    box = Box(
        present=present,
        online=online,
        isolated=draw(CPUS) & present,
        allowed=online,
        siblings={cpu: group for cpu, group in siblings.items() if cpu in online},
        fast=draw(CPUS) & present,
        capacities=draw(st.dictionaries(st.sampled_from(sorted(present)), st.sampled_from([250, 512, 1024]))),
    )
    kinds = draw(st.dictionaries(st.integers(0, 15), st.sampled_from(["performance", "efficiency"])))
    return box, Rules(draw(CPUS), draw(CPUS), kinds)  # type: ignore[arg-type]  # mypy sees the literals as texts


@given(boxes())
def test_what_holds_on_every_box(drawn: tuple[Box, Rules]) -> None:
    """Whole cores only, each once; nobody else on them; no housekeeping CPU; performance before efficiency."""
    box, rules = drawn
    given_cores = found(box, rules)
    healthy = [core for core in given_cores if not core.problem]
    cpus = [cpu for core in given_cores for cpu in core.cpus]
    assert len(cpus) == len(set(cpus))
    assert not {core.cpu for core in given_cores} & rules.housekeeping
    assert not {cpu for core in healthy for cpu in core.cpus} & rules.housekeeping
    assert {core.cpu for core in healthy} <= box.online & rules.wanted(box)
    assert {cpu for core in healthy for cpu in core.cpus}.isdisjoint(cores.plain(box, aside(box, rules)))
    kinds = [core.kind for core in given_cores]
    assert kinds == sorted(kinds, key=lambda kind: kind == "efficiency")
