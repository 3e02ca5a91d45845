"""ACCEPT: which tasks go ahead, and what becomes of the others (mesos-v1 6.4)."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.stage import PARTITION_AWARE, Stage, task

from edgerm.core.effects import Put
from edgerm.core.ids import OfferId
from edgerm.core.link import Launch
from edgerm.core.resources import parse
from edgerm.core.scheduler import Accept, Status, TaskSpec
from edgerm.core.tasks import Reason, Source, TaskState
from edgerm_master.core.effects import Accepted, Ring


def accept(stage: Stage, *tasks: TaskSpec, offers: list[OfferId] | None = None) -> list[Status]:
    """ACCEPT with these offers (all that f1 holds if none are given); answers what f1 is told."""
    held = stage.offers("f1") if offers is None else offers
    stage.call("f1", Accept(tuple(held), tasks))
    return stage.hear_updates("f1")


def test_a_launch_is_stored_before_anything_is_said_of_it(pair: Stage) -> None:
    """Task and run are put, then the agent's doorbell rings and the call is answered."""
    effects = pair.call("f1", Accept(tuple(pair.offers("f1")), (task("t1", "a1"),)))
    kinds = [effect.kind for effect in effects if isinstance(effect, Put)]
    assert kinds == ["run", "task"]
    assert isinstance(effects[-1], Accepted)
    assert [type(effect) for effect in effects].index(Ring) > [type(effect) for effect in effects].index(Put)
    [order] = pair.beat("a1")
    assert order.body == Launch(pair.key("f1", "t1"), "*", task("t1", "a1"))


def test_each_launch_has_a_key_of_its_own(pair: Stage) -> None:
    """A task id that is used again after its end gets another launch id."""
    first = pair.run("f1", "a1", "t1")
    pair.report("a1", "t1", TaskState.FINISHED)
    pair.acknowledge("f1", pair.hear_updates("f1")[-1])
    pair.pass_time(6)
    second = pair.run("f1", "a1", "t1")
    assert first[:2] == second[:2]
    assert first.launch_id != second.launch_id


@pytest.mark.parametrize("capable", [True, False])
def test_bad_offers_lose_each_task(stage: Stage, capable: bool) -> None:
    """With any offer void, every task is DROPPED (LOST without PARTITION_AWARE), by the master, without uuid."""
    stage.join("a1")
    stage.subscribe("f1", capabilities=PARTITION_AWARE if capable else frozenset())
    stage.hear("f1")
    told = accept(stage, task("t1", "a1"), task("t2", "a1"), offers=[*stage.offers("f1"), OfferId("none")])
    state = TaskState.DROPPED if capable else TaskState.LOST
    assert [(status.task_id, status.state) for status in told] == [("t1", state), ("t2", state)]
    for status in told:
        assert (status.source, status.reason, status.uuid) == (Source.MASTER, Reason.INVALID_OFFERS, b"")
        assert "offer none is not outstanding" in status.message
    assert not stage.master.tasks


def test_the_valid_offers_of_a_bad_call_are_returned(pair: Stage) -> None:
    """What was still good is free again, and offered again without a filter."""
    [offer_id] = pair.offers("f1")
    pair.call("f1", Accept((offer_id, OfferId("none")), (task("t1", "a1"),)))
    [again] = pair.offers("f1")
    assert again != offer_id


def test_no_offers_at_all_lose_each_task(pair: Stage) -> None:
    """An ACCEPT that names no offer cannot launch anything."""
    [status] = accept(pair, task("t1", "a1"), offers=[])
    assert (status.state, status.reason) == (TaskState.DROPPED, Reason.INVALID_OFFERS)


def test_offers_of_two_agents_do_not_mix(pair: Stage) -> None:
    """A call with offers of two agents loses its tasks and returns both offers."""
    pair.join("a2")
    pair.hear("f1")
    assert len(pair.offers("f1")) == 2
    [status] = accept(pair, task("t1", "a1"))
    assert status.reason is Reason.INVALID_OFFERS
    assert len(pair.offers("f1")) == 2


def test_an_offer_named_twice_does_not_count_twice(pair: Stage) -> None:
    """The same offer id twice is a bad call: it neither doubles the resources nor breaks the master."""
    [offer_id] = pair.offers("f1")
    [status] = accept(pair, task("t1", "a1", "cpus:8;mem:64"), offers=[offer_id, offer_id])
    assert (status.state, status.reason) == (TaskState.DROPPED, Reason.INVALID_OFFERS)
    assert not pair.master.tasks


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (task("bad", "a1", "cpus:4.001;mem:64"), "asks for cpus:4.001;mem:64, of the offer cpus:3;mem:960 is left"),
        (task("bad", "a1", "gpus:1"), "asks for gpus:1"),
        (task("bad", "a1", "cpus:[1-2]"), "asks for cpus"),
        (task("bad", "a1", ""), "asks for no resources"),
        (task("bad", "a2"), "names agent a2, the offer is of agent a1"),
        (task("good", "a1"), "'good' is in use"),
        (task("bad", "a1", fault="role x is not one of yours"), "role x is not one of yours"),
    ],
)
def test_a_bad_task_is_an_error_and_the_others_go_ahead(pair: Stage, bad: TaskSpec, why: str) -> None:
    """A task that cannot be is TASK_ERROR with the reason why; those before and after it are launched."""
    [status] = accept(pair, task("good", "a1"), bad, task("last", "a1"))
    assert (status.state, status.source, status.reason) == (TaskState.ERROR, Source.MASTER, Reason.TASK_INVALID)
    assert (status.task_id, status.uuid) == (bad.task_id, b"")
    assert why in status.message
    assert [key.task_id for key in pair.master.tasks] == ["good", "last"]
    assert [order.body.key.task_id for order in pair.beat("a1")] == ["good", "last"]


def test_tasks_share_what_the_offers_have(pair: Stage) -> None:
    """Tasks are fitted in order; the one that does not fit any more is an error."""
    told = accept(pair, *(task(f"t{index}", "a1", "cpus:1.5;mem:1") for index in range(3)))
    assert [(status.task_id, status.state) for status in told] == [("t2", TaskState.ERROR)]


def test_a_task_id_is_free_again_when_its_end_was_acknowledged(pair: Stage) -> None:
    """Until the framework has acknowledged the end, the id is in use."""
    pair.run("f1", "a1", "t1")
    pair.report("a1", "t1", TaskState.FAILED)
    [end] = pair.hear_updates("f1")
    pair.pass_time(6)
    [status] = accept(pair, task("t1", "a1"))
    assert (status.state, "in use" in status.message) == (TaskState.ERROR, True)
    pair.acknowledge("f1", end)
    pair.pass_time(6)
    pair.hear("f1")
    assert accept(pair, task("t1", "a1")) == []
    assert pair.state("f1", "t1") is TaskState.STAGING


def test_what_a_task_uses_is_offered_again_when_it_ended(pair: Stage) -> None:
    """Resources follow the agent's word at once, without waiting for the framework's acknowledgement."""
    pair.accept("f1", task("t1", "a1", "cpus:4;mem:1024"))
    pair.beats()
    pair.report("a1", "t1", TaskState.FINISHED)
    assert [offer.resources for offer in pair.hear_offers("f1")] == [parse("cpus:4;mem:1024")]


def test_a_framework_with_many_pieces_of_ports_does_no_harm(stage: Stage) -> None:
    """However finely tasks cut an agent's ranges, what they give back adds up again."""
    everything = "cpus:8;ports:[0-99999]"
    stage.join("a1", everything)
    stage.subscribe("f1")
    for index in range(3):
        ports = ",".join(f"{port}-{port}" for port in range(20_000 * index, 20_000 * index + 20_000, 2))
        stage.accept("f1", task(f"t{index}", "a1", f"cpus:1;ports:[{ports}]"), refuse_s=0)
    assert len(stage.master.tasks) == 3
    stage.beats()
    for index in range(3):
        stage.report("a1", f"t{index}", TaskState.FINISHED)
    free = stage.master.agents[stage.boxes["a1"].agent_id].free
    for offer in stage.master.offers.values():
        free = free + offer.resources
    assert free == parse(everything)


def test_a_launch_carries_the_task_as_it_came(pair: Stage) -> None:
    """The canonical TaskInfo reaches the agent's order byte for byte."""
    spec = replace(task("t1", "a1"), info=b"\x0a\x02t1\xff\x01", name="x")
    accept(pair, spec)
    [order] = pair.beat("a1")
    assert isinstance(order.body, Launch)
    assert order.body.task == spec
