"""Frameworks: how they subscribe, lose their stream, come back, and end (mesos-v1 6.3)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import islice

from edgerm.core.effects import Drop, Put
from edgerm.core.ids import FrameworkId, OfferId
from edgerm.core.scheduler import Error, FrameworkSpec, Revive, Subscribed, Suppress
from edgerm.core.tasks import Reason, TaskSignal
from edgerm_master.core import draining, offers
from edgerm_master.core.changes import FrameworkAdded, FrameworkRemoved, FrameworkUpdated
from edgerm_master.core.effects import CloseStream, Tell
from edgerm_master.core.events import Subscribe
from edgerm_master.core.fairness import Client
from edgerm_master.core.frameworks import Framework, FrameworkSignal
from edgerm_master.core.reconciling import resend
from edgerm_master.core.records import FrameworkRecord, RemovedRecord
from edgerm_master.core.updating import charge, end_here, order_kill, settle, uncharge
from edgerm_master.core.world import Timer, World

HEARTBEAT_INTERVAL_S = 15.0
COMPLETED_FRAMEWORKS_MAX = 50
REMOVED_MAX = 10_000
WITHDRAWN_AT_ONCE = 200  # offers
PAUSE_S = 0.001  # between two slices


def subscribe(world: World, event: Subscribe) -> None:
    """A new framework, one that comes back, or a refusal: an ERROR event and the end of the stream."""
    known = world.frameworks.get(event.framework_id) if event.framework_id else None
    why = _refusal(world, event, known)
    if why:
        world.out += (Tell(event.stream, Error(why)), CloseStream(event.stream))
        return
    if known is None:
        framework = _admit(world, event)
    else:
        framework = known
        _leave_stream(world, framework, "Framework failed over")
        _renew(world, framework, event.spec)
    framework.move(FrameworkSignal.SUBSCRIBE)
    framework.stream = event.stream
    framework.suppressed = set(event.suppressed_roles)
    framework.constrain(event.constraints)
    framework.filters.clear()
    framework.waiting = ()
    world.streams[event.stream] = framework.framework_id
    world.timers.cancel((Timer.FAILOVER, framework.framework_id, "", ""))
    world.out.append(Put("framework", framework.framework_id, FrameworkRecord(framework.framework_id, framework.spec)))
    if known is None:
        world.notice(FrameworkAdded(framework))
        for key in framework.tasks.values():
            world.note_launch(world.tasks[key])
    else:
        world.notice(FrameworkUpdated(framework, "subscribed again"))
    world.tell(framework, Subscribed(framework.framework_id, HEARTBEAT_INTERVAL_S))
    resend(world, framework)
    draining.look_at_agents(world, framework)
    offers.sweep(world)


def _refusal(world: World, event: Subscribe, known: Framework | None) -> str:
    if event.framework_id in world.removed:
        return "Framework has been removed"
    if known is not None and known.spec.principal != event.spec.principal:
        return f"principal {event.spec.principal!r} is not the framework's principal"
    return foreign_role(event.spec, event.suppressed_roles, event.constraints)


def foreign_role(spec: FrameworkSpec, suppressed: Iterable[str], constraints: Iterable[str]) -> str:
    """What names a role that the framework does not have, in words; empty if nothing does."""
    for what, named in (("suppressed role", suppressed), ("role of offer constraints,", constraints)):
        for role in named:
            if role not in spec.roles:
                return f"{what} {role!r} is not one of the framework's roles"
    return ""


def _admit(world: World, event: Subscribe) -> Framework:
    framework_id = event.framework_id or FrameworkId(world.next_id())
    framework = Framework(framework_id, event.spec, subscribed_wall_s=world.now.wall_s)
    world.frameworks[framework_id] = framework
    enter(world, framework)
    for key, task in world.tasks.items():  # adopted from agents before their framework came back
        if key.framework_id == framework_id and not task.run.settled:
            framework.tasks[key.task_id] = key
    charge(world, (world.tasks[key] for key in framework.tasks.values()))
    return framework


def enter(world: World, framework: Framework) -> None:
    """The framework competes for its roles."""
    for role in framework.spec.roles:
        world.shares.enter(Client(role, framework.framework_id))


def _renew(world: World, framework: Framework, spec: FrameworkSpec) -> None:
    """Take over what may change; a role that is no longer named gets no more offers."""
    framework.spec = replace(spec, user=framework.spec.user, checkpoint=framework.spec.checkpoint)
    framework.resubscribed_wall_s = world.now.wall_s
    enter(world, framework)


def stream_closed(world: World, framework: Framework) -> None:
    """The stream broke: offers are withdrawn, and the failover clock starts."""
    if framework.stream is not None:
        world.streams.pop(framework.stream, None)
        framework.stream = None
    framework.asked.clear()
    draining.forget_told(world, framework)
    withdraw_some(world, framework)
    framework.move(FrameworkSignal.DISCONNECT)
    world.notice(FrameworkUpdated(framework, "its stream broke"))
    await_return(world, framework, framework.spec.failover_timeout_s)


def withdraw_some(world: World, framework: Framework) -> None:
    """Take offers of a framework that is away back, a slice of them; the rest in turns of its own."""
    if framework.stream is None:
        for offer_id in list(islice(framework.offers, WITHDRAWN_AT_ONCE)):
            _withdraw(world, offer_id)
        if framework.offers:
            world.timers.set((Timer.WITHDRAW, framework.framework_id, "", ""), world.now.steady_s + PAUSE_S)


def _withdraw(world: World, offer_id: OfferId) -> None:
    """Nobody is told: the framework knows that its offers end with its stream."""
    offers.take(world, offer_id)
    world.tally.offers_rescinded += 1


def await_return(world: World, framework: Framework, wait_s: float) -> None:
    """Give the framework that long to come back."""
    due_s = world.now.steady_s + wait_s
    world.timers.set((Timer.FAILOVER, framework.framework_id, "", ""), due_s)


def expire(world: World, framework: Framework) -> None:
    """It did not come back in time: it ends, as soon as its offers are withdrawn."""
    if framework.offers:
        await_return(world, framework, PAUSE_S)
    else:
        remove(world, framework, FrameworkSignal.EXPIRE)


def _leave_stream(world: World, framework: Framework, why: str) -> None:
    """End the stream; with an ERROR unless the framework knows why (`why` is empty)."""
    draining.forget_told(world, framework)
    for offer_id in list(framework.offers):
        _withdraw(world, offer_id)
    framework.asked.clear()
    if framework.stream is not None:
        if why:
            world.tell(framework, Error(why))
        world.out.append(CloseStream(framework.stream))
        world.streams.pop(framework.stream, None)
        framework.stream = None


def remove(world: World, framework: Framework, signal: FrameworkSignal, why: str = "") -> None:
    """The framework ends: its tasks are killed, its id never comes back. `why` is told unless it is its own will."""
    framework.move(signal)
    _leave_stream(world, framework, why)
    world.timers.cancel((Timer.FAILOVER, framework.framework_id, "", ""))
    for key in list(framework.tasks.values()):
        task = world.tasks[key]
        agent = world.agents[task.agent_id]
        if not task.live:
            settle(world, task)
        elif agent.half is not None and agent.half.withdraw(key):
            end_here(world, task, TaskSignal.KILLED, Reason.FRAMEWORK_REMOVED, "the framework has ended")
        else:
            uncharge(world, task)
            world.change_run(task, kill_asked=True, owed=())
            order_kill(world, agent, task)
    world.shares.leave(framework.framework_id)
    framework_id = framework.framework_id
    framework.ended_wall_s = world.now.wall_s
    del world.frameworks[framework_id]
    _remember_removed(world, framework_id, framework.spec.name)
    world.completed = [*world.completed, framework][-COMPLETED_FRAMEWORKS_MAX:]
    world.out.append(Drop("framework", framework_id))
    ended = "its failover timeout has passed" if signal is FrameworkSignal.EXPIRE else "torn down"
    world.notice(FrameworkRemoved(framework, why or ended))


def _remember_removed(world: World, framework_id: FrameworkId, name: str) -> None:
    """Its id is refused from now on; the oldest such id makes room for it in the end."""
    number = 1 + next(reversed(world.removed.values())).number if world.removed else 1
    record = RemovedRecord(framework_id, name, number)
    world.removed[framework_id] = record
    world.out.append(Put("removed", framework_id, record))
    if len(world.removed) > REMOVED_MAX:
        oldest = next(iter(world.removed))
        del world.removed[oldest]
        world.out.append(Drop("removed", oldest))


def revive(world: World, framework: Framework, call: Revive) -> None:
    """Clear filters and suppression."""
    roles = frozenset(call.roles or framework.spec.roles)
    framework.suppressed -= roles
    offers.clear_filters(world, framework, roles)


def suppress(framework: Framework, call: Suppress) -> None:
    """Take no more offers for these roles."""
    framework.suppressed |= set(call.roles or framework.spec.roles)
