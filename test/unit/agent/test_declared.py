"""What the operator declares of devices: what is refused, what is offered, what a task gets."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgerm.core.devices import Device, DeviceClass
from edgerm.core.errors import Conflict, Invalid
from edgerm.core.ids import FrameworkId, LaunchId, TaskId, TaskKey
from edgerm.core.resources import NOTHING, parse
from edgerm.plugin.device import DeviceNode, DevicePlugin, Given, Grant, HostFiles, Mount, Setup
from edgerm.testing.conformance.device import DevicePluginSuite, first
from edgerm_agent import doctor
from edgerm_agent.config import Config, Declared, load
from edgerm_agent.devices import declared as module
from edgerm_agent.devices.declared import DeclaredDevices, check, create

CAMERA: dict[str, Any] = {"name": "camera", "id": "/dev/video0"}
PLAIN = parse("cpus:4;names:{a}")


def declared(*devices: dict[str, Any]) -> tuple[Declared, ...]:
    return tuple(msgspec.convert(device, Declared) for device in devices)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"name": "cpus"}, r"devices.declared\[1\].name = 'cpus': Mesos has a resource of this name"),
        ({"name": "gpus"}, "Mesos has a resource"),
        ({"name": "names"}, "the setting resources gives something of this name already"),
        ({"name": ""}, "begin with a letter"),
        ({"name": "a b"}, "begin with a letter"),
        ({"id": "/dev/video0"}, r"devices.declared\[1\].id = '/dev/video0': stands twice"),
        ({"id": ""}, "1 to 255 printable"),
        ({"id": "a,b"}, "without blanks, quotes and"),
        ({"id": "a b"}, "without blanks, quotes and"),
        ({"name": "camera", "shared": True}, "all devices named 'camera' are shared, or none is"),
        ({"device_nodes": [{"host_path": "dev/x"}]}, r"device_nodes\[0\].host_path = 'dev/x': write an absolute path"),
        ({"device_nodes": [{"host_path": "/dev/../x"}]}, "without '..'"),
        ({"device_nodes": [{"host_path": "/d", "container_path": "d"}]}, "container_path = 'd': write an absolute"),
        ({"device_nodes": [{"host_path": "/d", "permissions": "rx"}]}, "permissions = 'rx': write some of r, w and m"),
        ({"device_nodes": [{"host_path": "/d", "permissions": "rr"}]}, "some of r, w and m"),
        ({"device_nodes": [{"host_path": "/d", "permissions": ""}]}, "some of r, w and m"),
        ({"volumes": [{"host_path": "/"}]}, "neither / nor what is in /mnt/mesos/sandbox can be taken"),
        ({"volumes": [{"host_path": "/a", "container_path": "/mnt/mesos/sandbox/x"}]}, "neither / nor"),
        (
            {"volumes": [{"host_path": "/a"}, {"host_path": "/b", "container_path": "/a/"}]},
            "two things of the device",
        ),
        ({"environment": {"A=B": "x"}}, "has no ="),
        ({"environment": {"A": "x\0"}}, "nothing has a NUL"),
        ({"environment": {"EDGERM_X": "x"}}, "are the agent's own"),
        ({"environment": {f"V{number}": "" for number in range(65)}}, "65 of them, at most 64"),
    ],
)
def test_what_cannot_be_declared(change: dict[str, Any], told: str) -> None:
    """Each mistake is refused with its place, its value and the remedy."""
    with pytest.raises(Invalid, match=told):
        check(declared(CAMERA, {"name": "light", "id": "light"} | change), PLAIN)


def test_too_many() -> None:
    """The number of devices is bounded."""
    many = declared(*({"name": "led", "id": f"led{number}"} for number in range(257)))
    check(many[:256], PLAIN)
    with pytest.raises(Invalid, match="257 devices"):
        check(many, PLAIN)


@given(st.text(max_size=12), st.text(max_size=12), st.text(max_size=12))
def test_any_text_is_fit_or_refused_in_one_line(name: str, device_id: str, path: str) -> None:
    """Whatever is declared is accepted or refused in one line; what is accepted can be written as a resource."""
    devices = declared({"name": name, "id": device_id, "volumes": [{"host_path": path}]})
    try:
        check(devices, NOTHING)
    except Invalid as error:
        assert "\n" not in str(error)
    else:
        assert len(parse(f"{name}:{{{device_id}}}")) == 1


def test_the_file(tmp_path: Path) -> None:
    """A list of tables in agent.toml; a misspelt key is named with its place."""
    file = tmp_path / "agent.toml"
    text = '[[devices.declared]]\nname = "led"\nid = "led0"\nshared = true\n[devices.declared.environment]\nLED = "0"\n'
    file.write_text(text)
    [device] = load(file).devices.declared
    assert device == Declared("led", "led0", True, environment={"LED": "0"})
    file.write_text(text + '[[devices.declared]]\nname = "led"\nid = "led1"\nsharde = true\n')
    with pytest.raises(Invalid, match=r"devices.declared\[1\].sharde is not a setting; did you mean shared\?"):
        load(file)
    file.write_text('[[devices]]\nname = "led"\n')
    with pytest.raises(Invalid, match=r"write \[devices\] or \[\[devices.declared\]\]"):
        load(file)
    assert Config().devices.declared == ()


@pytest.fixture
def camera(tmp_path: Path) -> dict[str, Any]:
    """A camera whose parts are there, as far as a device node can be had without rights."""
    (tmp_path / "lib").mkdir()
    return {
        "name": "camera",
        "id": "front",
        "device_nodes": [{"host_path": os.devnull, "container_path": "/dev/camera", "permissions": "rw"}],
        "volumes": [{"host_path": str(tmp_path / "lib"), "container_path": "/opt/lib", "read_only": True}],
        "environment": {"LIB": "/opt/lib"},
    }


async def devices_of(plugin: DeclaredDevices) -> tuple[Device, ...]:
    """As they are now."""
    return (await first(plugin)).devices


def grant(name: str, *ids: str) -> Grant:
    """One claim of a task."""
    key = TaskKey(FrameworkId("f"), TaskId("t"), LaunchId("l"))
    return Grant(key, name, (Given(name, {}, tuple(Device(name, each) for each in ids)),), "docker")


class TestDeclaredDevices(DevicePluginSuite):
    """They are a plugin as any other."""

    def make_plugin(self, host: HostFiles) -> DevicePlugin:
        return create(declared({"name": "bay", "id": "1", "environment": {"B": "1"}}, {"name": "bay", "id": "2"}), host)


async def test_what_a_task_gets(camera: dict[str, Any], tmp_path: Path) -> None:
    """All of each device that it was given, and nothing of others; each name is a class, with its pool."""
    devices = DeclaredDevices(
        declared(camera, {"name": "led", "id": "led0", "shared": True, "environment": {"L": "0"}})
    )
    whole = Setup(
        (("LIB", "/opt/lib"),),
        (Mount("/opt/lib", str(tmp_path / "lib"), True, False),),
        (DeviceNode(os.devnull, "/dev/camera", "rw"),),
    )
    assert await devices.prepare(grant("camera", "front")) == whole
    assert await devices.prepare(grant("led", "led0")) == Setup((("L", "0"),))
    [front, _] = await devices_of(devices)
    gives = (f"node {os.devnull} as /dev/camera rw", f"volume {tmp_path / 'lib'} as /opt/lib ro", "variable LIB")
    assert front == Device("camera", "front", False, "", gives)
    assert (await first(devices)).classes == (DeviceClass("camera"), DeviceClass("led", shared=True))


async def test_a_device_that_is_missing(camera: dict[str, Any], tmp_path: Path) -> None:
    """What is not there, or no device node, is a problem that is told, not an error; a task cannot have it."""
    (tmp_path / "file").touch()
    camera["device_nodes"] = [{"host_path": str(tmp_path / "node")}]
    other = {"name": "led", "id": "led0", "device_nodes": [{"host_path": str(tmp_path / "file")}]}
    devices = DeclaredDevices(declared(camera, other))
    problems = [device.problem for device in await devices_of(devices)]
    assert problems == [f"{tmp_path / 'node'} is missing", f"{tmp_path / 'file'} is no device node"]
    with pytest.raises(Conflict, match=r"device 'front' of 'camera' cannot be had: .*node is missing"):
        await devices.prepare(grant("camera", "front"))
    with pytest.raises(Conflict, match="'rear' of 'camera' is not declared"):
        await devices.prepare(grant("camera", "rear"))


async def test_a_device_comes_and_goes(camera: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change is told once, and only a change."""
    path = tmp_path / "plugged"
    camera["volumes"] = [{"host_path": str(path)}]
    looks: asyncio.Queue[None] = asyncio.Queue()

    async def next_look(seconds: float) -> None:
        assert seconds == module.LOOK_S
        await looks.get()

    monkeypatch.setattr("edgerm_agent.devices.declared.asyncio.sleep", next_look)
    inventories = DeclaredDevices(declared(camera)).watch()

    async def told() -> str:
        async with asyncio.timeout(20):
            return (await anext(inventories)).devices[0].problem

    assert await told() == f"{path} is missing"
    path.mkdir()
    for _ in range(3):
        looks.put_nowait(None)
    assert await told() == ""
    path.rmdir()
    assert await told() == f"{path} is missing"


async def test_a_node_is_told_from_a_file(tmp_path: Path) -> None:
    """A directory of nodes is as good as a node; the test's own null device is one."""
    assert Path(os.devnull).is_char_device()
    both = {"name": "x", "id": "x", "device_nodes": [{"host_path": os.devnull}, {"host_path": str(tmp_path)}]}
    assert [device.problem for device in await devices_of(DeclaredDevices(declared(both)))] == [""]


def test_the_doctor_says_which_devices_cannot_be_had(tmp_path: Path) -> None:
    """One line for each device, well if it is there; what cannot be declared is one line that is not."""
    missing = {"name": "led", "id": "led0", "volumes": [{"host_path": str(tmp_path / "none")}]}
    fine = {"name": "lock", "id": "lock0"}
    lines = doctor.check(msgspec.convert({"data_dir": str(tmp_path), "devices": {"declared": [missing, fine]}}, Config))
    assert lines[-2:] == [
        ("device led0 of led", False, f"{tmp_path / 'none'} is missing"),
        ("device lock0 of lock", True, ""),
    ]
    lines = doctor.check(msgspec.convert({"data_dir": str(tmp_path), "devices": {"declared": [fine, fine]}}, Config))
    assert [line[:2] for line in lines[-1:]] == [("devices", False)]
    assert "stands twice" in lines[-1][2]
