"""MARK_AGENT_GONE: an agent is over with all that it has, for good."""

from __future__ import annotations

import pytest
from support.stage import Stage, task

from edgerm.core.ids import AgentId, TaskId
from edgerm.core.link import Gone
from edgerm.core.scheduler import Failure, Reconcile
from edgerm.core.tasks import Reason, TaskState
from edgerm_master.core import departing
from edgerm_master.core.events import DrainAgent, MarkAgentGone, ReactivateAgent

A1 = AgentId("a1")


def mark_gone(stage: Stage, name: str = "a1") -> None:
    stage.maintain(MarkAgentGone(AgentId(name)))
    stage.settle()


@pytest.mark.parametrize("away", [False, True], ids=["joined", "unreachable"])
def test_its_tasks_are_gone_and_it_is_forgotten(pair: Stage, away: bool) -> None:
    """Each task is told TASK_GONE_BY_OPERATOR once; nothing of the agent is left but its id."""
    pair.run("f1", "a1", "t1")
    pair.pass_time(100 if away else 6)
    pair.hear("f1")
    mark_gone(pair)
    events = pair.hear("f1")
    assert [event for event in events if isinstance(event, Failure)] == ([] if away else [Failure(A1)])
    [status] = [event.status for event in events if hasattr(event, "status")]
    assert (status.state, status.reason) == (TaskState.GONE_BY_OPERATOR, Reason.AGENT_REMOVED_BY_OPERATOR)
    assert (dict(pair.master.agents), dict(pair.master.tasks), pair.offers("f1")) == ({}, {}, [])
    assert {kind for kind, _ in pair.rows} == {"framework", "gone"}


def test_frameworks_that_know_no_partitions_hear_lost(stage: Stage) -> None:
    """TASK_LOST in place of the finer state."""
    stage.join("a1")
    stage.subscribe("f1", capabilities=frozenset())
    stage.run("f1", "a1", "t1")
    mark_gone(stage)
    assert [status.state for status in stage.hear_updates("f1")] == [TaskState.LOST]


def test_who_asks_later_hears_the_same(pair: Stage) -> None:
    """Reconciliation of a task of such an agent is TASK_GONE_BY_OPERATOR, after a restart of the master too."""
    mark_gone(pair)
    for _ in range(2):
        pair.hear("f1")
        pair.call("f1", Reconcile(((TaskId("t9"), A1),)))
        assert [status.state for status in pair.hear_updates("f1")] == [TaskState.GONE_BY_OPERATOR]
        pair.restart()
        pair.subscribe("f1")


def test_it_may_never_join_again(pair: Stage) -> None:
    """Its joins are answered with why, its beats with the word to join; a second word changes nothing."""
    mark_gone(pair)
    answer = pair.join("a1")
    assert isinstance(answer, Gone)
    assert "an operator marked agent a1" in answer.why
    before = dict(pair.rows)
    mark_gone(pair)
    pair.maintain(ReactivateAgent(A1))
    assert pair.rows == before
    pair.restart()
    assert isinstance(pair.join("a1"), Gone)


def test_ends_that_were_reported_stay_owed(pair: Stage) -> None:
    """An end that its framework has not acknowledged is told until it is, over a restart; then all is forgotten."""
    pair.accept("f1", task("t1", "a1"))
    pair.beats()
    pair.report("a1", "t1", TaskState.FINISHED)
    mark_gone(pair)
    pair.restart()
    pair.hear("f1") if "f1" in pair.schedulers else None
    pair.subscribe("f1")
    pair.settle()
    [status] = pair.hear_updates("f1")
    assert (status.state, bool(status.uuid)) == (TaskState.FINISHED, True)
    pair.acknowledge("f1", status)
    pair.settle()
    assert (dict(pair.master.agents), dict(pair.master.tasks)) == ({}, {})


def test_a_master_that_died_in_the_middle_is_made_up_for(pair: Stage) -> None:
    """Only the word itself was stored: the next master ends the tasks."""
    pair.run("f1", "a1", "t1")
    rows = dict(pair.rows)
    mark_gone(pair)
    pair.rows = {**rows, ("gone", "a1"): pair.rows[("gone", "a1")]}
    pair.restart()
    pair.settle()
    assert (dict(pair.master.agents), dict(pair.master.tasks)) == ({}, {})
    assert isinstance(pair.join("a1"), Gone)


def test_only_so_many_are_remembered(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest makes room, in memory and in the registry."""
    monkeypatch.setattr(departing, "GONE_MAX", 2)
    for name in ("a1", "a2", "a3"):
        stage.join(name)
        mark_gone(stage, name)
    assert list(stage.master.world.gone) == ["a2", "a3"]
    assert [key for kind, key in stage.rows if kind == "gone"] == ["a2", "a3"]


def test_a_drain_may_end_so(pair: Stage) -> None:
    """With mark_gone the agent is gone as soon as it is drained, not before."""
    pair.run("f1", "a1", "t1")
    pair.maintain(DrainAgent(A1, 10.0, None, mark_gone=True))
    pair.live(20)
    assert A1 in pair.master.agents
    pair.report("a1", "t1", TaskState.KILLED)
    pair.acknowledge("f1", pair.master.tasks[pair.key("f1", "t1")].run.owed[0])
    pair.settle()
    assert (A1 in pair.master.agents, A1 in pair.master.world.gone) == (False, True)


def test_a_drain_of_one_that_nobody_can_reach_ends_so_at_the_deadline(pair: Stage) -> None:
    """With mark_gone an agent that is away is gone at the deadline; without, it is waited for."""
    pair.run("f1", "a1", "t1")
    pair.pass_time(100)
    pair.maintain(DrainAgent(A1, 50.0, None, mark_gone=True))
    pair.pass_time(40)
    assert A1 in pair.master.agents
    pair.pass_time(20)
    assert A1 in pair.master.world.gone
