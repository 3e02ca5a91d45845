"""What a sandbox takes on disk."""

from __future__ import annotations

from pathlib import Path

from edgerm_agent.executors.quota import used_bytes


def test_all_files_below_count(tmp_path: Path) -> None:
    """Files in nested folders count with the blocks that they take, empty ones with 512 bytes at least."""
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    (deep / "big").write_bytes(b"x" * 1_000_000)
    before = used_bytes(str(tmp_path), 1 << 40)
    assert 1_000_000 <= before < 1_100_000
    for number in range(100):
        (tmp_path / f"empty-{number}").touch()
    assert used_bytes(str(tmp_path), 1 << 40) == before + 100 * 512


def test_links_are_not_followed(tmp_path: Path) -> None:
    """A link to a folder elsewhere, or to its own, adds nothing of what is behind it."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "big").write_bytes(b"x" * 1_000_000)
    sandbox = tmp_path / "sandbox"
    sandbox.mkdir()
    (sandbox / "out").symlink_to(tmp_path / "elsewhere")
    (sandbox / "self").symlink_to(sandbox)
    assert 1024 <= used_bytes(str(sandbox), 1 << 40) <= 2 * 4096


def test_counting_stops_when_it_is_enough(tmp_path: Path) -> None:
    """Beyond the limit nothing more is counted, so that a full sandbox costs no more than its limit."""
    for number in range(50):
        (tmp_path / f"file-{number}").write_bytes(b"x" * 4096)
    assert 10_000 < used_bytes(str(tmp_path), 10_000) <= 10_000 + 8192


def test_what_is_gone_takes_nothing(tmp_path: Path) -> None:
    """A sandbox that was removed counts as empty."""
    assert used_bytes(str(tmp_path / "gone"), 1000) == 0
