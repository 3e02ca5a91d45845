"""Messages through the master's core: to live tasks and present frameworks, and to nobody else."""

from __future__ import annotations

import pytest
from support.stage import Stage, agent_spec

from edgerm.core.ids import AgentId, ExecutorId
from edgerm.core.link import Beat, Frame, Join, Letter, OpenInput, Welcome
from edgerm.core.link.parts import Assembly, cut
from edgerm.core.scheduler import Message
from edgerm.core.tasks import TaskState
from edgerm_master.core.effects import FramesIn, Ring, TellSoon
from edgerm_master.core.events import SendFrame


@pytest.fixture
def stage() -> Stage:
    """A framework with a task that runs."""
    made = Stage()
    made.join("a")
    made.join("b")
    made.subscribe("f")
    made.run("f", "a", "t")
    return made


def carried(stage: Stage, name: str) -> list[Letter]:
    """The messages in the answer to the agent's next beat."""
    box = stage.boxes[name]
    letters, _ = Assembly().take(stage.send_beat(Beat(box.session, box.seen)).frames)
    return letters


def test_to_a_task(stage: Stage) -> None:
    """A message goes with the next answer to the task's agent, which is rung."""
    effects = stage.call("f", Message(AgentId("a"), ExecutorId("t"), b"hello"))
    assert any(isinstance(effect, Ring) and effect.agent_id == "a" for effect in effects)
    assert carried(stage, "a") == [Letter(stage.key("f", "t"), b"hello")]
    assert stage.master.world.tally.messages_to_tasks == 1


@pytest.mark.parametrize(("agent", "executor"), [("b", "t"), ("a", "other"), ("c", "t")])
def test_to_nobody(stage: Stage, agent: str, executor: str) -> None:
    """A message for an agent or an executor that the framework has no live task with is dropped and counted."""
    stage.call("f", Message(AgentId(agent), ExecutorId(executor), b"hello"))
    assert carried(stage, "a") == carried(stage, "b") == []
    assert stage.master.world.tally.messages_dropped == 1


def test_to_an_older_agent(stage: Stage) -> None:
    """An agent that knows neither messages nor live input gets none: it could not read the orders beside them."""
    spec = agent_spec("old", "cpus:4;mem:1024")
    answer = stage.send_join(Join(AgentId("old"), 1, spec, lane=0))
    assert isinstance(answer, Welcome)
    key = stage.key("f", "t")
    effects = stage.happen(SendFrame(AgentId("old"), Frame(5, OpenInput(key))))
    (told,) = [effect for effect in effects if isinstance(effect, FramesIn)]
    assert "not found" in str(told.frames[0].body)
    assert not stage.send_beat(Beat(answer.session, 0)).frames
    half = stage.master.world.agents[AgentId("old")].half
    assert half is not None
    assert not half.send_message(Letter(key, b"hello"))


def test_to_another_frameworks_task(stage: Stage) -> None:
    """A framework cannot speak with tasks of others, nor with tasks that have ended."""
    stage.subscribe("g")
    stage.call("g", Message(AgentId("a"), ExecutorId("t"), b"hello"))
    stage.report("a", "t", TaskState.FINISHED)
    stage.call("f", Message(AgentId("a"), ExecutorId("t"), b"hello"))
    assert carried(stage, "a") == []
    assert stage.master.world.tally.messages_dropped == 2


def test_to_a_framework(stage: Stage) -> None:
    """What a task says its framework hears once, without waiting for a disk; while it is away nobody does."""
    box, letter = stage.boxes["a"], Letter(stage.key("f", "t"), b"hi" * 5000)
    frames = tuple(cut(letter, 800))
    stage.hear("f")
    for _ in range(2):  # the beat had no answer, and comes again
        stage.send_beat(Beat(box.session, box.seen, (), frames, frames_first=1))
    assert stage.hear("f") == [Message(AgentId("a"), ExecutorId("t"), b"hi" * 5000)]
    assert any(isinstance(effect, TellSoon) for effect in stage.log)
    stage.hang_up("f")
    stage.send_beat(Beat(box.session, box.seen, (), frames, frames_first=len(frames) + 1))
    assert stage.master.world.tally.messages_dropped == 1


def test_of_a_stranger(stage: Stage) -> None:
    """An agent cannot speak for a task that is another's."""
    box, letter = stage.boxes["b"], Letter(stage.key("f", "t"), b"hi")
    stage.hear("f")
    stage.send_beat(Beat(box.session, box.seen, (), tuple(cut(letter, 800)), frames_first=1))
    assert stage.hear("f") == []


def test_a_burst_is_bounded(stage: Stage) -> None:
    """An agent that does not beat has at most 256 KiB of messages waiting; the rest is dropped and counted."""
    for _ in range(100):
        stage.call("f", Message(AgentId("a"), ExecutorId("t"), bytes(60_000)))
    tally = stage.master.world.tally
    assert (tally.messages_to_tasks, tally.messages_dropped) == (4, 96)
