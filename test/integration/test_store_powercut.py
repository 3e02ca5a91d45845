"""SQLite's log after a power cut: whatever was written of it, the store comes back as after some prefix of the batches.

The model of the medium: what was synced is there; of what was written since, any part may be there. `apply` syncs, so
a batch that was acknowledged is always there, and one that was not is there whole or not at all.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import pytest

from edgerm.store.api import Put, Row
from edgerm.store.sqlite import SqliteStore
from edgerm.testing.conformance.store import apply_to_model, random_change

HEADER_BYTES, FRAME_BYTES, SECTOR_BYTES = 32, 24 + 4096, 512


@dataclass
class Story:
    """One life of a log: the database file under it, and after each commit the log's length and the rows."""

    database: bytes
    before: list[Row]
    log: bytes = b""
    ends: list[int] = field(default_factory=list)
    states: list[list[Row]] = field(default_factory=list)

    def state_at(self, cut: int) -> list[Row]:
        """The rows after the last commit that lies whole before `cut`."""
        whole = [state for end, state in zip(self.ends, self.states, strict=True) if end <= cut]
        return whole[-1] if whole else self.before

    def frame_cuts(self) -> Iterator[int]:
        """Every boundary of a frame that was written in this life, and the start."""
        yield 0
        yield from range(HEADER_BYTES, self.ends[-1] + 1, FRAME_BYTES)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the store that is recorded lives."""
    return tmp_path / "s.db"


def log_of(path: Path) -> Path:
    """SQLite's name for the log of `path`."""
    return path.with_name(path.name + "-wal")


def live(store: SqliteStore, path: Path, random: Random, commits: int) -> Story:
    """Apply random batches, small and of several pages, and record what a power cut could find."""
    rows = list(store.load())
    story, model = Story(path.read_bytes(), rows), {(row.kind, row.key): row for row in rows}
    fence = store.take_over()
    for number in range(commits):
        batch = [random_change(random) for _ in range(random.randrange(1, 8))]
        if random.random() < 0.4:
            batch.append(Put("blob", str(number), 1, random.randbytes(random.randrange(20_000))))
        store.apply(batch, fence)
        apply_to_model(model, batch)
        story.ends.append(end_of_log(path))
        story.states.append([row for _, row in sorted(model.items())])
    story.log = log_of(path).read_bytes()
    return story


def end_of_log(path: Path) -> int:
    """The length of the log's part that belongs to its present life: frames whose salt is the header's."""
    log = log_of(path).read_bytes()
    salt, end = log[16:24], HEADER_BYTES
    while log[end + 8 : end + 16] == salt:
        end += FRAME_BYTES
    return end


def rows_after(path: Path, database: bytes, log: bytes) -> list[Row]:
    """What a store finds that is started on these files; it must also be able to go on."""
    path.write_bytes(database)
    log_of(path).write_bytes(log)
    with closing(SqliteStore(path)) as store:
        rows = list(store.load())
        store.apply([Put("zz", "next", 1, b"")], store.take_over())
    with closing(SqliteStore(path)) as store:
        assert list(store.load()) == [*rows, Row("zz", "next", 1, b"")]
    path.unlink()
    return rows


def checkpoint(path: Path) -> None:
    """Fold the log into the file, as SQLite does by itself when the log is long."""
    with closing(sqlite3.connect(path)) as other:
        busy, pages, folded = other.execute("PRAGMA wal_checkpoint(FULL)").fetchone()
    assert (busy, pages) == (0, folded)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_log_cut_anywhere_replays_to_a_prefix(path: Path, seed: int) -> None:
    """Cut at every frame and at offsets inside frames: exactly the commits that lie whole before the cut are there."""
    random = Random(seed)
    with closing(SqliteStore(path)) as store:
        story = live(store, path, random, commits=25)
    cuts = sorted({*story.frame_cuts(), *(random.randrange(len(story.log)) for _ in range(60))})
    assert len(cuts) > 100
    for cut in cuts:
        assert rows_after(path.with_name("cut.db"), story.database, story.log[:cut]) == story.state_at(cut), cut


def test_a_reused_log_cut_anywhere_replays_to_a_prefix(path: Path) -> None:
    """In a log that starts over after a checkpoint, the frames of its former life behind the cut are never taken up."""
    random = Random(3)
    with closing(SqliteStore(path)) as store:
        former = live(store, path, random, commits=30)
        checkpoint(path)
        story = live(store, path, random, commits=12)
    assert story.before == former.states[-1]
    assert story.ends[-1] < len(former.log) == len(story.log)
    cuts = sorted({*story.frame_cuts(), *(random.randrange(story.ends[-1]) for _ in range(40))})
    for cut in cuts:
        log = story.log[:cut] + former.log[cut:]
        assert rows_after(path.with_name("cut.db"), story.database, log) == story.state_at(cut), cut


def test_sectors_that_did_not_arrive_lose_at_most_the_last_batch(path: Path) -> None:
    """When only some sectors of the last commit arrived, in any order, it is there whole or not at all."""
    random = Random(4)
    with closing(SqliteStore(path)) as store:
        story = live(store, path, random, commits=25)
    lost = 0
    for number in range(1, 25):
        start, end = story.ends[number - 1], story.ends[number]
        for _ in range(4):
            log = bytearray(story.log[:end])
            for at in range(start, end, SECTOR_BYTES):
                if random.random() < 0.2:
                    log[at : min(at + SECTOR_BYTES, end)] = bytes(min(SECTOR_BYTES, end - at))
            found = rows_after(path.with_name("cut.db"), story.database, bytes(log))
            assert found in story.states[number - 1 : number + 1]
            lost += found == story.states[number - 1] != story.states[number]
    assert lost > 10


def test_a_torn_checkpoint_loses_nothing(path: Path) -> None:
    """A power cut while the log is folded in leaves the file half old, half new; with the log, all rows are there."""
    random = Random(5)
    with closing(SqliteStore(path)) as store:
        live(store, path, random, commits=10)
        checkpoint(path)
        story = live(store, path, random, commits=10)
        checkpoint(path)
        old, new = story.database, path.read_bytes()
        assert log_of(path).read_bytes() == story.log
    assert old != new
    for _ in range(30):
        torn = bytearray(new[: random.randrange(len(old), len(new) + 1)])
        for at in range(0, len(old), SECTOR_BYTES):
            if random.random() < 0.5:
                torn[at : at + SECTOR_BYTES] = old[at : at + SECTOR_BYTES]
        assert rows_after(path.with_name("cut.db"), bytes(torn), story.log) == story.states[-1]
