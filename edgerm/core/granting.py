"""From claims to a task with devices: the one rule for whoever holds offers, the SDK before it accepts or the master.

What does not live here: which device fits which claim (`matching`), what the agent does with a grant.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from edgerm.core.claims import Claim, Granted
from edgerm.core.matching import Match, Mismatch, match, no_class
from edgerm.core.resources import NOTHING, ResourceKey, Resources
from edgerm.core.scheduler import AgentSpec, TaskSpec


@dataclass(frozen=True, slots=True)
class Fit:
    """What claims get of an offer."""

    granted: tuple[Granted, ...] = ()  # in the order of the claims
    resources: Resources = NOTHING  # the same devices, under the keys that the offer has them by


def fit(claims: Sequence[Claim], left: Resources, agent: AgentSpec) -> Fit | Mismatch:
    """What the claims get of what is left of an agent's offers, or why they do not fit. Nothing is taken by it.

    Revocable devices count as not there. Raises nothing: claims that are malformed do not fit, and say so.
    """
    if not claims:
        return Fit()
    keys = _keys(left, {claim.type for claim in claims})
    free = {
        (device.name, device.id)
        for device in agent.inventory.devices
        if (of := keys.get((device.name, device.shared))) and device.id in of and device.offered
    }
    found = match(claims, agent.inventory, free)
    if isinstance(found, Mismatch):
        return found
    return Fit(found.granted, Resources(_amounts(found, keys)))


def grant(task: TaskSpec, left: Resources, agent: AgentSpec) -> TaskSpec:
    """The task with devices for its claims: in `granted`, with their generation, and among its resources.

    `left`: of the offers, before this task. What the task names in its own resources is not given a second time. If a
    claim does not fit, the task has a `fault` that says why. A task without claims, one that is wrong already and one
    that has its grants stay as they are.
    """
    if task.fault or task.granted or not task.claims:
        return task
    found = fit(task.claims, left.less(task.resources), agent)
    if isinstance(found, Mismatch):
        return replace(task, fault=found.reason)
    return replace(
        task,
        granted=found.granted,
        resources=task.resources + found.resources,
        generation=agent.inventory.generation,
    )


def unclaimable(claims: Sequence[Claim], agent: AgentSpec) -> Mismatch | None:
    """Why the agent can never serve the claims, whatever is free there; None: it may.

    It has not the class, nothing of that can be claimed, or the claim is wrong for it: a filter that cannot be asked of
    its metadata, one that fits more memories than it counts.
    """
    classes = {known.name: known for known in agent.inventory.classes}
    for claim in claims:
        if claim.count and not claim.optional:
            missing = no_class(claim, classes.get(claim.type))
            if missing is not None:
                return missing
    found = match(claims, agent.inventory, ())
    return found if isinstance(found, Mismatch) and found.problem else None


_Keys: TypeAlias = dict[tuple[str, bool], dict[str, ResourceKey]]
"""By class and pool, and then by id: the key that the offer has the device by."""


def _keys(left: Resources, classes: Collection[str]) -> _Keys:
    """Of what is reserved, too: an offer holds only what is reserved for its role."""
    found: _Keys = {}
    for key, amount in left.items():
        if key.name in classes and isinstance(amount, frozenset) and not key.revocable and not key.disk:
            found.setdefault((key.name, key.shared), {}).update(dict.fromkeys(amount, key))
    return found


def _amounts(found: Match, keys: _Keys) -> Iterator[tuple[ResourceKey, frozenset[str]]]:
    for granted in found.granted:
        if granted.ids:
            of = keys[granted.type, granted.shared]
            for key in {of[device_id] for device_id in granted.ids}:
                yield key, frozenset(device_id for device_id in granted.ids if of[device_id] == key)
