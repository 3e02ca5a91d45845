"""The simulator is worth its time only if it finds bugs: these are planted, and must be found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from edgerm.core.effects import Change
from edgerm.core.ids import OfferId
from edgerm.core.link import AgentHalf, Beat, BeatAnswer, Frame, Letter, LinkState, MasterHalf
from edgerm.core.resources import Resources
from edgerm.core.scheduler import Acknowledge, Offer
from edgerm.testing.sim.suite import run_seed
from edgerm_agent.core import resuming
from edgerm_agent.core.grants import Grants, GrantState
from edgerm_agent.core.records import Phase, TaskRecord
from edgerm_agent.core.recovery import Verdict, judge
from edgerm_master.core import draining, offers, updating
from edgerm_master.core.agents import Agent
from edgerm_master.core.frameworks import Framework
from edgerm_master.core.world import World

Plant = Callable[[pytest.MonkeyPatch], None]


def double_offer(patch: pytest.MonkeyPatch) -> None:
    """Now and then what is offered stays free."""
    make = offers.make

    def planted(world: World, framework: Framework, role: str, box: Agent, resources: Resources) -> Offer:
        free = box.free
        offer = make(world, framework, role, box, resources)
        if world.count % 7 == 0:
            box.free = free
        return offer

    patch.setattr(offers, "make", planted)


def leak_at_rescind(patch: pytest.MonkeyPatch) -> None:
    """A rescinded offer's resources do not come back."""
    rescind = offers.rescind

    def planted(world: World, offer_id: OfferId) -> None:
        box = world.agents[world.offers[offer_id].agent_id]
        free = box.free
        rescind(world, offer_id)
        box.free = free

    patch.setattr(offers, "rescind", planted)


def lost_ack(patch: pytest.MonkeyPatch) -> None:
    """The master acknowledges some updates to the agent that it has not taken over."""
    take = MasterHalf.take

    def planted(half: MasterHalf, beat: Any) -> Any:
        half.taken = max([half.taken, *(update.number for update in beat.updates if update.number % 3 == 0)])
        return take(half, beat)

    patch.setattr(MasterHalf, "take", planted)


def one_ack_for_all(patch: pytest.MonkeyPatch) -> None:
    """A framework's acknowledgement settles all updates of the task, also those that it was not told."""
    acknowledge = updating.acknowledge

    def planted(world: World, framework: Framework, call: Acknowledge) -> None:
        key = framework.tasks.get(call.task_id)
        if key and len(world.tasks[key].run.owed) > 1:
            world.change_run(world.tasks[key], owed=world.tasks[key].run.owed[:1])
        acknowledge(world, framework, call)

    patch.setattr(updating, "acknowledge", planted)


def started_again(patch: pytest.MonkeyPatch) -> None:
    """After a power cut the agent starts again what was running."""

    def planted(*found: Any, **more: Any) -> Verdict:
        verdict = judge(*found, **more)
        return Verdict.START if verdict is Verdict.LOST else verdict

    patch.setattr(resuming, "judge", planted)


def no_patience(patch: pytest.MonkeyPatch) -> None:
    """What an executor holds that does not answer yet is taken for lost."""

    def planted(*found: Any, awaited: bool = False) -> Verdict:
        verdict = judge(*found, awaited=awaited)
        return Verdict.LOST if verdict is Verdict.WAIT else verdict

    patch.setattr(resuming, "judge", planted)


def frames_lost_with_their_beat(patch: pytest.MonkeyPatch) -> None:
    """The agent takes the frames of a beat for delivered although it had no answer."""
    failed = AgentHalf.failed

    def planted(half: AgentHalf, request: int, now_s: float) -> None:
        if half.due_s(now_s) is None and half.state is LinkState.JOINED:
            for _ in range(half._frames_sent):
                half._frames.popleft()
            half._frames_sent = 0
        failed(half, request, now_s)

    patch.setattr(AgentHalf, "failed", planted)


def frames_never_heard(patch: pytest.MonkeyPatch) -> None:
    """The master takes its frames for heard once they were in an answer."""
    answer = MasterHalf.answer

    def planted(half: MasterHalf) -> BeatAnswer:
        made = answer(half)
        for _ in made.frames:
            assert half._frames is not None
            half._frames.popleft()
            half._heard += 1
        return made

    patch.setattr(MasterHalf, "answer", planted)


def messages_heard_again(patch: pytest.MonkeyPatch) -> None:
    """The master takes the frames of a beat that it has already."""
    take = MasterHalf.take_frames

    def planted(half: MasterHalf, beat: Beat) -> tuple[list[Letter], tuple[Frame, ...]]:
        half._got = 0
        return take(half, beat)

    patch.setattr(MasterHalf, "take_frames", planted)


def offered_while_drained(patch: pytest.MonkeyPatch) -> None:
    """Offers do not ask what an operator wants."""
    patch.setattr(Agent, "takes_tasks", Agent.joined)


def drained_by_word_only(patch: pytest.MonkeyPatch) -> None:
    """At the deadline nobody is killed."""
    patch.setattr(draining, "_kill", lambda *_: None)


def granted_by_word_only(patch: pytest.MonkeyPatch) -> None:
    """What is given is not journaled."""
    give = Grants.give

    def planted(*given: Any) -> list[Change]:
        give(*given)
        return []

    patch.setattr(Grants, "give", planted)


def given_to_anybody(patch: pytest.MonkeyPatch) -> None:
    """Nobody is asked who has a device."""
    patch.setattr(Grants, "holder", lambda *_, shared: None)


def offered_unclean(patch: pytest.MonkeyPatch) -> None:
    """What was found on devices keeps nobody from them."""
    patch.setattr(Grants, "quarantine", lambda _: {})


def taken_back_while_it_runs(patch: pytest.MonkeyPatch) -> None:
    """After a restart of the agent all grants are given back."""
    patch.setattr(resuming, "_STATES", dict.fromkeys(Phase, GrantState.RETURNING))


def forgotten_with_its_task(patch: pytest.MonkeyPatch) -> None:
    """A grant whose task is gone is not looked at after a restart."""
    load = resuming.load

    def planted(way: Any, records: Any) -> Any:
        kept = {record.key for record in records if isinstance(record, TaskRecord)}
        return load(way, [record for record in records if record.key in kept])

    patch.setattr(resuming, "load", planted)


def told_too_early(patch: pytest.MonkeyPatch) -> None:
    """A task's end is told before its devices are taken back, and they are free."""

    def planted(grants: Grants, key: Any) -> tuple[()]:
        grants._holdings.pop(key, None)
        return ()

    patch.setattr(Grants, "end", planted)


def never_tried_again(patch: pytest.MonkeyPatch) -> None:
    """What is not clean at once is never taken back again."""
    patch.setattr(Grants, "pop", lambda *_: None)
    patch.setattr(Grants, "next_s", lambda _: None)


@pytest.mark.parametrize(
    ("plant", "sign"),
    [
        (double_offer, "is granted"),
        (leak_at_rescind, "what its tasks and offers leave"),
        (lost_ack, "no rest"),
        (one_ack_for_all, "its framework heard"),
        (started_again, "was started 2 times"),
        (no_patience, "while it runs"),
        (frames_lost_with_their_beat, "lacks bytes"),
        (frames_never_heard, "has come as far as byte"),
        (offered_while_drained, "DRAINING and has offers outstanding"),
        (drained_by_word_only, "these did not end in time"),
        (messages_heard_again, "is heard after message"),
        (granted_by_word_only, "with no grant"),
        (given_to_anybody, "is given to"),
        (offered_unclean, "is offered as it was left by"),
        (taken_back_while_it_runs, "are taken back while it runs"),
        (forgotten_with_its_task, "is in the journal at the end"),
        (told_too_early, "is offered as it was left by"),
        (never_tried_again, "holds the devices of"),
    ],
)
def test_found(plant: Plant, sign: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A planted bug is found within 200 seeds, by its own sign."""
    plant(monkeypatch)
    problems = (run_seed(seed).problem for seed in range(200))
    assert any(problem and sign in problem for problem in problems)
