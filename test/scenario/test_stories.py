"""Told stories: what was done, and below it all that the master said and stored.

Each `*.txt` beside this file is a conversation. A block is a command line, `----`, and what it led to; lines that begin
with `#` tell the story. After a change that is meant, `EDGERM_REWRITE=1 pytest test/scenario` writes the answers anew:
read the difference.

    join AGENT RESOURCES                 an agent joins (again, with what it has)
    join-empty AGENT                     … having lost all its tasks
    subscribe NAME [ROLE…] [timeout=S] [plain]    `plain`: without PARTITION_AWARE
    hang-up NAME                         the framework's stream breaks
    accept NAME AGENT TASK=RESOURCES… [refuse=S]  with all offers that it holds of the agent
    decline NAME [refuse=S]              all that it holds
    revive | suppress | reconcile | teardown NAME
    kill NAME TASK [grace=S]
    beat AGENT [TASK STATE]              the agent beats (with an update) and takes its orders over
    ack NAME TASK                        the oldest update that is owed
    drain AGENT [deadline=S] [grace=S] [gone]     an operator asks for it
    deactivate | reactivate | mark-gone AGENT     likewise
    agree | disagree NAME                the framework answers all inverse offers that it has
    tick SECONDS                         time passes; nobody beats
    live SECONDS                         time passes; every agent beats
    crash-master                         another master takes over what is stored
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.stage import PARTITION_AWARE, Stage, task

from edgerm.core.effects import Drop, Put
from edgerm.core.ids import AgentId, TaskId, TaskKey
from edgerm.core.link import Beat, Forget, Gone, Kill, Launch, NextPart, OrderBody, Stale, Welcome
from edgerm.core.resources import to_text
from edgerm.core.scheduler import (
    AnswerInverse,
    Call,
    Error,
    Event,
    Failure,
    InverseOffers,
    Offers,
    Reconcile,
    Rescind,
    RescindInverse,
    Revive,
    Status,
    Subscribed,
    Suppress,
    Teardown,
    Update,
)
from edgerm.core.scheduler import Kill as KillCall
from edgerm.core.tasks import TaskState
from edgerm_master.core.agents import Duty
from edgerm_master.core.effects import AnswerAgent, CloseStream, Effect, Tell, TellSoon
from edgerm_master.core.events import DeactivateAgent, DrainAgent, MarkAgentGone, ReactivateAgent
from edgerm_master.core.records import AgentRecord, RunRecord

STORIES = sorted(Path(__file__).parent.glob("*.txt"))
AGENT_WORDS = ("join", "join-empty", "beat", "tick", "live", "crash-master")
OPERATOR_WORDS = ("drain", "deactivate", "reactivate", "mark-gone")
OPTIONS = ("timeout", "refuse", "grace", "deadline")
CALLS: dict[str, Call] = {
    "revive": Revive(),
    "suppress": Suppress(),
    "reconcile": Reconcile(),
    "teardown": Teardown(),
}


class Narrator:
    """Carries commands out on a stage and tells what they led to."""

    def __init__(self) -> None:
        self.stage = Stage()
        self.names: dict[str, str] = {}  # of frameworks, by their ids and streams
        self.joining = ""

    def tell(self, command: str) -> list[str]:
        """Carry one command out; one line for each thing it led to."""
        word, *words = command.split()
        options = dict(part.split("=", 1) for part in words if part.split("=")[0] in OPTIONS)
        rest = [part for part in words if part.split("=")[0] not in options]
        self.stage.log.clear()
        if word in OPERATOR_WORDS:
            self.operate(word, rest, options)
            extra: list[str] = []
        else:
            extra = list(self.act(word, rest, options) if word in AGENT_WORDS else self.call(word, rest, options))
        return [line for effect in self.stage.log for line in self.effect(effect)] + extra or ["nothing"]

    def act(self, word: str, words: list[str], options: dict[str, str]) -> Iterator[str]:
        """What agents, time and the master's process do."""
        assert not options, options
        stage = self.stage
        match word, words:
            case "join", [name, *resources]:
                self.joining = name
                stage.join(name, resources[0] if resources else None)
            case "join-empty", [name]:
                self.joining = name
                stage.join(name, tasks=())
                stage.boxes[name].tasks.clear()
            case "beat", [name, *news]:
                yield from self.beat(name, news)
            case "tick", [seconds]:
                stage.pass_time(float(seconds))
            case "live", [seconds]:
                stage.live(float(seconds))
            case "crash-master", []:
                stage.restart()
            case _:
                raise ValueError(f"{word} does not take {words}")

    def operate(self, word: str, words: list[str], options: dict[str, str]) -> None:
        """What operators do."""
        agent_id, stage = AgentId(words[0]), self.stage
        match word:
            case "drain":
                grace_s = float(options["grace"]) if "grace" in options else None
                stage.maintain(DrainAgent(agent_id, float(options.get("deadline", 0)), grace_s, "gone" in words[1:]))
            case "deactivate":
                stage.maintain(DeactivateAgent(agent_id))
            case "reactivate":
                stage.maintain(ReactivateAgent(agent_id))
            case "mark-gone":
                stage.maintain(MarkAgentGone(agent_id))

    def call(self, word: str, words: list[str], options: dict[str, str]) -> Iterator[str]:
        """What frameworks do."""
        stage = self.stage
        match word, words:
            case "subscribe", [name, *roles]:
                self.subscribe(name, roles, float(options.get("timeout", 60)))
            case "hang-up", [name]:
                stage.hang_up(name)
            case "accept", [name, agent, *tasks]:
                specs = [task(task_id, agent, text) for task_id, _, text in (part.partition("=") for part in tasks)]
                stage.accept(name, *specs, refuse_s=float(options.get("refuse", 5)))
            case "decline", [name]:
                stage.decline(name, float(options.get("refuse", 5)))
            case "kill", [name, task_id]:
                grace_s = float(options["grace"]) if "grace" in options else None
                stage.call(name, KillCall(TaskId(task_id), None, grace_s))
            case "ack", [name, task_id]:
                stage.acknowledge(name, stage.master.tasks[stage.key(name, task_id)].run.owed[0])
            case "agree" | "disagree", [name]:
                framework = stage.master.frameworks[stage.schedulers[name].framework_id]
                stage.call(name, AnswerInverse(tuple(framework.invited), word == "agree"))
            case _, [name] if word in CALLS:
                stage.call(name, CALLS[word])
            case _:
                raise ValueError(f"no such command: {word} {words}")
        yield from ()

    def subscribe(self, name: str, words: list[str], timeout_s: float) -> None:
        roles = [role for role in words if role != "plain"]
        capabilities = frozenset() if "plain" in words else PARTITION_AWARE
        said = self.stage.subscribe(name, *roles, capabilities=capabilities, timeout_s=timeout_s)
        if isinstance(said[0], Subscribed):
            scheduler = self.stage.schedulers[name]
            self.names[scheduler.stream] = self.names[scheduler.framework_id] = name
        else:
            self.names[next(reversed(self.stage.streams))] = name

    def beat(self, name: str, news: list[str]) -> Iterator[str]:
        box = self.stage.boxes[name]
        updates = [self.stage.news(name, news[0], TaskState[news[1]])] if news else []
        if self.stage.master.world.sessions.get(box.session) != box.agent_id:
            assert self.stage.send_beat(Beat(box.session, box.seen, tuple(updates))).join
            yield f"{name} <- join!"
            return
        for order in self.stage.beat(name, *updates):
            yield f"{name} <- {order.number}: {self.order(order.body)}"

    # --- in words ---

    def effect(self, effect: Effect) -> Iterator[str]:
        match effect:
            case Put(kind, key, RunRecord() as run):
                asked = ", kill asked" if run.kill_asked else ""
                owed = f", owed: {' '.join(status.state.name for status in run.owed)}" if run.owed else ""
                yield f"store {kind} {self.key(run.key)}: {run.state.name}{owed}{asked}{', settled' * run.settled}"
            case Put(kind, key, AgentRecord() as record) if record.duty is not Duty.ACTIVE:
                left = f", {record.drain.left_s:g} s left" if record.drain is not None else ""
                yield f"store {kind} {key}: {record.duty.name}{left}"
            case Put(kind, key):
                yield f"store {kind} {self.stored(key)}"
            case Drop(kind, key):
                yield f"drop {kind} {self.stored(key)}"
            case Tell(stream, event) | TellSoon(stream, event):
                yield f"{self.names.get(stream, '?')} <- {self.event(event)}"
            case CloseStream(stream):
                yield f"{self.names.get(stream, '?')} <- end of stream"
            case AnswerAgent(_, Welcome()):
                yield f"{self.joining} <- welcome"
            case AnswerAgent(_, Gone(why)):
                yield f"{self.joining} <- gone: {why}"
            case AnswerAgent(_, NextPart() | Stale() as answer):
                yield f"{self.joining} <- {type(answer).__name__}"

    def event(self, event: Event) -> str:  # noqa: PLR0911
        match event:
            case Subscribed(framework_id):
                return f"subscribed as {framework_id}"
            case Offers(offers):
                parts = (
                    f"{offer.offer_id} of {offer.agent_id} for {offer.role}: {to_text(offer.resources)}"
                    for offer in offers
                )
                return "offers " + ", ".join(parts)
            case Rescind(offer_id):
                return f"rescind {offer_id}"
            case InverseOffers(offers):
                parts = (f"{offer.offer_id}: {offer.agent_id} in {offer.starts_in_s:g} s" for offer in offers)
                return "inverse offers " + ", ".join(parts)
            case RescindInverse(offer_id):
                return f"rescind inverse {offer_id}"
            case Update(status):
                return f"update {self.status(status)}"
            case Failure(agent_id):
                return f"failure of {agent_id}"
            case Error(message):
                return f"error: {message}"
        raise ValueError(event)

    def status(self, status: Status) -> str:
        reason = f" {status.reason.name}" if status.reason is not None else ""
        owed = ", to acknowledge" if status.uuid else ""
        message = f" ({status.message})" if status.message else ""
        return f"{status.task_id} {status.state.name} by {status.source.name}{reason}{owed}{message}"

    def order(self, body: OrderBody) -> str:
        match body:
            case Launch(key):
                return f"launch {self.key(key)}"
            case Kill(key, grace_s):
                return f"kill {self.key(key)}" + (f" within {grace_s:g} s" if grace_s is not None else "")
            case Forget(key):
                return f"forget {self.key(key)}"

    def key(self, key: TaskKey) -> str:
        return f"{self.names.get(key.framework_id, key.framework_id)}/{key.task_id}"

    def stored(self, key: str) -> str:
        parts = key.split("/")
        return "/".join([self.names.get(parts[0], parts[0]), *parts[1:2]])


def retell(text: str) -> str:
    """The story with the answers as they are now."""
    narrator, told, answers = Narrator(), [], False
    for line in text.splitlines():
        if line == "----" or not line.strip():
            answers = line == "----"
            told.append(line)
            if answers:
                told += narrator.tell(told[-2])
        elif not answers:
            told.append(line)
    return "\n".join(told) + "\n"


@pytest.mark.parametrize("path", STORIES, ids=[path.stem for path in STORIES])
def test_the_story_is_told_as_written(path: Path) -> None:
    """Each command leads to exactly what stands below it."""
    text = path.read_text()
    now = retell(text)
    if os.environ.get("EDGERM_REWRITE"):
        path.write_text(now)
    else:
        assert now == text


def test_there_are_stories_and_they_say_something() -> None:
    """Every story has commands, and no answer is missing."""
    assert len(STORIES) >= 7
    for path in STORIES:
        blocks = [block for block in path.read_text().split("\n\n") if "----" in block]
        assert len(blocks) >= 4
        assert all(block.rstrip().split("----")[1].strip() for block in blocks), path
