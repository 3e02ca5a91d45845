"""What the agent makes of the doorbell of a CoAP master: which rings are new, and when it is deaf."""

from __future__ import annotations

from edgerm.core.ids import FrameworkId, LaunchId, TaskId, TaskKey
from edgerm.core.link import Beat, BeatAnswer, Forget, Order
from edgerm_agent.link.coap import Ear

KEY = TaskKey(FrameworkId("f"), TaskId("t"), LaunchId("l"))


def answer(*numbers: int, more: bool = False) -> BeatAnswer:
    """Orders with these numbers."""
    return BeatAnswer(orders=tuple(Order(number, Forget(KEY)) for number in numbers), more=more)


def joined() -> Ear:
    """After the first beat of session 1, which brought order 1."""
    ear = Ear()
    ear.asked(Beat(1, 0))
    assert not ear.deaf(answer(1))
    return ear


def test_what_is_a_ring() -> None:
    """Only a count that is higher than before is one; an answer to a registration that is lower counts anew."""
    ear = Ear()
    counts = [(0, True), (1, False), (1, False), (3, False), (2, False), (3, True), (4, True), (1, True), (2, False)]
    assert [ear.news(1, *count) for count in counts] == [False, True, False, True, False, False, True, True, True]
    assert not ear.news(2, 0, True)
    assert ear.news(2, 1, True)


def test_an_order_that_nobody_rang_for() -> None:
    """A beat without a ring that brings a new order was not rung for."""
    ear = joined()
    ear.asked(Beat(1, 1))
    assert not ear.deaf(answer())
    ear.asked(Beat(1, 1))
    assert ear.deaf(answer(2))


def test_an_order_that_was_rung_for() -> None:
    """A ring before the beat, or while it is under way, explains what it brings."""
    ear = joined()
    assert ear.news(1, 1, False)
    ear.asked(Beat(1, 1))
    assert not ear.deaf(answer(2))
    ear.asked(Beat(1, 2))
    assert ear.news(1, 2, False)
    assert not ear.deaf(answer(3))


def test_what_comes_again_or_was_announced() -> None:
    """An order that was there before is no news, nor is what an answer said that there is more of."""
    ear = joined()
    ear.asked(Beat(1, 0))
    assert not ear.deaf(answer(1, more=True))
    ear.asked(Beat(1, 1))
    assert not ear.deaf(answer(2))


def test_a_beat_that_failed() -> None:
    """A ring is not forgotten when the beat that it led to has no answer."""
    ear = joined()
    assert ear.news(1, 1, False)
    ear.asked(Beat(1, 1))
    ear.asked(Beat(1, 1))
    assert not ear.deaf(answer(2))


def test_a_new_session() -> None:
    """The first beat of a session brings what the join led to, numbered from 1 again."""
    ear = joined()
    ear.asked(Beat(2, 0))
    assert not ear.deaf(answer(1))
    ear.asked(Beat(2, 1))
    assert ear.deaf(answer(2))
