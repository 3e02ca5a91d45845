"""What keeps one framework or agent from costing the others: slices, bounds, and offers that can be read."""

from __future__ import annotations

import pytest
from support.stage import PARTITION_AWARE, Stage, agent_spec, task

from edgerm.core.ids import AgentId, TaskId
from edgerm.core.link import Join, NextPart
from edgerm.core.resources import Reservation, ResourceKey, Resources
from edgerm.core.scheduler import AgentSpec, Capability, Error, Offer, Offers, Reconcile, Teardown
from edgerm.core.tasks import Reason, TaskState
from edgerm_master.core import allocating, joining, reconciling
from edgerm_master.core.updating import OWED_BYTES_MAX, OWED_MAX

RUNNING = TaskState.RUNNING


def test_a_long_reconciliation_is_answered_in_slices(pair: Stage) -> None:
    """Of many questions a slice is answered at once and the rest with pauses, each once and in order."""
    pair.hear("f1")
    asked = tuple((TaskId(f"t{number}"), AgentId("a1")) for number in range(250))
    pair.call("f1", Reconcile(asked))
    first = [status.task_id for status in pair.hear_updates("f1")]
    assert first == [task_id for task_id, _ in asked[: reconciling.SLICE_ANSWERS]]
    pair.pass_time(10 * reconciling.PAUSE_S)
    rest = [status.task_id for status in pair.hear_updates("f1")]
    assert first + rest == [task_id for task_id, _ in asked]


def test_what_is_owed_comes_back_in_slices(pair: Stage) -> None:
    """A framework that returns is told each update that it is owed, once, and not all in one go."""
    names = [f"t{number}" for number in range(150)]
    pair.accept("f1", *(task(name, "a1", "cpus:0.01;mem:1") for name in names))
    pair.beats()
    for name in names:
        pair.report("a1", name, RUNNING)
    pair.hang_up("f1")
    pair.subscribe("f1")
    first = pair.hear_updates("f1")
    assert 0 < len(first) <= reconciling.SLICE_ANSWERS
    pair.pass_time(10 * reconciling.PAUSE_S)
    assert sorted(status.task_id for status in first + pair.hear_updates("f1")) == sorted(names)


def test_questions_end_with_the_stream(pair: Stage) -> None:
    """What a framework asked is not answered on its next stream."""
    pair.call("f1", Reconcile(tuple((TaskId(f"t{number}"), AgentId("a1")) for number in range(250))))
    pair.hang_up("f1")
    pair.subscribe("f1")
    pair.hear("f1")
    pair.pass_time(1.0)
    assert pair.hear_updates("f1") == []


def test_owed_updates_are_bounded(pair: Stage) -> None:
    """In a flood of updates the one in flight and the latest are kept, within a count and a size."""
    pair.accept("f1", task("t1", "a1"))
    pair.beats()
    for number in range(100):
        pair.report("a1", "t1", RUNNING, message=f"{number} " + "x" * 4000)
    owed = pair.master.tasks[pair.key("f1", "t1")].run.owed
    assert owed[0].message.startswith("0 ")
    assert owed[-1].message.startswith("99 ")
    assert len(owed) <= OWED_MAX
    assert sum(len(status.message) for status in owed) <= OWED_BYTES_MAX


def test_an_unreachable_task_is_not_told_as_running(pair: Stage) -> None:
    """Between UNREACHABLE and the agent's return no older state is told; after it the owed update is told again."""
    pair.accept("f1", task("t1", "a1"))
    pair.beats()
    pair.report("a1", "t1", RUNNING)
    pair.hear("f1")
    pair.pass_time(75.0)
    assert [status.state for status in pair.hear_updates("f1")][-1] is TaskState.UNREACHABLE
    pair.pass_time(300.0)
    assert pair.hear_updates("f1") == []
    pair.join("a1")
    told = pair.hear_updates("f1")
    assert [(status.state, bool(status.uuid)) for status in told] == [(RUNNING, False), (RUNNING, True)]
    assert told[0].reason is Reason.AGENT_REREGISTERED


def test_a_staging_task_that_returns_is_not_told(pair: Stage) -> None:
    """TASK_STAGING is never sent as an update (mesos-v1 4.4)."""
    pair.accept("f1", task("t1", "a1"))
    pair.beats()
    pair.pass_time(80.0)
    pair.hear("f1")
    pair.join("a1")
    assert pair.hear_updates("f1") == []
    assert pair.state("f1", "t1") is TaskState.STAGING


@pytest.mark.parametrize(("call", "told"), [(Teardown(), []), (Teardown("by hand"), [Error("by hand")])])
def test_a_teardown_by_the_framework_itself_is_no_error(pair: Stage, call: Teardown, told: list[Error]) -> None:
    """Its own TEARDOWN only ends the stream; an operator's is told."""
    pair.hear("f1")
    pair.call("f1", call)
    assert pair.hear("f1") == told


def test_half_joins_are_bounded(stage: Stage) -> None:
    """Joins that never end push each other out; one that ends in time is complete."""
    for number in range(joining.HALF_JOINS_MAX + 1):
        name = f"a{number}"
        join = Join(AgentId(name), 1, agent_spec(name, "cpus:1"), more=True)
        assert stage.send_join(join) == NextPart()
    last = f"a{joining.HALF_JOINS_MAX}"
    for name, joined in (("a0", False), (last, True)):
        stage.send_join(Join(AgentId(name), 1, agent_spec(name, "cpus:1"), part=1))
        assert (AgentId(name) in stage.master.agents) is joined


@pytest.mark.parametrize(
    ("key", "needs"),
    [
        (
            ResourceKey("cpus", (Reservation("r"), Reservation("r/s"))),
            Capability.RESERVATION_REFINEMENT,
        ),
        (ResourceKey("gpus"), Capability.GPU_RESOURCES),
        (ResourceKey("cpus", revocable=True), Capability.REVOCABLE_RESOURCES),
        (ResourceKey("cpus", shared=True), Capability.SHARED_RESOURCES),
    ],
)
def test_only_what_a_framework_understands_is_offered(stage: Stage, key: ResourceKey, needs: Capability) -> None:
    """Resources of a kind that the framework did not say it knows are left out of its offers."""
    plain = Resources.of(cpus=1, mem=64)
    spec = AgentSpec("box", resources=plain + Resources({key: 1000}))
    stage.send_join(Join(AgentId("a1"), 1, spec))
    offered = {}
    for name, capabilities in (("without", PARTITION_AWARE), ("with", PARTITION_AWARE | {needs})):
        stage.subscribe(name, "r/s", capabilities=frozenset(capabilities))
        [offer] = [o for event in stage.hear(name) if isinstance(event, Offers) for o in event.offers]
        offered[name] = key in offer.resources
        stage.hang_up(name)
    assert offered == {"without": False, "with": True}


def test_a_short_refusal_does_not_lift_a_longer_one(pair: Stage) -> None:
    """Each refusal of an agent stands for its own time."""
    pair.decline("f1", refuse_s=60.0)
    pair.join("a1", "cpus:8;mem:2048")
    pair.hear("f1")
    pair.decline("f1", refuse_s=5.0)
    pair.join("a1", "cpus:4;mem:1024")
    pair.live(30.0)
    assert pair.hear_offers("f1") == []
    pair.live(40.0)
    assert len(pair.hear_offers("f1")) == 1


def test_an_offers_event_is_bounded_in_bytes(stage: Stage) -> None:
    """Offers of agents with long attributes go out in several events."""
    stage.subscribe("f1")
    for number in range(5):
        spec = AgentSpec("box", resources=Resources.of(cpus=1, mem=64), info=bytes(100_000))
        stage.send_join(Join(AgentId(f"a{number}"), 1, spec))
    stage.hear("f1")
    stage.hang_up("f1")
    stage.subscribe("f1")
    events = [event.offers for event in stage.hear("f1") if isinstance(event, Offers)]
    assert sum(map(len, events)) == 5
    assert all(_bytes(some) <= allocating.OFFERS_EVENT_BYTES for some in events)


def _bytes(some: tuple[Offer, ...]) -> int:
    return sum(len(offer.agent.info) for offer in some)
