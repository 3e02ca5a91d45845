"""Frameworks: subscription, failover, teardown (mesos-v1 6.3)."""

from __future__ import annotations

import pytest
from support.stage import Stage, task

from edgerm.core.effects import Drop, Put
from edgerm.core.link import Kill
from edgerm.core.scheduler import Error, Failure, Offers, Rescind, Subscribed, Teardown
from edgerm.core.tasks import TaskState
from edgerm_master.core.effects import CloseStream, Tell, TellSoon
from edgerm_master.core.events import StreamClosed
from edgerm_master.core.frameworks import FrameworkState

REMOVED = [Error("Framework has been removed")]


def state(stage: Stage, name: str = "f1") -> FrameworkState:
    return stage.master.frameworks[stage.schedulers[name].framework_id].state


def test_the_first_event_is_subscribed_after_the_record(stage: Stage) -> None:
    """A framework is stored, told its id, then offered what there is."""
    stage.join("a1")
    first, offers = stage.subscribe("f1")
    assert isinstance(first, Subscribed)
    assert isinstance(offers, Offers)
    kinds = [type(effect) for effect in stage.log[-3:]]
    assert kinds == [Put, Tell, TellSoon]


def test_failover_tells_the_old_stream_and_closes_it(pair: Stage) -> None:
    """Coming back with the id while the old stream is open: it is told "Framework failed over" and closed."""
    old = pair.schedulers["f1"].stream
    [offer_id] = pair.offers("f1")
    said = pair.subscribe("f1")
    assert pair.streams[old][-1] == Error("Framework failed over")
    assert CloseStream(old) in pair.log
    assert said[0] == Subscribed(pair.schedulers["f1"].framework_id, 15.0)
    assert Rescind(offer_id) not in said
    assert pair.offers("f1") != [offer_id]
    pair.happen(StreamClosed(old))
    assert state(pair) is FrameworkState.ACTIVE


def test_failover_keeps_tasks_and_tells_what_is_owed(pair: Stage) -> None:
    """The new scheduler hears the update that the old one did not acknowledge."""
    pair.accept("f1", task("t1", "a1"))
    pair.beats()
    pair.report("a1", "t1", TaskState.RUNNING)
    [before] = pair.hear_updates("f1")
    pair.subscribe("f1")
    assert pair.hear_updates("f1") == [before]


def test_failover_replaces_suppression_and_clears_filters(pair: Stage) -> None:
    """`suppressed_roles` counts anew with each SUBSCRIBE; empty: nothing is suppressed."""
    pair.decline("f1", 1000)
    pair.subscribe("f1", suppressed=("*",))
    assert pair.offers("f1") == []
    pair.subscribe("f1")
    assert len(pair.offers("f1")) == 1


def test_what_may_not_change_does_not(pair: Stage) -> None:
    """A new user is ignored, another principal is refused and leaves the framework as it was."""
    stream = pair.schedulers["f1"].stream
    [said] = pair.subscribe("f1", principal="mallory")
    assert isinstance(said, Error)
    assert "mallory" in said.message
    assert pair.master.stream_of(pair.schedulers["f1"].framework_id) == stream


def test_a_suppressed_role_must_be_ones_own(stage: Stage) -> None:
    """A SUBSCRIBE that suppresses a foreign role is refused and stores nothing."""
    refusal = Error("suppressed role 'y' is not one of the framework's roles")
    assert stage.subscribe("f1", "x", suppressed=("y",)) == [refusal]
    assert (stage.master.frameworks, stage.rows) == ({}, {})


def test_a_lost_stream_withdraws_offers_and_starts_the_clock(pair: Stage) -> None:
    """Disconnected, a framework holds no offers and keeps its tasks until its failover timeout."""
    pair.run("f1", "a1", "t1")
    pair.subscribe("f2")
    pair.hear("f2")
    pair.hang_up("f1")
    assert pair.offers("f1") == []
    assert state(pair) is FrameworkState.DISCONNECTED
    pair.live(59)
    assert not [order for order in pair.boxes["a1"].orders if isinstance(order, Kill)]
    pair.live(2)
    assert isinstance(pair.boxes["a1"].orders[-1], Kill)
    assert pair.subscribe("f1") == REMOVED


def test_who_comes_back_in_time_keeps_everything(pair: Stage) -> None:
    """Within the timeout nothing is killed, and the clock stops."""
    pair.run("f1", "a1", "t1")
    pair.hang_up("f1")
    pair.live(50)
    pair.subscribe("f1")
    pair.live(500)
    assert pair.state("f1", "t1") is TaskState.RUNNING
    assert not [order for order in pair.boxes["a1"].orders if isinstance(order, Kill)]


def test_without_a_timeout_a_lost_stream_ends_the_framework(stage: Stage) -> None:
    """With failover_timeout 0 the framework is removed and its tasks are killed at once."""
    stage.join("a1")
    stage.subscribe("f1", timeout_s=0)
    stage.run("f1", "a1", "t1")
    key = stage.key("f1", "t1")
    stage.hang_up("f1")
    stage.settle()
    assert [order.body for order in stage.beat("a1")] == [Kill(key, None)]
    assert stage.subscribe("f1") == REMOVED


def test_teardown_ends_tasks_and_the_id(pair: Stage) -> None:
    """TEARDOWN: the stream closes, live tasks are killed, nothing of them is told, the id is refused for good."""
    key = pair.run("f1", "a1", "t1")
    scheduler = pair.schedulers["f1"]
    pair.call("f1", Teardown())
    assert CloseStream(scheduler.stream) in pair.log
    assert Drop("framework", scheduler.framework_id) in pair.log
    assert [order.body for order in pair.beat("a1")] == [Kill(key, None)]
    pair.report("a1", "t1", TaskState.KILLED)
    pair.beats()
    assert not pair.master.tasks
    assert pair.subscribe("f1") == REMOVED
    pair.restart()
    assert pair.subscribe("f1") == REMOVED


def test_an_unknown_id_is_accepted(stage: Stage) -> None:
    """A framework that another master knew subscribes with its id and keeps it."""
    [said] = stage.subscribe("f1", framework_id="old-7")
    assert said == Subscribed(stage.schedulers["f1"].framework_id, 15.0)
    assert stage.schedulers["f1"].framework_id == "old-7"


@pytest.mark.parametrize(("own_s", "given_s"), [(0.0, 600.0), (60.0, 600.0), (5000.0, 5000.0)])
def test_after_a_master_start_frameworks_have_time(stage: Stage, own_s: float, given_s: float) -> None:
    """Each recovered framework has the longer of its own timeout and 10 min to come back."""
    stage.join("a1")
    stage.subscribe("f1", timeout_s=own_s)
    stage.run("f1", "a1", "t1")
    stage.restart()
    stage.join("a1")
    stage.live(given_s - 30)
    assert state(stage) is FrameworkState.DISCONNECTED
    stage.live(60)
    assert not stage.master.knows(stage.schedulers["f1"].framework_id)
    assert isinstance(stage.boxes["a1"].orders[-1], Kill)


def test_calls_of_a_removed_framework_are_answered_and_do_nothing(pair: Stage) -> None:
    """A late call finds nobody: it is accepted, and nothing happens."""
    pair.call("f1", Teardown())
    assert [type(effect).__name__ for effect in pair.call("f1", Teardown())] == ["Accepted"]


def test_a_lost_agent_is_a_failure_for_each_framework(pair: Stage) -> None:
    """FAILURE(agent_id) goes to every subscribed framework."""
    pair.subscribe("f2")
    pair.pass_time(76)
    for name in ("f1", "f2"):
        assert Failure(pair.boxes["a1"].agent_id) in pair.hear(name)
