"""GPIO chips for tasks, on fake chips: what is told, what a task gets, and that lines are safe without a task."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fake_gpio import FakeChip, FakeChips, check_chips

from edgerm.core.devices import Device, Inventory
from edgerm.core.errors import Conflict, EdgermError, Invalid
from edgerm.core.ids import FrameworkId, LaunchId, TaskId, TaskKey
from edgerm.core.metadata import read
from edgerm.plugin.device import DeviceNode, Given, GpioChip, Grant, HostFiles, NotClean
from edgerm.testing.conformance.device import DevicePluginSuite
from edgerm.testing.hostfs import RecordedHost
from edgerm_agent.config import Chip as Setting
from edgerm_agent.config import Gpio
from edgerm_agent.devices.gpio import parts
from edgerm_agent.devices.gpio.parts import CLASS, safe_levels
from edgerm_agent.devices.gpio.plugin import BOOT_ID, GRANT, GpioPlugin
from edgerm_agent.devices.gpio.safety import US, Safety
from edgerm_agent.devices.hostfs import Host
from edgerm_agent.lines import Chip, Line, Lines

PATH = "/dev/gpiochip0"
DEADLINE_S = 20
SETTINGS = Gpio(chips=(Setting(PATH, ("plc", "io")),))


class Box(Host):
    """A box with fake chips; `boot` changes when its power is cut."""

    def __init__(self, notes: Path, *chips: FakeChip) -> None:
        super().__init__(notes)
        self.boot = "first"
        self.chips = FakeChips(*chips)

    def read(self, path: str) -> str:
        assert path == BOOT_ID
        return f"{self.boot}\n"


@pytest.fixture
def chip() -> FakeChip:
    """Four lines, the last of which the kernel has."""
    return FakeChip(PATH, "START", "motor 1,2", "", "LED", hogs={3: "led-driver"})


@pytest.fixture
def box(tmp_path: Path, chip: FakeChip) -> Box:
    """A box with that chip."""
    return Box(tmp_path / "notes", chip)


class TestConformance(DevicePluginSuite):
    """The plugin keeps to what every plugin does."""

    config: ClassVar[Mapping[str, object]] = {"id": "in"}
    wrong_configs: ClassVar[tuple[Mapping[str, object], ...]] = ({"id": 1}, {"safe_state": {"START": 2}})

    def make_host(self, path: Path) -> HostFiles:
        """A box with two fake chips."""
        self.chips = FakeChips(FakeChip(PATH, "START", "", hogs={1: "kernel"}), FakeChip("/dev/gpiochip1", "STOP"))
        return RecordedHost(files={BOOT_ID: "first\n"})

    def make_plugin(self, host: HostFiles) -> GpioPlugin:
        """Of that box."""
        return GpioPlugin(Gpio(chips=(Setting(PATH), Setting("/dev/gpiochip1"))), host, self.chips)

    def look(self, host: HostFiles) -> object:
        """Lines and notes."""
        lines = [(chip.users, chip.driven) for chip in self.chips.here.values()]
        keys = host.notes.keys()
        return repr(lines), {key: host.notes.get(key) for key in keys}


class TestConformanceWithSafeState(TestConformance):
    """So it does with a safe state, but for the lines that are kept there afterwards."""

    config: ClassVar[Mapping[str, object]] = {"safe_state": {"0": 1}}
    wrong_configs: ClassVar[tuple[Mapping[str, object], ...]] = ({"safe_state": {"0": 1, "9": 1}},)

    def make_plugin(self, host: HostFiles) -> GpioPlugin:
        """In a process of its own: what an earlier life held is free."""
        for chip in self.chips.here.values():
            chip.users = {at: user for at, user in chip.users.items() if user != US}
        return super().make_plugin(host)

    def look(self, host: HostFiles) -> object:
        """Who has lines beside us, and who has chips."""
        users = [{at: user for at, user in chip.users.items() if user != US} for chip in self.chips.here.values()]
        return users, [key for key in host.notes.keys() if key.startswith(GRANT)]  # noqa: SIM118 - no mapping


@asynccontextmanager
async def living(
    box: Box, settings: Gpio = SETTINGS, look_s: float = 0.001
) -> AsyncIterator[tuple[GpioPlugin, AsyncIterator[Inventory]]]:
    """A plugin whose first inventory was told, in an agent that is stopped in order."""
    plugin = GpioPlugin(settings, box, box.chips, look_s=look_s)
    inventories = plugin.watch()
    async with asyncio.timeout(DEADLINE_S):
        await anext(inventories)
        yield plugin, inventories
    await inventories.aclose()  # type: ignore[attr-defined]


def grant(config: Mapping[str, object] | None = None, name: str = "plc", task: str = "t") -> Grant:
    """A task with one chip."""
    key = TaskKey(FrameworkId("f"), TaskId(task), LaunchId("l"))
    return Grant(key, CLASS, (Given("io", config or {}, (Device(CLASS, name),)),), "docker")


def test_the_fake_is_a_chip() -> None:
    """The fake keeps to what real chips keep to."""
    check_chips(FakeChips(FakeChip(PATH, "START", "")), PATH)


# --- what is told ---


async def test_a_chip_is_told(box: Box) -> None:
    """A chip is told by its first label, with labels, name, lines by offset and name; it is exclusive and healthy."""
    async with living(box) as (plugin, _):
        (device,) = (await anext(plugin.watch())).devices
    assert (device.id, device.shared, device.problem, device.gives) == ("plc", False, "", (f"node {PATH} rw",))
    assert read(device.metadata) == {
        "name": "gpiochip0",
        "label": "fake chip",
        "labels": ["plc", "io"],
        "lines": {"offsets": [0, 1, 2, 3], "names": ["START", "motor 1,2", "", "LED"]},
    }


async def test_a_chip_that_goes_and_comes(box: Box, chip: FakeChip) -> None:
    """A chip that is not there is told with the reason, and healthy when it comes again."""
    async with living(box) as (_, inventories):
        del box.chips.here[PATH]
        assert [device.problem for device in (await anext(inventories)).devices] == [
            f"{PATH}: No such file or directory"
        ]
        box.chips.here[PATH] = chip
        assert [device.problem for device in (await anext(inventories)).devices] == [""]


@pytest.mark.parametrize(
    ("chips", "words"),
    [
        ((Setting("gpiochip0"),), r"devices.gpio.chips\[0\].path = 'gpiochip0'"),
        ((Setting(PATH, ("a b",)),), "'a b' is its id"),
        ((Setting(PATH, ("a", "")),), r"chips\[0\].labels"),
        ((Setting(PATH, ("a",)), Setting("/dev/gpiochip1", ("a",))), "'a' is the id of another chip"),
        ((Setting(PATH),) * 65, "at most 64"),
    ],
)
def test_wrong_settings_are_refused(chips: tuple[Setting, ...], words: str) -> None:
    """What is wrong with the operator's chips is told with its place."""
    with pytest.raises(Invalid, match=words):
        parts.declared(chips)


def test_a_chip_without_labels_has_its_name() -> None:
    """The id of a chip without labels is the last part of its path."""
    assert parts.declared((Setting("/dev/serial-io"),))[0].id == "serial-io"


# --- what a task gets ---


async def test_what_a_task_gets(box: Box) -> None:
    """A task gets the node and four columns that fit together; words of a column have no blanks or commas inside."""
    box.chips.here["/dev/gpiochip7"] = FakeChip("/dev/gpiochip7", "X")
    settings = Gpio(chips=(*SETTINGS.chips, Setting("/dev/gpiochip7")))
    both = Given("io", {"id": "in"}, (Device(CLASS, "plc"),)), Given("io2", {}, (Device(CLASS, "gpiochip7"),))
    async with living(box, settings) as (plugin, _):
        wanted = Grant(grant().task, CLASS, both, "docker")
        setup = await plugin.prepare(wanted)
        assert await plugin.prepare(wanted) == setup
    assert dict(setup.env) == {
        "IEDGE_GPIO_IDS": "in,",
        "IEDGE_GPIO_DEVICES": f"{PATH},/dev/gpiochip7",
        "IEDGE_GPIO_LINE_OFFSETS": "0 1 2 3,0",
        "IEDGE_GPIO_LINE_LABELS": "START motor_1_2 unnamed LED,X",
    }
    assert setup.nodes == (DeviceNode(PATH, PATH, "rw"), DeviceNode("/dev/gpiochip7", "/dev/gpiochip7", "rw"))
    assert setup.chips == (GpioChip("in", PATH), GpioChip("", "/dev/gpiochip7"))


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"id": "a,b"}, "claim 'io': id = 'a,b'"),
        ({"id": 3}, "claim 'io': id = 3"),
        ({"safe_state": [1]}, r"claim 'io': safe_state = \[1\]"),
        ({"safe_state": {"STOP": 0}}, r"gpiochip0 \[fake chip\] has no line 'STOP'"),
        ({"safe_state": {"4": 0}}, "has no line '4'"),
        ({"safe_state": {"START": 2}}, "of line 'START' is 2"),
        ({"safe_state": {"START": True}}, "of line 'START' is True"),
        ({"safe_state": {"START": "1"}}, "of line 'START' is '1'"),
        ({"safe_state": {"START": 0, "0": 1}}, "says 0 and 1 of line 0"),
        ({"safe_state": {"LED": 0}}, "line 3 'LED' of gpiochip0 is used by 'led-driver'"),
    ],
)
async def test_a_wrong_config_is_refused(box: Box, config: dict[str, object], words: str) -> None:
    """A config that the chip cannot follow is refused with claim, line and value; then nothing is left to release."""
    async with living(box) as (plugin, _):
        with pytest.raises((Invalid, Conflict), match=words):
            await plugin.prepare(grant(config))
        await plugin.release(grant(config))
    assert box.notes.keys() == ()


def test_a_name_of_two_lines() -> None:
    """A name that two lines have says nothing; their offsets do."""
    twins = Chip(PATH, "gpiochip0", "fake", (Line(0, "A"), Line(1, "A"), Line(2, "0")))
    with pytest.raises(Invalid, match="has 2 lines 'A'; write the offset"):
        safe_levels("c", {"safe_state": {"A": 1}}, twins)
    assert safe_levels("c", {"safe_state": {"1": 1, "0": 0}}, twins) == {1: 1, 2: 0}  # a name goes before an offset


@given(st.dictionaries(st.text(max_size=4), st.one_of(st.integers(-1, 2), st.booleans(), st.text(max_size=2))))
def test_any_safe_state_is_read_or_refused(stated: dict[str, object]) -> None:
    """Whatever a claim states, the answer is levels 0 and 1 of lines of the chip, or a refusal."""
    chip = Chip(PATH, "gpiochip0", "fake", tuple(Line(offset, f"L{offset}") for offset in range(12)))
    try:
        levels = safe_levels("c", {"safe_state": stated}, chip)
    except EdgermError:
        return
    assert set(levels) <= set(range(12))
    assert set(levels.values()) <= {0, 1}


# --- lines are safe ---

SAFE = {"safe_state": {"START": 0, "2": 1}}


def drive(box: Box, *levels: int, user: str = "task") -> Lines:
    """A task's program that drives the first lines."""
    lines = box.chips.open(PATH, user)
    for offset, level in enumerate(levels):
        lines.write(offset, level)
    return lines


async def test_lines_are_safe_after_the_task(box: Box, chip: FakeChip) -> None:
    """When the task has ended its lines are driven to their safe levels, until the chip is given to the next one."""
    async with living(box) as (plugin, _):
        await plugin.prepare(grant(SAFE))
        drive(box, 1, 1).close()
        for _ in range(2):
            await plugin.release(grant(SAFE))
        assert (chip.driven, chip.users) == ({0: 0, 2: 1}, {0: US, 2: US, 3: "led-driver"})
        await plugin.prepare(grant(SAFE, task="next"))
        assert (chip.driven, chip.users) == ({}, {3: "led-driver"})
        drive(box, 1, 1).close()
        await plugin.release(grant({}, task="next"))
        assert chip.driven == {0: 0, 2: 1}
        await plugin.prepare(grant({}, task="last"))
        await plugin.release(grant({}, task="last"))
        assert chip.driven == {}  # the last task has not said what is safe


async def test_a_line_in_use_is_not_clean(box: Box, chip: FakeChip) -> None:
    """A line that somebody still drives is told with its user; the others are safe at once, it is when it is free."""
    async with living(box) as (plugin, _):
        await plugin.prepare(grant(SAFE))
        left_over = drive(box, 1, user="left-over")
        with pytest.raises(NotClean, match="line 0 'START' of gpiochip0 is used by 'left-over'"):
            await plugin.release(grant(SAFE))
        assert chip.driven == {0: 1, 2: 1}
        left_over.close()
        await plugin.release(grant(SAFE))
        assert chip.driven == {0: 0, 2: 1}


async def test_a_stranger_on_any_line_is_not_clean(box: Box) -> None:
    """A line without a safe level must be free, too; one that the kernel had before the task may stay its."""
    async with living(box) as (plugin, _):
        await plugin.prepare(grant())
        lines = box.chips.open(PATH, "stranger")
        lines.read(1)
        with pytest.raises(NotClean, match="line 1 'motor 1,2' of gpiochip0 is used by 'stranger'"):
            await plugin.release(grant())
        lines.close()
        await plugin.release(grant())


async def test_the_agent_stops_while_the_task_runs(box: Box, chip: FakeChip) -> None:
    """When the agent stops, a line that the task drives stays as it is, and one that nobody drives is made safe."""
    written: list[tuple[int, int]] = []
    async with living(box) as (plugin, _):
        await plugin.prepare(grant(SAFE))
        running = drive(box, 1)
        chip.driven = Recording(written, chip.driven)
    assert written == [(2, 1)]
    assert chip.users == {0: "task", 3: "led-driver"}
    async with living(box) as (plugin, _):  # the agent is there again, and so is the task
        assert chip.users == {0: "task", 3: "led-driver"}
        running.close()
        await plugin.release(grant(SAFE))
        assert dict(chip.driven) == {0: 0, 2: 1}


class Recording(dict[int, int]):
    """Levels, and who set them when."""

    def __init__(self, written: list[tuple[int, int]], levels: dict[int, int]) -> None:
        super().__init__(levels)
        self.written = written

    def __setitem__(self, offset: int, level: int) -> None:
        self.written.append((offset, level))
        super().__setitem__(offset, level)


async def test_lines_are_safe_after_a_power_cut(box: Box, chip: FakeChip) -> None:
    """After a power cut lines are safe before anything is told, whether their task was running or over."""
    plugin = GpioPlugin(SETTINGS, box, box.chips)
    await plugin.prepare(grant(SAFE))
    box.boot = "second"
    async with living(box) as (plugin, _):
        assert chip.driven == {0: 0, 2: 1}
        await plugin.release(grant(SAFE))
    chip.driven.clear()
    chip.users = {3: "led-driver"}
    box.boot = "third"
    async with living(box):
        assert chip.driven == {0: 0, 2: 1}


async def test_a_chip_that_comes_again_is_made_safe(box: Box, chip: FakeChip) -> None:
    """A chip that goes while it must be safe is no hindrance to its release, and is made safe when it comes again."""
    async with living(box) as (plugin, inventories):
        await plugin.prepare(grant(SAFE))
        del box.chips.here[PATH]
        await plugin.release(grant(SAFE))
        assert chip.driven == {}
        await anext(inventories)
        box.chips.here[PATH] = chip
        await anext(inventories)
        assert chip.driven == {0: 0, 2: 1}


def test_a_chip_that_was_away_between_two_looks(box: Box, chip: FakeChip) -> None:
    """Lines that are not ours any more, though nobody took them, are driven anew."""
    safety = Safety(box.chips, box.notes)
    safety.state("plc", {0: 0, 2: 1})
    assert safety.apply("plc", PATH) == ()
    safety.check(box.chips.look(PATH), "plc")
    assert chip.driven == {0: 0, 2: 1}
    chip.driven, chip.users = {}, {}
    safety.check(box.chips.look(PATH), "plc")
    assert safety.apply("plc", PATH) == ()
    assert chip.driven == {0: 0, 2: 1}


async def test_a_safe_line_that_is_taken(box: Box, chip: FakeChip) -> None:
    """A chip whose line cannot be made safe, because somebody has it, is not offered; the reason names the line."""
    plugin = GpioPlugin(SETTINGS, box, box.chips)
    await plugin.prepare(grant(SAFE))
    box.boot = "second"
    chip.users[2] = "somebody"
    (device,) = (await anext(GpioPlugin(SETTINGS, box, box.chips).watch())).devices
    assert "line 2 of /dev/gpiochip0 cannot be driven to its safe level: it is in use" in device.problem


async def test_a_chip_that_is_declared_no_more(box: Box) -> None:
    """A task's chip that the operator has taken out of the settings is given back, and forgotten."""
    async with living(box) as (plugin, _):
        await plugin.prepare(grant(SAFE))
    async with living(box, Gpio()) as (plugin, _):
        with pytest.raises(Conflict, match="'plc' is not in the agent's settings any more"):
            await plugin.prepare(grant(SAFE, task="next"))
        await plugin.release(grant(SAFE))
    assert box.notes.keys() == ()


async def test_a_release_waits_for_a_prepare_that_was_given_up(box: Box) -> None:
    """What a broken off prepare still does in its thread is undone, too: its chip is no task's afterwards."""
    reached, gate, look = threading.Event(), threading.Event(), box.chips.look

    def slow(path: str) -> Chip:
        reached.set()
        assert gate.wait(DEADLINE_S)
        return look(path)

    async with living(box, look_s=60) as (plugin, _):
        box.chips.look = slow  # type: ignore[method-assign]
        preparing = asyncio.create_task(plugin.prepare(grant()))
        await asyncio.to_thread(reached.wait, DEADLINE_S)
        preparing.cancel()
        await asyncio.gather(preparing, return_exceptions=True)
        releasing = asyncio.create_task(plugin.release(grant()))
        assert (await asyncio.wait({releasing}, timeout=0.05))[0] == set()
        gate.set()
        await releasing
        box.chips.look = look  # type: ignore[method-assign]
    assert [key for key in box.notes.keys() if key.startswith(GRANT)] == []  # noqa: SIM118 - no mapping
