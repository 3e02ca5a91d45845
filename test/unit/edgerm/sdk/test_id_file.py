"""The file that keeps a framework's id."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgerm.core.errors import Invalid
from edgerm.core.ids import FrameworkId
from edgerm.sdk import IdFile


def test_what_was_written_is_read(tmp_path: Path) -> None:
    """The latest id comes back; its folder is made; nothing else is left there."""
    file = IdFile(tmp_path / "state" / "mine.id")
    assert file.read() is None
    for text in ("run-1", "run-2"):
        file.write(FrameworkId(text))
        assert IdFile(str(file.path)).read() == text
    assert list(file.path.parent.iterdir()) == [file.path]


@pytest.mark.parametrize("content", [b"", b"\n", b"a/b\n", b"\xff\n", b"x" * 5000])
def test_a_file_without_an_id_is_named(tmp_path: Path, content: bytes) -> None:
    """Whatever else is in the file, nobody subscribes with it by mistake; the remedy is told."""
    path = tmp_path / "mine.id"
    path.write_bytes(content)
    with pytest.raises(Invalid, match=r"mine\.id holds no framework id .*; remove it to begin anew"):
        IdFile(path).read()


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """A file amid the path cannot be a folder."""
    (tmp_path / "file").write_text("")
    with pytest.raises(Invalid, match="cannot keep the framework's id in"):
        IdFile(tmp_path / "file" / "mine.id").write(FrameworkId("run-1"))
    with pytest.raises(Invalid, match="holds no framework id"):
        IdFile(tmp_path).read()
