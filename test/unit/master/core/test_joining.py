"""Agents: the table "Join" of docs/link.md row by row, silence and return (mesos-v1 6.6)."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.stage import PARTITION_AWARE, Stage, agent_spec, task

from edgerm.core.ids import AgentId, FrameworkId, LaunchId, TaskId, TaskKey
from edgerm.core.link import (
    COAP,
    HTTP,
    Beat,
    BeatAnswer,
    Close,
    Forget,
    Frame,
    Join,
    Kill,
    Launch,
    NextPart,
    Stale,
    TaskReport,
    Welcome,
)
from edgerm.core.resources import Resources
from edgerm.core.scheduler import Failure, Teardown
from edgerm.core.scheduler import Kill as KillCall
from edgerm.core.scheduler import Update as Told
from edgerm.core.tasks import Reason, Source, TaskState
from edgerm_master.core.agents import AgentState
from edgerm_master.core.effects import FramesIn, SessionEnded
from edgerm_master.core.events import Beaten, Joined

A1 = AgentId("a1")


def join(incarnation: int, part: int = 0, more: bool = False, tasks: tuple[TaskReport, ...] = ()) -> Join:
    return Join(A1, incarnation, agent_spec("a1", "cpus:4;mem:1024"), "", tasks, part, more)


def report(task_id: str, state: TaskState, owes: bool = False, framework_id: str = "m0-9") -> TaskReport:
    key = TaskKey(FrameworkId(framework_id), TaskId(task_id), LaunchId("old-1"))
    return TaskReport(key, state, 1, "*", task(task_id, "a1"), owes)


def bodies(stage: Stage) -> list[object]:
    return [order.body for order in stage.beat("a1")]


# --- sessions ---------------------------------------------------------------------------------------------------


def test_a_join_is_idempotent(stage: Stage) -> None:
    """The same incarnation gets the same session again; a higher one a new session; a lower one is stale."""
    first = stage.send_join(join(5))
    assert isinstance(first, Welcome)
    assert stage.send_join(join(5)) == first
    assert stage.send_join(join(4)) == Stale()
    second = stage.send_join(join(6))
    assert isinstance(second, Welcome)
    assert second.session != first.session
    assert stage.send_beat(Beat(first.session, 0)).join
    assert not stage.send_beat(Beat(second.session, 0)).join


def test_an_unknown_session_is_told_to_join(stage: Stage) -> None:
    """A beat of nobody changes nothing and is answered "join"."""
    assert stage.send_beat(Beat(12345, 9)).join
    assert (stage.master.agents, stage.rows) == ({}, {})


def test_a_join_in_parts_counts_when_it_is_whole(stage: Stage) -> None:
    """Until the last part is here the agent is not known; then all its tasks are."""
    parts = [report(f"t{index}", TaskState.RUNNING) for index in range(3)]
    assert stage.send_join(join(1, 0, True, (parts[0],))) == NextPart()
    assert stage.send_join(join(1, 1, True, (parts[1],))) == NextPart()
    assert not stage.master.agents
    assert isinstance(stage.send_join(join(1, 2, False, (parts[2],))), Welcome)
    assert [key.task_id for key in stage.master.tasks] == ["t0", "t1", "t2"]


def test_parts_out_of_turn_never_make_a_join(stage: Stage) -> None:
    """A missing or foreign part is not papered over: the agent is asked on until it starts anew."""
    assert stage.send_join(join(1, 0, True, (report("t0", TaskState.RUNNING),))) == NextPart()
    assert stage.send_join(join(1, 2, False)) == NextPart()
    assert stage.send_join(join(2, 1, False)) == NextPart()
    assert not stage.master.agents
    assert isinstance(stage.send_join(join(2, 0, False)), Welcome)


def test_parts_of_a_join_that_is_done_are_acknowledged(stage: Stage) -> None:
    """Late doubles of the parts get the answers that the parts got."""
    stage.send_join(join(1, 0, True))
    welcome = stage.send_join(join(1, 1, False))
    assert stage.send_join(join(1, 0, True)) == NextPart()
    assert stage.send_join(join(1, 1, False)) == welcome


def test_a_new_incarnation_ends_the_old_session(stage: Stage) -> None:
    """Streams and doorbell of the old session are told that it is void."""
    first = stage.send_join(join(1))
    assert isinstance(first, Welcome)
    stage.send_join(join(2))
    assert SessionEnded(A1, first.session) in stage.log


def test_frames_go_to_those_who_follow(pair: Stage) -> None:
    """Frames of a beat are handed on as they came."""
    frames = (Frame(3, Close("done")),)
    pair.beat("a1", frames=frames)
    assert FramesIn(A1, frames) in pair.log


def test_what_carries_a_beat_bounds_its_answer(stage: Stage) -> None:
    """An answer takes the budget of the latest request's carrier, which may change within a session."""
    stage.happen(Joined(-1, join(1), COAP))
    half = stage.master.agents[A1].half
    assert half is not None
    assert half.carrier is COAP
    for index in range(100):
        half.order(Forget(report(f"t{index}", TaskState.RUNNING).key))
    stage.happen(Beaten(-2, Beat(half.session, 0), COAP))
    stage.happen(Beaten(-3, Beat(half.session, 0), HTTP))
    few, all_of_them = stage.answers[-2], stage.answers[-3]
    assert isinstance(few, BeatAnswer)
    assert isinstance(all_of_them, BeatAnswer)
    assert (len(few.orders) < 50, few.more) == (True, True)
    assert (len(all_of_them.orders), all_of_them.more) == (100, False)
    assert half.carrier is HTTP


# --- the table of docs/link.md ----------------------------------------------------------------------------------


def test_staging_and_absent_is_launched_again(pair: Stage) -> None:
    """Row 1: a launch that was never taken over is ordered again."""
    pair.accept("f1", task("t1", "a1"))
    pair.join("a1")
    assert bodies(pair) == [Launch(pair.key("f1", "t1"), "*", task("t1", "a1"))]


def test_staging_killed_and_absent_ends_killed(pair: Stage) -> None:
    """Row 1: was a kill asked for, the task ends TASK_KILLED without ever running."""
    pair.accept("f1", task("t1", "a1"))
    session = pair.boxes["a1"].session
    pair.send_beat(Beat(session, 0))  # the launch leaves, and is lost
    pair.call("f1", KillCall(TaskId("t1")))
    pair.join("a1")
    [status] = pair.hear_updates("f1")
    assert (status.state, status.reason) == (TaskState.KILLED, Reason.TASK_KILLED_DURING_LAUNCH)
    assert bodies(pair) == []


@pytest.mark.parametrize("capable", [True, False])
def test_running_and_absent_is_gone(stage: Stage, capable: bool) -> None:
    """Row 2: TASK_GONE, or TASK_LOST without PARTITION_AWARE, and its resources are free."""
    stage.join("a1")
    stage.subscribe("f1", capabilities=PARTITION_AWARE if capable else frozenset())
    stage.run("f1", "a1", "t1")
    stage.join("a1", tasks=())
    [status] = stage.hear_updates("f1")
    assert status.state is (TaskState.GONE if capable else TaskState.LOST)
    assert (status.source, status.uuid) == (Source.MASTER, b"")
    assert not stage.master.tasks
    [offer_id] = stage.offers("f1")
    assert stage.master.offers[offer_id].resources == stage.master.agents[A1].spec.resources


def test_live_and_present_is_kept(pair: Stage) -> None:
    """Row 3: a task that runs on is neither told nor touched."""
    pair.run("f1", "a1", "t1")
    pair.join("a1")
    assert (bodies(pair), pair.hear_updates("f1")) == ([], [])
    assert pair.state("f1", "t1") is TaskState.RUNNING


@pytest.mark.parametrize("capable", [True, False])
def test_unreachable_and_present_is_told(stage: Stage, capable: bool) -> None:
    """Row 3: UNREACHABLE (LOST) with the time, then REREGISTERED with the present state; nothing is killed."""
    stage.join("a1")
    stage.subscribe("f1", capabilities=PARTITION_AWARE if capable else frozenset())
    stage.run("f1", "a1", "t1")
    stage.pass_time(76)
    events = stage.hear("f1")
    assert Failure(A1) in events
    [away] = [event.status for event in events if isinstance(event, Told)]
    assert away.state is (TaskState.UNREACHABLE if capable else TaskState.LOST)
    assert (away.reason, away.source, away.uuid) == (Reason.AGENT_REMOVED, Source.MASTER, b"")
    if capable:
        assert away.unreachable_wall_s == 1_000_000 + 75
    stage.join("a1")
    [back] = stage.hear_updates("f1")
    assert (back.state, back.reason, back.uuid) == (TaskState.RUNNING, Reason.AGENT_REREGISTERED, b"")
    assert bodies(stage) == []


def test_kill_asked_and_live_is_killed_again(pair: Stage) -> None:
    """Row 4: a kill that the old session did not deliver is ordered in the new one."""
    key = pair.run("f1", "a1", "t1")
    pair.call("f1", KillCall(TaskId("t1"), None, 4.0))
    pair.join("a1")
    assert bodies(pair) == [Kill(key, 4.0)]


def test_ended_and_acknowledged_and_present_is_forgotten(pair: Stage) -> None:
    """Row 5: the forget that the old session did not deliver is ordered in the new one."""
    key = pair.run("f1", "a1", "t1")
    pair.report("a1", "t1", TaskState.FINISHED)
    pair.acknowledge("f1", pair.hear_updates("f1")[-1])
    pair.join("a1")
    assert bodies(pair) == [Forget(key)]
    pair.beat("a1")
    assert not pair.master.tasks


def test_ended_and_acknowledged_and_absent_is_over(pair: Stage) -> None:
    """The agent forgot, only its word was lost: the master forgets too."""
    pair.run("f1", "a1", "t1")
    pair.report("a1", "t1", TaskState.FINISHED)
    pair.acknowledge("f1", pair.hear_updates("f1")[-1])
    pair.join("a1", tasks=())
    assert not pair.master.tasks


def test_unknown_of_a_completed_framework_is_killed_then_forgotten(pair: Stage) -> None:
    """Row 6: what a removed framework left behind ends, and nobody is told."""
    framework_id = pair.schedulers["f1"].framework_id
    pair.call("f1", Teardown())
    left = report("t1", TaskState.RUNNING, framework_id=framework_id)
    pair.join("a1", tasks=(left,))
    pair.boxes["a1"].tasks[left.key] = left
    assert bodies(pair) == [Kill(left.key)]
    pair.report("a1", "t1", TaskState.KILLED)
    pair.beats()
    assert pair.boxes["a1"].orders[-1] == Forget(left.key)
    assert not pair.master.tasks


def test_unknown_otherwise_is_adopted(stage: Stage) -> None:
    """Row 7: contact never kills; the framework finds its task when it subscribes with its id."""
    stage.join("a1", tasks=(report("t1", TaskState.RUNNING),))
    assert bodies(stage) == []
    assert stage.master.agents[A1].free == agent_spec("a1", "cpus:3;mem:960").resources
    stage.subscribe("f1", framework_id="m0-9")
    assert stage.state("f1", "t1") is TaskState.RUNNING
    stage.call("f1", KillCall(TaskId("t1")))
    assert [type(body) for body in bodies(stage)] == [Kill]


def test_unknown_of_a_known_framework_is_adopted_and_told(stage: Stage) -> None:
    """A framework that is there hears of its adopted task's state."""
    stage.subscribe("f1", framework_id="m0-9")
    stage.join("a1", tasks=(report("t1", TaskState.RUNNING),))
    [status] = stage.hear_updates("f1")
    assert (status.task_id, status.state, status.reason) == ("t1", TaskState.RUNNING, Reason.AGENT_REREGISTERED)


def test_unknown_and_ended_waits_for_its_updates(stage: Stage) -> None:
    """An ended task that owes updates is kept until they came; one that owes none is told and forgotten."""
    stage.subscribe("f1", framework_id="m0-9")
    owing, done = report("t1", TaskState.FINISHED, owes=True), report("t2", TaskState.FINISHED)
    stage.join("a1", tasks=(owing, done))
    assert [status.task_id for status in stage.hear_updates("f1")] == ["t1", "t2"]
    assert bodies(stage) == [Forget(done.key)]
    stage.boxes["a1"].tasks[owing.key] = replace(owing, seq=0)
    stage.report("a1", "t1", TaskState.FINISHED)
    [end] = stage.hear_updates("f1")
    stage.acknowledge("f1", end)
    assert bodies(stage) == [Forget(owing.key)]


# --- inventory --------------------------------------------------------------------------------------------------


def test_an_agent_that_shrank_offers_nothing_that_is_in_use(pair: Stage) -> None:
    """It comes back with less than its tasks use: only what is left is offered until they fit again."""
    pair.run("f1", "a1", "t1", "cpus:3;mem:900")
    pair.join("a1", "cpus:2;mem:1000")
    assert pair.master.agents[A1].short
    pair.pass_time(6)
    assert [pair.master.offers[offer_id].resources for offer_id in pair.offers("f1")] == [Resources.of(mem=100)]
    pair.report("a1", "t1", TaskState.FINISHED)
    pair.decline("f1", 1)
    pair.live(30)
    free = pair.master.agents[A1].free
    for offer_id in pair.offers("f1"):
        free = free + pair.master.offers[offer_id].resources
    assert free == pair.master.agents[A1].spec.resources


def test_an_agent_that_changed_a_type_does_no_harm(stage: Stage) -> None:
    """Tasks from before the change hold amounts of another type: the master works on, the task ends as ever."""
    stage.join("a1", "cpus:4;ports:5")
    stage.subscribe("f1")
    stage.run("f1", "a1", "t1", "cpus:1;ports:5")
    stage.join("a1", "cpus:4;ports:[1-9]")
    stage.pass_time(6)
    stage.run("f1", "a1", "t2", "cpus:1;ports:[1-9]")
    for name in ("t1", "t2"):
        stage.report("a1", name, TaskState.FINISHED)
    assert not [key for key, found in stage.master.tasks.items() if found.live]


# --- silence ----------------------------------------------------------------------------------------------------


def test_an_agent_is_lost_after_five_missed_beats(pair: Stage) -> None:
    """Until 75 s after its last beat an agent is joined, then unreachable."""
    pair.pass_time(40)
    pair.beat("a1")
    pair.pass_time(74)
    assert pair.master.agents[A1].state is AgentState.JOINED
    pair.pass_time(2)
    assert pair.master.agents[A1].state is AgentState.UNREACHABLE


def test_the_session_of_a_lost_agent_is_void(pair: Stage) -> None:
    """Its next beat is told to join; the same incarnation does not get the old session back."""
    session, incarnation = pair.boxes["a1"].session, pair.boxes["a1"].incarnation
    pair.pass_time(76)
    assert pair.send_beat(Beat(session, 0)).join
    assert pair.send_join(join(incarnation)) == Stale()


def test_after_a_master_start_agents_have_ten_minutes(pair: Stage) -> None:
    """An agent that does not come back within 10 min is unreachable, and its frameworks are told."""
    pair.run("f1", "a1", "t1")
    pair.restart()
    pair.subscribe("f1")
    pair.hear("f1")
    pair.pass_time(590)
    assert pair.hear_updates("f1") == []
    pair.pass_time(15)
    [status] = pair.hear_updates("f1")
    assert (status.task_id, status.state) == ("t1", TaskState.UNREACHABLE)


def test_a_master_start_touches_nothing_that_runs(pair: Stage) -> None:
    """The agent joins the new master: its task is kept, nothing is ordered, the update is still owed."""
    pair.accept("f1", task("t1", "a1"))
    pair.beats()
    pair.report("a1", "t1", TaskState.RUNNING)
    pair.restart()
    assert pair.send_beat(Beat(pair.boxes["a1"].session, 1)).join
    pair.join("a1")
    assert bodies(pair) == []
    pair.subscribe("f1")
    assert [status.uuid for status in pair.hear_updates("f1")] == [b"t1-1"]


def test_an_agent_that_never_comes_back_is_forgotten_in_the_end(pair: Stage) -> None:
    """After two weeks its tasks are called gone and its record is dropped."""
    pair.run("f1", "a1", "t1")
    pair.pass_time(76)
    pair.hear("f1")
    pair.pass_time(15 * 86400)
    assert TaskState.GONE in [status.state for status in pair.hear_updates("f1")]
    assert not pair.master.agents
    assert [kind for kind, _ in pair.rows] == ["framework"]
