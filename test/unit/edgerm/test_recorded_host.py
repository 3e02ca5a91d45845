"""A recorded board answers as a box does, and nothing is written to its files."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from edgerm.testing.cutting import CutHost, PowerCut
from edgerm.testing.hostfs import RecordedHost


@pytest.fixture
def board(tmp_path: Path) -> Path:
    """A small one: a network interface that is a link into its bus, as in a real /sys."""
    device = tmp_path / "sys/devices/pci0/net/eno1"
    device.mkdir(parents=True)
    (device / "mtu").write_text("1500\n")
    (tmp_path / "sys/class/net").mkdir(parents=True)
    (tmp_path / "sys/class/net/eno1").symlink_to("../../devices/pci0/net/eno1")
    (device / "device").symlink_to("/sys/devices/pci0")
    (tmp_path / "programs").mkdir()
    (tmp_path / "programs/lscpu -e -J").write_text("{}")
    (tmp_path / "programs/%2Fbin%2Ftrue").write_text("yes")
    return tmp_path


async def test_what_is_recorded(board: Path) -> None:
    """Files, folders, links (absolute ones too) and programs."""
    host = RecordedHost(board)
    assert host.read("/sys/class/net/eno1/mtu") == "1500\n"
    assert host.names("/sys/class/net") == ("eno1",)
    assert host.names("/sys/class/net/eno1/device/net") == ("eno1",)
    assert host.link("/sys/class/net/eno1/device") == "/sys/devices/pci0"
    assert host.exists("/sys/class/net/eno1/device/net/eno1/mtu")
    assert await host.run("lscpu", "-e", "-J") == "{}"
    assert await host.run("/bin/true") == "yes"
    assert host.ran == [("lscpu", "-e", "-J"), ("/bin/true",)]
    with pytest.raises(FileNotFoundError, match="lscpu -x"):
        await host.run("lscpu", "-x")


def test_what_is_not_there(board: Path) -> None:
    """Errors are those of a box."""
    host = RecordedHost(board)
    for fails in (host.read, host.names, host.link, lambda path: host.write(path, "x")):
        with pytest.raises(FileNotFoundError, match="/sys/none"):
            fails("/sys/none")
    for fails in (host.read, lambda path: host.write(path, "x")):
        with pytest.raises(IsADirectoryError):
            fails("/sys/class")
    with pytest.raises(NotADirectoryError):
        host.names("/sys/class/net/eno1/mtu")
    with pytest.raises(OSError, match="symbolic links"):
        RecordedHost(links={"/a": "/b", "/b": "/a"}).read("/a")
    with pytest.raises(OSError):
        host.read("sys/class")


def test_writes_are_read_back(board: Path) -> None:
    """A write is listed as it was named, seen under every name, and undone by nobody but its writer."""
    host = RecordedHost(board)
    before = host.changes()
    host.write("/sys/class/net/eno1/mtu", "9000")
    assert host.written == [("/sys/class/net/eno1/mtu", "9000")]
    assert host.read("/sys/devices/pci0/net/eno1/mtu") == "9000"
    assert host.changes() == {"/sys/devices/pci0/net/eno1/mtu": "9000"}
    assert RecordedHost(board).read("/sys/class/net/eno1/mtu") == "1500\n"
    host.write("/sys/class/net/eno1/mtu", "1500\n")
    assert host.changes() == before == {}
    host.notes.put("k", {"x": 1})
    assert host.changes() == {"note k": {"x": 1}}
    host.notes.drop("k")
    host.refuse("/sys/devices/pci0/net/eno1/mtu", errno.EBUSY)
    with pytest.raises(OSError, match="busy"):
        host.write("/sys/class/net/eno1/mtu", "1")


def test_the_board_changes(board: Path) -> None:
    """A test lays files over the recorded ones, and takes them away."""
    host = RecordedHost(board, files={"/sys/class/net/eth0/mtu": "1"}, links={"/dev/cam": "/dev/video0"})
    assert host.names("/sys/class/net") == ("eno1", "eth0")
    assert host.names("/sys/class/net/eth0") == ("mtu",)
    assert not host.exists("/dev/cam")
    host.put("/dev/video0", "")
    assert host.link("/dev/cam") == "/dev/video0"
    host.remove("/sys/devices/pci0/net")
    assert not host.exists("/sys/class/net/eno1/mtu")
    host.remove("/sys/class/net/eth0/mtu")
    assert not host.exists("/sys/class/net/eth0/mtu")
    assert host.names("/dev") == ("cam", "video0")
    host.remove("/dev/video0")
    assert host.names("/dev") == ("cam",)


async def test_the_power_is_cut_at_a_step() -> None:
    """What changed before the cut is done, and nothing is possible after it, not even a look."""
    host = RecordedHost(files={"/a": "", "/b": ""}, programs={"x": "1"})
    cut = CutHost(host, 2)
    cut.write("/a", "1")
    assert (cut.read("/a"), cut.names("/"), cut.exists("/b"), cut.link("/b")) == ("1", ("a", "b"), True, "/b")
    cut.notes.put("k", {})
    assert (cut.notes.get("k"), cut.notes.keys()) == ({}, ("k",))
    with pytest.raises(PowerCut):
        await cut.run("x")
    for late in (lambda: cut.read("/a"), lambda: cut.write("/b", "1"), cut.notes.keys, lambda: cut.notes.drop("k")):
        with pytest.raises(PowerCut):
            late()
    assert host.changes() == {"/a": "1", "note k": {}}
    assert host.ran == []
