"""Claims at the master: resolved at ACCEPT, booked as items of sets, booked anew where agents choose."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.stage import PARTITION_AWARE, Box, Stage, agent_spec, task

from edgerm.core.claims import Claim, Granted
from edgerm.core.devices import Device, DeviceClass, Inventory, items, resources_of
from edgerm.core.ids import AgentId, TaskKey
from edgerm.core.link import Join, Launch, Welcome
from edgerm.core.metadata import to_text
from edgerm.core.resources import parse
from edgerm.core.scheduler import Capability, FrameworkSpec, Offers, Rescind, TaskSpec
from edgerm.core.tasks import Reason, TaskState
from edgerm.wire.codec.event_bytes import event_to_bytes
from edgerm.wire.content import JSON
from edgerm_master.core.allocating import OFFERS_EVENT_BYTES
from edgerm_master.core.explain import Code, explain_framework, explain_task
from edgerm_master.core.records import TaskRecord

CORES = Claim("cores", "x/core", 2, config='{"a":1}')
MAYBE = Claim("gpu", "x/gpu", optional=True)
CHIPS = Inventory(
    (DeviceClass("x/core", config_keys=("a",), chooses=True), DeviceClass("x/gpu"), DeviceClass("x/shm", shared=True)),
    (*(Device("x/core", f"c{n}") for n in (3, 1, 2, 0)), Device("x/shm", "m", shared=True)),
    7,
)
CAPABILITIES = PARTITION_AWARE | {Capability.SHARED_RESOURCES}


@pytest.fixture
def stage() -> Stage:
    """An agent with devices, offered to a framework."""
    made = Stage()
    made.boxes["a1"] = Box(AgentId("a1"), "", 1)
    spec = replace(
        agent_spec("a1", "cpus:4;mem:1024"),
        inventory=CHIPS,
        resources=parse("cpus:4;mem:1024") + resources_of(CHIPS.devices),
    )
    assert isinstance(made.send_join(Join(AgentId("a1"), 1, spec)), Welcome)
    made.subscribe("f1", capabilities=CAPABILITIES)
    made.settle()
    return made


def claiming(task_id: str, *claims: Claim, resources: str = "cpus:1;mem:64") -> TaskSpec:
    """A task with claims."""
    return replace(task(task_id, "a1", resources), claims=claims)


def launched(stage: Stage, task_id: str) -> tuple[TaskKey, TaskSpec]:
    """The launch that the agent has taken."""
    stage.beats("a1")
    return next(
        (body.key, body.task)
        for body in stage.boxes["a1"].orders
        if isinstance(body, Launch) and body.key.task_id == task_id
    )


def free(stage: Stage) -> str:
    """The cores that no task has, on offer or not."""
    agent = stage.master.agents[AgentId("a1")]
    some = [agent.free, *(stage.master.offers[offer_id].resources for offer_id in agent.offers)]
    return ",".join(sorted(item for resources in some for name, item in items(resources) if name == "x/core"))


def test_claims_are_resolved_when_the_offer_is_accepted(stage: Stage) -> None:
    """The launch has the devices in order of preference, their generation and whose they are; they are resources."""
    shared = Claim("x/shm", "x/shm")
    stage.accept("f1", claiming("t1", CORES, MAYBE, shared), refuse_s=0)
    _, order = launched(stage, "t1")
    assert order.granted == (
        Granted("cores", "x/core", ("c3", "c1"), config='{"a":1}'),
        Granted("gpu", "x/gpu", ()),
        Granted("x/shm", "x/shm", ("m",), shared=True),
    )
    assert (order.generation, order.app) == (7, "f1")
    assert order.resources == parse("cpus:1;mem:64;x/core:{c1,c3};x/shm<SHARED>:{m}")
    stage.pass_time(5)
    [offer] = stage.hear_offers("f1")[-1:]
    assert offer.resources == parse("cpus:3;mem:960;x/core:{c0,c2};x/shm<SHARED>:{m}")


def test_what_does_not_fit_is_told(stage: Stage) -> None:
    """A claim for more than is offered is TASK_ERROR, naming claim, class and numbers; nothing is kept."""
    stage.accept("f1", claiming("t1", replace(CORES, count=5)))
    [told] = stage.hear_updates("f1")
    assert (told.state, told.reason) == (TaskState.ERROR, Reason.TASK_INVALID)
    assert all(word in told.message for word in ("cores", "x/core", "5", "4")), told.message
    assert free(stage) == "c0,c1,c2,c3"


def test_shared_devices_are_for_those_who_know_them(stage: Stage) -> None:
    """A framework without SHARED_RESOURCES is offered none, and told so when it claims one nevertheless."""
    stage.decline("f1", refuse_s=3600)
    stage.subscribe("f2", capabilities=PARTITION_AWARE)
    stage.settle()
    stage.accept("f2", claiming("t1", Claim("m", "x/shm")), claiming("t2", replace(CORES, count=5)))
    first, second = stage.hear_updates("f2")
    assert (first.state, "SHARED_RESOURCES" in first.message) == (TaskState.ERROR, True), first.message
    assert "SHARED_RESOURCES" not in second.message


def test_a_task_with_claims_needs_no_other_resources(stage: Stage) -> None:
    """Devices alone are enough, and so is an optional claim that nothing is there for; no claim and nothing is not."""
    stage.accept(
        "f1", claiming("t1", CORES, resources=""), claiming("t2", MAYBE, resources=""), claiming("t3", resources="")
    )
    assert [(status.task_id, status.state) for status in stage.hear_updates("f1")] == [("t3", TaskState.ERROR)]
    assert launched(stage, "t2")[1].resources == parse("")


def test_devices_are_offered_when_nothing_else_is_left(stage: Stage) -> None:
    """An agent whose cpus and memory are all in use still offers its free devices; shared ones alone are no offer."""
    stage.accept("f1", claiming("t1", CORES, resources="cpus:4;mem:1024"), refuse_s=0)
    stage.pass_time(5)
    [offer] = stage.hear_offers("f1")[-1:]
    assert offer.resources == parse("x/core:{c0,c2};x/shm<SHARED>:{m}")
    stage.accept("f1", claiming("t2", CORES, resources=""), refuse_s=0)
    assert launched(stage, "t2")[1].granted[0].ids == ("c2", "c0")
    stage.hear_offers("f1")
    stage.pass_time(60)
    assert not stage.hear_offers("f1")


def test_devices_come_back_when_the_task_ends(stage: Stage) -> None:
    """The tasks of one call share the offer, and what a task had is free after its end."""
    stage.accept("f1", claiming("t1", CORES), claiming("t2", CORES), claiming("t3", CORES))
    assert [status.task_id for status in stage.hear_updates("f1")] == ["t3"]
    stage.beats("a1")
    stage.report("a1", "t1", TaskState.FINISHED)
    stage.report("a1", "t2", TaskState.DROPPED, reason=Reason.RESOURCES_UNKNOWN, message="c2 is held by app")
    assert free(stage) == "c0,c1,c2,c3"
    assert stage.hear_updates("f1")[-1].message == "c2 is held by app"


def test_the_agents_choice_is_booked(stage: Stage) -> None:
    """Other devices of a claim that the agent took are the task's, in the registry too, and what it left is free."""
    stage.accept("f1", claiming("t1", CORES), refuse_s=0)
    key, _ = launched(stage, "t1")
    chosen = (Granted("cores", "x/core", ("c0", "c2")), Granted("else", "x/core", ("c1",)))
    stage.decline("f1", refuse_s=1000)
    stage.report("a1", "t1", TaskState.STARTING, granted=chosen)
    assert free(stage) == "c1,c3"
    record = stage.rows[("task", str(key))]
    assert isinstance(record, TaskRecord)
    assert record.task.granted == (Granted("cores", "x/core", ("c0", "c2"), config='{"a":1}'),)
    assert record.task.resources == parse("cpus:1;mem:64;x/core:{c0,c2}")
    assert stage.hear_updates("f1")[-1].granted == chosen
    stage.report("a1", "t1", TaskState.FINISHED)
    assert free(stage) == "c0,c1,c2,c3"


def test_offers_that_hold_a_chosen_device_are_rescinded(stage: Stage) -> None:
    """A device that an agent took cannot be accepted by somebody else; what is told again changes nothing."""
    stage.accept("f1", claiming("t1", CORES), refuse_s=0)
    launched(stage, "t1")
    stage.pass_time(5)
    [offer] = stage.hear_offers("f1")[-1:]
    stage.report("a1", "t1", TaskState.STARTING, granted=(Granted("cores", "x/core", ("c0", "c1")),))
    heard = stage.hear("f1")
    assert Rescind(offer.offer_id) in heard
    [now] = [offer for event in heard if isinstance(event, Offers) for offer in event.offers]
    assert now.resources == parse("cpus:3;mem:960;x/core:{c2,c3};x/shm<SHARED>:{m}")
    stage.report("a1", "t1", TaskState.RUNNING, granted=(Granted("cores", "x/core", ("c0", "c1")),))
    assert Rescind(now.offer_id) not in stage.hear("f1")


def test_metadata_count_for_the_size_of_an_event() -> None:
    """Offers with long metadata come in several events, none much longer than allowed."""
    stage = Stage()
    text = to_text({"flags": [f"flag{n}" for n in range(100)]})
    devices = tuple(Device("x/core", f"c{n}", metadata=text) for n in range(30))
    inventory = Inventory((DeviceClass("x/core"),), devices)
    spec = replace(agent_spec("a", "cpus:1;mem:64"), inventory=inventory)
    spec = replace(spec, resources=spec.resources + resources_of(devices))
    for number in range(16):
        stage.send_join(Join(AgentId(f"a{number}"), 1, spec))
    stage.subscribe("f1")
    stage.settle()
    events = [event for event in stage.hear("f1") if isinstance(event, Offers)]
    sizes = [len(event_to_bytes(event, FrameworkSpec("f1"), JSON)) for event in events]
    assert sum(len(event.offers) for event in events) == 16
    assert sum(sizes) > 2 * OFFERS_EVENT_BYTES
    assert max(sizes) <= OFFERS_EVENT_BYTES


def test_what_is_short_of_is_explained(stage: Stage) -> None:
    """For each class whose devices a framework cannot all have: how many it can, and what holds each of the others."""
    stage.accept("f1", claiming("t1", CORES))
    key, _ = launched(stage, "t1")
    stage.report("a1", "t1", TaskState.RUNNING)
    agent = stage.master.agents[AgentId("a1")]
    sick = (
        Device("x/gpu", "g0", quarantine="a process has it"),
        Device("x/gpu", "g1", problem="unplugged"),
        Device("x/gpu", "g2", held_by="app"),
    )
    away = DeviceClass("x/can", problem="its plugin does not run")
    inventory = replace(CHIPS, classes=(*CHIPS.classes, away), devices=(*CHIPS.devices, *sick))
    reports = tuple(stage.boxes["a1"].tasks.values())
    stage.send_join(Join(AgentId("a1"), 2, replace(agent.spec, inventory=inventory), tasks=reports))
    stage.settle()
    stage.decline("f1", refuse_s=1000)
    stage.subscribe("f2")
    stage.settle()
    why = explain_framework(stage.master.world, stage.schedulers["f2"].framework_id)
    assert [one.code for one in why] == [Code.OFFERED, *[Code.DEVICES_SHORT] * 4]
    assert [one.message for one in why[1:]] == [
        "a1: nothing of x/can can be claimed: its plugin does not run",
        "a1: 2 of 4 x/core can be had: c3 is held by task t1, c1 is held by task t1",
        "a1: 0 of 1 x/shm can be had: m is shared, which only frameworks with SHARED_RESOURCES know",
        "a1: 0 of 3 x/gpu can be had: g0 is in quarantine (a process has it), g1 is not well (unplugged), "
        "g2 is held by app",
    ]
    other = explain_framework(stage.master.world, stage.schedulers["f1"].framework_id)
    assert "a1: 0 of 4 x/core can be had" in other[2].message
    assert "c2 is offered to another framework" in other[2].message
    assert explain_task(stage.master.world, key)[0].message == "it is RUNNING on a1, with x/core c3, c1"


def test_a_restart_keeps_what_was_given(stage: Stage) -> None:
    """Another master counts the devices of a task as used."""
    stage.accept("f1", claiming("t1", CORES))
    key, given = launched(stage, "t1")
    stage.report("a1", "t1", TaskState.RUNNING)
    spec = stage.master.agents[AgentId("a1")].spec
    stage.restart()
    stage.send_join(Join(AgentId("a1"), 2, spec, tasks=tuple(stage.boxes["a1"].tasks.values())))
    assert stage.master.tasks[key].record.task == given
    assert free(stage) == "c0,c2"
