"""Tasks that wait for devices, and have no place yet: what people are told of them."""

from __future__ import annotations

from dataclasses import replace

from support.stage import Stage

from edgerm.core.claims import Claim
from edgerm.core.ids import TaskId
from edgerm.core.scheduler import Request, Waiting
from edgerm_master.core.explain import Code, Why, explain_waiting
from edgerm_master.core.finding import find_named, find_waiting

CORE = "siemens.com/isolated_core"
WAITING = Waiting(TaskId("cam-1"), "cam", (Claim("fast", CORE, 2),))


def why(stage: Stage, waiting: Waiting = WAITING) -> list[Why]:
    """What stands between the task of f1 and a place."""
    world = stage.master.world
    return explain_waiting(world, world.frameworks[stage.schedulers["f1"].framework_id], waiting)


def found(stage: Stage, task_id: str = "", name: str = "") -> list[str]:
    """The waiting tasks that are meant."""
    return [waiting.task_id for _, waiting in find_waiting(stage.master.world, None, task_id, name)]


def test_a_waiting_task_names_its_class(pair: Stage) -> None:
    """For each agent that cannot meet the claims, the class and what there was; the class need not exist."""
    pair.call("f1", Request(waiting=(WAITING,)))
    [reason] = why(pair)
    assert (reason.code, reason.agent_id) == (Code.CLAIM_UNMET, "a1")
    assert reason.message.endswith(f"claim 'fast' of class {CORE}: the agent has no such class of devices")


def test_a_claim_that_could_be_met_is_not_blamed(pair: Stage) -> None:
    """Then what is said of the framework counts."""
    [reason] = why(pair, replace(WAITING, claims=(Claim("fast", CORE, 0),)))
    assert reason.code is Code.OFFERED


def test_waiting_tasks_are_found_by_id_beginning_and_name(pair: Stage) -> None:
    """As long as the framework says so, and within one subscription."""
    other = replace(WAITING, task_id=TaskId("cam-12"), name="other")
    pair.call("f1", Request(waiting=(WAITING, other)))
    assert found(pair, "cam-1") == ["cam-1"]
    assert found(pair, "cam") == ["cam-1", "cam-12"]
    assert (found(pair, name="cam"), found(pair, name="ca")) == (["cam-1"], [])
    assert find_named(pair.master.world, "cam", None) == []
    pair.call("f1", Request(waiting=(other,)))
    assert found(pair, "cam") == ["cam-12"]
    pair.subscribe("f1")
    assert found(pair, "cam") == []
