"""Things that really come and go: QEMU plugs a USB serial adapter in and out, the kernel says so, without udev.

`make test-edgebox` gives the guest a USB controller, and a port to QEMU's monitor.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any, BinaryIO, cast

import pytest

from edgerm.core.devices import Device, Inventory
from edgerm.core.errors import Conflict
from edgerm.core.ids import FrameworkId, LaunchId, TaskId, TaskKey
from edgerm.core.metadata import read
from edgerm.plugin.device import Given, Grant, NotClean
from edgerm_agent.config import Hotplug as Settings
from edgerm_agent.config import Pluggable
from edgerm_agent.devices.hostfs import Host
from edgerm_agent.devices.hotplug import Hotplug, plugin

pytestmark = [
    pytest.mark.edgebox,
    pytest.mark.skipif(os.environ.get("EDGEBOX") != "1", reason="needs the edgebox: make test-edgebox runs it"),
]

LINES = itertools.count()  # what adapters are connected to; nobody takes it away
MONITOR = Path("/run/monitor")
DEADLINE_S = 60
NET_S = 1e6  # in these tests only events lead to a look
SERIAL = Pluggable("plc", "serial", serial="EDGE1", labels=("line-1",))
USB = Pluggable("stick", "usb", vendor="0627", product="0001")
CAMERA = Pluggable("eye", "camera", path="platform-vivid.0")


class Qemu:
    """The machine that we are in, which plugs things in and out (QMP, on a port of ours)."""

    def __init__(self, port: BinaryIO) -> None:
        self._port = port
        self.do("qmp_capabilities", refused=True)  # it is, if somebody has opened the port before us

    def do(self, command: str, *, refused: bool = False, **arguments: Any) -> None:
        """One command, done when this returns; with `refused` it may be."""
        self._port.write(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
        while "return" not in (said := json.loads(self._port.readline())):  # greetings and events come between
            assert refused or "error" not in said, said
            if "error" in said:
                return

    def plug_serial(self, port: int, name: str, serial: str) -> None:
        """A serial adapter of FTDI's into the socket `port`."""
        line = f"line-{next(LINES)}"
        self.do("chardev-add", id=line, backend={"type": "null", "data": {}})
        adapter: dict[str, Any] = {"driver": "usb-serial", "chardev": line, "always-plugged": True, "serial": serial}
        self.do("device_add", **adapter, id=name, port=str(port))

    def pull(self, name: str) -> None:
        """Out with it, if it is in."""
        self.do("device_del", refused=True, id=name)


@pytest.fixture
def qemu() -> Iterator[Qemu]:
    """With drivers loaded, since nobody else does it here, and nothing plugged in; nor is afterwards."""
    subprocess.run(["modprobe", "--all", "xhci_pci", "ftdi_sio"], check=True)
    with MONITOR.open("r+b", buffering=0) as port:
        machine = Qemu(cast(BinaryIO, port))
        yield machine
        for name in ("a", "b"):
            machine.pull(name)


@pytest.fixture(autouse=True)
def no_net(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plugin looks when it is told that something happened, or not at all."""
    monkeypatch.setattr(plugin, "LOOK_S", NET_S)
    monkeypatch.setattr(plugin, "LOOK_ALONE_S", NET_S)


def make(tmp_path: Path, *devices: Pluggable) -> Hotplug:
    """The plugin of this box."""
    return Hotplug(Settings(devices=devices), Host(tmp_path / "notes"))


async def until(inventories: AsyncIterator[Inventory], problem: str) -> Device:
    """The first device, once its problem begins so; empty: once it has none."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            device = (await anext(inventories)).devices[0]
            if device.problem.startswith(problem) if problem else not device.problem:
                return device


def grant_of(device: Device) -> Grant:
    """It alone, for a process."""
    key = TaskKey(FrameworkId("f"), TaskId("t"), LaunchId("l"))
    return Grant(key, device.name, (Given("it", {}, (device,)),), "process")


async def test_a_serial_port_comes_goes_and_comes_back(tmp_path: Path, qemu: Qemu) -> None:
    """An adapter that is plugged in is offered, pulled out it is seen to be lost, and back elsewhere it is the same."""
    hotplug = make(tmp_path, SERIAL)
    async with aclosing(cast(Any, hotplug.watch())) as inventories:
        away = await until(inventories, "not plugged in")
        qemu.plug_serial(1, "a", "EDGE1")
        here = await until(inventories, "")
        setup = await hotplug.prepare(grant_of(here))
        with (
            Path(setup.nodes[0].host_path).open("rb", buffering=0),
            pytest.raises(NotClean, match=r"still open: /dev/tty"),
        ):
            await hotplug.release(grant_of(here))
        await hotplug.release(grant_of(here))
        qemu.pull("a")
        lost = await until(inventories, "not plugged in")
        with pytest.raises(Conflict, match="not plugged in"):
            await hotplug.prepare(grant_of(here))
        qemu.plug_serial(3, "b", "EDGE1")
        back = await until(inventories, "")
        again = await hotplug.prepare(grant_of(back))
    assert {device.id for device in (away, here, lost, back)} == {"plc"}
    paths = [str(read(device.metadata)["path"]) for device in (here, back)]
    assert [path.partition("usb-")[2] for path in paths] == ["0:1:1.0-port0", "0:3:1.0-port0"]
    assert (read(back.metadata)["vendor"], read(back.metadata)["serial"]) == ("0403", "EDGE1")
    assert Path(again.nodes[0].host_path).is_char_device()


async def test_two_adapters_of_one_maker(tmp_path: Path, qemu: Qemu) -> None:
    """A second adapter that fits makes the device ill, with both named; pulled out, the first is well again."""
    async with aclosing(cast(Any, make(tmp_path, Pluggable("any", "serial", vendor="0403")).watch())) as inventories:
        qemu.plug_serial(1, "a", "EDGE1")
        await until(inventories, "")
        qemu.plug_serial(2, "b", "EDGE2")
        ill = await until(inventories, "ambiguous")
        assert "/dev/ttyUSB0" in ill.problem
        assert "/dev/ttyUSB1" in ill.problem
        qemu.pull("b")
        await until(inventories, "")


async def test_a_usb_device_has_its_node(tmp_path: Path, qemu: Qemu) -> None:
    """A tablet is had as a USB device, by its node on the bus."""
    hotplug = make(tmp_path, USB)
    async with aclosing(cast(Any, hotplug.watch())) as inventories:
        await until(inventories, "not plugged in")
        qemu.do("device_add", driver="usb-tablet", id="a", port="2")
        setup = await hotplug.prepare(grant_of(await until(inventories, "")))
        assert setup.nodes[0].host_path.startswith("/dev/bus/usb/001/")
        assert Path(setup.nodes[0].host_path).is_char_device()


async def test_a_camera_comes_with_its_driver(tmp_path: Path) -> None:
    """The kernel's own test camera is a camera from the moment that it is there until it goes."""
    hotplug = make(tmp_path, CAMERA)
    async with aclosing(cast(Any, hotplug.watch())) as inventories:
        await until(inventories, "not plugged in")
        subprocess.run(["modprobe", "vivid", "n_devs=1", "node_types=0x1"], check=True)
        try:
            setup = await hotplug.prepare(grant_of(await until(inventories, "")))
            assert setup.nodes[0].host_path == "/dev/video0"
        finally:
            subprocess.run(["modprobe", "--remove", "vivid"], check=True)
        await until(inventories, "not plugged in")
