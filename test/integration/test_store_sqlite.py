"""SQLite as a store: the suite, files that are not ours, damage, schemas."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from random import Random

import pytest

from edgerm.core.errors import Invalid, Unavailable
from edgerm.store.api import Put, Row, Store
from edgerm.store.sqlite import MIGRATIONS, SqliteStore
from edgerm.testing.conformance.store import StoreSuite


class TestSqliteStore(StoreSuite):
    """The suite, on one file per test."""

    def make_store(self, path: Path) -> Store:
        return SqliteStore(path / "store.db")


def filled(path: Path, rows: int = 60) -> list[Row]:
    """Fill a new store at `path` with rows of up to 6,000 bytes, close it, and return them."""
    random = Random(1)
    store = SqliteStore(path)
    puts = [Put("task", f"{n:04}", 1, random.randbytes(random.choice([0, 40, 300, 6000]))) for n in range(rows)]
    store.apply(puts, store.take_over())
    found = list(store.load())
    store.close()
    return found


def test_every_commit_is_synced(tmp_path: Path) -> None:
    """The log is synced at each commit (synchronous = FULL is 2), which `apply` promises."""
    store = SqliteStore(tmp_path / "s.db")
    assert store._db.execute("PRAGMA synchronous").fetchone() == (2,)
    assert store._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    store.close()


def test_a_closed_store_is_one_file(tmp_path: Path) -> None:
    """Closing folds the log into the file, so that a copy of it is a backup."""
    filled(tmp_path / "s.db")
    assert [entry.name for entry in tmp_path.iterdir()] == ["s.db"]


@pytest.mark.parametrize("content", [b"hello", b"x" * 5000, b"SQLite format 3\0" + bytes(4080)])
def test_a_file_that_is_no_database_is_refused(tmp_path: Path, content: bytes) -> None:
    """A file with other content is refused by path with a remedy, and left as it is."""
    path = tmp_path / "s.db"
    path.write_bytes(content)
    with pytest.raises(Invalid, match=r"s\.db is damaged .* move it"):
        SqliteStore(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("statement", ["PRAGMA application_id = 77", "CREATE TABLE theirs (a)"])
def test_a_database_of_another_program_is_refused(tmp_path: Path, statement: str) -> None:
    """A database that we did not make is refused and left as it is, with an application id or without."""
    path = tmp_path / "s.db"
    db = sqlite3.connect(path)
    db.execute(statement)
    db.commit()
    db.close()
    before = path.read_bytes()
    with pytest.raises(Invalid, match="another program"):
        SqliteStore(path)
    assert path.read_bytes() == before


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    """A file that a newer edgerm migrated is refused, naming both schemas, and keeps its rows."""
    path = tmp_path / "s.db"
    rows = filled(path)
    db = sqlite3.connect(path)
    db.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    db.close()
    with pytest.raises(Invalid, match=f"schema {len(MIGRATIONS) + 1}, this edgerm knows up to {len(MIGRATIONS)}"):
        SqliteStore(path)
    db = sqlite3.connect(path)
    assert db.execute("SELECT count(*) FROM entry").fetchone() == (len(rows),)
    db.close()


def test_migrations_run_once_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An older file goes through just the migrations that it lacks, and keeps its rows."""
    path = tmp_path / "s.db"
    rows = filled(path)
    later = (*MIGRATIONS, ("CREATE TABLE extra (a)",), ("INSERT INTO extra VALUES (1)",))
    monkeypatch.setattr("edgerm.store.sqlite.MIGRATIONS", later)
    for _ in range(2):
        store = SqliteStore(path)
        assert list(store.load()) == rows
        assert store._db.execute("SELECT a FROM extra").fetchall() == [(1,)]
        store.close()


def test_a_migration_that_fails_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When a migration fails, those before it are undone too: the older edgerm still opens the file."""
    path = tmp_path / "s.db"
    rows = filled(path)
    with monkeypatch.context() as patch:
        later = (*MIGRATIONS, ("CREATE TABLE extra (a)",), ("INSERT INTO absent VALUES (1)",))
        patch.setattr("edgerm.store.sqlite.MIGRATIONS", later)
        with pytest.raises(Invalid, match="absent"):
            SqliteStore(path)
    store = SqliteStore(path)
    assert list(store.load()) == rows
    assert store._number("SELECT count(*) FROM sqlite_schema WHERE name = 'extra'") == 0
    store.close()


def test_no_flipped_byte_is_acted_upon(tmp_path: Path) -> None:
    """Any byte of the file changed: the store is refused with its path, or all rows are as they were."""
    path, random = tmp_path / "s.db", Random(2)
    rows = filled(path)
    good = path.read_bytes()
    refused = 0
    for _ in range(400):
        at = random.randrange(len(good)) if random.random() < 0.6 else random.randrange(4096) // 8 * 8 % len(good)
        path.write_bytes(good[:at] + bytes([good[at] ^ (1 << random.randrange(8))]) + good[at + 1 :])
        try:
            store = SqliteStore(path)
        except (Invalid, Unavailable) as error:
            assert str(path) in str(error), at
            refused += 1
            continue
        try:
            assert list(store.load()) == rows, at
        except Invalid as error:
            assert str(path) in str(error), at
            refused += 1
        finally:
            store.close()
    assert refused > 100


@pytest.mark.parametrize("share", [0.02, 0.3, 0.9])
def test_a_file_cut_short_is_refused(tmp_path: Path, share: float) -> None:
    """A database without its end is refused as damaged."""
    path = tmp_path / "s.db"
    filled(path)
    good = path.read_bytes()
    path.write_bytes(good[: int(len(good) * share)])
    with pytest.raises(Invalid, match="damaged"):
        SqliteStore(path)


def test_a_lock_held_elsewhere_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that holds the file makes the store Unavailable, and the batch is not done."""
    monkeypatch.setattr("edgerm.store.sqlite.BUSY_TIMEOUT_S", 0.0)
    path = tmp_path / "s.db"
    store = SqliteStore(path)
    fence = store.take_over()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Unavailable, match="another process"):
        store.apply([Put("t", "a", 1, b"")], fence)
    other.execute("ROLLBACK")
    other.close()
    assert list(store.load()) == []
    store.apply([Put("t", "a", 1, b"")], fence)
    store.close()
