"""Every reason that `explain` can give, one by one."""

from __future__ import annotations

from support.stage import Stage, task

from edgerm.core.ids import AgentId, FrameworkId
from edgerm.core.link import Join
from edgerm.core.resources import Reservation, ResourceKey, Resources
from edgerm.core.scheduler import AgentSpec, Suppress, Teardown
from edgerm.core.scheduler import Kill as KillCall
from edgerm.core.tasks import TaskState
from edgerm_master.core.allocating import SLICE_AGENTS
from edgerm_master.core.events import Tick
from edgerm_master.core.explain import Code, explain_framework, explain_task


def why(stage: Stage, name: str = "f1") -> list[Code]:
    framework_id = stage.schedulers[name].framework_id
    return [reason.code for reason in explain_framework(stage.master.world, framework_id)]


def why_task(stage: Stage, task_id: str = "t1") -> list[Code]:
    return [reason.code for reason in explain_task(stage.master.world, stage.key("f1", task_id))]


def test_frameworks_that_are_not_there(stage: Stage) -> None:
    """Unknown, away, completed; and no agents for one that is there."""
    [reason] = explain_framework(stage.master.world, FrameworkId("f9"))
    assert reason.code is Code.FRAMEWORK_UNKNOWN
    stage.subscribe("f1")
    assert why(stage) == [Code.NO_AGENTS]
    stage.hang_up("f1")
    assert why(stage) == [Code.FRAMEWORK_AWAY]
    stage.call("f1", Teardown())
    assert why(stage) == [Code.FRAMEWORK_COMPLETED]


def test_offers_and_refusals(pair: Stage) -> None:
    """Offered, offered to others, refused (with the time that is left), suppressed."""
    assert why(pair) == [Code.OFFERED]
    pair.subscribe("f2")
    assert why(pair, "f2") == [Code.OFFERED_TO_OTHERS]
    pair.decline("f1", 90)
    pair.pass_time(20)
    [reason] = explain_framework(pair.master.world, pair.schedulers["f1"].framework_id)
    assert reason.code is Code.OFFERED_TO_OTHERS
    pair.decline("f2", 90)
    [reason] = explain_framework(pair.master.world, pair.schedulers["f1"].framework_id)
    assert (reason.code, reason.agent_id) == (Code.REFUSED, "a1")
    assert "for another 70 s" in reason.message
    pair.call("f1", Suppress())
    assert why(pair) == [Code.SUPPRESSED]


def test_agents_with_nothing_to_give(pair: Stage) -> None:
    """Nothing free, unreachable, recovering."""
    pair.run("f1", "a1", "t1", "cpus:4;mem:1024")
    assert why(pair) == [Code.NOTHING_FREE]
    pair.pass_time(76)
    assert why(pair) == [Code.AGENT_UNREACHABLE]
    pair.restart()
    pair.subscribe("f1")
    assert why(pair) == [Code.AGENT_RECOVERING]


def test_what_is_reserved_for_others(stage: Stage) -> None:
    """Free, but only for another role."""
    resources = Resources({ResourceKey("cpus", (Reservation("ops"),)): 4000})
    stage.send_join(Join(AgentId("a1"), 1, AgentSpec("h", resources=resources)))
    stage.subscribe("f1", "web")
    assert why(stage) == [Code.RESERVED]


def test_who_is_next(stage: Stage) -> None:
    """What is free and wanted by the framework is offered with the next turn."""
    for index in range(SLICE_AGENTS + 1):
        stage.join(f"a{index}")
    stage.subscribe("f1")
    stage.happen(Tick())
    assert why(stage).count(Code.OFFERED) == SLICE_AGENTS
    assert why(stage).count(Code.NEXT) == 1


def test_a_tasks_way(pair: Stage) -> None:
    """Ordered, running, not acknowledged, kill under way, ended, unknown."""
    pair.accept("f1", task("t1", "a1"))
    assert why_task(pair) == [Code.ORDER_UNDERWAY]
    pair.beats()
    pair.report("a1", "t1", TaskState.RUNNING)
    assert why_task(pair) == [Code.RUNNING, Code.NOT_ACKNOWLEDGED]
    pair.acknowledge("f1", pair.hear_updates("f1")[0])
    assert why_task(pair) == [Code.RUNNING]
    key = pair.key("f1", "t1")
    pair.call("f1", KillCall(key.task_id))
    assert why_task(pair) == [Code.KILL_UNDERWAY]
    pair.report("a1", "t1", TaskState.KILLED)
    assert why_task(pair) == [Code.ENDED, Code.NOT_ACKNOWLEDGED]
    pair.acknowledge("f1", pair.hear_updates("f1")[0])
    pair.beats()
    assert [reason.code for reason in explain_task(pair.master.world, key)] == [Code.TASK_UNKNOWN]


def test_a_task_whose_agent_is_away(pair: Stage) -> None:
    """It runs on there, as far as anyone knows."""
    pair.run("f1", "a1", "t1")
    pair.pass_time(76)
    assert why_task(pair) == [Code.AGENT_UNREACHABLE]
    pair.restart()
    assert why_task(pair) == [Code.AGENT_RECOVERING]
