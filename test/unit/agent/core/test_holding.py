"""Why a task cannot have what it asks for, and how the agent's core says so."""

from __future__ import annotations

from dataclasses import replace
from itertools import count

import pytest

from edgerm.core.effects import Put
from edgerm.core.ids import AgentId, FrameworkId, LaunchId, TaskId, TaskKey
from edgerm.core.instant import Instant
from edgerm.core.link import BeatAnswer, Launch, Order, Welcome
from edgerm.core.resources import Resources, parse
from edgerm.core.scheduler import AgentSpec, Status, TaskSpec
from edgerm.core.tasks import Reason, Source, TaskState
from edgerm.plugin.executor import Exit
from edgerm_agent.core.agent import Agent, Identity
from edgerm_agent.core.effects import Effect, Send, Start
from edgerm_agent.core.events import BeatAnswered, Described, Ended, Event, Fetched, JoinAnswered, Rang, Recovered
from edgerm_agent.core.holding import gone, refusal
from edgerm_agent.core.records import Record, RunRecord, TaskRecord

HAVE = parse("cpus:4;mem:512;camera:{front,rear};picam<SHARED>:{vchiq}")
KINDS = {"process": "keeper-1", "wasm": ""}


def key(name: str) -> TaskKey:
    return TaskKey(FrameworkId("f"), TaskId(name), LaunchId(f"l-{name}"))


def spec(name: str, resources: str, executor: str = "process") -> TaskSpec:
    return TaskSpec(TaskId(name), AgentId("a"), parse(resources), executor=executor)


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        ("camera:{front}", "camera 'front' is held by task 't1' of framework f"),
        ("camera:{side}", "this agent has no camera 'side'"),
        ("camera<SHARED>:{rear}", "camera 'rear' is not shared here"),
        ("picam:{vchiq}", "picam 'vchiq' is shared here"),
        ("lidar:{x}", "this agent has no lidar 'x'"),
        ("cpus:9;camera:{rear}", "it asks for camera:{rear};cpus:9, and camera:{rear};cpus:4;"),
        ("camera:{front,side}", "camera 'front' is held by task 't1' of framework f; this agent has no camera 'side'"),
    ],
)
def test_a_refusal_names_what_is_lacking(wanted: str, told: str) -> None:
    """A device's holder is named; one that is not there, or of the other kind, is said to be so."""
    left = HAVE.less(parse("camera:{front}"))
    assert refusal(parse(wanted), HAVE, left, [(key("t1"), parse("camera:{front}"))]).startswith(told)


def test_devices_that_are_gone() -> None:
    """Only sets are looked at: what a task has already of the rest is its own."""
    assert gone(parse("cpus:99;camera:{front};picam<SHARED>:{vchiq}"), HAVE) == ""
    assert gone(parse("camera:{front}"), parse("cpus:4")) == "this agent has no camera 'front'"


class Box:
    """An agent's core and its journal."""

    def __init__(self, records: tuple[Record, ...] = (), have: Resources = HAVE) -> None:
        self.identity = Identity(AgentId("a"), AgentSpec("box", resources=have), 7)
        self.agent = Agent(self.identity, records)
        self.rows: dict[tuple[str, str], Record] = {}
        self.request = 0
        self.numbers = count(1)
        self.happen(Recovered(KINDS, {}))
        self.happen(JoinAnswered(self.request, Welcome(77, 15.0)))

    def happen(self, event: Event) -> list[Effect]:
        effects = self.agent.handle(event, Instant(0.0, 1e6))
        for effect in effects:
            if isinstance(effect, Put) and isinstance(effect.record, TaskRecord | RunRecord):
                self.rows[(effect.kind, effect.key)] = effect.record
            elif isinstance(effect, Send):
                self.request = effect.request
        return effects

    def launch(self, task: TaskSpec) -> list[Effect]:
        """The master orders it."""
        self.happen(Rang())
        order = Order(next(self.numbers), Launch(key(task.task_id), "*", task))
        return self.happen(BeatAnswered(self.request, BeatAnswer(orders=(order,))))

    def status(self, name: str) -> Status:
        """The latest that is owed of a task."""
        return self.agent.tasks[key(name)].run.owed[-1].status


def starts(effects: list[Effect]) -> list[str]:
    return [effect.key.task_id for effect in effects if isinstance(effect, Start)]


def test_two_tasks_on_one_exclusive_device() -> None:
    """The second is DROPPED by the agent, who names the holder; when that has ended, a third gets the device."""
    box = Box()
    assert starts(box.launch(spec("t1", "camera:{front}"))) == ["t1"]
    assert starts(box.launch(spec("t2", "camera:{front}"))) == []
    status = box.status("t2")
    assert (status.state, status.source) == (TaskState.DROPPED, Source.AGENT)
    assert status.reason is Reason.RESOURCES_UNKNOWN
    assert status.message == "camera 'front' is held by task 't1' of framework f"
    box.happen(Ended(key("t1"), Exit(code=0)))
    assert starts(box.launch(spec("t3", "camera:{front}"))) == ["t3"]


def test_a_shared_device_has_many_holders() -> None:
    """Nobody is refused a shared device that is there."""
    box = Box()
    for name in ("t1", "t2", "t3"):
        assert starts(box.launch(spec(name, "picam<SHARED>:{vchiq}"))) == [name]


def test_holders_are_known_after_a_restart() -> None:
    """A new process of the agent refuses what a live task of the old one holds."""
    box = Box()
    box.launch(spec("t1", "camera:{front}"))
    after = Box(tuple(box.rows.values()))
    after.launch(spec("t2", "camera:{front}"))
    assert after.status("t2").message == "camera 'front' is held by task 't1' of framework f"


def test_a_device_that_goes_before_the_start() -> None:
    """A task that is still being prepared when its device goes FAILS, and says which."""
    box = Box()
    assert starts(box.launch(spec("t1", "camera:{front}", "wasm"))) == []
    box.happen(Described(replace(box.identity.spec, resources=parse("cpus:4"))))
    assert starts(box.happen(Fetched(key("t1")))) == []
    status = box.status("t1")
    assert (status.state, status.reason) == (TaskState.FAILED, Reason.CONTAINER_LAUNCH_FAILED)
    assert status.message == "this agent has no camera 'front'"
