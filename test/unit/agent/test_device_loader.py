"""Which device plugins an agent has: built-in ones that are of use, and installed ones."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from edgerm.core.devices import DeviceClass, Inventory
from edgerm.core.errors import Invalid
from edgerm.testing.hostfs import RecordedHost
from edgerm_agent import config
from edgerm_agent.core.events import Event, Inventoried
from edgerm_agent.devices import loader
from edgerm_agent.devices.hostfs import Host, doors
from edgerm_agent.devices.loader import BUILT_IN, BuiltIn, WrongSettings
from edgerm_agent.devices.manager import Devices

ENTRY_POINTS = "[edgerm.devices]\nfake = edgerm.testing.devices:create\n"
HEAVY = ("pyroute2", "gpiod", "pynvml", "pyudev", "jsonschema", "grpc", "importlib.metadata")


def settings(**table: Any) -> config.Devices:
    """A `[devices]` table."""
    return msgspec.convert(table, config.Devices)


class Heard:
    """What plugins say after `load`."""

    def __init__(self) -> None:
        self.devices = Devices()
        self.events: list[Event] = []

    async def load(self, table: config.Devices, folder: Path) -> dict[str, Inventory]:
        """By plugin."""
        loader.load(table, doors(folder), self.devices)
        await self.devices.first(20)
        self.devices.begin(self.events.append)
        return {event.plugin: event.inventory for event in self.events if isinstance(event, Inventoried)}


@pytest_asyncio.fixture
async def heard() -> AsyncIterator[Heard]:
    """An agent without plugins."""
    made = Heard()
    yield made
    await made.devices.close()


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of Python with one more distribution, which has a plugin."""
    info = tmp_path / "site" / "a_plugin-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: a-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return info / "entry_points.txt"


async def test_an_installed_plugin(heard: Heard, installed: Path, tmp_path: Path) -> None:
    """It is there with its name, its table of the settings, and a folder of its own for notes."""
    table = settings(plugins={"fake": {"enabled": True, "ids": ["a", "b"]}})
    found = await heard.load(table, tmp_path / "devices")
    assert [device.id for device in found["fake"].devices] == ["a", "b"]


async def test_an_installed_plugin_that_is_not_wanted(heard: Heard, installed: Path, tmp_path: Path) -> None:
    """`enabled = false` leaves it out; so it does one that is not installed."""
    assert await heard.load(settings(plugins={"fake": {"enabled": False}, "x": {"enabled": False}}), tmp_path) == {}


@pytest.mark.parametrize(
    ("plugins", "told"),
    [
        ({"fake": {"ids": 3}}, "device plugin fake: ids = 3: write a list of texts"),
        ({"lamp": {}}, r"devices.plugins.lamp: no such plugin is installed \(fake\)"),
        ({"fake": {"enabled": "no"}}, r"devices.plugins.fake.enabled = 'no': write true or false"),
    ],
)
async def test_wrong_settings(
    heard: Heard, installed: Path, plugins: dict[str, Any], told: str, tmp_path: Path
) -> None:
    """They are told as mistakes in settings are."""
    with pytest.raises(WrongSettings, match=told):
        await heard.load(settings(plugins=plugins), tmp_path)


async def test_a_plugin_that_cannot_be_made(heard: Heard, installed: Path, tmp_path: Path) -> None:
    """It does not end the agent: other plugins are there."""
    installed.write_text(f"{ENTRY_POINTS}broken = nowhere.at_all:create\nother = edgerm.testing.devices:create\n")
    assert list(await heard.load(settings(), tmp_path)) == ["broken", "other", "fake"]


async def test_a_name_of_ours(heard: Heard, installed: Path, tmp_path: Path) -> None:
    """An installed plugin cannot take the place of a built-in one."""
    installed.write_text("[edgerm.devices]\ncpu = edgerm.testing.devices:create\n")
    with pytest.raises(WrongSettings, match="an installed device plugin is called cpu"):
        await heard.load(settings(), tmp_path)


async def test_a_library_that_is_missing(heard: Heard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A built-in plugin without its library: its classes are there, and say what to install."""
    row = BuiltIn("nowhere", ("x.io/a",), lambda its, host: True, extra="net")
    monkeypatch.setattr(config.Devices, "nowhere", (), raising=False)
    monkeypatch.setattr(loader, "BUILT_IN", (row,))
    found = await heard.load(settings(), tmp_path)
    why = "its library is not installed: pip install 'edgerm[net]'"
    assert found == {"nowhere": Inventory((DeviceClass("x.io/a", problem=why),))}


def test_what_is_of_use() -> None:
    """A plugin is made where there is something for it, or something left to undo, and where it is enabled."""
    plain = RecordedHost()
    assert [row.name for row in BUILT_IN if row.wanted(config.Devices(), plain)] == []
    isolated = RecordedHost(files={"/sys/devices/system/cpu/isolated": "2-3\n", "/proc/driver/nvidia/version": ""})
    assert [row.name for row in BUILT_IN if row.wanted(config.Devices(), isolated)] == ["cpu", "gpu"]
    off = settings(cpu={"enabled": False}, gpu={"enabled": False})
    assert [row.name for row in BUILT_IN if row.wanted(off, isolated)] == []
    told = settings(
        declared=[{"name": "bay", "id": "1"}],
        cpu={"isolated": "1"},
        nic={"interfaces": [{"name": "eno1"}]},
        gpu={"fake": [{"id": "g"}]},
        shm={"memories": [{"name": "m", "size": "1M"}]},
        gpio={"chips": [{"path": "/dev/gpiochip0"}]},
        hotplug={"devices": [{"name": "s", "kind": "serial"}]},
    )
    assert [row.name for row in BUILT_IN if row.wanted(told, plain)] == [row.name for row in BUILT_IN]
    left = RecordedHost()
    left.notes.put("a task", {})
    assert [row.name for row in BUILT_IN if row.wanted(config.Devices(), left)] == [row.name for row in BUILT_IN]


@pytest.mark.parametrize("row", BUILT_IN, ids=[row.name for row in BUILT_IN])
def test_a_built_in_plugin_can_be_made(row: BuiltIn, tmp_path: Path) -> None:
    """Each row of the table leads to a plugin of that name, and to one whose settings have nothing."""
    assert row.create(config.Devices(), Host(tmp_path)).name == row.name


async def test_no_settings_no_libraries(tmp_path: Path) -> None:
    """An agent without any device settings imports no library of a plugin, nor what looks for installed ones."""
    code = (
        "import asyncio, sys; from pathlib import Path; import edgerm_agent.running\n"
        "from edgerm_agent.config import Devices as Table\n"
        "from edgerm_agent.devices import hostfs, loader, manager, outside\n"
        "from contextlib import AsyncExitStack\n"
        "async def load():\n"
        "    devices = manager.Devices()\n"
        "    loader.load(Table(), hostfs.doors(Path(sys.argv[1])), devices)\n"
        "    async with AsyncExitStack() as stack: await outside.listen(Table(), devices, stack)\n"
        "    await devices.first(); await devices.close()\n"
        "asyncio.run(load())\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    ran = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", code, str(tmp_path / "d")], capture_output=True, text=True, check=True
    )
    assert ran.stdout == "[]\n"
    assert list(tmp_path.iterdir()) == []


def test_the_agent_ends_with_2(tmp_path: Path) -> None:
    """Wrong settings of a plugin end the start as other wrong settings do, with the remedy."""
    file = tmp_path / "agent.toml"
    file.write_text(
        f'data_dir = "{tmp_path / "data"}"\n[executors.process]\nenabled = false\n'
        '[executors.docker]\nenabled = false\n[devices.plugins.lamp]\nids = ["a"]\n'
    )
    code = "import sys; from pathlib import Path; from edgerm_agent.main import main\n"
    start = [sys.executable, "-c", f"{code}sys.exit(main(Path(sys.argv[1]), {{}}, None))", str(file)]
    ran = subprocess.run(start, capture_output=True, text=True, check=False)
    assert ran.returncode == 2, ran.stderr
    assert "edgerm agent: devices.plugins.lamp: no such plugin is installed" in ran.stderr
    assert issubclass(WrongSettings, Invalid)


async def test_notes_that_cannot_be_read(heard: Heard, tmp_path: Path) -> None:
    """What is no note of a plugin is its class's problem; the agent runs."""
    (tmp_path / "nic").mkdir()
    (tmp_path / "nic" / "odd.json").write_text("a novel")
    found = await heard.load(config.Devices(), tmp_path)
    assert "no note of ours" in found["nic"].classes[0].problem
