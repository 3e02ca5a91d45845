"""A device is lost while a task has it: what its claim says happens."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.grants import PLUGINS, STICKS, USB, Box, core, handle, key, stick

from edgerm.core.devices import Device, DeviceClass, Inventory
from edgerm.core.link import Beat, Kill
from edgerm.core.tasks import Reason, TaskState
from edgerm.plugin.executor import Exit
from edgerm_agent.core.effects import Fetch, GiveBack, Release, Start, Stop
from edgerm_agent.core.events import (
    Ended,
    Fetched,
    GivenBack,
    Inventoried,
    Recovered,
    Released,
    Started,
    StartFailed,
    Tick,
)
from edgerm_agent.core.losing import Rule, rule_of
from edgerm_agent.core.records import Phase
from edgerm_agent.core.way import PLUGIN_S

PULLED = replace(STICKS, devices=())
TERMINATED = Exit(signal=15)
NO_STICK = f"{USB} 'stick' is not here"


@pytest.fixture
def box() -> Box:
    """An agent with devices, a session and nothing to do."""
    found = Box()
    found.up()
    return found


def stopped(box: Box) -> Box:
    """Task t1 was stopped, for its stick was pulled; its executor has not forgotten it yet."""
    box.run("t1", stick("restart"), core("cpu2"))
    box.happen(Inventoried("hotplug", PULLED))
    box.happen(Ended(key("t1"), TERMINATED))
    box.happen(GivenBack(key("t1")))
    return box


def waiting(box: Box) -> Box:
    """Task t1 was stopped, and is forgotten by its executor."""
    stopped(box).happen(Released(key("t1")))
    return box


@pytest.mark.parametrize("rule", ["wait", "nonsense"])
def test_wait_is_nothing(box: Box, rule: str) -> None:
    """A task that waits, by its claim or because nothing else is said, runs on."""
    box.run("t1", stick(rule))
    assert box.happen(Inventoried("hotplug", PULLED)) == []
    assert box.agent.tasks[key("t1")].run.phase is Phase.RUNNING


@pytest.mark.parametrize(
    ("inventory", "words"),
    [
        (PULLED, NO_STICK),
        (replace(STICKS, devices=(Device(USB, "stick", problem="no power"),)), f"{USB} 'stick': no power"),
    ],
)
def test_stop_fails_and_names_the_device(box: Box, inventory: Inventory, words: str) -> None:
    """The task is stopped with its grace and is FAILED, with the device in the message, after it was given back."""
    box.run("t1", stick("stop"))
    assert box.happen(Inventoried("hotplug", inventory)) == [Stop(handle("t1"), 3.0)]
    assert box.happen(Inventoried("hotplug", inventory)) == []
    assert isinstance(box.happen(Ended(key("t1"), TERMINATED))[0], GiveBack)
    box.happen(GivenBack(key("t1")))
    status = box.status("t1")
    assert (status.state, status.reason) == (TaskState.FAILED, Reason.RESOURCES_UNKNOWN)
    assert status.message == f"stopped: {words}; ended by signal 15"


def test_a_plugin_that_goes_loses_nothing(box: Box) -> None:
    """That nobody tells of a device any more is no loss."""
    box.run("t1", stick("stop"))
    gone = Inventory((DeviceClass(USB, config_keys=("on_loss",), problem="its plugin is gone"),))
    assert box.happen(Inventoried("hotplug", gone)) == []


def test_only_where_the_class_has_the_key(box: Box) -> None:
    """A class without `on_loss` among its keys has no such rule."""
    box.run("t1", stick("stop"))
    assert box.happen(Inventoried("hotplug", Inventory((DeviceClass(USB),)))) == []


def test_restart_waits_and_says_for_what(box: Box) -> None:
    """The task stays RUNNING for the master, with a message; it keeps its other devices, unprepared."""
    run = stopped(box).agent.tasks[key("t1")].run
    assert (run.phase, run.state, run.handle) == (Phase.WAITING, TaskState.RUNNING, None)
    assert {record.name for record in box.grants().values()} == {USB, core("cpu2").type}
    box.persist()
    told = [update.status for send in box.sent if isinstance(send.body, Beat) for update in send.body.updates]
    assert {status.state for status in told} == {TaskState.RUNNING}
    assert told[-1].message == f"it was stopped, and waits: {NO_STICK}"


def test_restart_on_return(box: Box) -> None:
    """When the device is back, what the task needs is looked for, and it is started anew with all its devices."""
    waiting(box)
    assert box.happen(Inventoried("hotplug", STICKS)) == [Fetch(key("t1"), (), "")]
    [start] = box.happen(Fetched(key("t1")))
    assert isinstance(start, Start)
    assert len(start.grants) == 2
    box.persist()
    box.happen(Started(key("t1"), handle("t1")))
    assert (box.status("t1").state, box.status("t1").message) == (TaskState.RUNNING, "it runs again")
    assert box.happen(Inventoried("hotplug", PULLED)) == [Stop(handle("t1"), 3.0)]


def test_no_start_before_the_executor_has_forgotten(box: Box) -> None:
    """An executor would answer a start of a key that it still has with the old run: its release comes first."""
    stopped(box)
    assert box.happen(Inventoried("hotplug", STICKS)) == []
    assert isinstance(box.happen(Released(key("t1")))[0], Fetch)


def test_no_start_with_unclean_devices(box: Box) -> None:
    """What is found on a device of a task that waits is taken back again before the task starts anew."""
    box.run("t1", stick("restart"))
    box.happen(Inventoried("hotplug", PULLED))
    box.happen(Ended(key("t1"), TERMINATED))
    box.happen(GivenBack(key("t1"), {USB: "still mounted"}))
    box.happen(Released(key("t1")))
    assert box.happen(Inventoried("hotplug", STICKS)) == []
    assert "stick" not in box.offered()
    box.now_s = 1.0
    assert any(isinstance(effect, GiveBack) for effect in box.happen(Tick()))
    assert isinstance(box.happen(GivenBack(key("t1")))[0], Fetch)


def test_a_task_that_notices_first_is_started_again(box: Box) -> None:
    """A task that fails because its device is gone, before its plugin says so, is treated as if it were told."""
    box.run("t1", stick("restart"))
    box.happen(Ended(key("t1"), Exit(code=1)))
    box.happen(Inventoried("hotplug", PULLED))
    assert box.happen(GivenBack(key("t1"))) == [Release(key("t1"), handle("t1"))]
    assert box.agent.tasks[key("t1")].run.phase is Phase.WAITING


def test_lost_again_while_it_starts(box: Box) -> None:
    """A device that goes while the task is prepared anew makes it wait once more; at its first start it FAILS."""
    waiting(box).happen(Inventoried("hotplug", STICKS))
    box.happen(Fetched(key("t1")))
    box.happen(Inventoried("hotplug", PULLED))
    box.happen(StartFailed(key("t1"), "no stick"))
    box.happen(GivenBack(key("t1")))
    assert box.agent.tasks[key("t1")].run.phase is Phase.WAITING


@pytest.mark.parametrize("when", ["stopping", "returning", "waiting"])
def test_a_kill_ends_the_wait(box: Box, when: str) -> None:
    """A task that is killed while it is stopped, given back or waits is KILLED, and its devices are free."""
    box.run("t1", stick("restart"), core("cpu2"))
    box.happen(Inventoried("hotplug", PULLED))
    for name in ("stopping", "returning", "waiting"):
        if name == when:
            box.order(Kill(key("t1")))
        if name == "stopping":
            box.happen(Ended(key("t1"), TERMINATED))
        if name == "returning":
            box.happen(GivenBack(key("t1")))
    assert box.status("t1").state is TaskState.KILLED
    assert box.grants() == {}


def test_a_wait_outlives_the_agent(box: Box) -> None:
    """The next process releases what the executor still has, takes the devices back, then starts the task anew."""
    stopped(box)
    again, effects = box.restarted(handle("t1"))
    assert GiveBack(key("t1"), tuple(box.grants().values())) in effects
    assert Release(key("t1"), handle("t1")) in effects
    assert again.happen(GivenBack(key("t1"))) == []
    assert isinstance(again.happen(Released(key("t1")))[0], Fetch)


def test_a_stop_outlives_the_agent(box: Box) -> None:
    """A task that was being stopped for its device is stopped by the next process, and waits then."""
    box.run("t1", stick("restart"))
    box.happen(Inventoried("hotplug", PULLED))
    again, effects = box.restarted(handle("t1"))
    assert Stop(handle("t1"), 3.0) in effects
    again.happen(Ended(key("t1"), TERMINATED))
    again.happen(GivenBack(key("t1")))
    assert again.agent.tasks[key("t1")].run.phase is Phase.WAITING


def test_a_loss_while_the_agent_was_away(box: Box) -> None:
    """A device that was pulled while no agent was there is lost when its plugin says what there is."""
    box.run("t1", stick("stop"))
    again = Box(box.rows, 2)
    again.happen(Inventoried("hotplug", PULLED))
    effects = again.happen(Recovered({"process": "keeper-1"}, {key("t1"): handle("t1")}))
    assert Stop(handle("t1"), 3.0) in effects


def test_a_flapping_device_does_not_pile_up_updates(box: Box) -> None:
    """However often a task waits and runs again, a master that is away is owed the latest only."""
    box.run("t1", stick("restart"))
    for _ in range(5):
        box.happen(Inventoried("hotplug", PULLED))
        box.happen(Ended(key("t1"), TERMINATED))
        box.happen(GivenBack(key("t1")))
        box.happen(Released(key("t1")))
        box.happen(Inventoried("hotplug", STICKS))
        box.happen(Fetched(key("t1")))
        box.happen(Started(key("t1"), handle("t1")))
    assert len(box.agent.tasks[key("t1")].run.owed) == 1


@pytest.mark.parametrize("config", ["", "{}", "[]", "nonsense", '{"on_loss":7}', "[" * 100_000])
def test_what_is_no_rule(config: str) -> None:
    """Whatever stands in a config, a rule that is none is to wait."""
    assert rule_of(replace(stick("stop"), config=config)) is Rule.WAIT


def test_what_ran_before_waits_for_its_plugin_without_end(box: Box) -> None:
    """A task that is about to run again when the agent ends goes on to wait, however long its plugin stays away."""
    waiting(box).happen(Inventoried("hotplug", STICKS))
    again, _ = box.restarted(plugins=False)
    again.happen(Fetched(key("t1")))
    again.now_s = PLUGIN_S
    again.happen(Tick())
    run = again.agent.tasks[key("t1")].run
    assert (run.phase, run.state) == (Phase.WAITING, TaskState.RUNNING)
    effects = [effect for told in PLUGINS.items() for effect in again.happen(Inventoried(*told))]
    assert effects == [Fetch(key("t1"), (), "")]
    [start] = again.happen(Fetched(key("t1")))
    assert isinstance(start, Start)
