"""Sandboxes: folders, kept output, retention."""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgerm.core.errors import NotFound
from edgerm.core.ids import FrameworkId, LaunchId, TaskId, TaskKey
from edgerm.plugin.executor import Chunk
from edgerm_agent.sandboxes import Left, Sandboxes, choose

LEFT = st.builds(Left, st.text("abc", max_size=5).map(Path), st.floats(0, 1000), st.integers(0, 100))


def key_of(name: str) -> TaskKey:
    """A task's key."""
    return TaskKey(FrameworkId("f"), TaskId(name), LaunchId("l"))


@given(st.lists(LEFT, unique_by=lambda left: left.path), st.floats(0, 500), st.integers(0, 300))
def test_choice(left: list[Left], retention_s: float, total_bytes: int) -> None:
    """All that are old go, the rest fits, and none goes while an older one stays."""
    gone = choose(left, retention_s, total_bytes, 1000.0)
    kept = [sandbox for sandbox in left if sandbox not in gone]
    assert all(1000.0 - sandbox.since_s < retention_s for sandbox in kept)
    assert sum(sandbox.size_bytes for sandbox in kept) <= total_bytes
    assert max((s.since_s for s in gone), default=0.0) <= min((s.since_s for s in kept), default=1000.0)


async def swept(sandboxes: Sandboxes) -> None:
    """Sweep, to the end."""
    sandboxes.sweep()
    assert sandboxes._sweeping is not None
    await sandboxes._sweeping


async def test_retention(tmp_path: Path) -> None:
    """The sandbox of a forgotten task stays for the retention time, the one of a task that is known for longer."""
    known = {key_of("known")}
    sandboxes = Sandboxes(tmp_path / "s", 100.0, 1 << 30, lambda: known)
    folders = {name: sandboxes.make(key_of(name)).parent for name in ("known", "old", "young")}
    for name in ("known", "old"):
        os.utime(folders[name], (1000.0, 1000.0))
    (folders["old"] / "work" / "closed").mkdir(mode=0o000)
    sandboxes.discard(key_of("young"))
    await swept(sandboxes)
    assert [name for name, folder in folders.items() if folder.exists()] == ["known", "young"]
    os.utime(folders["young"], (1000.0, 1000.0))
    sandboxes.discard(key_of("young"))
    await swept(sandboxes)
    assert folders["young"].exists()
    assert sandboxes._timer is not None
    assert 0 < sandboxes._timer.when() - asyncio.get_running_loop().time() <= 100.0
    await sandboxes.close()


async def test_too_much_goes(tmp_path: Path) -> None:
    """Above the total size the oldest sandbox goes, whatever its age."""
    sandboxes = Sandboxes(tmp_path / "s", 1e6, 150_000, tuple)
    works = [sandboxes.make(key_of(name)) for name in ("first", "second")]
    for age, work in enumerate(works):
        (work / "file").write_bytes(bytes(100_000))
        os.utime(work.parent, (1e9 + age, 1e9 + age))
    assert [work.exists() for work in works] == [True, True]
    sandboxes_later = Sandboxes(tmp_path / "s", 1e12, 150_000, tuple)
    await swept(sandboxes_later)
    assert [work.exists() for work in works] == [False, True]
    await sandboxes.close()
    await sandboxes_later.close()


def test_kept_output_has_the_offsets_of_the_task(tmp_path: Path) -> None:
    """Output kept after the end is read by offsets since the task's start, also where the first bytes were dropped."""
    sandboxes = Sandboxes(tmp_path / "s", 1.0, 1, tuple)
    key = key_of("t")
    with pytest.raises(NotFound):
        sandboxes.output(key, "stdout", 0, 10)
    sandboxes.save(key, "stdout", Chunk(0, b"no sandbox"))
    sandboxes.make(key)
    sandboxes.save(key, "stdout", Chunk(1000, b"0123456789", True))
    assert sandboxes.output(key, "stdout", 0, 4) == Chunk(1000, b"0123", False)
    assert sandboxes.output(key, "stdout", 1004, 100) == Chunk(1004, b"456789", True)
    assert sandboxes.output(key, "stdout", -3, 100) == Chunk(1007, b"789", True)
    assert sandboxes.output(key, "stdout", 5000, 100) == Chunk(1010, b"", True)
    with pytest.raises(NotFound):
        sandboxes.output(key, "stderr", 0, 10)


def test_output_does_not_follow_a_tasks_links(tmp_path: Path) -> None:
    """A task that puts a link named stdout into its working directory makes the agent write nowhere else."""
    sandboxes = Sandboxes(tmp_path / "s", 1.0, 1, tuple)
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (sandboxes.make(key_of("t")) / "stdout").symlink_to(victim)
    sandboxes.save(key_of("t"), "stdout", Chunk(0, b"overwritten"))
    assert victim.read_text() == "mine"


async def test_for_a_container(tmp_path: Path) -> None:
    """Whoever is put into a container's sandbox may use it, and nobody else of the box gets there."""
    key = key_of("t")
    work = Sandboxes(tmp_path / "all", 1000, 1 << 30, lambda: {key}).make(key, shared=True)
    assert stat.S_IMODE(work.stat().st_mode) == 0o777
    assert stat.S_IMODE(work.parent.stat().st_mode) == 0o700
