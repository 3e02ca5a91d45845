"""ACCEPT: what becomes of the tasks that a framework asks for."""

from __future__ import annotations

from dataclasses import replace

from edgerm.core.alternatives import resolve
from edgerm.core.effects import Put
from edgerm.core.granting import grant
from edgerm.core.ids import TaskKey
from edgerm.core.link import NAME_BYTES_MAX, Launch
from edgerm.core.resources import NOTHING, Resources, to_text
from edgerm.core.scheduler import Accept, Capability, Offer, TaskSpec
from edgerm.core.tasks import Reason, TaskState
from edgerm.core.texts import cut
from edgerm_master.core import offers
from edgerm_master.core.fairness import Client
from edgerm_master.core.frameworks import Framework
from edgerm_master.core.records import RunRecord, TaskRecord
from edgerm_master.core.updating import tell_own
from edgerm_master.core.world import Task, World


def accept(world: World, framework: Framework, call: Accept) -> None:
    """Use the offers for the tasks, in order; what is left is declined with the filter."""
    known = [world.offers[offer_id] for offer_id in dict.fromkeys(call.offer_ids) if offer_id in framework.offers]
    why = _fault_of_offers(call, known)
    if why:
        for offer in known:
            offers.take(world, offer.offer_id)
            world.tally.offers_accepted += 1
        for spec in call.tasks:
            state = framework.shown(TaskState.DROPPED)
            tell_own(world, framework, spec.task_id, spec.agent_id, state, Reason.INVALID_OFFERS, why)
        return
    left = NOTHING
    for offer in known:
        left = left + offer.resources
    launched = False
    for asked in call.tasks:
        spec = _decided(world, framework, known[0], asked, left)
        why = _fault_of_task(framework, known[0], spec, left)
        if why:
            tell_own(world, framework, spec.task_id, spec.agent_id, TaskState.ERROR, Reason.TASK_INVALID, why)
        else:
            left = left - spec.resources
            _launch(world, framework, known[0].role, spec)
            launched = True
    _return_rest(world, framework, known, left, call.refuse_s, launched)


def _decided(world: World, framework: Framework, offer: Offer, asked: TaskSpec, left: Resources) -> TaskSpec:
    """The task as one of its builds, with the devices that its claims are given; what does not fit is its fault."""
    spec = grant(resolve(asked, left, offer.agent, offer.agent_id, world.matcher), left, offer.agent)
    if spec.fault and not asked.fault and _claims_unspoken(framework, offer, asked):
        return replace(spec, fault=f"{spec.fault}; shared devices are for frameworks with SHARED_RESOURCES")
    return replace(spec, app=cut(framework.spec.name, NAME_BYTES_MAX)) if spec.granted else spec


def _claims_unspoken(framework: Framework, offer: Offer, asked: TaskSpec) -> bool:
    """Whether it claims devices that are never offered to a framework which does not know what shared ones are."""
    if Capability.SHARED_RESOURCES in framework.spec.capabilities:
        return False
    shared = {each.name for each in offer.agent.inventory.classes if each.shared}
    return any(claim.shared or (claim.shared is None and claim.type in shared) for claim in asked.claims)


def _fault_of_offers(call: Accept, known: list[Offer]) -> str:
    if not call.offer_ids:
        return "the call names no offer"
    if len(known) < len(set(call.offer_ids)):
        outstanding = {offer.offer_id for offer in known}
        gone = next(offer_id for offer_id in call.offer_ids if offer_id not in outstanding)
        return f"offer {gone} is not outstanding: it was used, declined, rescinded or never made"
    if len({(offer.agent_id, offer.role) for offer in known}) > 1 or len(known) < len(call.offer_ids):
        return "the offers are not all of one agent and one role, each named once"
    return ""


def _fault_of_task(framework: Framework, offer: Offer, spec: TaskSpec, left: Resources) -> str:
    if spec.fault:
        return spec.fault
    if spec.agent_id != offer.agent_id:
        return f"the task names agent {spec.agent_id}, the offer is of agent {offer.agent_id}"
    if spec.task_id in framework.tasks:
        return f"task id {spec.task_id!r} is in use by a task whose end was not acknowledged"
    if not spec.resources and not spec.claims:
        return "the task asks for no resources"
    if not left.covers(spec.resources):
        return f"the task asks for {to_text(spec.resources)}, of the offer {to_text(left) or 'nothing'} is left"
    return ""


def _launch(world: World, framework: Framework, role: str, spec: TaskSpec) -> None:
    key = TaskKey(framework.framework_id, spec.task_id, world.next_launch_id())
    task = Task(TaskRecord(key, role, spec), RunRecord(key, TaskState.STAGING), charged=True)
    agent = world.agents[spec.agent_id]
    world.tasks[key] = task
    framework.tasks[spec.task_id] = key
    agent.hold(key)
    world.shares.charge(Client(role, framework.framework_id), spec.resources)
    # The run first: a batch may end between the two, and a task without a run would be a promise half made.
    world.out += (Put("run", str(key), task.run), Put("task", str(key), task.record))
    world.tally.tasks_launched += 1
    world.note_launch(task)
    assert agent.half is not None, "offers of an agent without a session are rescinded"
    agent.half.order(Launch(key, role, spec, world.request))
    world.ring(agent)


def _return_rest(
    world: World, framework: Framework, known: list[Offer], left: Resources, refuse_s: float, launched: bool
) -> None:
    for offer in known[1:]:
        offers.take(world, offer.offer_id, NOTHING)
    offers.take(world, known[0].offer_id, left)
    world.tally.offers_accepted += len(known)
    wait_s = offers.refusal_s(refuse_s)
    if not launched:
        wait_s = max(wait_s, offers.ALLOCATION_INTERVAL_S)
    whole = replace(known[0], resources=left)
    offers.refuse(world, framework, whole, left, wait_s)
