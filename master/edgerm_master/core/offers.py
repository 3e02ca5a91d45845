"""Offers: made, used once, declined, rescinded, expired; and the filters that a refusal leaves behind.

The machine of an offer has one state, *outstanding*, and four ways out of it: accept, decline, rescind, expire. So
there is no table: an offer is outstanding as long as it stands in `World.offers`.
"""

from __future__ import annotations

from collections.abc import Iterator

from edgerm.core.ids import AgentId, FrameworkId, OfferId
from edgerm.core.link import make_session
from edgerm.core.resources import ResourceKey, Resources, to_text
from edgerm.core.scheduler import REFUSE_DEFAULT_S, REFUSE_MAX_S, Capability, Decline, Offer, Offers, Rescind
from edgerm_master.core.agents import Agent
from edgerm_master.core.fairness import Client
from edgerm_master.core.frameworks import Filter, Framework, FrameworkState
from edgerm_master.core.world import Timer, World

ALLOCATION_INTERVAL_S = 1.0
SLICE_AGENTS = 64  # allocated in one go; the rest waits for the next turn of the loop
OFFERS_PER_EVENT = 100
OFFERS_EVENT_BYTES = 256_000
OFFER_BYTES = 200  # without resources and attributes
FILTERS_MAX = 7  # kept per framework, role and agent beside the newest
MIN_CPUS_MILLI = 10
MIN_MEM_MILLI = 32_000


def allocate(world: World) -> None:
    """Offer what is free on the agents where something changed, at most a slice of them."""
    made: dict[FrameworkId, list[Offer]] = {}
    for _ in range(min(SLICE_AGENTS, len(world.dirty))):
        agent = world.agents[next(iter(world.dirty))]
        del world.dirty[agent.agent_id]
        while (taker := _taker(world, agent)) is not None:
            framework, role = taker
            made.setdefault(framework.framework_id, []).append(_make(world, framework, role, agent))
    for framework_id, offers in made.items():
        for some in _events(offers):
            world.tell_soon(world.frameworks[framework_id], Offers(some))


def _events(offers: list[Offer]) -> Iterator[tuple[Offer, ...]]:
    """As few events as hold the offers: at most 100 in one, and about 256 kB."""
    some: list[Offer] = []
    size = 0
    for offer in offers:
        size += OFFER_BYTES + len(offer.agent.info) + len(to_text(offer.resources))
        if some and (len(some) == OFFERS_PER_EVENT or size > OFFERS_EVENT_BYTES):
            yield tuple(some)
            some, size = [], OFFER_BYTES + len(offer.agent.info)
        some.append(offer)
    yield tuple(some)


def worth_offering(resources: Resources) -> bool:
    """Whether an offer of this is made at all: not below 0.01 cpus and 32 MB of memory (Mesos' MIN_CPUS, MIN_MEM).

    Shared resources come along but do not count: they are never used up, so there would always be one more offer.
    """
    own = resources.only(lambda key: not key.shared)
    return own.scalar_milli("cpus") >= MIN_CPUS_MILLI or own.scalar_milli("mem") >= MIN_MEM_MILLI


def _taker(world: World, agent: Agent) -> tuple[Framework, str] | None:
    if not agent.joined or not worth_offering(agent.free):
        return None
    for client in world.shares.order():
        framework = world.frameworks[client.framework_id]
        if not wants(framework, client.role):
            continue
        free = offerable(framework, client.role, agent.free)
        if worth_offering(free) and not filtered(world, framework, client.role, agent.agent_id, free):
            return framework, client.role
    return None


def offerable(framework: Framework, role: str, free: Resources) -> Resources:
    """What of `free` may be offered to the framework for `role`: nothing that it said it does not understand."""
    spoken = framework.spec.capabilities

    def understood(key: ResourceKey) -> bool:
        return (
            (len(key.reservations) <= 1 or Capability.RESERVATION_REFINEMENT in spoken)
            and (key.name != "gpus" or Capability.GPU_RESOURCES in spoken)
            and (not key.revocable or Capability.REVOCABLE_RESOURCES in spoken)
            and (not key.shared or Capability.SHARED_RESOURCES in spoken)
        )

    return free.for_role(role).only(understood)


def wants(framework: Framework, role: str) -> bool:
    """Whether the framework is there and takes offers for `role`."""
    active = framework.state is FrameworkState.ACTIVE
    return active and role in framework.spec.roles and role not in framework.suppressed


def filtered(world: World, framework: Framework, role: str, agent_id: AgentId, free: Resources) -> bool:
    """Whether the framework has refused this, or more, of that agent not long ago."""
    now_s = world.now.steady_s
    refusals = framework.filters.get((role, agent_id), ())
    return any(refusal.until_s > now_s and refusal.resources.covers(free) for refusal in refusals)


def _make(world: World, framework: Framework, role: str, agent: Agent) -> Offer:
    resources = offerable(framework, role, agent.free)
    offer = Offer(OfferId(world.next_id()), framework.framework_id, role, agent.agent_id, resources, agent.spec)
    agent.free -= resources
    world.offers[offer.offer_id] = offer
    world.offered_s[offer.offer_id] = world.now.steady_s
    agent.offers.add(offer.offer_id)
    framework.offers.add(offer.offer_id)
    world.shares.charge(Client(role, framework.framework_id), resources)
    due_s = world.now.steady_s + world.settings.offer_timeout_s
    world.timers.set((Timer.OFFER, offer.offer_id, "", ""), due_s)
    return offer


def take(world: World, offer_id: OfferId, back: Resources | None = None) -> Offer:
    """The offer is no longer outstanding; `back` of it is free again (None: all)."""
    offer = world.offers.pop(offer_id)
    del world.offered_s[offer_id]
    world.timers.cancel((Timer.OFFER, offer_id, "", ""))
    world.frameworks[offer.framework_id].offers.discard(offer_id)
    agent = world.agents[offer.agent_id]
    agent.offers.discard(offer_id)
    world.shares.refund(Client(offer.role, offer.framework_id), offer.resources)
    free(world, agent, offer.resources if back is None else back)
    return offer


def free(world: World, agent: Agent, resources: Resources) -> None:
    """These resources of the agent are neither used nor offered any more."""
    if not resources:
        return
    if agent.short:
        # It came back with less than is in use: adding up would promise what is not there.
        settle_free(world, agent)
    else:
        agent.free += resources
    world.dirty[agent.agent_id] = None


def settle_free(world: World, agent: Agent) -> None:
    """Work out anew what is free, after the agent's inventory changed."""
    agent.short, agent.free = False, agent.spec.resources
    for resources in holdings(world, agent):
        agent.short = agent.short or not agent.free.covers(resources)
        agent.free = agent.free.less(resources)


def holdings(world: World, agent: Agent) -> Iterator[Resources]:
    """What each of the agent's live tasks and outstanding offers holds.

    Not as a sum: tasks from before the agent changed its inventory may hold amounts of types that do not add up.
    """
    for key in agent.tasks:
        task = world.tasks[key]
        if task.live:
            yield task.record.task.resources
    for offer_id in agent.offers:
        yield world.offers[offer_id].resources


def decline(world: World, framework: Framework, call: Decline) -> None:
    """Give offers back; ids that are not outstanding are ignored."""
    for offer_id in call.offer_ids:
        if offer_id in framework.offers:
            offer = take(world, offer_id)
            refuse(world, framework, offer, offer.resources, max(refusal_s(call.refuse_s), ALLOCATION_INTERVAL_S))


def refusal_s(asked_s: float) -> float:
    """Seconds of a filter: what is negative or not a number means the default, more than a year a year (Mesos)."""
    return min(asked_s, REFUSE_MAX_S) if asked_s >= 0 else REFUSE_DEFAULT_S


def refuse(world: World, framework: Framework, offer: Offer, resources: Resources, refuse_s: float) -> None:
    """Withhold this or less of that agent from the framework's role; 0 s: no filter."""
    if refuse_s <= 0 or not resources:
        return
    until_s = world.now.steady_s + refuse_s
    where = (offer.role, offer.agent_id)
    standing = [
        old
        for old in framework.filters.get(where, ())
        if old.until_s > world.now.steady_s and not (old.until_s <= until_s and resources.covers(old.resources))
    ]
    framework.filters[where] = (*standing[-FILTERS_MAX:], Filter(resources, until_s))
    _await_end_of_filters(world, framework, *where)


def _await_end_of_filters(world: World, framework: Framework, role: str, agent_id: AgentId) -> None:
    first_s = min(refusal.until_s for refusal in framework.filters[(role, agent_id)])
    world.timers.set((Timer.FILTER, framework.framework_id, role, agent_id), first_s)


def rescind(world: World, offer_id: OfferId) -> None:
    """Void an outstanding offer and say so."""
    offer = take(world, offer_id)
    world.tell_soon(world.frameworks[offer.framework_id], Rescind(offer_id))


def expire(world: World, offer_id: OfferId) -> None:
    """The offer was not answered in time: it is void, and goes to others first."""
    framework = world.frameworks[world.offers[offer_id].framework_id]
    offer = world.offers[offer_id]
    rescind(world, offer_id)
    refuse(world, framework, offer, offer.resources, ALLOCATION_INTERVAL_S)


def clear_filters(world: World, framework: Framework, roles: frozenset[str]) -> None:
    """Forget the refusals for these roles; every agent may be offered anew."""
    for role, agent_id in [key for key in framework.filters if key[0] in roles]:
        del framework.filters[(role, agent_id)]
        world.timers.cancel((Timer.FILTER, framework.framework_id, role, agent_id))
    sweep(world)


def drop_filter(world: World, framework: Framework, role: str, agent_id: AgentId) -> None:
    """A refusal has ended, or all have with the agent: it may be offered again."""
    agent = world.agents.get(agent_id)
    refusals = framework.filters.pop((role, agent_id), ())
    standing = tuple(refusal for refusal in refusals if refusal.until_s > world.now.steady_s)
    if standing and agent is not None and agent.joined:
        framework.filters[(role, agent_id)] = standing
        _await_end_of_filters(world, framework, role, agent_id)
    if agent_id in world.agents:
        world.dirty[agent_id] = None


def sweep(world: World) -> None:
    """Look at every agent again, beginning anywhere: no agent is always first."""
    agents = list(world.agents)
    start = make_session(world.seed, world.count) % len(agents) if agents else 0
    world.dirty.update(dict.fromkeys(agents[start:] + agents[:start]))
