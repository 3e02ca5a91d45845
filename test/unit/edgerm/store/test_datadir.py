"""The data directory is made, locked and let go; small files are replaced whole."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from edgerm.core.errors import Conflict, Invalid, Unavailable
from edgerm.store.datadir import DataDir


def test_a_missing_directory_is_made_private(tmp_path: Path) -> None:
    """The directory is made with its parents, for the owner alone, and holds nothing but the lock."""
    data = DataDir.open(tmp_path / "a" / "b", "agent")
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o700
    assert [entry.name for entry in data.path.iterdir()] == ["lock"]
    data.close()


def test_a_second_holder_is_refused(tmp_path: Path) -> None:
    """Who comes second is told the holder's pid, the path and what to do, also in one process."""
    data = DataDir.open(tmp_path, "agent")
    with pytest.raises(Conflict, match=rf"{tmp_path} is in use by process {os.getpid()}: .*--data-dir"):
        DataDir.open(tmp_path, "agent")
    data.close()
    data.close()
    DataDir.open(tmp_path, "agent").close()


def test_a_file_in_the_way_is_refused(tmp_path: Path) -> None:
    """A path that is or leads through a file is Invalid, and the file stays."""
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(Invalid, match="something else has this name"):
            DataDir.open(path, "master")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_directory_that_is_not_ours_is_refused(tmp_path: Path) -> None:
    """Without the right to write, the refusal names the path, the user and what to do."""
    tmp_path.chmod(0o500)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        with pytest.raises(Unavailable, match=rf"not writable for uid {os.geteuid()}: .*--data-dir"):
            DataDir.open(tmp_path / "data", "agent")
    finally:
        os.seteuid(user)
        tmp_path.chmod(0o700)
    assert list(tmp_path.iterdir()) == []
