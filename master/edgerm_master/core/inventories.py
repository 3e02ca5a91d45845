"""Agents' inventories: each is kept once, by the name that joins give it, as long as an agent has it.

What does not live here: how an inventory gets its name (`edgerm.wire.codec.link`), the join itself (`joining`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from edgerm.core.blobs import Digest
from edgerm.core.devices import Inventory
from edgerm.core.effects import Change, Drop, Put
from edgerm.core.ids import AgentId
from edgerm.core.link import Join
from edgerm.core.scheduler import AgentSpec, with_devices, without_devices
from edgerm_master.core.records import AgentRecord, InventoryRecord


@dataclass(slots=True)
class _Kept:
    inventory: Inventory
    agents: int = 0  # that have it


class Taken(NamedTuple):
    """An agent's spec with the inventory that is kept, and what is to be stored before its record and dropped after."""

    spec: AgentSpec
    before: list[Change]
    after: list[Change]


@dataclass(slots=True)
class Inventories:
    """All that agents have, and who has which. Agents without devices leave no trace here."""

    _kept: dict[Digest, _Kept] = field(default_factory=dict)
    _names: dict[AgentId, Digest] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._kept)

    def name_of(self, agent_id: AgentId) -> Digest | None:
        """The name of the agent's inventory; None: it has none, or one without a name."""
        return self._names.get(agent_id)

    def recover(self, found: Mapping[Digest, Inventory]) -> None:
        """What an earlier master stored; before any agent."""
        self._kept = {digest: _Kept(inventory) for digest, inventory in found.items()}

    def spec_of(self, record: AgentRecord) -> AgentSpec:
        """What the agent said of itself, with its devices: they are its from now on."""
        kept = self._kept.get(record.inventory) if record.inventory is not None else None
        if record.inventory is None or kept is None:
            return record.spec
        kept.agents += 1
        self._names[record.agent_id] = record.inventory
        return with_devices(record.spec, kept.inventory)

    def complete(self, join: Join) -> Join | None:
        """The join with the inventory that it names; None: nobody has told it yet."""
        if join.named is None or join.devices:
            return join
        kept = self._kept.get(join.named)
        return None if kept is None else replace(join, agent=with_devices(join.agent, kept.inventory))

    def take(self, agent_id: AgentId, digest: Digest | None, spec: AgentSpec) -> Taken:
        """The agent has this inventory now, in place of what it had."""
        if digest is None:
            return Taken(spec, [], self.let_go(agent_id))
        kept = self._kept.get(digest)
        before: list[Change] = []
        if kept is None:
            before = self._tidy()
            kept = self._kept[digest] = _Kept(replace(spec.inventory, generation=0))
            before.append(Put("inventory", digest, InventoryRecord(digest, kept.inventory)))
        kept.agents += 1
        after = self.let_go(agent_id)
        self._names[agent_id] = digest
        return Taken(with_devices(spec, kept.inventory), before, after)

    def let_go(self, agent_id: AgentId) -> list[Change]:
        """The agent has none any more; what is to be dropped after that is stored."""
        digest = self._names.pop(agent_id, None)
        if digest is None:
            return []
        kept = self._kept[digest]
        kept.agents -= 1
        if kept.agents:
            return []
        del self._kept[digest]
        return [Drop("inventory", digest)]

    def _tidy(self) -> list[Change]:
        """Drop what no agent has: an earlier master came to its end between two batches."""
        unused = [digest for digest, kept in self._kept.items() if not kept.agents]
        for digest in unused:
            del self._kept[digest]
        return [Drop("inventory", digest) for digest in unused]


def stored(spec: AgentSpec, digest: Digest | None) -> AgentSpec:
    """As an agent's record has it: a named inventory has a row of its own."""
    return spec if digest is None else without_devices(spec)
