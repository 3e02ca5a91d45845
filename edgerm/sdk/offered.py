"""What an offer says of its agent, for whoever chooses among offers.

What does not live here: what has room on which offer (`edgerm.sdk.finding`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from edgerm.core.attributes import AttributeValue, by_name
from edgerm.core.devices import Inventory
from edgerm.core.scheduler import AgentSpec, Offer


def attributes(offer: Offer) -> Mapping[str, AttributeValue]:
    """The attributes of the offer's agent, by name.

    TEXT is a str, SCALAR a float, SET a tuple of its items in order, RANGES a tuple of pairs, first and last. Of a name
    that stands several times the first counts. Host, agent id and name are `offer.agent.hostname`, `offer.agent_id` and
    `offer.agent.name`.
    """
    return by_name(offer.agent.attributes)


def agent_of(offers: Sequence[Offer]) -> AgentSpec:
    """The agent of these offers, with the devices of all of them: each offer tells of its own."""
    agent = offers[0].agent
    if len(offers) == 1:
        return agent
    inventories = [offer.agent.inventory for offer in offers]
    classes = {known.name: known for inventory in inventories for known in inventory.classes}
    devices = {(device.name, device.id): device for inventory in inventories for device in inventory.devices}
    return replace(agent, inventory=Inventory((*classes.values(),), (*devices.values(),), agent.inventory.generation))
