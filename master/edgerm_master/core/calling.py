"""A framework's calls: which file carries out which."""

from __future__ import annotations

from edgerm.core.scheduler import (
    Accept,
    Acknowledge,
    AnswerInverse,
    Call,
    Decline,
    Kill,
    Message,
    Reconcile,
    Request,
    Revive,
    Suppress,
    Teardown,
    UpdateFramework,
)
from edgerm_master.core import draining, messaging, offers, reconciling, renewing, subscribing, updating
from edgerm_master.core.frameworks import Framework, FrameworkSignal
from edgerm_master.core.launching import accept
from edgerm_master.core.world import World


def carry_out(world: World, framework: Framework, call: Call) -> None:
    """Do what the framework asks for. A Request brings no offers: they come as they come, as in Mesos' allocator."""
    match call:
        case Accept():
            accept(world, framework, call)
        case Decline():
            offers.decline(world, framework, call)
        case Acknowledge():
            updating.acknowledge(world, framework, call)
        case Kill():
            reconciling.kill(world, framework, call)
        case Message():
            messaging.to_task(world, framework, call)
        case Reconcile():
            reconciling.reconcile(world, framework, call)
        case Revive():
            subscribing.revive(world, framework, call)
            offers.line_up(world, framework)
        case AnswerInverse():
            draining.answer(world, framework, call)
        case Request(waiting=waiting):
            framework.waiting = waiting
        case Suppress():
            subscribing.suppress(framework, call)
            offers.line_up(world, framework)
        case UpdateFramework():
            renewing.update(world, framework, call)
        case Teardown(why):
            subscribing.remove(world, framework, FrameworkSignal.TEARDOWN, why)
