"""Persist before you speak: the one place that orders what is stored and what is said."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from edgerm.core.effects import BATCH_OPERATIONS_MAX, Change, Drop, Outbox, Put, Spoken, Volatile


@dataclass(frozen=True, slots=True)
class Say(Spoken):
    """Something that promises."""

    number: int
    to: str

    @property
    def lane(self) -> Hashable:
        return self.to


@dataclass(frozen=True, slots=True)
class SaySoon(Volatile):
    """Something that promises nothing."""

    number: int
    to: str

    @property
    def lane(self) -> Hashable:
        return self.to


Speech = Say | SaySoon


class AnyOrder(RuleBasedStateMachine):
    """Whatever a core asks for, in whatever pieces, and whenever the disk is done."""

    def __init__(self) -> None:
        super().__init__()
        self.outbox: Outbox[Speech] = Outbox()
        self.asked: list[Change | Speech] = []
        self.stored: list[Change] = []  # durable, in order
        self.batch: list[Change] = []  # being written
        self.said: list[Speech] = []
        self.needs: dict[int, int] = {}  # number of a speech → changes asked for until its event was over

    def say(self, speeches: list[Speech]) -> None:
        for speech in speeches:
            durable = len(self.stored) >= self.needs[speech.number]
            assert isinstance(speech, SaySoon) or durable, "said before it was durable"
            self.said.append(speech)

    @rule(kinds=st.lists(st.sampled_from(["put", "drop", "a", "b", "soon a", "soon b", "soon c"]), max_size=8))
    def add(self, kinds: list[str]) -> None:
        """A core's effects of one event."""
        effects: list[Change | Speech] = []
        for kind in kinds:
            number = len(self.asked) + len(effects)
            match kind:
                case "put":
                    effects.append(Put("run", str(number), None))
                case "drop":
                    effects.append(Drop("run", str(number)))
                case _:
                    lane = kind[-1]
                    effects.append(SaySoon(number, lane) if "soon" in kind else Say(number, lane))
        waiting = {effect.to for effect in self.asked if isinstance(effect, (Say, SaySoon)) and effect not in self.said}
        self.asked += effects
        changes = sum(isinstance(effect, (Put, Drop)) for effect in self.asked)
        self.needs.update((effect.number, changes) for effect in effects if isinstance(effect, (Say, SaySoon)))
        self.say(self.outbox.add(effects))
        for effect in effects:
            if isinstance(effect, (Say, SaySoon)) and effect not in self.said:
                assert isinstance(effect, Say) or effect.to in waiting, "it promises nothing and waits for nobody"
                waiting.add(effect.to)

    @rule(count=st.integers(1, 300))
    def add_changes(self, count: int) -> None:
        """More than one batch may hold."""
        self.add(["put"] * count)

    @rule()
    def take_batch(self) -> None:
        """One batch at a time, of bounded size, in order."""
        batch = self.outbox.take_batch()
        assert len(batch) <= BATCH_OPERATIONS_MAX
        if self.batch:
            assert not batch
        else:
            self.batch = batch

    @rule()
    def commit(self) -> None:
        """The disk is done."""
        if self.batch:
            self.stored += self.batch
            self.batch = []
            self.say(self.outbox.committed())

    @invariant()
    def lanes_keep_their_order(self) -> None:
        """To one reader everything is said in the order in which the core asked for it, once."""
        for lane in "abc":
            numbers = [speech.number for speech in self.said if speech.to == lane]
            assert numbers == sorted(set(numbers))

    @invariant()
    def changes_keep_their_order(self) -> None:
        """What is stored is a prefix of what was asked."""
        changes = [effect for effect in self.asked if isinstance(effect, (Put, Drop))]
        assert self.stored == changes[: len(self.stored)]
        assert self.outbox.idle == (len(self.stored) == len(changes))

    def teardown(self) -> None:
        """In the end everything is stored and said."""
        while not self.outbox.idle:
            self.take_batch()
            self.commit()
        said = sorted(speech.number for speech in self.said)
        assert said == [number for number, effect in enumerate(self.asked) if isinstance(effect, (Say, SaySoon))]


TestOutbox = AnyOrder.TestCase


def test_what_depends_on_nothing_is_said_at_once() -> None:
    """While nothing waits for the disk, everything may be said as it comes."""
    outbox: Outbox[Speech] = Outbox()
    assert outbox.add([Say(1, "a"), SaySoon(2, "a")]) == [Say(1, "a"), SaySoon(2, "a")]


def test_a_promise_waits_for_the_batch_it_needs_and_no_longer() -> None:
    """What was stored after a promise does not hold it back."""
    outbox: Outbox[Speech] = Outbox()
    assert outbox.add([Put("run", "1", None), Say(1, "a")]) == []
    assert outbox.take_batch() == [Put("run", "1", None)]
    assert outbox.add([Put("run", "2", None), Say(2, "a")]) == []
    assert outbox.committed() == [Say(1, "a")]
    assert outbox.take_batch() == [Put("run", "2", None)]
    assert outbox.committed() == [Say(2, "a")]


def test_an_event_stores_before_it_says() -> None:
    """What an event stores after a promise counts as stored before it."""
    outbox: Outbox[Speech] = Outbox()
    assert outbox.add([Say(1, "a"), Put("run", "1", None)]) == []
    outbox.take_batch()
    assert outbox.committed() == [Say(1, "a")]


def test_the_volatile_overtakes_in_other_lanes_only() -> None:
    """An offer to b leaves before a's promise is durable; one to a waits behind it."""
    outbox: Outbox[Speech] = Outbox()
    effects: list[Change | Speech] = [Put("run", "1", None), Say(1, "a"), SaySoon(2, "a"), SaySoon(3, "b")]
    assert outbox.add(effects) == [SaySoon(3, "b")]
    outbox.take_batch()
    assert outbox.committed() == [Say(1, "a"), SaySoon(2, "a")]
