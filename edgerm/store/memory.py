"""A store in memory: for tests and the simulator, with the semantics of a real one.

The rows live on a `Disk` that outlives the store: a simulator crashes a program by dropping its store, cuts power by
keeping a copy of the disk, and starts the program again with a new store on it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from edgerm.core.errors import Conflict
from edgerm.store.api import Change, Put, Row, StaleFence, checked


@dataclass(slots=True)
class Disk:
    """What would be on a medium: the rows by (kind, key) and the last fence given out."""

    rows: dict[tuple[str, str], Row] = field(default_factory=dict)
    fence: int = 0

    def copy(self) -> Disk:
        """A disk with the same content, not touched by later changes to this one (rows are immutable)."""
        return Disk(dict(self.rows), self.fence)


class MemoryStore:
    """A `Store` on a `Disk`; several stores may share one, as several processes share a file."""

    def __init__(self, disk: Disk | None = None) -> None:
        self.disk = disk if disk is not None else Disk()
        self._closed = False

    def take_over(self) -> int:
        self._refuse_closed()
        self.disk.fence += 1
        return self.disk.fence

    def load(self) -> Iterator[Row]:
        self._refuse_closed()
        return iter([row for _, row in sorted(self.disk.rows.items())])

    def apply(self, batch: Sequence[Change], fence: int) -> None:
        self._refuse_closed()
        final = checked(batch)
        if fence != self.disk.fence:
            raise StaleFence(f"fence {fence} is not the last one, {self.disk.fence}: the store was taken over, stop")
        for name, change in final.items():
            if isinstance(change, Put):
                self.disk.rows[name] = Row(change.kind, change.key, change.version, change.blob)
            else:
                self.disk.rows.pop(name, None)

    def close(self) -> None:
        self._closed = True

    def _refuse_closed(self) -> None:
        if self._closed:
            raise Conflict("the store is closed")
