"""The registry: the core's records as rows of a store.

What does not live here: how rows lie on disk and how records become blobs (`edgerm.store`), what they mean
(`edgerm_master.core.records`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from edgerm.core.effects import Change, Put
from edgerm.store import api
from edgerm.store.records import RecordCodec
from edgerm_master.core.records import (
    AgentRecord,
    FrameworkRecord,
    GoneRecord,
    InventoryRecord,
    Record,
    RemovedRecord,
    RunRecord,
    TaskRecord,
)

CODEC: Final = RecordCodec(
    {
        "framework": (1, FrameworkRecord),
        "removed": (1, RemovedRecord),
        "agent": (1, AgentRecord),
        "inventory": (1, InventoryRecord),
        "gone": (1, GoneRecord),
        "task": (1, TaskRecord),
        "run": (1, RunRecord),
    }
)


class Registry:
    """Takes the store over; whoever had it before can write no more."""

    def __init__(self, store: api.Store) -> None:
        self._store = store
        self._fence = store.take_over()

    def load(self) -> Iterator[Record]:
        """Everything that is stored; raises `Invalid` for what this edgerm cannot read."""
        for row in self._store.load():
            yield CODEC.decode(row.kind, row.version, row.blob)

    def write(self, changes: Sequence[Change]) -> None:
        """Make these changes durable, in order; for one thread at a time. Raises what the store raises."""
        for batch in api.split(_row(change) for change in changes):
            self._store.apply(batch, self._fence)


def _row(change: Change) -> api.Change:
    if isinstance(change, Put):
        return api.Put(change.kind, change.key, *CODEC.encode(change.kind, change.record))
    return api.Delete(change.kind, change.key)
