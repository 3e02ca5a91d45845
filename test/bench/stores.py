"""The store: rows a second in groups and one by one, against a bare `fdatasync` for each; and bytes written per row."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from itertools import count
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from bench.report import Report

from edgerm.store.api import Put
from edgerm.store.sqlite import MIGRATIONS, SqliteStore

if TYPE_CHECKING:
    from bench.suite import Options

SUBJECT = "stores"
SIZES_BYTES = (300, 2000)
GROUP = 100
KEYS = 20_000


async def measure(report: Report, options: Options) -> None:
    """Rounds of floor, single commits and groups, alternating, for each size of row."""
    for size_bytes in SIZES_BYTES:
        _rates(report, options, size_bytes)
    for size_bytes in SIZES_BYTES:
        for layout in ("rowid and index (ours)", "WITHOUT ROWID"):
            written = _log_bytes(options.folder, size_bytes, layout.startswith("WITHOUT"))
            report.add(SUBJECT, f"log per row of {size_bytes} B, {layout}, groups of {GROUP}", "B", [written])


def _rates(report: Report, options: Options, size_bytes: int) -> None:
    span_s = options.pick(20, 4) / 10
    numbers, blob = count(), os.urandom(size_bytes)
    store = SqliteStore(options.folder / f"bench-{size_bytes}.db")
    fence = store.take_over()

    def apply(rows: int) -> None:
        store.apply([_row(next(numbers), blob) for _ in range(rows)], fence)

    rates: dict[str, list[float]] = {"floor": [], "single": [], "group": []}
    with Floor(options.folder / f"floor-{size_bytes}.log", blob) as floor:
        for _ in range(options.pick(5, 2)):
            rates["floor"].append(_rate(floor.append, span_s))
            rates["single"].append(_rate(lambda: apply(1), span_s))
            rates["group"].append(GROUP * _rate(lambda: apply(GROUP), span_s))
    store.close()
    floor_ = report.add(SUBJECT, f"floor: append {size_bytes} B + fdatasync", "/s", rates["floor"])
    single = report.add(SUBJECT, f"SqliteStore: commits of one row of {size_bytes} B", "/s", rates["single"])
    group = report.add(SUBJECT, f"SqliteStore: rows of {size_bytes} B in commits of {GROUP}", "/s", rates["group"])
    report.ratio(single, floor_, f"commits of one row of {size_bytes} B / floor")
    report.ratio(group, single, f"rows of {size_bytes} B in groups / one by one")


def _row(number: int, blob: bytes) -> Put:
    """A row that differs from the one it replaces: SQLite writes nothing for one that is the same again."""
    return Put("task", f"bench/{number % KEYS}", 1, number.to_bytes(8) + blob[8:])


def _log_bytes(folder: Path, size_bytes: int, without_rowid: bool) -> float:
    """Bytes of write-ahead log for each row put, new rows and old ones alike, with the store's schema or the other."""
    path = folder / f"layout-{size_bytes}-{without_rowid}.db"
    db = sqlite3.connect(path, isolation_level=None)
    for pragma in ("journal_mode = WAL", "wal_autocheckpoint = 0", "synchronous = OFF"):
        db.execute(f"PRAGMA {pragma}")
    schema = MIGRATIONS[0][2]
    assert schema.startswith("CREATE TABLE entry"), schema
    db.execute(schema + (", WITHOUT ROWID" if without_rowid else ""))
    rows, blob = 5000, os.urandom(size_bytes)
    put = "INSERT INTO entry VALUES ('task', ?, 1, ?, 0) ON CONFLICT (kind, key) DO UPDATE SET blob = excluded.blob"
    for first in range(0, 2 * rows, GROUP):
        keys = [f"bench/{(number * 7919) % rows}" for number in range(first, first + GROUP)]
        db.execute("BEGIN")
        db.executemany(put, [(key, first.to_bytes(8) + blob[8:]) for key in keys])
        db.execute("COMMIT")
    log_bytes = path.with_name(path.name + "-wal").stat().st_size
    db.close()
    return log_bytes / (2 * rows)


class Floor:
    """A file that grows, synced after each append."""

    def __init__(self, path: Path, record: bytes) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._record = record

    def __enter__(self) -> Floor:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)

    def append(self) -> None:
        """One record, durable on return."""
        os.write(self._file, self._record)
        os.fdatasync(self._file)


def _rate(work: Callable[[], None], span_s: float) -> float:
    began, done = perf_counter(), 0
    while (passed := perf_counter() - began) < span_s:
        work()
        done += 1
    return done / passed
