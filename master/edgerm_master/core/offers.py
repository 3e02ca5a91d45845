"""Offers: made, used once, declined, rescinded, expired; and the filters that a refusal leaves behind.

The machine of an offer has one state, *outstanding*, and four ways out of it: accept, decline, rescind, expire. So
there is no table: an offer is outstanding as long as it stands in `World.offers`. What does not live here: who is
offered what (`allocating`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from edgerm.core.ids import AgentId, OfferId
from edgerm.core.link import make_session
from edgerm.core.resources import ResourceKey, Resources
from edgerm.core.scheduler import REFUSE_DEFAULT_S, REFUSE_MAX_S, Capability, Decline, Offer, Rescind
from edgerm_master.core.agents import Agent
from edgerm_master.core.fairness import Client
from edgerm_master.core.frameworks import Filter, Framework, FrameworkState
from edgerm_master.core.world import Timer, World

ALLOCATION_INTERVAL_S = 1.0
STALE_MAX = 1000  # offers answered, that may stand among the oldest beside as many as are outstanding
FILTERS_MAX = 7  # kept per framework, role and agent beside the newest


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


def line_up(world: World, framework: Framework) -> None:
    """What the framework wants has changed: it stands in line for the roles that it takes offers for."""
    for role in framework.spec.roles:
        world.shares.compete(Client(role, framework.framework_id), wants(framework, role))


def make(world: World, framework: Framework, role: str, agent: Agent, resources: Resources) -> Offer:
    """An offer of this, outstanding from now on; telling it is left to the caller."""
    offer = Offer(OfferId(world.next_id()), framework.framework_id, role, agent.agent_id, resources, agent.spec)
    agent.free -= resources
    world.offers[offer.offer_id] = offer
    world.tally.offers_made += 1
    world.offered_s[offer.offer_id] = world.now.steady_s
    agent.offers += (offer.offer_id,)
    framework.offers[offer.offer_id] = None
    world.shares.charge(Client(role, framework.framework_id), resources)
    world.oldest.append(offer.offer_id)
    if len(world.offers) == 1:
        _await_oldest(world)
    elif len(world.oldest) > 2 * len(world.offers) + STALE_MAX:
        world.oldest = deque(world.offers)
    return offer


def take(world: World, offer_id: OfferId, back: Resources | None = None) -> Offer:
    """The offer is no longer outstanding; `back` of it is free again (None: all)."""
    offer = world.offers.pop(offer_id)
    del world.offered_s[offer_id]
    world.frameworks[offer.framework_id].offers.pop(offer_id, None)
    agent = world.agents[offer.agent_id]
    agent.offers = tuple(other for other in agent.offers if other != offer_id)
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
            world.tally.offers_declined += 1
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
    """See to it that there is a timer in time; one that is too early looks again (`drop_filter`)."""
    first_s = min(refusal.until_s for refusal in framework.filters[(role, agent_id)])
    key = (Timer.FILTER, framework.framework_id, role, agent_id)
    due_s = world.timers.due_s(key)
    if due_s is None or due_s > first_s:
        world.timers.set(key, first_s)


def rescind(world: World, offer_id: OfferId) -> None:
    """Void an outstanding offer and say so."""
    _void(world, offer_id)
    world.tally.offers_rescinded += 1


def _void(world: World, offer_id: OfferId) -> Offer:
    offer = take(world, offer_id)
    world.tell_soon(world.frameworks[offer.framework_id], Rescind(offer_id))
    return offer


def expire(world: World, offer_id: OfferId) -> None:
    """The offer was not answered in time: it is void, and goes to others first."""
    offer = _void(world, offer_id)
    world.tally.offers_expired += 1
    refuse(world, world.frameworks[offer.framework_id], offer, offer.resources, ALLOCATION_INTERVAL_S)


def expire_oldest(world: World) -> None:
    """The oldest offer has expired, unless it was answered meanwhile; all wait equally long, so it is the next one."""
    offer_id = _oldest(world)
    if offer_id is not None and _expiry_s(world, offer_id) <= world.now.steady_s:
        expire(world, offer_id)
    _await_oldest(world)


def _await_oldest(world: World) -> None:
    offer_id = _oldest(world)
    if offer_id is not None:
        world.timers.set((Timer.OFFER, "", "", ""), _expiry_s(world, offer_id))


def _oldest(world: World) -> OfferId | None:
    while world.oldest and world.oldest[0] not in world.offers:
        world.oldest.popleft()
    return world.oldest[0] if world.oldest else None


def _expiry_s(world: World, offer_id: OfferId) -> float:
    return world.offered_s[offer_id] + world.settings.offer_timeout_s


def clear_filters(world: World, framework: Framework, roles: frozenset[str]) -> None:
    """Forget the refusals for these roles; every agent may be offered anew."""
    if roles.issuperset(framework.spec.roles):
        framework.filters = {}
    else:
        framework.filters = {key: some for key, some in framework.filters.items() if key[0] not in roles}
    sweep(world)


def forget_refusals(world: World, agent_id: AgentId) -> None:
    """The agent is not what it was when frameworks refused it (Mesos does so when attributes change)."""
    for framework in world.frameworks.values():
        for role in framework.spec.roles:
            framework.filters.pop((role, agent_id), None)


def drop_filter(world: World, framework: Framework, role: str, agent_id: AgentId) -> None:
    """A refusal has ended, or all have with the agent: it may be offered again."""
    agent = world.agents.get(agent_id)
    refusals = framework.filters.pop((role, agent_id), ())
    if not refusals:  # they were cleared meanwhile, and all was looked at then
        return
    standing = tuple(refusal for refusal in refusals if refusal.until_s > world.now.steady_s)
    if standing and agent is not None and agent.joined:
        framework.filters[(role, agent_id)] = standing
        _await_end_of_filters(world, framework, role, agent_id)
    if agent is not None and len(standing) < len(refusals):
        world.dirty[agent_id] = None


def sweep(world: World) -> None:
    """Look at every agent again, beginning anywhere: no agent is always first."""
    agents = list(world.agents)
    start = make_session(world.seed, world.count) % len(agents) if agents else 0
    world.swept = [*agents[start:], *agents[:start]][::-1]
