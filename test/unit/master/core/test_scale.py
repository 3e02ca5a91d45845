"""What a change looks at and leaves behind, counted: never all agents, whatever their number."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from dataclasses import replace

import pytest
from bench.fleet import Fleet, agent_id, make_spec

from edgerm.core.constraints import any_of, match_whole
from edgerm.core.scheduler import Decline, Revive
from edgerm_master.core import allocating, offers, subscribing, verdicts
from edgerm_master.core.agents import Agent
from edgerm_master.core.events import StreamClosed, Tick
from edgerm_master.core.invariants import broken
from edgerm_master.core.verdicts import Verdicts
from edgerm_master.core.world import Settings, World

AGENTS = 300


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[Agent]:
    """Every agent that the allocator looked at, in order."""
    seen: list[Agent] = []
    search = allocating.Search

    def counted(world: World, agent: Agent) -> allocating.Search:
        seen.append(agent)
        return search(world, agent)

    monkeypatch.setattr(allocating, "Search", counted)
    return seen


def fleet(frameworks: int = 2, agents: int = AGENTS) -> Fleet:
    """Agents that are all offered."""
    made = Fleet(Settings(1e9, offer_timeout_s=1000.0))
    for number in range(frameworks):
        made.subscribe(number)
    for number in range(agents):
        made.join(number)
        made.now_s += 1.0
    made.settle()
    assert len(made.master.offers) == agents
    return made


def one_declines(made: Fleet) -> None:
    offer = next(iter(made.master.offers.values()))
    made.call(offer.framework_id, Decline((offer.offer_id,), 5.0))


def one_expires(made: Fleet) -> None:
    made.wait(1000.0 - made.now_s)  # the oldest offer was made at 0


def one_joins(made: Fleet) -> None:
    made.join(AGENTS)


def one_comes_back(made: Fleet) -> None:
    made.join(7)


def a_task_ends(made: Fleet) -> None:
    [offer_id] = made.master.agents[agent_id(7)].offers
    _, key = made.launch(offer_id)
    made.start(7, key)
    made.finish(7, key)


CHANGES = [one_declines, one_expires, one_joins, one_comes_back, a_task_ends]


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_looks_at_its_own_agent_only(looks: list[Agent], change: Callable[[Fleet], None]) -> None:
    """What happens to one agent makes the allocator look at that one, not at the other hundreds."""
    made = fleet()
    looks.clear()
    change(made)
    made.settle()
    assert len({agent.agent_id for agent in looks}) == 1
    assert len(looks) <= 3


def test_a_sweep_looks_at_each_agent_once(looks: list[Agent]) -> None:
    """REVIVE costs one look for each agent, a few of them in one turn, and none in the call's."""
    made = fleet(1)
    [framework_id] = made.frameworks
    made.call(framework_id, Decline(tuple(made.master.offers), 1e6))
    made.settle()
    looks.clear()
    made.call(framework_id, Revive())
    assert looks == []
    made.do(Tick())
    assert len(looks) == allocating.SLICE_AGENTS
    made.settle()
    assert len(looks) == len({agent.agent_id for agent in looks}) == AGENTS


def test_a_slice_is_shorter_where_many_refuse(looks: list[Agent], monkeypatch: pytest.MonkeyPatch) -> None:
    """A turn ends after so many looks at clients, not only after so many agents."""
    made = fleet(10, 30)
    while made.master.offers:
        for framework in made.master.frameworks.values():
            made.call(framework.framework_id, Decline(tuple(framework.offers), 1e6))
        made.settle()
    monkeypatch.setattr(allocating, "SLICE_LOOKS", 50)
    looks.clear()
    offers.sweep(made.master.world)
    made.do(Tick())
    assert len(looks) == 5


def closes(made: Fleet, failover_timeout_s: float = 600.0) -> World:
    """The stream of the only framework breaks."""
    world = made.master.world
    [framework] = world.frameworks.values()
    framework.spec = replace(framework.spec, failover_timeout_s=failover_timeout_s)
    assert framework.stream is not None
    made.do(StreamClosed(framework.stream))
    return world


def test_offers_of_a_framework_that_has_gone_are_withdrawn_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broken stream takes no more than a slice of its offers in one turn, and the rest follow by themselves."""
    monkeypatch.setattr(subscribing, "WITHDRAWN_AT_ONCE", 100)
    made = fleet(1)
    world = closes(made)
    left = [len(world.offers)]
    while world.offers:
        assert not broken(world)
        made.wait(subscribing.PAUSE_S)
        left.append(len(world.offers))
    assert left == [200, 100, 0]
    assert all(agent.free == agent.spec.resources for agent in world.agents.values())


def test_who_comes_back_meanwhile_has_new_offers_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """A framework that is back before all its old offers were withdrawn holds none of them."""
    monkeypatch.setattr(subscribing, "WITHDRAWN_AT_ONCE", 10)
    made = fleet(1)
    old = set(made.master.offers)
    world = closes(made)
    assert world.offers
    made.subscribe(0, made.frameworks[0])
    made.wait(1.0)
    assert len(world.offers) == AGENTS
    assert not old & world.offers.keys()
    assert not broken(world)


def test_a_framework_without_failover_ends_once_its_offers_are_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A failover timeout that is over at once does not take all offers back in that turn either."""
    monkeypatch.setattr(subscribing, "WITHDRAWN_AT_ONCE", 100)
    made = fleet(1)
    world = closes(made, failover_timeout_s=0.0)
    made.do(Tick())
    assert len(world.offers) == 200
    made.wait(1.0)
    assert not world.offers
    assert not world.frameworks


def test_each_kind_of_agents_is_judged_once() -> None:
    """Constraints are asked about a kind of agents once, however many of it there are and how often they come up."""
    asked: list[str] = []

    def matcher(regex: str, text: str) -> bool:
        asked.append(text)
        return regex == text

    judge = Verdicts({"*": any_of([["zone~b"]]), "host": any_of([["@hostname=edge-000001.example.net"]])})
    specs = [make_spec(number) for number in range(400)]
    kinds = {spec.attributes for spec in specs}
    for _ in range(3):
        found = [judge.admits("*", spec, matcher) for spec in specs]
        assert found == [("zone", "b") in spec.attributes for spec in specs]
    assert len(asked) == len(kinds) < len(specs)
    assert [spec.name for spec in specs if judge.admits("host", spec, matcher)] == ["edge-000001"]
    assert all(judge.admits("other", spec, matcher) for spec in specs)


def test_few_verdicts_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where every agent is of its own kind, no more than a bound is kept, and what is said stays right."""
    monkeypatch.setattr(verdicts, "REMEMBERED_MAX", 10)
    judge = Verdicts({"*": any_of([["serial=SN00000007"]])})
    specs = [make_spec(number, own_attributes=1) for number in range(50)]
    for _ in range(2):
        found = [spec.name for spec in specs if judge.admits("*", spec, match_whole)]
        assert found == ["edge-000007"]
        assert 0 < judge.remembered <= 10


def test_an_idle_agent_is_light() -> None:
    """An agent without tasks takes less than 1.5 kB of the core's memory: the goal is 1 kB, measured by the bench."""
    made = Fleet()
    for number in range(100):  # what is made once, and the first of each kind
        made.join(number)
    gc.collect()
    tracemalloc.start()
    try:
        for number in range(100, 400):
            made.join(number)
            made.beat(number)
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] / 300 < 1500
    finally:
        tracemalloc.stop()


def test_rounds_of_offers_leave_nothing_behind() -> None:
    """After a hundred rounds of declined and expired offers there are as many timers, filters and records as before."""
    made = fleet(1, 30)
    [framework_id] = made.frameworks
    world = made.master.world

    def sizes() -> tuple[int, ...]:
        framework = made.master.frameworks[framework_id]
        return len(world.timers), len(framework.filters), len(world.offers), len(world.offered_s), len(world.dirty)

    before = sizes()
    for number in range(100):
        if number % 10 == 9:
            made.wait(1000.0)
        else:
            made.call(framework_id, Decline(tuple(world.offers), 1.0))
        made.wait(5.0)
    assert sizes() == before
