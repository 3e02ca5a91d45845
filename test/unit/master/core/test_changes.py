"""What operators are told: every change once, in order, so that who saw the beginning knows the end."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
from support.stage import Stage, task

from edgerm.core.ids import AgentId, FrameworkId, StreamId, TaskKey
from edgerm.core.link import Kill as KillOrder
from edgerm.core.link import Launch
from edgerm.core.scheduler import Accept, Kill, Teardown
from edgerm.core.tasks import TaskState
from edgerm_master.core.agents import Duty
from edgerm_master.core.changes import (
    AgentAdded,
    AgentRemoved,
    Change,
    DutyChanged,
    FrameworkAdded,
    FrameworkRemoved,
    FrameworkUpdated,
    KillAsked,
    TaskAdded,
    TaskUpdated,
)
from edgerm_master.core.effects import Noticed, Watching
from edgerm_master.core.events import (
    Called,
    DeactivateAgent,
    DrainAgent,
    Maintained,
    Maintenance,
    ReactivateAgent,
    Watch,
    WatchEnded,
)
from edgerm_master.core.world import World

WATCHER = StreamId("w")


@dataclass
class Picture:
    """What a watcher knows: the agents that are there, frameworks with whether they are connected, tasks' states."""

    agents: set[AgentId] = field(default_factory=set)
    frameworks: dict[FrameworkId, bool] = field(default_factory=dict)
    tasks: dict[TaskKey, TaskState] = field(default_factory=dict)

    def follow(self, change: Change) -> None:
        """Take the change over; what cannot follow on what is known fails."""
        match change:
            case AgentAdded(agent):
                assert agent.agent_id not in self.agents
                self.agents.add(agent.agent_id)
            case AgentRemoved(agent_id):
                self.agents.discard(agent_id)
            case FrameworkAdded(framework):
                assert framework.framework_id not in self.frameworks
                self.frameworks[framework.framework_id] = framework.stream is not None
            case FrameworkUpdated(framework):
                assert framework.framework_id in self.frameworks
                self.frameworks[framework.framework_id] = framework.stream is not None
            case FrameworkRemoved(framework):
                del self.frameworks[framework.framework_id]
            case TaskAdded(record, run):
                assert record.key not in self.tasks and record.key.framework_id in self.frameworks
                self.tasks[record.key] = run.state
            case TaskUpdated(key, _, state):
                assert key in self.tasks
                self.tasks[key] = state


def seen(world: World) -> Picture:
    """What the master's state says now."""
    tasks = {key: task.run.state for key, task in world.tasks.items() if world.shown(key.framework_id) is not None}
    for framework in (*world.frameworks.values(), *world.completed):
        tasks |= {task.record.key: task.run.state for task in framework.completed}
    return Picture(
        {agent.agent_id for agent in world.agents.values() if agent.joined},
        {framework.framework_id: framework.stream is not None for framework in world.frameworks.values()},
        tasks,
    )


def changes(stage: Stage) -> list[Change]:
    """All that was noticed since the last look."""
    told = [effect.change for effect in stage.log if isinstance(effect, Noticed)]
    stage.log.clear()
    return told


def test_nobody_is_told_while_nobody_watches(stage: Stage) -> None:
    """Without a watcher no change leaves the core, and none does after the last one has gone."""
    stage.join("a1")
    stage.subscribe("f1")
    stage.happen(Watch(WATCHER))
    stage.happen(WatchEnded())
    stage.run("f1", "a1", "t1")
    assert not [effect for effect in stage.log if isinstance(effect, Noticed)]


def test_watching_stands_where_the_watcher_began(stage: Stage) -> None:
    """The core answers a watcher at once, so that what was noticed before and after can be told apart."""
    assert stage.happen(Watch(WATCHER)) == [Watching(WATCHER)]


def test_a_task_is_told_from_launch_to_end(pair: Stage) -> None:
    """Its launch, each state, and its end once, with the status itself."""
    pair.happen(Watch(WATCHER))
    changes(pair)
    key = pair.run("f1", "a1", "t1")
    pair.report("a1", "t1", TaskState.FAILED, message="oops")
    added, running, failed = changes(pair)
    assert isinstance(added, TaskAdded) and added.record.key == key and added.run.state is TaskState.STAGING
    assert isinstance(running, TaskUpdated) and (running.state, running.ended) == (TaskState.RUNNING, False)
    assert isinstance(failed, TaskUpdated) and (failed.state, failed.ended) == (TaskState.FAILED, True)
    assert failed.status.message == "oops"
    assert pair.master.world.tally.tasks_ended[(TaskState.FAILED, None)] == 1


def test_a_change_names_the_request_that_caused_it(pair: Stage) -> None:
    """The id of the request stands on the change and on the order, and on nothing that another event causes."""
    pair.happen(Watch(WATCHER))
    offers, framework_id = pair.offers("f1"), pair.schedulers["f1"].framework_id
    pair.happen(Called(901, framework_id, Accept(tuple(offers), (task("t1", "a1"),)), "cli-1"))
    pair.beats("a1")
    pair.report("a1", "t1", TaskState.RUNNING)
    pair.happen(Called(902, framework_id, Kill(task("t1", "a1").task_id), "cli-2"))
    pair.beats("a1")
    told = [(type(effect.change), effect.request) for effect in pair.log if isinstance(effect, Noticed)]
    assert told == [(TaskAdded, "cli-1"), (TaskUpdated, ""), (KillAsked, "cli-2")]
    orders = pair.boxes["a1"].orders
    assert [order.request for order in orders if isinstance(order, (Launch, KillOrder))] == ["cli-1", "cli-2"]
    assert "cli-" not in repr(pair.rows)


def test_what_an_agent_is_used_for_is_told_when_it_changes(pair: Stage) -> None:
    """Each change of an agent's duty once, with the operator's request; a call that changes nothing is not told."""
    pair.happen(Watch(WATCHER))
    a1 = AgentId("a1")
    calls: list[Maintenance] = [DeactivateAgent(a1), DeactivateAgent(a1), DrainAgent(a1), ReactivateAgent(a1)]
    for number, call in enumerate(calls):
        pair.happen(Maintained(900 + number, call, f"cli-{number}"))
    told = [(effect.change, effect.request) for effect in pair.log if isinstance(effect, Noticed)]
    assert [(change.duty, request) for change, request in told if isinstance(change, DutyChanged)] == [
        (Duty.DEACTIVATED, "cli-0"),
        (Duty.DRAINING, "cli-2"),
        (Duty.DRAINED, "cli-2"),
        (Duty.ACTIVE, "cli-3"),
    ]


def test_a_framework_that_ended_keeps_how_its_tasks_ended(pair: Stage) -> None:
    """A task that ends after its framework was torn down is told, and stays to be seen."""
    pair.run("f1", "a1", "t1")
    pair.happen(Watch(WATCHER))
    changes(pair)
    pair.call("f1", Teardown())
    pair.beats("a1")
    pair.report("a1", "t1", TaskState.KILLED)
    removed, ended = changes(pair)
    assert isinstance(removed, FrameworkRemoved) and isinstance(ended, TaskUpdated) and ended.ended
    [old] = pair.master.completed[0].completed
    assert old.run.state is TaskState.KILLED and old.statuses[-1].state is TaskState.KILLED


def test_tasks_of_an_unknown_framework_are_told_after_it(stage: Stage) -> None:
    """A task that came with its agent is told only when its framework has come, after it, and once."""
    stage.join("a1")
    stage.subscribe("f1")
    key = stage.run("f1", "a1", "t1")
    stage.rows.clear()  # the registry is lost
    stage.restart()
    stage.happen(Watch(WATCHER))
    changes(stage)
    stage.join("a1")
    assert [type(change) for change in changes(stage)] == [AgentAdded]
    stage.subscribe("f1", framework_id=key.framework_id)
    assert [type(change) for change in changes(stage)] == [FrameworkAdded, TaskAdded]


def _step(stage: Stage, chance: random.Random, number: int) -> None:
    """Anything that can happen, now."""
    box, name = chance.choice(["a1", "a2", "a3"]), chance.choice(["f1", "f2"])
    joined = stage.master.world.sessions.get(stage.boxes[box].session) == box if box in stage.boxes else False
    known = name in stage.schedulers and stage.schedulers[name].framework_id in stage.master.frameworks
    live = [report.key for report in stage.boxes[box].tasks.values()] if joined else []
    match chance.randrange(10):
        case 0:
            stage.join(box, chance.choice(["cpus:4;mem:1024", "cpus:8;mem:2048"]))
        case 1:
            if not known:
                stage.schedulers.pop(name, None)
            stage.subscribe(name)
        case 2 if known and stage.master.frameworks[stage.schedulers[name].framework_id].stream is not None:
            stage.hang_up(name)
        case 3 if known and chance.random() < 0.3:
            stage.call(name, Teardown())
        case 4 | 5 if known and joined and stage.offers(name, box):
            stage.accept(name, task(f"t{number}", box))
        case 6 if joined:
            stage.beats(box)
        case 7 | 8 if live:
            key = chance.choice(live)
            state = chance.choice([TaskState.RUNNING, TaskState.FINISHED, TaskState.FAILED])
            if not stage.boxes[box].tasks[key].state.terminal:
                stage.report(box, key.task_id, state)
        case 9:
            stage.pass_time(chance.choice([1.0, 20.0, 100.0]))


@pytest.mark.parametrize("seed", range(40))
def test_replaying_the_changes_gives_the_state(seed: int) -> None:
    """Whatever happens, who saw the state once and followed the changes knows the state at the end."""
    stage, chance = Stage(), random.Random(seed)
    for number in range(30):
        _step(stage, chance, number)
    picture = seen(stage.master.world)
    stage.happen(Watch(WATCHER))
    changes(stage)
    for number in range(30, 150):
        _step(stage, chance, number)
        for change in changes(stage):
            picture.follow(change)
        assert picture == seen(stage.master.world)
