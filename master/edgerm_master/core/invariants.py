"""What must hold after every event. Tests and the simulator ask; a running master does not pay for it."""

from __future__ import annotations

from collections.abc import Iterator

from edgerm.core.devices import items
from edgerm.core.ids import AgentId, TaskKey
from edgerm.core.resources import Resources
from edgerm.core.scheduler import Offer
from edgerm_master.core.agents import Agent, Duty
from edgerm_master.core.fairness import Client
from edgerm_master.core.frameworks import Framework
from edgerm_master.core.offers import holdings
from edgerm_master.core.world import Timer, World


def broken(world: World) -> list[str]:
    """One line for each invariant that does not hold; empty when all do."""
    return [
        *_resources(world),
        *_offers(world),
        *_tasks(world),
        *_grants(world),
        *_sessions(world),
        *_shares(world),
    ]


def _resources(world: World) -> Iterator[str]:
    for agent in world.agents.values():
        if agent.offers and not (agent.joined and agent.duty is Duty.ACTIVE):
            how = agent.state.name if not agent.joined else agent.duty.name
            yield f"agent {agent.agent_id} is {how} and has offers outstanding"
        if not agent.joined:
            continue
        if agent.short:
            yield from _short(world, agent)
        else:
            yield from _conserved(world, agent)


def _short(world: World, agent: Agent) -> Iterator[str]:
    left = agent.spec.resources
    for resources in holdings(world, agent):
        left = left.less(resources)
    if agent.free != left:
        yield f"agent {agent.agent_id}: free is {agent.free}, what its tasks and offers leave is {left}"


def _conserved(world: World, agent: Agent) -> Iterator[str]:
    left = agent.spec.resources
    for resources in holdings(world, agent):
        if not left.covers(resources):
            yield f"agent {agent.agent_id}: {resources} is granted, {left} was left of {agent.spec.resources}"
        left = left.less(resources)
    if agent.free != left:
        yield f"agent {agent.agent_id}: free is {agent.free}, what its tasks and offers leave is {left}"


def _offers(world: World) -> Iterator[str]:
    for offer_id, offer in world.offers.items():
        framework = world.frameworks.get(offer.framework_id)
        if framework is None or offer_id not in framework.offers:
            yield f"offer {offer_id} is not among its framework's"
        elif framework.stream is None and not _withdrawn_soon(world, framework):
            yield f"offer {offer_id} is held by a framework that is away"
        elif offer.role not in framework.spec.roles or not _admitted(world, framework, offer):
            yield f"offer {offer_id} of {offer.agent_id} for {offer.role} is not one that its framework takes"
        if offer_id not in world.agents[offer.agent_id].offers:
            yield f"offer {offer_id} is not among its agent's"
    for framework in world.frameworks.values():
        for offer_id in framework.offers.keys() - world.offers.keys():
            yield f"framework {framework.framework_id} holds offer {offer_id}, which is not outstanding"


def _admitted(world: World, framework: Framework, offer: Offer) -> bool:
    """Judged anew: what is remembered of earlier judgements must say the same."""
    constraints = framework.constraints.get(offer.role)
    return constraints is None or constraints.admits(offer.agent, world.matcher)


def _withdrawn_soon(world: World, framework: Framework) -> bool:
    """A framework with thousands of offers has gone just now, and they are taken back slice by slice."""
    return world.timers.due_s((Timer.WITHDRAW, framework.framework_id, "", "")) is not None


def _tasks(world: World) -> Iterator[str]:
    for key, task in world.tasks.items():
        if key not in world.agents[task.agent_id].tasks:
            yield f"task {key} is not among its agent's"
        if task.run.settled and (task.live or task.run.owed):
            yield f"task {key} is settled but not ended: {task.run}"
        framework = world.frameworks.get(key.framework_id)
        if framework and not task.run.settled and framework.tasks.get(key.task_id) != key:
            yield f"task {key} is not among its framework's"
    for framework in world.frameworks.values():
        for key in framework.tasks.values():
            if key not in world.tasks:
                yield f"framework {framework.framework_id} names task {key}, which nobody knows"


def _grants(world: World) -> Iterator[str]:
    """What a task was given is among its resources, and no exclusive device is given twice by an agent with enough.

    Of a class that chooses, what stands here is only booked until the agent has told what it took.
    """
    holders: dict[tuple[AgentId, str, str], TaskKey] = {}
    for key, task in world.tasks.items():
        spec = task.record.task
        given = {(one.type, device_id) for one in spec.granted for device_id in one.ids}
        if not given.issubset(items(spec.resources)):
            yield f"task {key} was given {sorted(given)}, its resources are {spec.resources}"
        agent = world.agents[task.agent_id]
        choosing = {known.name for known in agent.spec.inventory.classes if known.chooses}
        for one in spec.granted if task.live and not agent.short else ():
            for device_id in () if one.shared or one.type in choosing else one.ids:
                holder = holders.setdefault((task.agent_id, one.type, device_id), key)
                if holder != key:
                    yield f"{one.type} {device_id} of agent {task.agent_id} was given to task {holder} and to {key}"


def _sessions(world: World) -> Iterator[str]:
    for session, agent_id in world.sessions.items():
        half = world.agents[agent_id].half
        if half is None or half.session != session:
            yield f"session {session} is not its agent's {agent_id}"
    for agent in world.agents.values():
        if agent.joined != (agent.half is not None):
            yield f"agent {agent.agent_id} is {agent.state.name} with session {agent.half}"


def _shares(world: World) -> Iterator[str]:
    for framework in world.frameworks.values():
        for role in framework.spec.roles:
            client = Client(role, framework.framework_id)
            used: dict[str, int] = {}
            for resources in _charged_to(world, client):
                for key, amount in resources.items():
                    if isinstance(amount, int):
                        used[key.name] = used.get(key.name, 0) + amount
            if used != world.shares.used(client):
                yield f"{client} is charged {world.shares.used(client)} and holds {used}"


def _charged_to(world: World, client: Client) -> Iterator[Resources]:
    for task in world.tasks.values():
        if task.charged and task.client == client:
            yield task.record.task.resources
    for offer in world.offers.values():
        if (offer.role, offer.framework_id) == client:
            yield offer.resources
