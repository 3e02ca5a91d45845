"""Draining: no offers, frameworks told, tasks killed at the deadline and never before."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.stage import PARTITION_AWARE, Stage, task

from edgerm.core.errors import IllegalMove
from edgerm.core.ids import AgentId, OfferId
from edgerm.core.instant import Instant
from edgerm.core.link import Kill, Launch
from edgerm.core.scheduler import (
    AnswerInverse,
    Capability,
    InverseOffer,
    InverseOffers,
    Rescind,
    RescindInverse,
    Revive,
)
from edgerm.core.scheduler import Kill as KillCall
from edgerm.core.tasks import Reason, TaskState
from edgerm_master.core.agents import Agent, AgentState, Drain, DrainPlan, Duty, DutySignal
from edgerm_master.core.draining import CHECKPOINT_S
from edgerm_master.core.events import DeactivateAgent, DrainAgent, ReactivateAgent
from edgerm_master.core.explain import Code, explain_framework, explain_task

A1 = AgentId("a1")
KILLING_TOO = PARTITION_AWARE | {Capability.TASK_KILLING_STATE}


def agent_of(stage: Stage) -> Agent:
    return stage.master.agents[A1]


def drain_of(stage: Stage) -> Drain:
    drain = agent_of(stage).drain
    assert drain is not None
    return drain


def drain(stage: Stage, deadline_s: float = 0.0, max_grace_s: float | None = None) -> None:
    stage.maintain(DrainAgent(A1, deadline_s, max_grace_s))
    stage.settle()


def run_some(stage: Stage, *names: str) -> None:
    """Tasks of f1, each on what the one before has left."""
    for name in names:
        stage.live(6)
        stage.run("f1", "a1", name)


def asked_back(stage: Stage, name: str = "f1") -> list[InverseOffer]:
    """The inverse offers among what the framework was told since."""
    return [offer for event in stage.hear(name) if isinstance(event, InverseOffers) for offer in event.offers]


def kills(stage: Stage) -> list[float | None]:
    """The grace of every kill that the agent was ordered."""
    return [body.grace_s for body in stage.boxes["a1"].orders if isinstance(body, Kill)]


def ended(stage: Stage, task_id: str, state: TaskState = TaskState.KILLED) -> None:
    """The agent reports an end, and it is acknowledged."""
    stage.report("a1", task_id, state)
    stage.acknowledge("f1", stage.master.tasks[stage.key("f1", task_id)].run.owed[0])
    stage.settle()


# --- offers -----------------------------------------------------------------------------------------------------


def test_offers_are_rescinded_and_no_new_ones_come(pair: Stage) -> None:
    """From the call on the agent is not offered, to nobody and whatever they ask for."""
    [offer_id] = pair.offers("f1")
    drain(pair, 100.0)
    assert pair.hear("f1") == [Rescind(offer_id)]
    pair.call("f1", Revive())
    pair.subscribe("f2")
    pair.join("a1")
    pair.live(50)
    assert pair.offers("f1") == pair.offers("f2") == []


def test_a_deactivated_agent_is_not_offered_and_its_tasks_run_on(pair: Stage) -> None:
    """DEACTIVATE_AGENT stops offers only, over restarts of the master too; REACTIVATE_AGENT lets them flow."""
    pair.run("f1", "a1", "t1")
    pair.maintain(DeactivateAgent(A1))
    pair.restart()
    pair.join("a1")
    pair.subscribe("f1")
    pair.live(1000)
    assert (pair.offers("f1"), kills(pair), pair.state("f1", "t1")) == ([], [], TaskState.RUNNING)
    pair.maintain(ReactivateAgent(A1))
    assert len(pair.offers("f1")) == 1


def test_a_drain_of_nobody_changes_nothing(pair: Stage) -> None:
    """A call that names no known agent is answered all the same and does nothing."""
    before = dict(pair.rows)
    pair.maintain(DrainAgent(AgentId("nobody")))
    assert pair.rows == before


# --- the deadline -----------------------------------------------------------------------------------------------


def test_tasks_are_killed_at_the_deadline_and_not_before(pair: Stage) -> None:
    """Until the last second nothing is ordered; then each live task gets a kill, once."""
    run_some(pair, "t1", "t2")
    drain(pair, 100.0)
    pair.live(99)
    assert kills(pair) == []
    pair.live(2)
    assert kills(pair) == [None, None]
    pair.live(300)
    assert kills(pair) == [None, None]


def test_without_a_deadline_tasks_are_killed_at_once(pair: Stage) -> None:
    """As Mesos' DRAIN_AGENT: a launch that has not left the master is taken back, the rest is killed."""
    pair.run("f1", "a1", "t1")
    pair.pass_time(6)
    pair.accept("f1", task("t2", "a1"))
    pair.hear("f1")
    drain(pair)
    [status] = pair.hear_updates("f1")
    assert (status.task_id, status.state, status.reason) == ("t2", TaskState.KILLED, Reason.AGENT_DRAINING)
    pair.beats()
    assert kills(pair) == [None]
    assert [body.key.task_id for body in pair.boxes["a1"].orders if isinstance(body, Launch)] == ["t1"]


@pytest.mark.parametrize(
    ("own_s", "max_s", "killed_s", "told_s"),
    [
        (None, None, None, None),  # its own, which the agent knows
        (None, 10.0, None, 3.0),  # Mesos' default is less
        (None, 1.0, None, 1.0),
        (30.0, 10.0, None, 10.0),
        (5.0, 10.0, None, 5.0),
        (30.0, 10.0, 20.0, 10.0),  # its framework had it killed with 20 s
        (30.0, 10.0, 2.0, 2.0),
    ],
)
def test_the_grace_is_the_shortest_of_all(
    pair: Stage, own_s: float | None, max_s: float | None, killed_s: float | None, told_s: float | None
) -> None:
    """A task gets its own grace, or what it was killed with before, but not more than the operator allows."""
    pair.accept("f1", task("t1", "a1", grace_s=own_s))
    pair.beats()
    pair.report("a1", "t1", TaskState.RUNNING)
    if killed_s is not None:
        pair.call("f1", KillCall(pair.key("f1", "t1").task_id, None, killed_s))
    drain(pair, 0.0, max_s)
    pair.beats()
    assert kills(pair)[-1] == told_s


def test_a_second_call_may_bring_the_deadline_nearer_only(pair: Stage) -> None:
    """A later deadline changes nothing, a nearer one is told anew and kept; grace and mark_gone are the newest."""
    pair.run("f1", "a1", "t1")
    drain(pair, 100.0, 5.0)
    [first] = asked_back(pair)
    pair.pass_time(10)
    drain(pair, 500.0, 4.0)
    assert asked_back(pair) == []
    assert drain_of(pair).plan.max_grace_s == 4.0
    drain(pair, 20.0)
    told = pair.hear("f1")
    assert told[0] == RescindInverse(first.offer_id)
    assert isinstance(told[1], InverseOffers)
    assert told[1].offers[0].starts_in_s == 20.0
    pair.live(25)
    assert kills(pair) == [None]
    drain(pair, 0.0, 1.0)
    pair.beats()
    assert kills(pair) == [None, 1.0]


@pytest.mark.parametrize("moment_s", [0.1, 0.7, 1 / 3, 12.345])
def test_a_second_call_that_changes_no_deadline_tells_nobody_again(pair: Stage, moment_s: float) -> None:
    """Drained again with a later deadline, the first one stands to the last bit: no framework hears of it."""
    pair.run("f1", "a1", "t1")
    pair.pass_time(moment_s)
    drain(pair, 100.1)
    before_s = drain_of(pair).due_s
    assert len(asked_back(pair)) == 1
    for _ in range(60):  # of some the difference to the deadline has no exact number
        pair.pass_time(0.1)
        drain(pair, 5000.0)
        assert pair.hear("f1") == []
        assert drain_of(pair).due_s == before_s


def test_a_framework_that_is_away_holds_up_no_draining(pair: Stage) -> None:
    """Its task has ended and it may stay away for a year: the agent is drained, the end is told when it is back."""
    pair.run("f1", "a1", "t1")
    drain(pair)
    pair.beats()
    pair.hang_up("f1")
    pair.settle()
    assert agent_of(pair).duty is Duty.DRAINING
    pair.report("a1", "t1", TaskState.KILLED)
    pair.settle()
    assert agent_of(pair).duty is Duty.DRAINED
    pair.subscribe("f1")
    pair.settle()
    assert [status.state for status in pair.hear_updates("f1")] == [TaskState.KILLED]
    assert agent_of(pair).duty is Duty.DRAINED


def test_a_framework_that_leaves_is_waited_for_no_more(pair: Stage) -> None:
    """While it is there its acknowledgement is awaited; once its stream has ended the agent is drained."""
    pair.run("f1", "a1", "t1")
    drain(pair)
    pair.beats()
    pair.report("a1", "t1", TaskState.KILLED)
    pair.live(100)
    assert agent_of(pair).duty is Duty.DRAINING
    pair.hang_up("f1")
    pair.settle()
    assert agent_of(pair).duty is Duty.DRAINED


def test_an_unreachable_agent_is_drained_when_it_comes_back(pair: Stage) -> None:
    """What it has is killed after its join; it is not called drained before, even if it seems empty."""
    pair.run("f1", "a1", "t1")
    pair.pass_time(100)
    drain(pair, 10.0)
    pair.pass_time(1000)
    assert agent_of(pair).duty is Duty.DRAINING
    pair.join("a1")
    pair.beats()
    assert kills(pair) == [None]
    ended(pair, "t1")
    assert agent_of(pair).duty is Duty.DRAINED


def test_reasons_tell_who_ended_a_task(pair: Stage) -> None:
    """KILLING and KILLED by the draining carry AGENT_DRAINING; an end of its own, or its framework's kill, does not."""
    pair.subscribe("f1", capabilities=KILLING_TOO)
    run_some(pair, "t1", "t2", "t3")
    pair.call("f1", KillCall(pair.key("f1", "t3").task_id))
    drain(pair)
    pair.beats()
    pair.hear("f1")
    for name, state in (("t1", TaskState.KILLING), ("t2", TaskState.FINISHED), ("t3", TaskState.KILLED)):
        pair.report("a1", name, state)
    assert [(status.state, status.reason) for status in pair.hear_updates("f1")] == [
        (TaskState.KILLING, Reason.AGENT_DRAINING),
        (TaskState.FINISHED, None),
        (TaskState.KILLED, None),
    ]


# --- restarts ---------------------------------------------------------------------------------------------------


class Wrong(Stage):
    """A stage whose masters have wrong wall clocks."""

    off_s = 0.0

    @property
    def now(self) -> Instant:
        return Instant(self.now_s, 1e6 + self.now_s + self.off_s)


@given(
    deadline_s=st.floats(0, 1000),
    restarts=st.lists(st.tuples(st.floats(1, 200), st.floats(0, 1e6), st.sampled_from((-1e6, 0.0, 1e9))), max_size=3),
)
@settings(max_examples=40, deadline=None)
def test_no_restart_and_no_clock_kills_early_or_makes_it_longer(
    deadline_s: float, restarts: list[tuple[float, float, float]]
) -> None:
    """What is left after a restart is at least what was left before, and at most a checkpoint more."""
    stage = Wrong()
    stage.join("a1")
    stage.subscribe("f1", timeout_s=1e9)
    stage.run("f1", "a1", "t1")
    drain(stage, deadline_s)
    for up_s, down_s, off_s in restarts:
        stage.pass_time(up_s)
        left_s = max(drain_of(stage).due_s - stage.now_s, 0.0)
        stage.off_s = off_s
        stage.restart(down_s)
        again_s = drain_of(stage).due_s - stage.now_s
        assert left_s - 1e-6 <= again_s <= min(left_s + CHECKPOINT_S, deadline_s) + 1e-6


def test_the_next_master_knows_what_is_drained(pair: Stage) -> None:
    """A drained agent stays drained, and so does one that joins again."""
    drain(pair)
    assert agent_of(pair).duty is Duty.DRAINED
    pair.restart()
    assert (agent_of(pair).duty, agent_of(pair).state) == (Duty.DRAINED, AgentState.RECOVERING)
    pair.join("a1")
    pair.subscribe("f1")
    pair.live(100)
    assert pair.offers("f1") == []


def test_a_task_that_nobody_knew_of_is_killed_too(pair: Stage) -> None:
    """An agent that is drained joins with a task: it is draining again, and the task ends."""
    pair.run("f1", "a1", "t1")
    report = next(iter(pair.boxes["a1"].tasks.values()))
    drain(pair)
    pair.beats()
    ended(pair, "t1")
    pair.beats()
    assert agent_of(pair).duty is Duty.DRAINED
    pair.boxes["a1"].orders.clear()
    stranger = report.key._replace(launch_id="other")  # type: ignore[arg-type]
    pair.join("a1", tasks=[type(report)(stranger, TaskState.RUNNING, 0, "*", report.task)])
    pair.settle()
    assert agent_of(pair).duty is Duty.DRAINING
    pair.beats()
    assert kills(pair) == [None]


# --- what frameworks are told -----------------------------------------------------------------------------------


def test_frameworks_with_tasks_there_are_told_once(pair: Stage) -> None:
    """The agent, and when: as a wall time and as seconds from now; nobody else is told, and nobody twice."""
    pair.run("f1", "a1", "t1")
    pair.subscribe("f2")
    pair.hear("f2")
    drain(pair, 100.0)
    [told] = asked_back(pair)
    assert (told.agent_id, told.starts_in_s, told.start_wall_s) == (A1, 100.0, pair.now.wall_s + 100)
    pair.live(50)
    assert asked_back(pair) == []
    assert asked_back(pair, "f2") == []


def test_who_comes_back_is_told_again(pair: Stage) -> None:
    """With a new stream, and with a new master: what is left then."""
    pair.run("f1", "a1", "t1")
    drain(pair, 100.0)
    pair.hang_up("f1")
    pair.pass_time(30)
    pair.subscribe("f1")
    pair.settle()
    [told] = asked_back(pair)
    assert told.starts_in_s == 70.0
    assert set(drain_of(pair).invited) == {told.framework_id}


def test_answers_are_remembered(pair: Stage) -> None:
    """ACCEPT_INVERSE_OFFERS and DECLINE_INVERSE_OFFERS are kept for people; unknown ids are ignored."""
    pair.run("f1", "a1", "t1")
    drain(pair, 100.0)
    [told] = asked_back(pair)
    pair.call("f1", AnswerInverse((OfferId("nobody"), told.offer_id), agreed=True))
    assert drain_of(pair).invited[told.framework_id].answer == "accepted"
    pair.call("f1", AnswerInverse((told.offer_id,), agreed=False))
    assert drain_of(pair).invited[told.framework_id].answer == "declined"


def test_a_cancelled_drain_is_told(pair: Stage) -> None:
    """REACTIVATE_AGENT takes the inverse offer back; the deadline has no effect any more."""
    pair.run("f1", "a1", "t1")
    drain(pair, 100.0)
    [told] = asked_back(pair)
    pair.maintain(ReactivateAgent(A1))
    assert pair.hear("f1")[0] == RescindInverse(told.offer_id)
    pair.live(200)
    assert kills(pair) == []
    assert agent_of(pair).drain is None


# --- machines and reasons ---------------------------------------------------------------------------------------


def test_the_duty_follows_its_table() -> None:
    """A move that the table does not have is a bug, and told."""
    agent = Stage().master.agents.get(A1)
    assert agent is None
    stage = Stage()
    stage.join("a1")
    with pytest.raises(IllegalMove, match="duty: no move from ACTIVE on EMPTY"):
        agent_of(stage).serve(DutySignal.EMPTY)


def test_explain_says_that_an_operator_wants_it_so(pair: Stage) -> None:
    """Codes agent-deactivated and agent-draining, for frameworks and for tasks."""
    pair.run("f1", "a1", "t1")
    world, framework_id, key = pair.master.world, pair.schedulers["f1"].framework_id, pair.key("f1", "t1")
    pair.maintain(DeactivateAgent(A1))
    assert [why.code for why in explain_framework(world, framework_id)] == [Code.AGENT_DEACTIVATED]
    drain(pair, 100.0)
    assert [why.code for why in explain_framework(world, framework_id)] == [Code.AGENT_DRAINING]
    assert [why.code for why in explain_task(world, key)] == [Code.RUNNING, Code.AGENT_DRAINING]


@given(st.floats(0, 1e7), st.floats(0, 1e6))
def test_what_is_left_is_never_more_than_was_set(now_s: float, deadline_s: float) -> None:
    """Also where the sum of clock and deadline is rounded up."""
    asked = Drain(DrainPlan(deadline_s, None, False, 0.0, deadline_s), now_s + deadline_s)
    assert 0.0 <= asked.left_s(now_s) <= deadline_s
    assert asked.left_s(now_s + deadline_s) == 0.0
