"""A store in one SQLite file: the default of master and agent.

What lives here: the only use of `sqlite3`. A batch is one transaction, one call, one fsync (write-ahead log with
`synchronous=FULL`). One thread at a time uses a store; it may be another one than the thread that opened it.

Choices, measured with blobs of 300 and 2,000 bytes (`docs/performance.md`):
- A table with a rowid and an index on (kind, key), not `WITHOUT ROWID`: blobs would stand in the index, and a row
  would cost three to six times the bytes in the log. Pages of 4096 bytes, as flash and file systems have them.
- The log is folded into the file at 1,000 pages (4 MiB), so a page that changes often is written there once for many
  commits. `auto_vacuum` stays off: free pages are used again, and moving pages would only wear the flash.
- Each row carries a CRC-32 and the file's structure is checked when it is opened, because the file systems of edge
  boxes have no checksums of data: a flipped bit is told, never acted upon.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from zlib import crc32

from edgerm.core.errors import Conflict, EdgermError, Invalid, Unavailable
from edgerm.store.api import Change, Delete, Put, Row, StaleFence, checked

APPLICATION_ID: Final = 0x65726D31  # "erm1", in the file's header: `file` and we tell ours from others by it
BUSY_TIMEOUT_S: Final = 5.0

MIGRATIONS: Final = (
    (
        "CREATE TABLE fence (value INTEGER NOT NULL) STRICT",
        "INSERT INTO fence VALUES (0)",
        "CREATE TABLE entry (kind TEXT NOT NULL, key TEXT NOT NULL, version INTEGER NOT NULL, blob BLOB NOT NULL,"
        " crc INTEGER NOT NULL, PRIMARY KEY (kind, key)) STRICT",
    ),
)
"""Statements that lead from schema n to n + 1; only ever appended to. `PRAGMA user_version` tells how many are done."""

_SETTINGS: Final = (
    "PRAGMA synchronous = FULL",
    "PRAGMA wal_autocheckpoint = 1000",
    "PRAGMA journal_size_limit = 8388608",  # a log that grew past this (a reader stood in the way) is cut back
    "PRAGMA secure_delete = FAST",  # Debian's default writes zeros over what is deleted, at the price of more writes
    "PRAGMA temp_store = MEMORY",
    "PRAGMA trusted_schema = OFF",
)
_PUT: Final = (
    "INSERT INTO entry (kind, key, version, blob, crc) VALUES (?, ?, ?, ?, ?) ON CONFLICT (kind, key)"
    " DO UPDATE SET version = excluded.version, blob = excluded.blob, crc = excluded.crc"
)
_DELETE: Final = "DELETE FROM entry WHERE kind = ? AND key = ?"
_LOAD: Final = "SELECT kind, key, version, blob, crc FROM entry ORDER BY kind, key"


class SqliteStore:
    """A `Store` in the file `path`, made if it is missing; the caller's data directory keeps other processes off.

    Raises Invalid for a file that is damaged, foreign or of a newer edgerm, and Unavailable if the medium refuses.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with _explained(path):
            self._db = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
        try:
            with _explained(path):
                self._prepare()
        except BaseException:
            self._db.close()
            raise

    def take_over(self) -> int:
        with self._transaction():
            self._db.execute("UPDATE fence SET value = value + 1")
            return self._number("SELECT value FROM fence")

    def load(self) -> Iterator[Row]:
        with _explained(self._path):
            for kind, key, version, blob, crc in self._db.execute(_LOAD):
                if crc != _crc(kind, key, version, blob):
                    raise _damaged(self._path, f"the checksum of {kind} {key!r} is wrong")
                yield Row(kind, key, version, blob)

    def apply(self, batch: Sequence[Change], fence: int) -> None:
        final = checked(batch).values()
        puts = [
            (c.kind, c.key, c.version, c.blob, _crc(c.kind, c.key, c.version, c.blob))
            for c in final
            if isinstance(c, Put)
        ]
        deletes = [(c.kind, c.key) for c in final if isinstance(c, Delete)]
        with self._transaction():
            if (last := self._number("SELECT value FROM fence")) != fence:
                raise StaleFence(f"fence {fence} is not the last one, {last}: {self._path} was taken over, stop")
            self._db.executemany(_PUT, puts)
            self._db.executemany(_DELETE, deletes)

    def close(self) -> None:
        self._db.close()

    def _prepare(self) -> None:
        for setting in _SETTINGS:
            self._db.execute(setting)
        self._claim()
        if self._db.execute("PRAGMA journal_mode = WAL").fetchone() != ("wal",):
            raise Unavailable(f"{self._path}: no write-ahead log on this file system; put the data on a local disk")
        self._migrate()
        if (verdict := self._db.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
            raise _damaged(self._path, verdict)

    def _claim(self) -> None:
        """Mark an empty file as ours; refuse one that holds something else."""
        found = self._number("PRAGMA application_id")
        if found == APPLICATION_ID:
            return
        if found or self._number("SELECT count(*) FROM sqlite_schema"):
            raise Invalid(f"{self._path} is a database of another program: move it away or choose another directory")
        self._db.execute("PRAGMA page_size = 4096")
        self._db.execute(f"PRAGMA application_id = {APPLICATION_ID}")

    def _migrate(self) -> None:
        with self._transaction():
            done = self._number("PRAGMA user_version")
            if done > len(MIGRATIONS):
                raise Invalid(
                    f"{self._path} has schema {done}, this edgerm knows up to {len(MIGRATIONS)}: start the newer edgerm"
                )
            for statements in MIGRATIONS[done:]:
                for statement in statements:
                    self._db.execute(statement)
            self._db.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")

    def _number(self, query: str) -> int:
        value = self._db.execute(query).fetchone()[0]
        assert isinstance(value, int)
        return value

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with _explained(self._path):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise


def _crc(kind: str, key: str, version: int, blob: bytes) -> int:
    return crc32(blob, crc32(f"{kind}\0{key}\0{version}\0".encode()))


def _damaged(path: Path, detail: str) -> Invalid:
    return Invalid(f"{path} is damaged ({detail}): restore a backup, or move it and {path.name}-wal away and lose it")


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn what SQLite says into one of our errors, with the path and what to do."""
    try:
        yield
    except sqlite3.ProgrammingError as error:
        raise Conflict(f"{path}: {error}") from error
    except UnicodeDecodeError as error:  # from a message of SQLite that quotes a damaged schema
        raise _damaged(path, str(error)) from error
    except sqlite3.Error as error:
        raise _explanation(path, error) from error


def _explanation(path: Path, error: sqlite3.Error) -> EdgermError:
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    if code == sqlite3.SQLITE_IOERR_SHMSIZE:  # the log's index did not fit
        code = sqlite3.SQLITE_FULL
    match code & 0xFF:  # the low byte is the kind of error
        case sqlite3.SQLITE_FULL:
            return Unavailable(f"{path}: no space left on the device ({error}): free some and start again")
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM:
            return Unavailable(f"{path} cannot be written ({error}): check mount, owner and mode of {path.parent}")
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED | sqlite3.SQLITE_PROTOCOL:
            return Unavailable(f"{path} is in use by another process ({error}): end it")
        case sqlite3.SQLITE_IOERR:
            return Unavailable(f"{path}: the device fails ({error}): check disk and file system")
        case _:  # our own statements fail only if the file is not as we made it
            return _damaged(path, str(error))
