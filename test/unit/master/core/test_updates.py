"""Status updates, acknowledgements, kills and reconciliation (mesos-v1 6.1, 6.2, 6.5)."""

from __future__ import annotations

from itertools import pairwise

import pytest
from support.stage import PARTITION_AWARE, Stage, task

from edgerm.core.effects import Put
from edgerm.core.ids import AgentId, TaskId
from edgerm.core.link import Forget, Kill, Launch
from edgerm.core.scheduler import Acknowledge, Capability, Reconcile, Status
from edgerm.core.scheduler import Kill as KillCall
from edgerm.core.tasks import Reason, Source, TaskState
from edgerm_master.core.effects import AnswerAgent, Tell

RUNNING, FINISHED = TaskState.RUNNING, TaskState.FINISHED


@pytest.fixture
def staged(pair: Stage) -> Stage:
    """Task t1 of f1 is at a1, which has not reported yet."""
    pair.accept("f1", task("t1", "a1"))
    pair.beats()
    pair.hear("f1")
    return pair


def states(told: list[Status]) -> list[TaskState]:
    return [status.state for status in told]


def reconcile(stage: Stage, *tasks: tuple[str, str | None], name: str = "f1") -> list[Status]:
    """Ask for these tasks (none: all); answers what the framework is told."""
    stage.hear(name)
    asked = tuple((TaskId(task_id), AgentId(agent) if agent else None) for task_id, agent in tasks)
    stage.call(name, Reconcile(asked))
    return stage.hear_updates(name)


# --- updates ----------------------------------------------------------------------------------------------------


def test_an_update_is_stored_then_answered_then_told(staged: Stage) -> None:
    """The master persists an update before the agent hears of it and the framework is told."""
    staged.log.clear()
    staged.report("a1", "t1", RUNNING)
    kinds = [type(effect) for effect in staged.log if isinstance(effect, (Put, AnswerAgent, Tell))]
    assert kinds[0] is Put
    assert sorted(kind.__name__ for kind in kinds) == ["AnswerAgent", "Put", "Tell"]
    [status] = staged.hear_updates("f1")
    assert (status.state, status.uuid, status.agent_id) == (RUNNING, b"t1-1", "a1")


def test_only_the_oldest_update_is_in_flight(staged: Stage) -> None:
    """A second update waits for the first one's acknowledgement, which releases it at once."""
    staged.report("a1", "t1", RUNNING)
    staged.report("a1", "t1", FINISHED)
    [first] = staged.hear_updates("f1")
    assert staged.state("f1", "t1") is FINISHED
    staged.acknowledge("f1", first)
    [second] = staged.hear_updates("f1")
    assert (first.state, second.state) == (RUNNING, FINISHED)


def test_an_update_is_told_again_until_acknowledged(staged: Stage) -> None:
    """After 10 s, doubling up to 10 min, the same content goes out with the same uuid."""
    staged.report("a1", "t1", RUNNING)
    [first] = staged.hear_updates("f1")
    began_s, told_s = staged.now_s, []
    while staged.now_s < began_s + 3000:
        staged.live(5)
        for again in staged.hear_updates("f1"):
            assert again == first
            told_s.append(staged.now_s - began_s)
    waits = [after - before for before, after in pairwise([0.0, *told_s])]
    assert waits == [10, 20, 40, 80, 160, 320, 600, 600, 600]
    staged.acknowledge("f1", first)
    staged.live(1300)
    assert staged.hear_updates("f1") == []


def test_an_update_is_taken_over_once(staged: Stage) -> None:
    """An update that comes twice, within a session or in the next one, is told once."""
    update = staged.news("a1", "t1", RUNNING)
    staged.beat("a1", update)
    staged.beat("a1", update)
    staged.acknowledge("f1", staged.hear_updates("f1")[0])
    staged.join("a1")
    staged.beat("a1", update)
    assert [status for status in staged.hear_updates("f1") if status.uuid] == []


def test_a_report_that_the_table_does_not_allow_changes_nothing(staged: Stage) -> None:
    """An agent that calls a killed task running is not believed, nor is what it owes told again."""
    staged.report("a1", "t1", TaskState.KILLED)
    staged.hear("f1")
    staged.report("a1", "t1", RUNNING)
    assert staged.state("f1", "t1") is TaskState.KILLED
    assert staged.hear_updates("f1") == []


@pytest.mark.parametrize("wrong", [{"uuid": b"other"}, {"agent_id": "a2"}, {"task_id": "t2"}])
def test_wrong_acknowledgements_are_ignored(staged: Stage, wrong: dict[str, str]) -> None:
    """An acknowledgement counts only with the right agent, task and uuid."""
    staged.report("a1", "t1", RUNNING)
    right = {"agent_id": AgentId("a1"), "task_id": TaskId("t1"), "uuid": b"t1-1"}
    staged.call("f1", Acknowledge(**{**right, **wrong}))  # type: ignore[arg-type]
    assert staged.master.tasks[staged.key("f1", "t1")].run.owed
    staged.call("f1", Acknowledge(**right))  # type: ignore[arg-type]
    staged.call("f1", Acknowledge(**right))  # type: ignore[arg-type]
    assert not staged.master.tasks[staged.key("f1", "t1")].run.owed


def test_an_ended_task_is_forgotten_in_three_steps(staged: Stage) -> None:
    """The framework acknowledges, the agent is ordered to forget, and when it has, the master forgets too."""
    staged.report("a1", "t1", FINISHED)
    key = staged.key("f1", "t1")
    assert staged.beat("a1") == ()
    staged.acknowledge("f1", staged.hear_updates("f1")[0])
    assert staged.master.tasks[key].run.settled
    [order] = staged.beat("a1")
    assert order.body == Forget(key)
    assert ("task", str(key)) in staged.rows
    staged.beat("a1")
    assert key not in staged.master.tasks
    assert not [row for row in staged.rows if row[1] == str(key)]


def test_killing_is_told_only_to_who_knows_it(stage: Stage) -> None:
    """TASK_KILLING goes to frameworks with the capability; others hear of the end only."""
    stage.join("a1")
    knowing = PARTITION_AWARE | {Capability.TASK_KILLING_STATE}
    for name, capabilities in (("f1", PARTITION_AWARE), ("f2", knowing)):
        stage.subscribe(name, capabilities=capabilities)
        stage.pass_time(6)
        stage.run(name, "a1", f"t-{name}")
        stage.report("a1", f"t-{name}", TaskState.KILLING)
        told = [status.state for status in stage.hear_updates(name)]
        assert told == ([TaskState.KILLING] if name == "f2" else [])
        stage.decline(name, 0)


# --- kill -------------------------------------------------------------------------------------------------------


def test_a_kill_before_the_launch_left_ends_the_task_here(pair: Stage) -> None:
    """A launch that no answer has carried is withdrawn: TASK_KILLED by the master, and the agent hears nothing."""
    pair.accept("f1", task("t1", "a1"))
    pair.call("f1", KillCall(TaskId("t1")))
    [status] = pair.hear_updates("f1")
    expected = (TaskState.KILLED, Source.MASTER, Reason.TASK_KILLED_DURING_LAUNCH, b"")
    assert (status.state, status.source, status.reason, status.uuid) == expected
    assert pair.beat("a1") == ()
    assert not pair.master.tasks


def test_a_kill_is_forwarded_each_time(staged: Stage) -> None:
    """Each KILL becomes an order with its grace, and nothing is told before the agent's word."""
    for grace_s in (None, 1.5):
        staged.call("f1", KillCall(TaskId("t1"), AgentId("a1"), grace_s))
    key = staged.key("f1", "t1")
    assert [order.body for order in staged.beat("a1")] == [Kill(key, None), Kill(key, 1.5)]
    assert staged.hear_updates("f1") == []


def test_a_kill_with_a_wrong_agent_is_void(staged: Stage) -> None:
    """A KILL that names another agent than the task's does nothing."""
    staged.call("f1", KillCall(TaskId("t1"), AgentId("a2")))
    assert staged.beat("a1") == ()


@pytest.mark.parametrize(("agent", "state"), [("a1", TaskState.GONE), ("a9", TaskState.UNKNOWN)])
def test_a_kill_of_an_unknown_task_is_a_reconciliation(pair: Stage, agent: str, state: TaskState) -> None:
    """KILL of what nobody knows is answered as RECONCILE would."""
    pair.call("f1", KillCall(TaskId("t9"), AgentId(agent)))
    [status] = pair.hear_updates("f1")
    assert (status.state, status.reason) == (state, Reason.RECONCILIATION)


def test_a_kill_of_an_ended_task_does_nothing(staged: Stage) -> None:
    """A task whose end is not acknowledged yet is not killed."""
    staged.report("a1", "t1", FINISHED)
    staged.hear("f1")
    staged.call("f1", KillCall(TaskId("t1")))
    assert (staged.beat("a1"), staged.hear_updates("f1")) == ((), [])


def test_a_kill_for_an_unreachable_agent_waits_for_its_return(staged: Stage) -> None:
    """The wish is stored and ordered when the agent joins again."""
    staged.report("a1", "t1", RUNNING)
    staged.pass_time(100)
    staged.call("f1", KillCall(TaskId("t1"), None, 7.0))
    staged.join("a1")
    [order] = staged.beat("a1")
    assert order.body == Kill(staged.key("f1", "t1"), 7.0)


# --- reconciliation ---------------------------------------------------------------------------------------------


def test_a_known_task_is_answered_with_its_state(staged: Stage) -> None:
    """Explicit: the latest state, by the master, with REASON_RECONCILIATION, without uuid."""
    assert states(reconcile(staged, ("t1", "a1"))) == [TaskState.STAGING]
    staged.report("a1", "t1", RUNNING)
    [status] = reconcile(staged, ("t1", None))
    assert (status.state, status.source, status.reason) == (RUNNING, Source.MASTER, Reason.RECONCILIATION)
    assert (status.uuid, status.agent_id) == (b"", "a1")


def test_the_answer_follows_what_was_forwarded(staged: Stage) -> None:
    """While RUNNING waits for its acknowledgement, the answer is RUNNING, though the task has ended."""
    staged.report("a1", "t1", RUNNING)
    staged.report("a1", "t1", FINISHED)
    assert states(reconcile(staged, ("t1", None))) == [RUNNING]


def test_implicit_reconciliation_answers_every_task_once(pair: Stage) -> None:
    """An empty list: one update for each task that the master holds for the framework, and for no other's."""
    pair.accept("f1", task("t1", "a1"), task("t2", "a1"), refuse_s=0)
    pair.subscribe("f2")
    assert [status.task_id for status in reconcile(pair)] == ["t1", "t2"]
    assert reconcile(pair, name="f2") == []


@pytest.mark.parametrize(
    ("agent", "capable", "state"),
    [
        ("a1", True, TaskState.GONE),
        ("lost", True, TaskState.UNREACHABLE),
        ("a9", True, TaskState.UNKNOWN),
        (None, True, TaskState.UNKNOWN),
        ("a1", False, TaskState.LOST),
        ("lost", False, TaskState.LOST),
        ("a9", False, TaskState.LOST),
        (None, False, TaskState.LOST),
    ],
)
def test_an_unknown_task_is_answered_by_its_agent(
    stage: Stage, agent: str | None, capable: bool, state: TaskState
) -> None:
    """GONE on a joined agent, UNREACHABLE on an unreachable one, else UNKNOWN; LOST without PARTITION_AWARE."""
    stage.join("lost")
    stage.pass_time(76)
    stage.join("a1")
    stage.subscribe("f1", capabilities=PARTITION_AWARE if capable else frozenset())
    [status] = reconcile(stage, ("t9", agent))
    assert status.state is state
    assert (status.unreachable_wall_s is not None) == (state is TaskState.UNREACHABLE)


def test_silence_while_the_agent_may_still_come(staged: Stage) -> None:
    """After a master start nothing is said of tasks on agents that have not joined again, known or not."""
    staged.join("a2")
    staged.restart()
    staged.subscribe("f1")
    assert reconcile(staged, ("t1", None), ("t9", "a1"), ("t9", None)) == []
    assert reconcile(staged) == []
    assert states(reconcile(staged, ("t9", "a9"))) == [TaskState.UNKNOWN]
    staged.join("a1")
    assert states(reconcile(staged, ("t1", None), ("t9", "a1"), ("t9", None))) == [TaskState.STAGING, TaskState.GONE]
    staged.join("a2")
    assert states(reconcile(staged, ("t9", None))) == [TaskState.UNKNOWN]


def test_an_unreachable_task_is_said_to_be_so(staged: Stage) -> None:
    """Also while an earlier update of it is not acknowledged."""
    staged.report("a1", "t1", RUNNING)
    staged.pass_time(76)
    [status] = reconcile(staged, ("t1", "a1"))
    assert status.state is TaskState.UNREACHABLE
    assert status.unreachable_wall_s is not None


def test_an_adopted_update_of_an_unknown_task_is_let_go(pair: Stage) -> None:
    """An update of a task that nobody knows is answered with the order to forget it."""
    pair.accept("f1", task("t1", "a1"))
    [order] = pair.beat("a1")
    assert isinstance(order.body, Launch)
    update = pair.news("a1", "t1", RUNNING)
    stranger = type(update)(update.key._replace(task_id=TaskId("t9")), 1, update.status, update.number)
    [forget] = pair.beat("a1", stranger)
    assert forget.body == Forget(stranger.key)
