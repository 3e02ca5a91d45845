"""Devices of tasks in the agent's core: given before all else, taken back before anybody is told, or held back."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.grants import BLOB, CORE, CORES, GONE, PLUGINS, SHM, STICKS, Box, after, core, handle, key, spec, stick

from edgerm.core.claims import Granted
from edgerm.core.devices import Device, DeviceClass, Inventory
from edgerm.core.errors import IllegalMove
from edgerm.core.ids import TaskId
from edgerm.core.link import Forget, Join, Kill, Launch
from edgerm.core.resources import parse
from edgerm.core.tasks import Reason, TaskState
from edgerm.plugin.executor import Exit
from edgerm_agent.core.effects import (
    Fetch,
    GiveBack,
    Release,
    Start,
    Stop,
    Watch,
)
from edgerm_agent.core.events import (
    Ended,
    Fetched,
    GivenBack,
    Inventoried,
    StartFailed,
    Tick,
)
from edgerm_agent.core.grants import GRANT_MOVES, GrantSignal, GrantState, Holding
from edgerm_agent.core.records import GrantRecord
from edgerm_agent.core.way import PLUGIN_S


@pytest.fixture
def box() -> Box:
    """An agent with devices, a session and nothing to do."""
    found = Box()
    found.up()
    return found


# --- the inventory ----------------------------------------------------------------------------------------------


def test_the_first_join_tells_of_the_devices(box: Box) -> None:
    """What plugins have said before the first join is in it, each offered device as an item of a set."""
    join = box.sent[0].body
    assert isinstance(join, Join)
    assert join.agent.inventory.devices == tuple(device for name in sorted(PLUGINS) for device in PLUGINS[name].devices)
    assert join.agent.resources.covers(parse(f"{CORE}:{{cpu2,cpu3}};{SHM}<SHARED>:{{frames}};cpus:4"))
    assert join.agent.inventory.generation > 1 << 20


def test_a_generation_for_each_change(box: Box) -> None:
    """The generation rises with what is reported and not with what is reported again, and above that of all before."""
    before = box.agent.spec.inventory.generation
    box.happen(Inventoried("cpu", CORES))
    assert box.agent.spec.inventory.generation == before
    box.happen(Inventoried("cpu", replace(CORES, devices=CORES.devices[:1])))
    assert box.agent.spec.inventory.generation == before + 1
    again, _ = box.restarted()
    assert again.agent.spec.inventory.generation > before + 1


def test_a_plugin_that_is_gone(box: Box) -> None:
    """Its devices leave the offer and stay in the list with its problem; the tasks that hold them run on."""
    box.run("t1", core("cpu2"))
    assert box.happen(Inventoried("cpu", GONE)) == []
    assert {d.id: d.problem for d in box.agent.spec.inventory.devices if d.name == CORE} == {
        "cpu2": "its plugin is gone",
        "cpu3": "its plugin is gone",
    }
    assert not box.offered() & {"cpu2", "cpu3"}
    assert box.launch(spec("t2", core("cpu3"))) == []
    told = f"claim 'rt': nothing of class {CORE} can be had: its plugin is gone"
    assert (box.status("t2").state, box.status("t2").message) == (TaskState.DROPPED, told)
    box.happen(Inventoried("cpu", CORES))
    assert {"cpu2", "cpu3"} <= box.offered()


# --- launch -----------------------------------------------------------------------------------------------------


def test_grants_are_stored_first(box: Box) -> None:
    """The grants come before the task's own records, so that no crash leaves a task without a device of it."""
    [start] = box.launch(spec("t1", core("cpu3"), Granted("mem", SHM, ("frames",), shared=True, config='{"id":"in"}')))
    record = GrantRecord(key("t1"), CORE, (core("cpu3"),), "process")
    other = GrantRecord(key("t1"), SHM, (Granted("mem", SHM, ("frames",), True, '{"id":"in"}'),), "process")
    assert start == Start(key("t1"), spec("t1", record.granted[0], other.granted[0]), (record, other))


def test_every_cut_of_a_launch_is_put_right(box: Box) -> None:
    """Whichever of the launch's rows are durable: the task starts with all its devices, or they are given back."""
    before = dict(box.rows)
    box.launch(spec("t1", core("cpu3"), Granted("mem", SHM, ("frames",), shared=True)))
    puts = box.changes
    assert [change.kind for change in puts] == ["grant", "grant", "run", "task"]
    for cut in range(len(puts) + 1):
        again = Box(after(before, puts[:cut]), 2)
        effects = again.up()
        starts = [effect for effect in effects if isinstance(effect, Start)]
        assert [len(start.grants) for start in starts] == ([2] if cut == len(puts) else [])
        backs = [effect for effect in effects if isinstance(effect, GiveBack)]
        assert len(backs) == (0 < cut < len(puts))
        if backs:
            again.happen(GivenBack(key("t1")))
            assert again.rows == before
            assert again.offered() == box.offered() | {"cpu3", "frames"}


def test_every_cut_of_an_end_is_put_right(box: Box) -> None:
    """Whichever of the rows of an end are durable: the task is not started again, and nothing is kept."""
    box.launch(spec("t1", core("cpu3"), Granted("mem", SHM, ("frames",), shared=True)))
    box.happen(StartFailed(key("t1"), "no such program"))
    before = dict(box.rows)
    box.happen(GivenBack(key("t1")))
    assert [change.kind for change in box.changes] == ["run", "grant", "grant"]
    for cut in range(1, len(box.changes) + 1):
        again = Box(after(before, box.changes[:cut]), 2)
        effects = again.up()
        assert not any(isinstance(effect, Start) for effect in effects)
        again.happen(GivenBack(key("t1")))
        assert again.grants() == {}


def test_what_a_task_names_itself_is_a_grant(box: Box) -> None:
    """Items of a device's class among the resources, with no claim for them, are given as a claim of that name."""
    task = replace(spec("t1"), resources=parse(f"cpus:1;{CORE}:{{cpu2}};{SHM}<SHARED>:{{frames}};camera:{{x}}"))
    assert box.launch(task) == []
    assert box.status("t1").message.startswith("this agent has no camera 'x'")
    [start] = box.launch(
        replace(task, task_id=TaskId("t2"), resources=task.resources.only(lambda k: k.name != "camera"))
    )
    assert isinstance(start, Start)
    assert [record.granted for record in start.grants] == [
        (Granted(CORE, CORE, ("cpu2",)),),
        (Granted(SHM, SHM, ("frames",), shared=True),),
    ]


@pytest.mark.parametrize(
    ("granted", "told"),
    [
        (
            core("cpu2"),
            f"claim 'rt': {CORE} 'cpu2' is held by task 't1' of framework f (it asks for 1, 1 of 2 can be had)",
        ),
        (core("cpu9", claim=CORE), f"this agent has no {CORE} 'cpu9' (it asks for 1, 1 of 2 can be had)"),
        (core("cpu3", "cpu3"), f"{CORE} 'cpu3' is given to two claims of the task"),
        (Granted("c", "x.com/y", ("z",)), "claim 'c': this agent has no class x.com/y"),
        (
            Granted("m", SHM, ("frames",)),
            f"claim 'm': {SHM} 'frames' is shared here (it asks for 1, 1 of 1 can be had)",
        ),
    ],
)
def test_a_lost_race_is_told(box: Box, granted: Granted, told: str) -> None:
    """TASK_DROPPED names the claim, the class, the device, its holder, what was asked and what there is."""
    box.run("t1", core("cpu2"))
    assert box.launch(spec("t2", granted)) == []
    status = box.status("t2")
    assert (status.state, status.reason) == (TaskState.DROPPED, Reason.RESOURCES_UNKNOWN)
    assert status.message == told
    assert [row for row in box.grants() if "t2" in row] == []


def test_a_refusal_tells_on_what_it_was_decided(box: Box) -> None:
    """A device that is not any more what it was in that inventory is refused, and both generations are named."""
    before = box.agent.spec.inventory.generation
    changed = replace(CORES.devices[0], metadata='{"kind":"efficiency"}')
    box.happen(Inventoried("cpu", replace(CORES, devices=(changed, CORES.devices[1]))))
    assert box.launch(replace(spec("t1", core("cpu2")), generation=before)) == []
    told = f"claim 'rt': {CORE} 'cpu2' has changed (it asks for 1, 2 of 2 can be had); "
    assert box.status("t1").message == f"{told}it was decided on inventory {before}, this is {before + 1}"
    for name, granted, generation in (("t2", core("cpu3"), before), ("t3", core("cpu2"), before + 1)):
        assert len(box.launch(replace(spec(name, granted), generation=generation))) == 1


def test_a_decision_of_before_a_restart_holds(box: Box) -> None:
    """What was decided on an inventory of an earlier process is taken, if the devices are there."""
    before = box.agent.spec.inventory.generation
    again, _ = box.restarted()
    assert len(again.launch(replace(spec("t1", core("cpu2")), generation=before))) == 1


def test_shared_devices_have_many_holders(box: Box) -> None:
    """Nobody keeps another from a shared device; when it is exclusive of a sudden, its holders do."""
    shared = Granted("mem", SHM, ("frames",), shared=True)
    box.run("t1", shared)
    box.run("t2", shared)
    box.happen(Inventoried("shm", Inventory((DeviceClass(SHM),), (Device(SHM, "frames"),))))
    assert box.launch(spec("t3", replace(shared, shared=False))) == []
    assert "'frames' is held by task 't1' of framework f" in box.status("t3").message


# --- end --------------------------------------------------------------------------------------------------------


def test_the_end_is_told_when_the_devices_are_back(box: Box) -> None:
    """Until then the devices are the task's, nothing is journaled, and its executor keeps the exit."""
    box.run("t1", core("cpu2"))
    owed = len(box.agent.tasks[key("t1")].run.owed)
    [back] = box.happen(Ended(key("t1"), Exit(code=3)))
    assert back == GiveBack(key("t1"), tuple(box.grants().values()))
    assert box.changes == []
    assert len(box.agent.tasks[key("t1")].run.owed) == owed
    assert box.launch(spec("t2", core("cpu2"))) == []
    assert box.happen(Ended(key("t1"), Exit(code=4))) == []
    assert box.happen(GivenBack(key("t1"))) == [Release(key("t1"), handle("t1"))]
    assert (box.status("t1").state, box.status("t1").exit_code) == (TaskState.FAILED, 3)
    assert box.grants() == {}
    assert len(box.launch(spec("t3", core("cpu2")))) == 1


def test_a_start_that_fails_gives_back(box: Box) -> None:
    """What was prepared before the start failed is taken back before the failure is told."""
    box.launch(spec("t1", core("cpu2")))
    [back] = box.happen(StartFailed(key("t1"), "claim 'rt': no dynamic tuning here"))
    assert isinstance(back, GiveBack)
    box.happen(GivenBack(key("t1")))
    told = (TaskState.FAILED, Reason.CONTAINER_LAUNCH_FAILED, "claim 'rt': no dynamic tuning here")
    assert (box.status("t1").state, box.status("t1").reason, box.status("t1").message) == told


def test_a_kill_before_the_start_has_nothing_to_give_back(box: Box) -> None:
    """Devices of a task that is still fetched were never prepared: its end is told at once."""
    box.order(Launch(key("t1"), "*", replace(spec("t1", core("cpu2")), blobs=(BLOB,))))
    assert box.happen(Fetched(key("t2"))) == []
    assert box.order(Kill(key("t1"))) == []
    assert box.status("t1").state is TaskState.KILLED
    assert box.grants() == {}


def test_unclean_devices_are_in_quarantine(box: Box) -> None:
    """The end is told, the evidence is stored and shown, nobody gets the device; what is clean is free at once."""
    box.run("t1", core("cpu2"), Granted("mem", SHM, ("frames",), shared=True))
    box.happen(Ended(key("t1"), Exit(code=0)))
    box.happen(GivenBack(key("t1"), {CORE: "process 17 is on cpu2"}))
    assert box.status("t1").state is TaskState.FINISHED
    assert [record.evidence for record in box.grants().values()] == ["process 17 is on cpu2"]
    [held] = [device for device in box.agent.spec.inventory.devices if device.quarantine]
    assert (held.id, held.quarantine) == ("cpu2", "process 17 is on cpu2")
    assert box.offered() & {"cpu2", "cpu3", "frames"} == {"cpu3", "frames"}
    assert box.launch(spec("t2", core("cpu2"))) == []
    assert f"{CORE} 'cpu2' is in quarantine: process 17 is on cpu2" in box.status("t2").message


def test_quarantine_is_tried_again(box: Box) -> None:
    """After 1 s, then after twice as long each time up to a minute, until it is clean; its task may be forgotten."""
    box.run("t1", core("cpu2"))
    box.happen(Ended(key("t1"), Exit(code=0)))
    box.happen(GivenBack(key("t1"), {CORE: "busy"}))
    box.persist()
    box.order(Forget(key("t1")))
    waits = []
    for _ in range(9):
        due_s = box.retry_s()
        waits.append(due_s - box.now_s)
        box.now_s = due_s
        assert GiveBack(key("t1"), tuple(box.grants().values())) in box.happen(Tick())
        box.happen(GivenBack(key("t1"), {CORE: "busy"}))
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    box.happen(GivenBack(key("t1")))
    assert box.grants() == {}
    assert "cpu2" in box.offered()


def test_a_plugin_that_is_back_is_asked_at_once(box: Box) -> None:
    """Devices that could not be given back because their plugin was gone do not wait for the timer."""
    box.run("t1", core("cpu2"))
    box.happen(Inventoried("cpu", GONE))
    box.happen(Ended(key("t1"), Exit(code=0)))
    for _ in range(6):
        box.happen(GivenBack(key("t1"), {CORE: "its plugin is gone"}))
    box.happen(Inventoried("cpu", CORES))
    assert box.retry_s() == box.now_s


# --- restart ----------------------------------------------------------------------------------------------------


def test_an_adopted_task_keeps_its_devices(box: Box) -> None:
    """After a restart nobody else gets what a task holds that still runs; at its end it is given back."""
    box.run("t1", core("cpu2"))
    again, effects = box.restarted(handle("t1"))
    assert effects == [Watch(handle("t1"))] + [effect for effect in effects if not isinstance(effect, Watch)]
    assert not any(isinstance(effect, GiveBack) for effect in effects)
    assert again.launch(spec("t2", core("cpu2"))) == []
    assert isinstance(again.happen(Ended(key("t1"), Exit(code=0)))[0], GiveBack)


def test_a_start_is_said_again_with_its_grants(box: Box) -> None:
    """A task that was never started is started by the next process, with the same devices."""
    [start] = box.launch(spec("t1", core("cpu2")))
    _, effects = box.restarted()
    assert start in effects


def test_a_lost_task_gives_back_before_it_is_told(box: Box) -> None:
    """A task that is gone with a power cut is FAILED after its devices were taken back."""
    box.run("t1", core("cpu2"))
    again, effects = box.restarted()
    assert GiveBack(key("t1"), tuple(box.grants().values())) in effects
    assert again.status("t1").state is TaskState.RUNNING
    again.happen(GivenBack(key("t1")))
    assert again.status("t1").state is TaskState.FAILED


def test_running_tasks_whose_plugin_is_late(box: Box) -> None:
    """Devices that no plugin has reported since the restart are neither lost nor anybody else's."""
    box.run("t1", stick("stop"))
    again, effects = box.restarted(handle("t1"), plugins=False)
    assert not any(isinstance(effect, Stop) for effect in effects)
    assert again.happen(Inventoried("hotplug", STICKS)) == []
    assert again.launch(spec("t2", stick("wait"))) == []
    assert "held by task 't1'" in again.status("t2").message


def test_a_start_waits_for_a_late_plugin(box: Box) -> None:
    """A task that was fetched when the agent ended is not refused because its plugin has not spoken yet."""
    box.order(Launch(key("t1"), "*", replace(spec("t1", core("cpu2")), blobs=(BLOB,))))
    again, effects = box.restarted(plugins=False)
    assert any(isinstance(effect, Fetch) for effect in effects)
    assert again.happen(Fetched(key("t1"))) == []
    assert again.status("t1").message == f"it waits for the plugin of class {CORE}"
    [start] = again.happen(Inventoried("cpu", CORES))
    assert isinstance(start, Start)


def test_a_quarantine_outlives_the_agent(box: Box) -> None:
    """What was not clean is given back by the next process, and not offered before it is."""
    box.run("t1", core("cpu2"))
    box.happen(Ended(key("t1"), Exit(code=0)))
    box.happen(GivenBack(key("t1"), {CORE: "busy"}))
    again, effects = box.restarted()
    assert GiveBack(key("t1"), tuple(box.grants().values())) in effects
    assert "cpu2" not in again.offered()
    again.happen(GivenBack(key("t1")))
    assert "cpu2" in again.offered()


# --- the machine ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", GrantState)
@pytest.mark.parametrize("signal", GrantSignal)
def test_moves_of_the_table_only(state: GrantState, signal: GrantSignal) -> None:
    """A pair that is not in the table is a broken rule, and says so."""
    holding = Holding((), state)
    after = GRANT_MOVES[state].get(signal)
    if after is None:
        with pytest.raises(IllegalMove):
            holding.move(signal)
    else:
        holding.move(signal)
        assert holding.state is after


def test_a_start_waits_for_a_plugin_only_so_long(box: Box) -> None:
    """Where no plugin comes, the task fails a minute later and says for what it waited; it is asked again by nobody."""
    box.order(Launch(key("t1"), "*", replace(spec("t1", core("cpu2")), blobs=(BLOB,))))
    again, _ = box.restarted(plugins=False)
    again.happen(Fetched(key("t1")))
    again.happen(Inventoried("hotplug", STICKS))  # somebody else's
    again.now_s = PLUGIN_S - 1
    again.happen(Tick())
    assert again.agent.tasks[key("t1")].live
    again.now_s = PLUGIN_S
    again.happen(Tick())
    status = again.status("t1")
    assert (status.state, status.reason) == (TaskState.FAILED, Reason.CONTAINER_LAUNCH_FAILED)
    assert f"the plugin of class {CORE}" in status.message
    assert again.grants() == {}
