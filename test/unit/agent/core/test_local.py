"""Local grants, an agent without a master, and plugins that choose."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.grants import ACCEL, ACCELS, CORE, Box, core, key, local, spec

from edgerm.core.claims import Granted
from edgerm.core.devices import resources_granted
from edgerm.core.link import Join
from edgerm.core.scheduler import TaskSpec
from edgerm.core.tasks import TaskState
from edgerm.plugin.executor import Exit, Handle
from edgerm_agent.core.effects import Choose, GiveBack, LocalEnded, LocalRefused, Release, Start, Stop
from edgerm_agent.core.events import (
    Chosen,
    Ended,
    Fetched,
    GivenBack,
    KillLocal,
    LaunchLocal,
    Released,
    Started,
    StartFailed,
)

MINE = Handle(local("mine"), "process", "keeper-1")


@pytest.fixture
def box() -> Box:
    """An agent with devices, a session and nothing to do."""
    found = Box()
    found.up()
    return found


def mine(*granted: Granted) -> LaunchLocal:
    return LaunchLocal(local("mine"), replace(spec("mine", *granted), resources=resources_granted(granted)))


def took(box: Box) -> Box:
    """Somebody on the box has cpu2."""
    box.happen(mine(core("cpu2")))
    box.happen(Started(local("mine"), MINE))
    return box


def test_a_local_grant_leaves_the_offer(box: Box) -> None:
    """Its device is shown with who has it, is not offered, and a launch that wants it is told so."""
    [start] = box.happen(mine(core("cpu2")))
    assert isinstance(start, Start)
    assert len(start.grants) == 1
    assert {d.id: d.held_by for d in box.agent.spec.inventory.devices if d.held_by} == {"cpu2": "mine"}
    assert "cpu2" not in box.offered()
    assert "cpu2" not in {device.id for device in box.agent.free}
    box.launch(spec("t1", core("cpu2")))
    assert f"claim 'rt': {CORE} 'cpu2' is held by local grant 'mine'" in box.status("t1").message


def test_no_master_hears_of_it(box: Box) -> None:
    """Whatever happens to it, the master is told of the device alone."""
    took(box)
    box.beat()
    join = next(send.body for send in reversed(box.sent) if isinstance(send.body, Join))
    assert join.tasks == ()
    assert box.agent.tasks[local("mine")].run.owed == ()


def test_a_local_grant_is_forgotten_at_its_end(box: Box) -> None:
    """Asked to end, it is stopped, its devices are taken back, and nothing of it is left."""
    before = dict(box.rows)
    took(box)
    assert box.happen(KillLocal(local("mine"))) == [Stop(MINE, 3.0)]
    assert isinstance(box.happen(Ended(local("mine"), Exit(signal=15)))[0], GiveBack)
    effects = box.happen(GivenBack(local("mine")))
    assert LocalEnded(local("mine")) in effects
    assert Release(local("mine"), MINE) in effects
    assert (box.rows, dict(box.agent.tasks)) == (before, {})
    assert "cpu2" in box.offered()
    box.happen(Released(local("mine")))
    assert box.happen(KillLocal(local("mine"))) == []


def test_a_local_grant_that_cannot_be(box: Box) -> None:
    """Refused at once, with the reason, and nothing is stored."""
    box.run("t1", core("cpu2"))
    before = dict(box.rows)
    [refused] = box.happen(mine(core("cpu2")))
    assert isinstance(refused, LocalRefused)
    assert "'cpu2' is held by task 't1' of framework f" in refused.why
    assert box.rows == before


def test_a_local_grant_that_cannot_be_prepared(box: Box) -> None:
    """Told when what was prepared is taken back."""
    box.happen(mine(core("cpu2")))
    assert isinstance(box.happen(StartFailed(local("mine"), "no dynamic tuning here"))[0], GiveBack)
    assert LocalRefused(local("mine"), "no dynamic tuning here") in box.happen(GivenBack(local("mine")))


def test_a_local_grant_outlives_the_agent(box: Box) -> None:
    """The next process still has it, and its device is not in its first join."""
    took(box)
    again, effects = box.restarted(MINE)
    assert not any(isinstance(effect, GiveBack) for effect in effects)
    join = again.sent[0].body
    assert isinstance(join, Join)
    assert {d.id for d in join.agent.inventory.devices if d.held_by} == {"cpu2"}


def test_alone_nothing_is_sent() -> None:
    """An agent without a master sends nothing and asks for no tick, and makes local grants."""
    box = Box(alone=True)
    box.up()
    assert (box.sent, box.agent.due_s()) == ([], None)
    assert isinstance(took(box).agent.tasks[local("mine")].record.task, TaskSpec)
    box.happen(KillLocal(local("mine")))
    box.happen(Ended(local("mine"), Exit(code=0)))
    box.happen(GivenBack(local("mine")))
    assert (box.sent, box.agent.due_s(), box.grants()) == ([], None, {})


# --- plugins that choose ------------------------------------------------------------------------------------------


def accel(*ids: str) -> Granted:
    return Granted("fast", ACCEL, ids)


def test_the_plugin_is_asked_before_the_start(box: Box) -> None:
    """It chooses among the free devices that no filter can tell from those that were given; its choice is stored."""
    [choose] = box.launch(spec("t1", accel("a0")))
    assert isinstance(choose, Choose)
    assert choose.free == ("a0", "a1")
    [start] = box.happen(Chosen(key("t1"), ACCEL, {"fast": ("a1",)}))
    assert isinstance(start, Start)
    assert start.grants[0].granted == (accel("a1"),)
    assert start.task == spec("t1", accel("a1"))
    assert box.agent.tasks[key("t1")].record.task == start.task
    assert "a0" in {device.id for device in box.agent.free}
    box.happen(Started(key("t1"), Handle(key("t1"), "process", "keeper-1")))
    assert box.status("t1").granted == (accel("a1"),)


@pytest.mark.parametrize("ids", [(), ("a2",), ("a9",), ("a0", "a1"), ("a1", "a1")])
def test_a_choice_that_cannot_be(box: Box, ids: tuple[str, ...]) -> None:
    """A choice of too many, of none, or of what does not fit is void: the task has what it was given."""
    box.launch(spec("t1", accel("a0")))
    [start] = box.happen(Chosen(key("t1"), ACCEL, {"fast": ids}))
    assert isinstance(start, Start)
    assert start.grants[0].granted == (accel("a0"),)


def test_what_is_taken_already_is_no_hindrance(box: Box) -> None:
    """Where the plugin chooses anyway, a device that was swapped in meanwhile is replaced by its equal, if there is."""
    box.launch(spec("t1", accel("a0")))
    [choose] = box.launch(spec("t2", accel("a0")))
    assert isinstance(choose, Choose)
    assert choose.grant.granted == (accel("a1"),)
    assert box.launch(spec("t3", accel("a0"))) == []
    assert box.status("t3").state is TaskState.DROPPED


def test_a_late_choice_changes_nothing(box: Box) -> None:
    """A choice for a task that has started, has ended or is unknown is void."""
    box.launch(spec("t1", accel("a0")))
    box.happen(Chosen(key("t1"), ACCEL))
    for name in ("t1", "t2"):
        assert box.happen(Chosen(key(name), ACCEL, {"fast": ("a1",)})) == []
        assert box.changes == []


def test_a_choice_cut_in_two(box: Box) -> None:
    """Whatever rows of a choice are durable, the next process asks again, and gives no device to two tasks."""
    box.launch(spec("t1", accel("a0")))
    before = dict(box.rows)
    box.happen(Chosen(key("t1"), ACCEL, {"fast": ("a1",)}))
    assert [change.kind for change in box.changes] == ["grant", "task", "run"]
    for cut, device in ((1, "a0"), (2, "a1")):
        rows = dict(before)
        for change in box.changes[:cut]:
            rows[(change.kind, change.key)] = change.record  # type: ignore[union-attr, assignment]
        again = Box(rows, 2)
        again.up()
        [choose] = again.happen(Fetched(key("t1")))
        assert isinstance(choose, Choose)
        assert choose.grant.granted == (accel(device),)
        assert [record.granted for record in again.grants().values()] == [(accel(device),)]
        assert len(ACCELS.devices) - 1 == sum(d.name == ACCEL for d in again.agent.free)
