"""GPIO chips of the kernel's simulator: told, given to tasks, driven by modules, and safe whatever ends.

`make test-edgebox` compiles and loads gpio-sim. Its lines go back to their pulls as soon as nobody drives them, so a
level that stands against its pull is driven by somebody.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any, cast

import pytest
from support.fake_gpio import check_chips
from support.gpio_sim import MOTOR, SPARE, START, STOP, Bank, plug_in

from edgerm.core.devices import Device, Inventory
from edgerm.core.errors import Conflict
from edgerm.core.ids import FrameworkId, LaunchId, TaskId, TaskKey
from edgerm.core.metadata import read
from edgerm.plugin.device import Given, Grant, NotClean
from edgerm.plugin.executor import ExitReason, LaunchSpec
from edgerm_agent.cgroups import open_cgroups
from edgerm_agent.config import Chip, Gpio
from edgerm_agent.devices.gpio.parts import CLASS
from edgerm_agent.devices.gpio.plugin import GpioPlugin
from edgerm_agent.devices.hostfs import Host
from edgerm_agent.executors.wasm import WasmExecutor
from edgerm_agent.lines import CharacterDevices

pytestmark = [
    pytest.mark.edgebox,
    pytest.mark.skipif(os.environ.get("EDGEBOX") != "1", reason="needs the edgebox: make test-edgebox runs it"),
]

DEADLINE_S = 60
FOLLOWER = Path(__file__).parents[1] / "fixtures/wasm/lines.wasm"
SAFE = {"safe_state": {"MOTOR": 1}}


@pytest.fixture
def bank() -> Iterator[Bank]:
    """A chip of this test's own."""
    made = plug_in()
    yield made
    made.remove()


def make(bank: Bank, notes: Path) -> GpioPlugin:
    """The plugin of an agent that starts."""
    return GpioPlugin(Gpio(chips=(Chip(bank.path, ("plc", "io")),)), Host(notes), CharacterDevices())


async def first(plugin: GpioPlugin, then: Callable[[], None] = lambda: None) -> Inventory:
    """The first inventory; after `then` its agent stops."""
    async with asyncio.timeout(DEADLINE_S), aclosing(cast(Any, plugin.watch())) as inventories:
        async for inventory in inventories:
            then()
            return cast(Inventory, inventory)
    raise AssertionError("watch ended")


def grant(config: Mapping[str, object] | None = None) -> Grant:
    """A task with the chip."""
    key = TaskKey(FrameworkId("f"), TaskId("t"), LaunchId("l"))
    return Grant(key, CLASS, (Given("io", config or {}, (Device(CLASS, "plc"),)),), "docker")


def test_the_kernels_chips_are_chips(bank: Bank) -> None:
    """The kernel's chips keep to what the fake ones keep to."""
    check_chips(CharacterDevices(), bank.path)


async def test_a_chip_is_told_and_given(bank: Bank, tmp_path: Path) -> None:
    """A chip is told with labels, offsets and names; a task gets its node, and the columns that applications read."""
    plugin = make(bank, tmp_path)
    (device,) = (await first(plugin)).devices
    assert (device.id, device.problem) == ("plc", "")
    names = ["START", "MOTOR", "STOP", "LED", "", "", "", ""]
    assert read(device.metadata) == {
        "name": bank.name,
        "label": "plc-io",
        "labels": ["plc", "io"],
        "lines": {"offsets": list(range(8)), "names": names},
    }
    setup = await plugin.prepare(grant({"id": "in"}))
    assert dict(setup.env) == {
        "IEDGE_GPIO_IDS": "in",
        "IEDGE_GPIO_DEVICES": bank.path,
        "IEDGE_GPIO_LINE_OFFSETS": "0 1 2 3 4 5 6 7",
        "IEDGE_GPIO_LINE_LABELS": "START MOTOR STOP LED unnamed unnamed unnamed unnamed",
    }
    assert [node.host_path for node in setup.nodes] == [bank.path]
    await plugin.release(grant())


async def test_who_has_a_line_is_named(bank: Bank, tmp_path: Path) -> None:
    """A safe state of a line that the kernel keeps is refused, a line still in use is not clean: each with its user."""
    plugin = make(bank, tmp_path)
    with pytest.raises(Conflict, match=f"line 3 'LED' of {bank.name} is used by 'led-driver'"):
        await plugin.prepare(grant({"safe_state": {"LED": 0}}))
    await plugin.prepare(grant(SAFE))
    stranger = CharacterDevices().open(bank.path, "left-over")
    stranger.write(SPARE, 1)
    with pytest.raises(NotClean, match=f"line 4 of {bank.name} is used by 'left-over'"):
        await plugin.release(grant(SAFE))
    assert bank.level(MOTOR) == 1
    stranger.close()
    await plugin.release(grant(SAFE))


async def test_lines_are_safe_when_the_agent_is_there(bank: Bank, tmp_path: Path) -> None:
    """A safe level is driven from the end of the task on, again by the next agent, and not once another task has it."""
    plugin = make(bank, tmp_path)
    await plugin.prepare(grant(SAFE))
    assert bank.level(MOTOR) == 0
    await plugin.release(grant(SAFE))
    assert bank.level(MOTOR) == 1
    levels: list[int] = []
    await first(make(bank, tmp_path / "other"), lambda: levels.append(bank.level(MOTOR)))
    await first(plugin)  # stops: the simulator lets its lines go
    levels.append(bank.level(MOTOR))
    plugin = make(bank, tmp_path)
    await first(plugin, lambda: levels.append(bank.level(MOTOR)))
    assert levels == [1, 0, 1]
    await plugin.prepare(grant({}))
    assert bank.level(MOTOR) == 0
    await plugin.release(grant({}))


async def test_a_module_drives_lines_until_it_is_killed(bank: Bank, tmp_path: Path) -> None:
    """A module follows one line with another, and ends when it is told; what was killed with its host leaves no line
    in use, and the next life of the agent makes the chip safe."""
    cgroups = open_cgroups("gpio")
    executor = WasmExecutor(tmp_path, cgroups)
    plugin = make(bank, tmp_path / "notes")
    try:
        async with asyncio.timeout(4 * DEADLINE_S):
            for number in range(2):
                setup = await plugin.prepare(grant(SAFE))
                sandbox = tmp_path / f"sandbox{number}"
                sandbox.mkdir()
                key = TaskKey(FrameworkId("f"), TaskId(f"t{number}"), LaunchId("l"))
                handle = await executor.start(
                    LaunchSpec(key, "lines", ("lines",), (), sandbox, module=FOLLOWER, chips=setup.chips)
                )
                for way, level in (("up", 1), ("down", 0)):
                    bank.pull(START, way)
                    await bank.until(MOTOR, level)
                if number == 0:
                    bank.pull(STOP, "up")
                    assert (await executor.wait(handle)).code == 0
                    bank.pull(STOP, "down")
                else:
                    os.kill(int((tmp_path / "wasm-host.lock").read_text()), signal.SIGKILL)
                    assert (await executor.wait(handle)).reason is ExitReason.EXECUTOR_DIED
                    plugin = make(bank, tmp_path / "notes")
                await plugin.release(grant(SAFE))
                assert bank.level(MOTOR) == 1
    finally:
        await executor.shutdown(force=True)
        await executor.close()
        cgroups.discard()
