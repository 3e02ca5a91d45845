"""What an earlier master stored becomes the world again; everybody in it is waited for."""

from __future__ import annotations

from collections.abc import Iterable

from edgerm.core.blobs import Digest
from edgerm.core.devices import Inventory
from edgerm.core.ids import TaskKey
from edgerm_master.core import departing, draining, subscribing
from edgerm_master.core.agents import Agent
from edgerm_master.core.frameworks import Framework
from edgerm_master.core.records import (
    AgentRecord,
    FrameworkRecord,
    GoneRecord,
    InventoryRecord,
    Record,
    RemovedRecord,
    RunRecord,
    TaskRecord,
)
from edgerm_master.core.world import Task, World


def recover(world: World, records: Iterable[Record]) -> None:
    """Fill the empty world, and set the clocks of who has to come back."""
    what: dict[TaskKey, TaskRecord] = {}
    runs: dict[TaskKey, RunRecord] = {}
    left: list[RemovedRecord | GoneRecord] = []
    agents: list[AgentRecord] = []
    inventories: dict[Digest, Inventory] = {}
    for record in records:
        match record:
            case FrameworkRecord(framework_id, spec):
                world.frameworks[framework_id] = Framework(framework_id, spec)
            case RemovedRecord() | GoneRecord():
                left.append(record)
            case AgentRecord():
                agents.append(record)
            case InventoryRecord(digest, inventory):
                inventories[digest] = inventory
            case TaskRecord():
                what[record.key] = record
            case RunRecord():
                runs[record.key] = record
    world.inventories.recover(inventories)
    for record in agents:
        _recover_agent(world, record)
    left.sort(key=lambda record: record.number)
    world.removed = {record.framework_id: record for record in left if isinstance(record, RemovedRecord)}
    world.gone = {record.agent_id: record for record in left if isinstance(record, GoneRecord)}
    for key, record in what.items():
        _recover_task(world, Task(record, runs[key]))
    _await_all(world)


def _await_all(world: World) -> None:
    for framework in world.frameworks.values():
        subscribing.enter(world, framework)
        wait_s = max(framework.spec.failover_timeout_s, world.settings.recovery_s)
        subscribing.await_return(world, framework, wait_s)
    for agent in world.agents.values():
        if agent.agent_id in world.gone:
            departing.recovered(world, agent)
        else:
            due_s = world.now.steady_s + world.settings.recovery_s
            world.timers.set(agent.agent_id, due_s)


def _recover_agent(world: World, record: AgentRecord) -> None:
    spec = world.inventories.spec_of(record)
    agent = Agent(record.agent_id, spec, record.incarnation, duty=record.duty)
    world.agents[record.agent_id] = agent
    if record.drain is not None:
        draining.recovered(world, agent, record.drain)


def _recover_task(world: World, task: Task) -> None:
    key = task.key
    world.tasks[key] = task
    world.agents[task.agent_id].hold(key)
    framework = world.frameworks.get(key.framework_id)
    if framework is not None and not task.run.settled:
        framework.tasks[key.task_id] = key
