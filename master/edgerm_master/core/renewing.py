"""UPDATE_FRAMEWORK: a framework changes what it says of itself while it is subscribed (Mesos' rules).

Its name, roles, capabilities, filters and timeout may change; user, checkpoint and principal may not. Roles that it no
longer names, and agents that its new constraints leave out, are taken back from it at once.
"""

from __future__ import annotations

from edgerm.core.effects import Put
from edgerm.core.scheduler import UpdateFramework
from edgerm_master.core import offers
from edgerm_master.core.admitting import admits
from edgerm_master.core.changes import FrameworkUpdated
from edgerm_master.core.fairness import Client
from edgerm_master.core.frameworks import Framework
from edgerm_master.core.records import FrameworkRecord
from edgerm_master.core.subscribing import enter, foreign_role
from edgerm_master.core.world import World


def fault(framework: Framework, call: UpdateFramework) -> str:
    """Why the update cannot be made, in words fit for a 400; empty if it can."""
    old, new = framework.spec, call.spec
    if new.principal != old.principal:
        return f"principal {new.principal!r} is not the framework's principal, which cannot change"
    if new.user != old.user:
        return f"FrameworkInfo.user cannot change from {old.user!r} to {new.user!r}"
    if new.checkpoint != old.checkpoint:
        return f"FrameworkInfo.checkpoint cannot change from {old.checkpoint} to {new.checkpoint}"
    return foreign_role(new, call.suppressed_roles, call.constraints)


def update(world: World, framework: Framework, call: UpdateFramework) -> None:
    """Take the new description over; with a fault nothing changes."""
    if fault(framework, call):
        return
    dropped = frozenset(framework.spec.roles) - frozenset(call.spec.roles)
    framework.spec = call.spec
    framework.suppressed = set(call.suppressed_roles)
    framework.constrain(call.constraints)
    enter(world, framework)
    for role in dropped:
        world.shares.compete(Client(role, framework.framework_id), False)
    offers.line_up(world, framework)
    world.out.append(Put("framework", framework.framework_id, FrameworkRecord(framework.framework_id, framework.spec)))
    for offer_id in list(framework.offers):
        offer = world.offers[offer_id]
        if offer.role in dropped or not admits(world, framework, offer.role, offer.agent):
            offers.rescind(world, offer_id)
    offers.clear_filters(world, framework, dropped)  # and with that every agent is looked at again
    world.notice(FrameworkUpdated(framework, "updated by its scheduler"))
