"""Sets in the master's ledger: exclusive items have one holder, shared ones as many as come; who is offered which."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.stage import PARTITION_AWARE, Stage, task

from edgerm.core.alternatives import Alternative, undecided
from edgerm.core.constraints import parse_constraint
from edgerm.core.devices import items
from edgerm.core.resources import NOTHING, ResourceKey, Resources, parse
from edgerm.core.scheduler import Capability, TaskSpec
from edgerm.core.tasks import Reason, TaskState

BOTH = PARTITION_AWARE | {Capability.SHARED_RESOURCES}
BOX = "cpus:4;mem:1024;camera:{a,b};picam<SHARED>:{v}"
PICAM = ResourceKey("picam", shared=True)


def offered(stage: Stage, name: str) -> Resources:
    """All that the framework holds."""
    total = NOTHING
    for offer_id in stage.offers(name):
        total = total + stage.master.offers[offer_id].resources
    return total


def test_shared_sets_are_for_those_who_know_them(stage: Stage) -> None:
    """Without SHARED_RESOURCES a framework is offered exclusive devices only."""
    stage.join("a1", BOX)
    stage.subscribe("old", capabilities=PARTITION_AWARE)
    stage.settle()
    assert offered(stage, "old") == parse("cpus:4;mem:1024;camera:{a,b}")
    stage.decline("old", refuse_s=1000)
    stage.subscribe("new", capabilities=BOTH)
    stage.settle()
    assert offered(stage, "new") == parse(BOX)


def test_a_shared_device_is_offered_while_it_is_used(stage: Stage) -> None:
    """What is left after a launch has the shared device still, and the exclusive one no more."""
    stage.join("a1", BOX)
    stage.subscribe("f1", capabilities=BOTH)
    stage.settle()
    stage.run("f1", "a1", "t1", "cpus:1;mem:64;camera:{a};picam<SHARED>:{v}")
    stage.pass_time(6)
    assert offered(stage, "f1") == parse("cpus:3;mem:960;camera:{b};picam<SHARED>:{v}")
    stage.accept("f1", task("t2", "a1", "cpus:1;mem:64;camera:{a}"))
    [told] = [status for status in stage.hear_updates("f1") if status.task_id == "t2"]
    assert (told.state, told.reason) == (TaskState.ERROR, Reason.TASK_INVALID)
    assert "camera:{a}" in told.message


@pytest.mark.parametrize("resources", ["camera<SHARED>:{a}", "picam:{v}", "camera:{c}", "picam<SHARED>:{w}"])
def test_what_is_not_offered_cannot_be_had(stage: Stage, resources: str) -> None:
    """An exclusive device cannot be taken as a shared one, nor the other way round, nor one that is not there."""
    stage.join("a1", BOX)
    stage.subscribe("f1", capabilities=BOTH)
    stage.settle()
    stage.accept("f1", task("t1", "a1", f"cpus:1;{resources}"))
    assert [status.state for status in stage.hear_updates("f1")] == [TaskState.ERROR]


@settings(max_examples=60)
@given(st.lists(st.tuples(st.sampled_from(["use", "decline", "end", "join"]), st.integers(0, 7)), max_size=25))
def test_no_order_of_events_gives_an_item_twice(events: list[tuple[str, int]]) -> None:
    """Whatever two frameworks and an agent do, an exclusive item has one holder, and shared ones stay on offer."""
    stage = Stage()
    stage.join("a1", BOX)
    for name in ("f1", "f2"):
        stage.subscribe(name, capabilities=BOTH)
    live: list[tuple[str, str]] = []
    for number, (what, choice) in enumerate(events):
        stage.pass_time(6)
        name = f"f{choice % 2 + 1}"
        if what == "use" and (held := offered(stage, name)):
            wanted = [item for bit, item in enumerate(sorted(items(held))) if choice >> bit & 1]
            sets = {key: frozenset(item for kind, item in wanted if kind == key.name) for key in held}
            asked = Resources({key: found for key, found in sets.items() if found})
            plain = task(f"t{number}", "a1", "cpus:0.1;mem:32")
            spec = replace(plain, resources=plain.resources + asked)
            stage.accept(name, spec)
            stage.beats("a1")
            live.append((name, spec.task_id))
        elif what == "decline":
            stage.decline(name, refuse_s=0)
        elif what == "end" and live:
            owner, task_id = live.pop(choice % len(live))
            stage.report("a1", task_id, TaskState.FINISHED)
            for status in stage.hear_updates(owner):
                if status.uuid:
                    stage.acknowledge(owner, status)
        elif what == "join":
            stage.join("a1", BOX if choice % 2 else "cpus:4;mem:1024;camera:{b}")
        agent = next(iter(stage.master.world.agents.values()))
        holders = Counter(
            item
            for record in stage.master.tasks.values()
            if record.live
            for item in items(record.record.task.resources)
        )
        for offer in stage.master.offers.values():
            holders.update(items(offer.resources))
        assert all(count == 1 for (kind, _), count in holders.items() if kind == "camera")
        assert agent.free.get(PICAM) == agent.spec.resources.get(PICAM)


# --- several builds ---------------------------------------------------------------------------------------------


def builds(task_id: str, *choices: tuple[str, str, str]) -> TaskSpec:
    """A task of builds: (name, resources, constraint)."""
    alternatives = tuple(
        Alternative(name, task(task_id, "a1", resources, alternative=name), (parse_constraint(constraint),))
        for name, resources, constraint in choices
    )
    return undecided(task(task_id, "a1", ""), alternatives)


def test_builds_are_decided_on_against_what_is_left(stage: Stage) -> None:
    """Of two equal tasks in one call the second gets what the first one leaves; only decided tasks are stored."""
    stage.join("a1", BOX)
    stage.subscribe("f1", capabilities=BOTH)
    stage.settle()
    choices = (("large", "cpus:3", "!x"), ("small", "cpus:0.5", "!x"), ("never", "cpus:0.1", "x"))
    stage.accept("f1", builds("t1", *choices), builds("t2", *choices), builds("t3", choices[2]))
    stored = {record.record.task.task_id: record.record.task for record in stage.master.tasks.values()}
    assert {name: spec.alternative for name, spec in stored.items()} == {"t1": "large", "t2": "small"}
    assert all(type(spec) is TaskSpec for spec in stored.values())
    [told] = stage.hear_updates("f1")
    assert (told.task_id, told.state, told.reason) == ("t3", TaskState.ERROR, Reason.TASK_INVALID)
    assert told.message == "no alternative fits: never: x does not hold"
