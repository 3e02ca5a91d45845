"""Each invariant is broken by hand once, so that none of them is blind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from support.stage import Stage

from edgerm.core.claims import Granted
from edgerm.core.constraints import any_of
from edgerm.core.ids import AgentId, OfferId, TaskId
from edgerm.core.resources import NOTHING, Resources, parse
from edgerm.core.tasks import TaskState
from edgerm_master.core.agents import Agent, AgentState
from edgerm_master.core.fairness import Client
from edgerm_master.core.frameworks import Framework
from edgerm_master.core.invariants import broken
from edgerm_master.core.world import Task, World

A1 = AgentId("a1")


def framework(world: World) -> Framework:
    return next(iter(world.frameworks.values()))


def agent(world: World) -> Agent:
    return world.agents[A1]


def one_task(world: World) -> Task:
    return next(iter(world.tasks.values()))


def leak(world: World) -> None:
    agent(world).free = NOTHING
    world.offers.clear()
    agent(world).offers = ()
    framework(world).offers.clear()


def grant_twice(world: World) -> None:
    task = one_task(world)
    task.record = replace(task.record, task=replace(task.record.task, resources=Resources.of(cpus=3)))


def short_and_wrong(world: World) -> None:
    agent(world).short = True
    agent(world).free = Resources.of(cpus=1)


def lost_with_offers(world: World) -> None:
    agent(world).state = AgentState.UNREACHABLE


def offer_without_framework(world: World) -> None:
    framework(world).offers.clear()


def offer_without_agent(world: World) -> None:
    agent(world).offers = ()


def offer_of_one_who_is_away(world: World) -> None:
    framework(world).stream = None


def offer_of_a_dropped_role(world: World) -> None:
    framework(world).spec = replace(framework(world).spec, roles=("other",))


def offer_that_does_not_fit(world: World) -> None:
    framework(world).constraints = {"*": any_of([["zone=a"]])}


def offer_that_is_none(world: World) -> None:
    framework(world).offers[OfferId("none")] = None


def task_without_agent(world: World) -> None:
    agent(world).tasks.clear()


def settled_but_live(world: World) -> None:
    one_task(world).run = replace(one_task(world).run, settled=True)


def task_without_framework(world: World) -> None:
    framework(world).tasks.clear()


def task_that_nobody_knows(world: World) -> None:
    framework(world).tasks[TaskId("t9")] = one_task(world).key._replace(task_id=TaskId("t9"))


def device_beside_the_resources(world: World) -> None:
    give(one_task(world), "c1", NOTHING)


def device_of_two(world: World) -> None:
    task = one_task(world)
    give(task, "c1", parse("x/core:{c1}"))
    key = task.key._replace(task_id=TaskId("t9"))
    world.tasks[key] = replace(task, record=replace(task.record, key=key))


def give(task: Task, device_id: str, resources: Resources) -> None:
    granted = (Granted("x/core", "x/core", (device_id,)),)
    spec = task.record.task
    task.record = replace(task.record, task=replace(spec, granted=granted, resources=spec.resources + resources))


def session_of_another(world: World) -> None:
    world.sessions[4711] = A1


def joined_without_session(world: World) -> None:
    agent(world).half = None


def charged_too_much(world: World) -> None:
    world.shares.charge(Client("*", framework(world).framework_id), Resources.of(cpus=1))


BREACHES: list[tuple[Callable[[World], None], str]] = [
    (leak, "what its tasks and offers leave is"),
    (grant_twice, "is granted"),
    (short_and_wrong, "what its tasks and offers leave is"),
    (lost_with_offers, "is UNREACHABLE and has offers outstanding"),
    (offer_without_framework, "is not among its framework's"),
    (offer_without_agent, "is not among its agent's"),
    (offer_of_one_who_is_away, "held by a framework that is away"),
    (offer_of_a_dropped_role, "is not one that its framework takes"),
    (offer_that_does_not_fit, "is not one that its framework takes"),
    (offer_that_is_none, "holds offer none, which is not outstanding"),
    (task_without_agent, "is not among its agent's"),
    (settled_but_live, "is settled but not ended"),
    (task_without_framework, "is not among its framework's"),
    (task_that_nobody_knows, "which nobody knows"),
    (device_beside_the_resources, "was given [('x/core', 'c1')], its resources are"),
    (device_of_two, "x/core c1 of agent a1 was given to task"),
    (session_of_another, "session 4711 is not its agent's a1"),
    (joined_without_session, "is JOINED with session None"),
    (charged_too_much, "is charged"),
]


@pytest.mark.parametrize(("breach", "told"), BREACHES)
def test_each_breach_is_seen(pair: Stage, breach: Callable[[World], None], told: str) -> None:
    """A world with a task and an offer is sound; broken by hand it is told what is wrong, by name."""
    pair.run("f1", "a1", "t1")
    pair.pass_time(6)
    world = pair.master.world
    assert world.offers
    assert broken(world) == []
    breach(world)
    assert [line for line in broken(world) if told in line]


def test_a_world_without_anybody_is_sound(stage: Stage) -> None:
    """Nothing is broken where nothing is."""
    assert broken(stage.master.world) == []


def test_ended_tasks_hold_nothing(pair: Stage) -> None:
    """A task whose end is not acknowledged yet does not hold its agent's resources."""
    pair.run("f1", "a1", "t1")
    pair.report("a1", "t1", TaskState.FINISHED)
    assert broken(pair.master.world) == []
    assert not pair.master.tasks[pair.key("f1", "t1")].live
