"""What this agent says of itself: the plain part, and its devices as they are now. Pure.

What does not live here: how the picture of the devices is made (`inventory`), what becomes of grants (`grants`).
"""

from __future__ import annotations

from dataclasses import replace

from edgerm.core.devices import resources_of
from edgerm.core.scheduler import AgentSpec
from edgerm_agent.core.grants import Grants
from edgerm_agent.core.inventory import DeviceKey, Picture
from edgerm_agent.core.records import is_local


class Stock:
    """`plain`: the agent without its devices; `generation`: of the inventory that there is before any plugin spoke."""

    def __init__(self, plain: AgentSpec, generation: int) -> None:
        self.spec = self._plain = plain
        self.picture = Picture(generation)
        self.grants = Grants()

    def describe(self, plain: AgentSpec) -> None:
        """All but the devices is this now."""
        self._plain = plain
        self._compose()

    def draw(self) -> bool:
        """Look again at what was reported and is held back; whether `spec` is another now."""
        changed = self.picture.draw(self.grants.quarantine(), self._local())
        if changed:
            self._compose()
        return changed

    def _compose(self) -> None:
        told = self.picture.told
        resources = self._plain.resources + resources_of(told.devices)
        self.spec = replace(self._plain, resources=resources, inventory=told)

    def _local(self) -> dict[DeviceKey, str]:
        """The devices that somebody on this box has for himself, and under which name."""
        return {
            (record.name, device_id): key.task_id
            for key, holding in self.grants.all.items()
            if is_local(key) and not holding.over
            for record in holding.records
            for one in record.granted
            if not one.shared
            for device_id in one.ids
        }
