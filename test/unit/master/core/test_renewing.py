"""UPDATE_FRAMEWORK (mesos-v1 6.3, 6.4): what may change, what is taken back, and what is stored before it is said."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.stage import Stage, task

from edgerm.core.constraints import any_of
from edgerm.core.effects import Put
from edgerm.core.ids import AgentId, StreamId
from edgerm.core.scheduler import (
    Capability,
    FrameworkSpec,
    Minimum,
    Request,
    Rescind,
    Revive,
    Suppress,
    UpdateFramework,
)
from edgerm.core.tasks import TaskState
from edgerm_master.core.changes import FrameworkUpdated
from edgerm_master.core.effects import Accepted, Noticed
from edgerm_master.core.events import Watch
from edgerm_master.core.records import FrameworkRecord


def spec_of(stage: Stage, name: str = "f1") -> FrameworkSpec:
    """What the framework says of itself now."""
    return stage.master.frameworks[stage.schedulers[name].framework_id].spec


def update(stage: Stage, spec: FrameworkSpec, **more: object) -> list[object]:
    """f1 updates itself; what the core asked for."""
    return list(stage.call("f1", UpdateFramework(spec, **more)))  # type: ignore[arg-type]


def rescinded(stage: Stage, name: str = "f1") -> list[str]:
    """The offers that the framework was told are void."""
    return [event.offer_id for event in stage.hear(name) if isinstance(event, Rescind)]


def test_the_new_description_is_stored_before_it_is_answered(pair: Stage) -> None:
    """The record and the answer are effects of one event; a master that is restarted knows the new name."""
    new = replace(spec_of(pair), name="renamed", failover_timeout_s=7.0)
    effects = update(pair, new)
    assert [effect.record for effect in effects if isinstance(effect, Put)] == [
        FrameworkRecord(pair.schedulers["f1"].framework_id, new)
    ]
    assert [effect for effect in effects if isinstance(effect, Accepted)]
    pair.restart()
    assert spec_of(pair) == new


def test_operators_hear_of_it(pair: Stage) -> None:
    """Once, with the framework as it is now."""
    pair.happen(Watch(StreamId("w")))
    effects = update(pair, replace(spec_of(pair), name="renamed"))
    [change] = [effect.change for effect in effects if isinstance(effect, Noticed)]
    assert isinstance(change, FrameworkUpdated) and change.framework.spec.name == "renamed"


def test_a_dropped_role_takes_its_offers_along(stage: Stage) -> None:
    """They are rescinded, others stay, and what is free goes to a role that is left; its tasks run on."""
    stage.subscribe("f1", "a", "b", suppressed=("b",))
    stage.join("a1")
    stage.run("f1", "a1", "t1")
    stage.join("a2")
    stage.call("f1", Suppress(("a",)))
    stage.call("f1", Revive(("b",)))
    stage.join("a3")
    stage.settle()
    held = {offer.role: offer.offer_id for offer in stage.master.offers.values() if offer.agent_id != "a1"}
    assert set(held) == {"a", "b"}
    stage.hear("f1")
    update(stage, replace(spec_of(stage), roles=("b", "c")))
    assert held["a"] in rescinded(stage)
    stage.settle()
    assert held["b"] in stage.master.offers
    assert {offer.role for offer in stage.master.offers.values()} == {"b", "c"}
    assert stage.state("f1", "t1") is TaskState.RUNNING


def test_agents_that_no_longer_fit_are_taken_back(stage: Stage) -> None:
    """Their offers are rescinded and go to others; those that fit stay."""
    stage.join("a1", zone="a")
    stage.join("a2", zone="b")
    stage.subscribe("f1")
    stage.subscribe("f2")
    held = {offer.agent_id: offer.offer_id for offer in stage.hear_offers("f1")}
    assert set(held) == {"a1", "a2"}
    update(stage, spec_of(stage), constraints={"*": any_of([["zone=a"]])})
    assert rescinded(stage) == [held[AgentId("a2")]]
    stage.settle()
    assert [offer.agent_id for offer in stage.hear_offers("f2")] == ["a2"]
    update(stage, spec_of(stage))
    stage.decline("f2")
    stage.settle()
    assert [offer.agent_id for offer in stage.hear_offers("f1")] == ["a2"], "constraints that are left out are gone"


def test_suppressed_roles_take_the_place_of_those_before(stage: Stage) -> None:
    """A role that is named falls silent, one that is not speaks again; offers that are out stay, filters too."""
    stage.subscribe("f1", "a", "b", suppressed=("a",))
    stage.join("a1")
    [offer] = stage.hear_offers("f1")
    assert offer.role == "b"
    update(stage, spec_of(stage), suppressed_roles=("b",))
    assert rescinded(stage) == [] and offer.offer_id in stage.master.offers
    stage.decline("f1", refuse_s=1000.0)
    stage.settle()
    assert [offer.role for offer in stage.hear_offers("f1")] == ["a"]
    stage.decline("f1", refuse_s=1000.0)
    update(stage, spec_of(stage), suppressed_roles=())
    stage.settle()
    assert stage.hear_offers("f1") == [], "refusals outlive an update"


def test_new_roles_and_capabilities_count_at_once(stage: Stage) -> None:
    """A role that was added is offered to; least amounts are those of the update."""
    stage.subscribe("f1", "a", suppressed=("a",))
    stage.join("a1", "cpus:2;mem:512")
    update(stage, replace(spec_of(stage), roles=("a", "z")), suppressed_roles=("a",))
    stage.settle()
    assert [offer.role for offer in stage.hear_offers("f1")] == ["z"]
    stage.decline("f1", refuse_s=0.0)
    tall = (Minimum("z", ((("cpus", 4000),),)),)
    capabilities = frozenset({Capability.PARTITION_AWARE, Capability.TASK_KILLING_STATE})
    update(stage, replace(spec_of(stage), capabilities=capabilities, minimums=tall), suppressed_roles=("a",))
    stage.pass_time(5)
    assert stage.hear_offers("f1") == []
    assert spec_of(stage).capabilities == capabilities


@pytest.mark.parametrize(
    ("changes", "more", "words"),
    [
        ({"principal": "else"}, {}, "principal 'else'"),
        ({"user": "else"}, {}, "FrameworkInfo.user cannot change from 'u' to 'else'"),
        ({"checkpoint": True}, {}, "FrameworkInfo.checkpoint cannot change"),
        ({}, {"suppressed_roles": ("other",)}, "suppressed role 'other'"),
        ({}, {"constraints": {"other": any_of([["zone"]])}}, "role of offer constraints, 'other'"),
    ],
)
def test_what_may_not_change_changes_nothing(
    pair: Stage, changes: dict[str, object], more: dict[str, object], words: str
) -> None:
    """The fault is told to whoever asks before, and the call leaves everything as it was."""
    old = spec_of(pair)
    call = UpdateFramework(replace(old, name="new", **changes), **more)  # type: ignore[arg-type]
    assert words in pair.master.fault_of_update(pair.schedulers["f1"].framework_id, call)
    effects = pair.call("f1", call)
    assert [type(effect) for effect in effects] == [Accepted]
    assert spec_of(pair) == old


def test_a_task_of_a_dropped_role_is_charged_until_it_ends(stage: Stage) -> None:
    """The invariants on shares hold while it runs, and after its end."""
    stage.join("a1")
    stage.subscribe("f1", "a")
    stage.run("f1", "a1", "t1")
    update(stage, replace(spec_of(stage), roles=("b",)))
    stage.report("a1", "t1", TaskState.FINISHED)
    [status] = [status for status in stage.hear_updates("f1") if status.uuid]
    stage.acknowledge("f1", status)
    stage.beats("a1")
    stage.settle()
    assert task("t1", "a1").task_id not in stage.master.frameworks[stage.schedulers["f1"].framework_id].tasks


def test_a_request_changes_nothing(pair: Stage) -> None:
    """It is answered, and that is all."""
    assert [type(effect) for effect in pair.call("f1", Request())] == [Accepted]
