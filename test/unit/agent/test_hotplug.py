"""The plugin "hotplug" on composed trees of /sys; real kernel events are in test/edgebox/test_hotplug.py."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.plugged import PluggedBox

from edgerm.core.devices import Device, Inventory
from edgerm.core.errors import Conflict, Invalid
from edgerm.core.ids import FrameworkId, LaunchId, TaskId, TaskKey
from edgerm.core.metadata import read
from edgerm.plugin.device import DeviceNode, DevicePlugin, Given, Grant, HostFiles, NotClean
from edgerm.testing.conformance.device import DevicePluginSuite
from edgerm_agent.config import Hotplug as Settings
from edgerm_agent.config import Pluggable
from edgerm_agent.devices.hotplug import Hotplug
from edgerm_agent.devices.hotplug.identity import Found, check, matches, resolve, variable_of
from edgerm_agent.devices.hotplug.sysfs import Part, bus_path, here, parse_uevent

PORT_2 = "pci-0000:00:14.0-usb-0:2"
SERIAL = "edgerm.io/serial"
PLC = Pluggable("plc", "serial", serial="A1", labels=("line-1",))
KEY = TaskKey(FrameworkId("f"), TaskId("t"), LaunchId("l"))
words = st.sampled_from(["", "a", "b"])


@dataclass
class Bell:
    """Stands in for the kernel's events: rings when the test says so."""

    changed: list[asyncio.Event] = field(default_factory=list)

    @contextmanager
    def __call__(self, changed: asyncio.Event) -> Iterator[bool]:
        self.changed.append(changed)
        try:
            yield True
        finally:
            self.changed.remove(changed)

    def ring(self) -> None:
        for changed in self.changed:
            changed.set()


def plugin_of(box: PluggedBox, *devices: Pluggable, bell: Bell | None = None) -> Hotplug:
    """With these settings."""
    return Hotplug(Settings(devices=devices), box, bell or Bell())


async def look(plugin: Hotplug) -> Inventory:
    """What it says first."""
    async with aclosing(cast(Any, plugin.watch())) as inventories:
        return cast(Inventory, await anext(inventories))


def grant_of(device: Device, executor: str = "docker", **config: object) -> Grant:
    """One device by one claim."""
    return Grant(KEY, device.name, (Given("it", config, (device,)),), executor)


# --- what is here ---


def test_only_hardware_is_found() -> None:
    """Consoles, root hubs, interfaces and ports without a chip are nothing that is plugged in."""
    found = here(PluggedBox(), ("serial", "usb", "camera"))
    assert found == (Found("serial", "/dev/ttyS0", ("pnp-00:04",)),)


def test_a_serial_port_is_known_by_all_its_names() -> None:
    """A port has the names of its place that udev gives it, and what its USB device says of itself."""
    box = PluggedBox()
    box.plug_serial("2", "ttyUSB0", "A1")
    (found,) = (each for each in here(box, ("serial",)) if each.node == "/dev/ttyUSB0")
    paths = (f"{PORT_2}:1.0-port0", f"{PORT_2}:1.0", PORT_2)
    assert found == Found("serial", "/dev/ttyUSB0", paths, "A1", "0403", "6001", "ACME Serial Adapter")


def test_a_usb_device_is_known_by_its_port() -> None:
    """A device behind a hub is found with its node on the bus."""
    box = PluggedBox()
    box.plug("2.4", number=7)
    (found,) = here(box, ("usb",))
    assert (found.node, found.paths) == ("/dev/bus/usb/001/007", (f"{PORT_2}.4",))


def test_a_camera_is_its_first_stream() -> None:
    """Other streams of a camera are no cameras of their own."""
    box = PluggedBox()
    box.plug_camera()
    assert here(box, ("camera",)) == (
        Found("camera", "/dev/video0", ("platform-vivid.0-video-index0", "platform-vivid.0")),
    )


@given(st.lists(st.builds(Part, st.text("12-:./", max_size=8), st.sampled_from(["usb", "pci", "tty", "pnp", ""]))))
def test_any_chain_has_a_path(parts: list[Part]) -> None:
    """Whatever devices lie on the way, the path is a text, and its parts are at most as many."""
    assert len(bus_path(parts).split("usb-0:")) <= len(parts) + 1


@given(st.text())
def test_any_event_is_read(text: str) -> None:
    """What the kernel may write is read without an error, and what has no `=` is not there."""
    assert all("=" not in key for key in parse_uevent(text))


# --- who is meant ---


@given(words, words, words, words, words, words)
def test_more_said_fits_less(path: str, serial: str, vendor: str, path2: str, serial2: str, vendor2: str) -> None:
    """What fits an entry fits it with one word less, too; an entry fits exactly what has all its words."""
    entry = Pluggable("x", "usb", path=path, serial=serial, vendor=vendor)
    found = Found("usb", "/dev/x", (path2,), serial2, vendor2)
    fits = matches(entry, found)
    assert fits == all(mine in ("", its) for mine, its in ((path, path2), (serial, serial2), (vendor, vendor2)))
    less = Pluggable("x", "usb", path=path, serial=serial)
    assert matches(less, found) or not fits


def test_two_that_fit_are_named() -> None:
    """An identity that fits two is none: the device is ill, and both are named."""
    box = PluggedBox()
    box.plug_serial("2", "ttyUSB0", "A1")
    box.plug_serial("3", "ttyUSB1", "A2", number=3)
    entry = Pluggable("any", "serial", vendor="0403")
    (answer,) = resolve([entry], here(box, ("serial",)))
    assert answer == (
        f"ambiguous: 2 have vendor 0403: /dev/ttyUSB0 ({PORT_2}:1.0-port0), "
        "/dev/ttyUSB1 (pci-0000:00:14.0-usb-0:3:1.0-port0)"
    )


def test_nothing_is_two_devices() -> None:
    """Of two entries that mean one thing the second is ill and names the first."""
    box = PluggedBox()
    box.plug_serial("2", "ttyUSB0", "A1")
    first, second = resolve([PLC, Pluggable("other", "serial", path=PORT_2)], here(box, ("serial",)))
    assert isinstance(first, Found)
    assert second == f"/dev/ttyUSB0 ({PORT_2}:1.0-port0) is the device 'plc' already"


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([Pluggable("a b", "usb", serial="1")], r"devices\[0\]\.name = 'a b'"),
        ([Pluggable("", "usb", serial="1")], r"\.name = ''"),
        ([Pluggable("../x", "usb", serial="1")], r"\.name"),
        ([PLC, Pluggable("PLC", "usb", serial="1")], r"devices\[1\]\.name = 'PLC': too much like 'plc'"),
        ([Pluggable("a", "usb")], "'a' is known by nothing"),
        ([Pluggable("a", "usb", vendor="403")], "vendor = '403': write four hexadecimal digits"),
        ([Pluggable("a", "usb", product="6001")], "so write vendor too"),
        ([Pluggable(f"n{n}", "usb", serial="1") for n in range(257)], "at most 256"),
    ],
)
def test_wrong_settings_are_refused(entries: list[Pluggable], words: str) -> None:
    """What an operator cannot have meant is refused in words that name the entry."""
    with pytest.raises(Invalid, match=words):
        check(entries)


@given(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}", fullmatch=True))
def test_a_variable_is_one(name: str) -> None:
    """Every name that fits makes a variable that a shell can read."""
    assert variable_of(name).replace("_", "").isalnum()
    assert variable_of(name).isupper()


# --- the plugin ---


async def test_out_and_in_again() -> None:
    """A device that is pulled has a problem; plugged in again it is the same one, whatever its node is now."""
    box, bell = PluggedBox(), Bell()
    box.plug_serial("2", "ttyUSB0", "A1")
    plugin = plugin_of(box, PLC, bell=bell)
    async with asyncio.timeout(30), aclosing(cast(Any, plugin.watch())) as inventories:
        there = await anext(inventories)
        box.pull("2")
        bell.ring()
        gone = await anext(inventories)
        box.plug_serial("5", "ttyUSB3", "A1")
        bell.ring()
        back = await anext(inventories)
    assert [device.id for inventory in (there, gone, back) for device in inventory.devices] == ["plc"] * 3
    assert [device.problem for inventory in (there, gone, back) for device in inventory.devices] == [
        "",
        "not plugged in: no serial port has serial number A1",
        "",
    ]
    assert read(there.devices[0].metadata)["labels"] == ["line-1"]
    setup = await plugin.prepare(grant_of(there.devices[0]))
    assert setup.nodes == (DeviceNode("/dev/ttyUSB3", "/dev/edgerm/plc"),)
    assert not bell.changed


async def test_the_app_names_it() -> None:
    """The claim's `id` names node and variable; a process finds the box's own node."""
    box = PluggedBox()
    box.plug_serial("2", "ttyUSB0", "A1")
    plugin = plugin_of(box, PLC)
    (device,) = (await look(plugin)).devices
    setup = await plugin.prepare(grant_of(device, id="scale.1"))
    assert setup.env == (("DEVICE_SCALE_1", "/dev/edgerm/scale.1"),)
    assert setup.nodes == (DeviceNode("/dev/ttyUSB0", "/dev/edgerm/scale.1"),)
    assert (await plugin.prepare(grant_of(device, "process"))).env == (("DEVICE_PLC", "/dev/ttyUSB0"),)


async def test_one_name_is_for_one_device() -> None:
    """A claim of several devices cannot give them one `id`."""
    device = Device(SERIAL, "plc")
    grant = Grant(KEY, SERIAL, (Given("both", {"id": "x"}, (device, replace(device, id="b"))),), "docker")
    with pytest.raises(Invalid, match="claim 'both': id = 'x' names one device, the claim has 2"):
        await plugin_of(PluggedBox(), PLC).prepare(grant)


async def test_what_is_away_cannot_be_had() -> None:
    """A device that went between claim and start is refused with what is missing."""
    plugin = plugin_of(PluggedBox(), PLC)
    (device,) = (await look(plugin)).devices
    with pytest.raises(Conflict, match=r"'plc' of edgerm\.io/serial cannot be had: not plugged in: no serial port"):
        await plugin.prepare(grant_of(device))
    await plugin.release(grant_of(device))


async def test_who_still_has_it_is_named() -> None:
    """A node that a process has open is not given to the next one; the process is named."""
    box = PluggedBox()
    box.plug_serial("2", "ttyUSB0", "A1")
    box.put("/dev/ttyUSB0", "")
    box.put("/proc/77/comm", "minicom\n")
    box.put("/proc/77/fd/0", "")
    plugin = plugin_of(box, PLC)
    (device,) = (await look(plugin)).devices
    await plugin.release(grant_of(device))
    box._links["/proc/77/fd/3"] = "/dev/ttyUSB0"
    with pytest.raises(NotClean, match=r"still open: /dev/ttyUSB0 by minicom \(pid 77\)"):
        await plugin.release(grant_of(device))


class TestHotplug(DevicePluginSuite):
    """The promises of every device plugin."""

    config: ClassVar[Mapping[str, object]] = {"on_loss": "restart", "id": "x"}
    wrong_configs = ({"on_loss": "panic"}, {"on_loss": 1}, {"id": "../x"}, {"id": 5}, {"id": ""})

    def make_host(self, path: Path) -> HostFiles:
        box = PluggedBox()
        box.plug_serial("2", "ttyUSB0", "A1")
        box.plug_serial("3", "ttyUSB1", "A2", number=3)
        box.plug_camera()
        return box

    def make_plugin(self, host: HostFiles) -> DevicePlugin:
        two, eye = Pluggable("b", "serial", serial="A2"), Pluggable("eye", "camera", path="platform-vivid.0")
        return Hotplug(Settings(devices=(PLC, two, eye)), host, Bell())
