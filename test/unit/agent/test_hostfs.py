"""The door to the box: files, programs, and notes that survive."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgerm.core.errors import TooLarge
from edgerm_agent.devices import hostfs
from edgerm_agent.devices.hostfs import FileNotes, Host, doors


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """This box; notes go to a folder that is not there yet."""
    return Host(tmp_path / "devices" / "gpio")


def test_files(host: Host, tmp_path: Path) -> None:
    """Text is read and written whole; only what is there can be written to; links lead to where they end."""
    file = tmp_path / "file"
    file.write_text("something longer")
    (tmp_path / "link").symlink_to("file")
    host.write(str(file), "7")
    assert host.read(str(tmp_path / "link")) == "7"
    assert host.names(str(tmp_path)) == ("file", "link")
    assert (host.exists(str(file)), host.exists(str(tmp_path / "none"))) == (True, False)
    assert host.link(str(tmp_path / "link")) == str(file)
    for fails in (host.read, host.names, host.link, lambda path: host.write(path, "x")):
        with pytest.raises(FileNotFoundError, match="none"):
            fails(str(tmp_path / "none"))
    assert not (tmp_path / "none").exists()


def test_errors_name_the_file(host: Host) -> None:
    """What the kernel says of a write that it does not like is told with the path."""
    with pytest.raises(OSError, match="/dev/full"):
        host.write("/dev/full", "x")


def test_reading_is_bounded(host: Host) -> None:
    """A file without an end is refused, and not read on."""
    with pytest.raises(OSError, match="too large"):
        host.read("/dev/zero")


async def test_programs(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program's output, in the C locale, with nothing of our environment; its last words if it fails."""
    monkeypatch.setenv("SECRET", "1")
    assert await host.run("/bin/sh", "-c", "echo $LC_ALL $SECRET; read x || echo none") == "C\nnone\n"
    with pytest.raises(OSError, match=r"no such lamp \(exit status 3\).*'/bin/sh -c"):
        await host.run("/bin/sh", "-c", "echo first >&2; echo no such lamp >&2; exit 3")
    with pytest.raises(OSError, match="it said nothing"):
        await host.run("/bin/false")
    with pytest.raises(FileNotFoundError):
        await host.run("/nonexistent/program")


async def test_a_program_has_so_much_time(tmp_path: Path) -> None:
    """One that takes longer is killed, with all that it started."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with pytest.raises(OSError, match=r"longer than 0.3 s"):
        await Host(tmp_path, run_s=0.3).run("/bin/sh", "-c", f"exec 3<>{fifo}; sleep 1000 & wait")
    with pytest.raises(OSError):  # nobody reads: all who might are dead
        os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)


def test_notes(host: Host, tmp_path: Path) -> None:
    """What is noted is there for the next life, until it is dropped; each plugin has its own."""
    notes = host.notes
    assert (notes.get("a"), notes.keys()) == (None, ())
    assert not (tmp_path / "devices").exists()
    notes.put("a", {"was": [1, "x"]})
    notes.put("a", {"was": [2, "x"]})
    notes.put("f/t/l gpio", {})
    again = doors(tmp_path / "devices")("gpio").notes
    assert (again.get("a"), again.get("f/t/l gpio"), again.keys()) == ({"was": [2, "x"]}, {}, ("a", "f/t/l gpio"))
    assert doors(tmp_path / "devices")("nic").notes.keys() == ()
    assert (tmp_path / "devices").stat().st_mode & 0o777 == 0o700
    again.drop("a")
    again.drop("a")
    assert notes.keys() == ("f/t/l gpio",)


def test_a_note_is_durable_when_put_returns(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file's bytes are synced before it gets its name, and the name before put returns."""
    steps: list[str] = []
    sync, rename = os.fsync, Path.replace

    def noted_sync(descriptor: int) -> None:
        steps.append(f"sync {Path(f'/proc/self/fd/{descriptor}').resolve().suffix}")
        sync(descriptor)

    def noted_rename(file: Path, to: Path) -> Path:
        steps.append("rename")
        return rename(file, to)

    monkeypatch.setattr(os, "fsync", noted_sync)
    monkeypatch.setattr(Path, "replace", noted_rename)
    host.notes.put("a", {})
    assert steps[-3:] == ["sync .new", "rename", "sync "]
    host.notes.drop("a")
    assert steps[-1] == "sync "


def test_notes_are_bounded(host: Host) -> None:
    """A note that is too large is refused, and the one before it stays."""
    host.notes.put("a", {"x": 1})
    with pytest.raises(TooLarge, match=f"at most {hostfs.NOTE_BYTES_MAX}"):
        host.notes.put("a", {"x": "y" * hostfs.NOTE_BYTES_MAX})
    assert host.notes.get("a") == {"x": 1}


def test_a_note_that_is_none(host: Host, tmp_path: Path) -> None:
    """A file that somebody spoilt is told by its name, and not taken for nothing."""
    host.notes.put("a", {})
    [file] = (tmp_path / "devices/gpio").iterdir()
    file.write_text("{")
    with pytest.raises(OSError, match="it is no note of ours"):
        host.notes.get("a")
    with pytest.raises(OSError, match=file.name):
        host.notes.keys()


@given(st.sets(st.text(min_size=1, max_size=300), max_size=5))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
def test_any_key_is_a_file(tmp_path_factory: pytest.TempPathFactory, keys: set[str]) -> None:
    """Whatever a key has in it, it is told from every other one and lies in the plugin's folder."""
    keys = {key for key in keys if key.encode(errors="ignore").decode() == key}
    folder = tmp_path_factory.mktemp("notes")
    notes = FileNotes(folder)
    for key in keys:
        notes.put(key, {"key": key})
    assert notes.keys() == tuple(sorted(keys))
    assert all(notes.get(key) == {"key": key} for key in keys)
    assert len(list(folder.iterdir())) == len(keys)
