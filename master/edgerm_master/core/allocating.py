"""Allocation: what is free on an agent is offered to whoever is next in line and takes it, slice by slice.

What does not live here: what becomes of an offer (`offers`), who is next (`fairness`), what a framework lets through
(`admitting`).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from edgerm.core.devices import NO_INVENTORY, devices_in
from edgerm.core.ids import FrameworkId
from edgerm.core.resources import ResourceKey, Resources
from edgerm.core.scheduler import Offer, Offers
from edgerm_master.core import offers
from edgerm_master.core.admitting import admits, enough, worth_offering
from edgerm_master.core.agents import Agent
from edgerm_master.core.frameworks import Framework
from edgerm_master.core.world import World

SLICE_AGENTS = 16  # allocated in one go; the rest waits for the next turn of the loop (which also encodes them)
SLICE_LOOKS = 1000  # at clients, in one go: each agent may be refused by all of them
OFFERS_PER_EVENT = 100
OFFERS_EVENT_BYTES = 256_000
OFFER_BYTES = 200  # without resources and attributes
RESOURCE_BYTES = 40  # and of what has several parts so much for each
DEVICE_BYTES = 100  # without metadata, of which the quotes are escaped
CLASS_BYTES = 200


def allocate(world: World, *, sweeping: bool) -> None:
    """Offer what is free on the agents where something changed, at most a slice of them.

    A sweep that is longer than a slice goes on only in turns of its own (`sweeping`): who calls does not pay for it.
    """
    made: dict[FrameworkId, list[Offer]] = {}
    world.tally.slices += 1
    looks = 0
    for agent in islice(_waiting(world, sweeping or len(world.swept) <= SLICE_AGENTS), SLICE_AGENTS):
        world.tally.slice_agents += 1
        search = Search(world, agent)
        for framework, role, resources in search:
            offer = offers.make(world, framework, role, agent, resources)
            made.setdefault(framework.framework_id, []).append(offer)
        looks += search.looks
        if looks >= SLICE_LOOKS:
            break
    for framework_id, told in made.items():
        for some in _events(told):
            world.tell_soon(world.frameworks[framework_id], Offers(some))


def _waiting(world: World, sweeping: bool) -> Iterator[Agent]:
    """The agents to look at, taken off one by one: those where something changed go before a sweep."""
    while world.dirty or (world.swept and sweeping):
        if world.dirty:
            agent_id = next(iter(world.dirty))
            del world.dirty[agent_id]
        else:
            agent_id = world.swept.pop()
        agent = world.agents.get(agent_id)
        if agent is not None:
            yield agent


def _events(made: list[Offer]) -> Iterator[tuple[Offer, ...]]:
    """As few events as hold the offers: at most 100 in one, and about 256 kB."""
    some: list[Offer] = []
    size = 0
    for offer in made:
        size += _bytes(offer)
        if some and (len(some) == OFFERS_PER_EVENT or size > OFFERS_EVENT_BYTES):
            yield tuple(some)
            some, size = [], _bytes(offer)
        some.append(offer)
    yield tuple(some)


def _bytes(offer: Offer) -> int:
    """About what the offer takes on a stream; exact sizes are not worth their price."""
    parts = sum(1 if isinstance(amount, int) else len(amount) for amount in offer.resources.values())
    return OFFER_BYTES + len(offer.agent.info) + RESOURCE_BYTES * parts + _devices_bytes(offer)


def _devices_bytes(offer: Offer) -> int:
    inventory = offer.agent.inventory
    if inventory is NO_INVENTORY:
        return 0
    devices = devices_in(inventory, offer.resources)
    metadata = sum(len(device.metadata) for device in devices)
    return metadata + metadata // 4 + DEVICE_BYTES * len(devices) + CLASS_BYTES * len(inventory.classes)


class Search:
    """Who is offered what is free on an agent, one taker after another, until nothing is left or nobody wants it.

    Each taker must be given its offer before the next one is asked for. `looks` counts the clients looked at.
    """

    def __init__(self, world: World, agent: Agent) -> None:
        self.looks = 0
        self._world = world
        self._agent = agent

    def __iter__(self) -> Iterator[tuple[Framework, str, Resources]]:
        while (taker := self._next()) is not None:
            yield taker

    def _next(self) -> tuple[Framework, str, Resources] | None:
        world, agent = self._world, self._agent
        worth = worth_offering(agent.free)
        if not agent.takes_tasks or not (worth or _small_wanted(world, agent)):
            return None
        for_all = all(map(_plain, agent.free))  # the same for every client: the usual case
        for client in world.shares.order():
            self.looks += 1
            framework, role = world.frameworks[client.framework_id], client.role
            if not offers.wants(framework, role) or not admits(world, framework, role, agent.spec):
                continue
            resources = agent.free if for_all else offers.offerable(framework, role, agent.free)
            usual = for_all and not framework.spec.minimums
            if not (worth if usual else enough(framework, role, resources)):
                continue
            if not offers.filtered(world, framework, role, agent.agent_id, resources):
                return framework, role, resources
        return None


def _plain(key: ResourceKey) -> bool:
    """Whether every framework may be offered such a resource, for every role."""
    return not (key.reservations or key.revocable or key.shared or key.name == "gpus")


def _small_wanted(world: World, agent: Agent) -> bool:
    """Whether some framework may take less than anybody is offered by default."""
    return bool(agent.free) and any(framework.spec.minimums for framework in world.frameworks.values())
