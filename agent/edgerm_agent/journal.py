"""The journal: what this agent promised, as rows of a store, and who it is.

What does not live here: how rows lie on disk (`edgerm.store`), what records mean (`edgerm_agent.core.records`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from edgerm.core.effects import Change, Put
from edgerm.core.errors import Invalid
from edgerm.core.ids import AgentId
from edgerm.store import api
from edgerm.store.records import RecordCodec
from edgerm_agent.core.records import GrantRecord, Record, RunRecord, TaskRecord, halves, kind_of

JOURNAL: Final = "journal.db"  # in the data directory
CODEC: Final = RecordCodec({"task": (1, TaskRecord), "run": (1, RunRecord), "grant": (1, GrantRecord)})
SELF_VERSION: Final = 1
SELF: Final = "self"
"""Kind and key of the row that says who this agent is."""


@dataclass(frozen=True, slots=True)
class Life:
    """Who the agent is, and how often it was started, this time included."""

    agent_id: AgentId
    starts: int

    @property
    def incarnation(self) -> int:
        """Above all that an earlier process of this agent can have used (docs/link.md)."""
        return self.starts << 20


class Journal:
    """Takes the store over; whoever had it before can write no more."""

    def __init__(self, store: api.Store) -> None:
        self._store = store
        self._fence = store.take_over()
        self._rows = list(store.load())

    def begin(self, fresh_id: AgentId) -> Life:
        """Count this start, and remember `fresh_id` at the first; durable on return."""
        found = next((row for row in self._rows if row.kind == SELF), None)
        life = Life(fresh_id, 1)
        if found is not None:
            if found.version != SELF_VERSION:
                raise Invalid(
                    f"the journal has version {found.version} of the agent's identity: start the newer edgerm"
                )
            known = json.loads(found.blob)
            life = Life(AgentId(known["agent_id"]), known["starts"] + 1)
        text = json.dumps({"agent_id": life.agent_id, "starts": life.starts})
        self._store.apply([api.Put(SELF, SELF, SELF_VERSION, text.encode())], self._fence)
        return life

    def load(self) -> list[Record]:
        """Every task that was promised, each with both of its records, and every grant.

        A half that a crash left is removed (`records.halves`). Raises `Invalid` for what this edgerm cannot read.
        """
        records: list[Record] = [
            CODEC.decode(row.kind, row.version, row.blob) for row in self._rows if row.kind != SELF
        ]
        self._rows = []
        gone = halves(records)
        for batch in api.split(api.Delete(kind_of(record), str(record.key)) for record in gone):
            self._store.apply(batch, self._fence)
        return [record for record in records if record not in gone]

    def write(self, changes: Sequence[Change]) -> None:
        """Make these changes durable, in order; for one thread at a time. Raises what the store raises."""
        for batch in api.split(_row(change) for change in changes):
            self._store.apply(batch, self._fence)


def inspect(store: api.Store) -> tuple[AgentId, list[Record]]:
    """Whose journal this is and what it has, for a look only; raises `Invalid` for one that is no agent's."""
    rows = list(store.load())
    found = next((row for row in rows if row.kind == SELF), None)
    if found is None:
        raise Invalid("the journal does not say whose it is: no agent has ever started on it")
    records = [CODEC.decode(row.kind, row.version, row.blob) for row in rows if row.kind != SELF]
    return AgentId(json.loads(found.blob)["agent_id"]), records


def _row(change: Change) -> api.Change:
    if isinstance(change, Put):
        return api.Put(change.kind, change.key, *CODEC.encode(change.kind, change.record))
    return api.Delete(change.kind, change.key)
