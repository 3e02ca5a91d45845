"""The session machine as a plain function: what happens goes in, what is to be done comes out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgerm.core.constraints import any_of
from edgerm.core.errors import Conflict, Invalid
from edgerm.core.ids import AgentId, ExecutorId, FrameworkId, OfferId, TaskId
from edgerm.core.instant import Instant
from edgerm.core.resources import Resources
from edgerm.core.scheduler import (
    MESSAGE_BYTES_MAX,
    Accept,
    Acknowledge,
    AgentSpec,
    AnswerInverse,
    Decline,
    Error,
    Event,
    Failure,
    FrameworkSpec,
    Heartbeat,
    InverseOffer,
    InverseOffers,
    Kill,
    Message,
    Offer,
    Offers,
    Reconcile,
    Request,
    Rescind,
    RescindInverse,
    Status,
    Subscribed,
    Suppress,
    TaskSpec,
    Update,
    UpdateFramework,
)
from edgerm.core.tasks import Reason, TaskState
from edgerm.sdk.core.moves import SESSION_MOVES, SessionSignal, SessionState
from edgerm.sdk.core.session import Session
from edgerm.sdk.core.values import Broke, Effect, Heard, Leave, Make, Refused, Subscribe
from edgerm.sdk.scheduler import Scheduler

AGENT = AgentId("a1")
TASK = TaskId("t1")
OFFER = Offer(OfferId("o1"), FrameworkId("f1"), "*", AGENT, Resources.of(cpus=1, mem=64), AgentSpec("box"))
SPEC = TaskSpec(TASK, AGENT, Resources.of(cpus=1))


class Recorder(Scheduler):
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[object] = []
        self.fail = False

    def subscribed(self, driver: Session, framework_id: FrameworkId) -> None:
        self.told.append(framework_id)

    def offers(self, driver: Session, offers: tuple[Offer, ...]) -> None:
        self.told.append([offer.offer_id for offer in offers])

    def rescinded(self, driver: Session, offer: Offer) -> None:
        self.told.append(("rescinded", offer.offer_id))

    def update(self, driver: Session, status: Status) -> None:
        if self.fail:
            raise RuntimeError("a fault of the framework")
        self.told.append((status.task_id, status.state, status.message))

    def draining(self, driver: Session, agent_id: AgentId, in_s: float | None) -> None:
        self.told.append(("draining", agent_id, in_s))

    def message(self, driver: Session, agent_id: AgentId, executor_id: ExecutorId, data: bytes) -> None:
        self.told.append(("message", agent_id, executor_id, data))

    def agent_lost(self, driver: Session, agent_id: AgentId) -> None:
        self.told.append(("lost", agent_id))

    def disconnected(self, driver: Session, why: str) -> None:
        self.told.append(("disconnected", why))

    def error(self, driver: Session, message: str) -> None:
        self.told.append(("error", message))


class World:
    """A session, a clock, and what came out of it."""

    def __init__(self) -> None:
        self.scheduler = Recorder()
        self.session = Session(self.scheduler, b"seed")
        self.now_s = 100.0
        self.effects: list[Effect] = self.session.start(self.now)

    @property
    def now(self) -> Instant:
        return Instant(self.now_s, 1e9)

    @property
    def stream(self) -> int:
        return max(effect.stream for effect in self.effects if isinstance(effect, Subscribe))

    def hear(self, event: Event) -> list[Effect]:
        return self.add(self.session.handle(Heard(self.stream, event), self.now))

    def broke(self, why: str = "gone", *, final: bool = False) -> list[Effect]:
        return self.add(self.session.handle(Broke(self.stream, why, final), self.now))

    def tick(self) -> list[Effect]:
        """Go to the next deadline."""
        due_s = self.session.due_s()
        assert due_s is not None
        self.now_s = max(self.now_s, due_s)
        return self.add(self.session.tick(self.now))

    def verb(self) -> list[Effect]:
        return self.add(self.session.take())

    def add(self, effects: list[Effect]) -> list[Effect]:
        self.effects += effects
        return effects


@pytest.fixture
def world() -> World:
    """A subscribed session that holds one offer."""
    world = World()
    world.hear(Subscribed(FrameworkId("f1"), 15.0))
    world.hear(Offers((OFFER,)))
    return world


def launch(world: World) -> None:
    """Launch the one task on the one offer."""
    world.session.accept([OFFER], [SPEC])
    world.verb()


def update(state: TaskState, uuid: bytes = b"") -> Update:
    """An update of the one task."""
    return Update(Status(TASK, state, AGENT, uuid=uuid))


def test_every_state_but_the_last_can_end() -> None:
    """The table leads from everywhere to ENDED, and from there nowhere."""
    for state in SessionState:
        moves = SESSION_MOVES[state]
        assert moves.get(SessionSignal.END) == (None if state is SessionState.ENDED else SessionState.ENDED)


def test_a_session_begins_with_a_subscription_without_an_id() -> None:
    """A new framework asks for a stream, and knows its id once it is told."""
    world = World()
    assert world.effects == [Subscribe(1, None)]
    world.hear(Subscribed(FrameworkId("f1"), 15.0))
    assert world.session.framework_id == "f1"
    assert world.scheduler.told == ["f1"]


def test_an_update_is_acknowledged_after_its_callback(world: World) -> None:
    """One with a uuid is acknowledged, one without is not; both are told."""
    launch(world)
    assert world.hear(update(TaskState.STARTING)) == []
    acknowledge = Make(1, Acknowledge(AGENT, TASK, b"u" * 16))
    assert world.hear(update(TaskState.RUNNING, b"u" * 16)) == [acknowledge]
    assert world.scheduler.told[-1] == (TASK, TaskState.RUNNING, "")


def test_a_callback_that_raises_is_not_acknowledged(world: World) -> None:
    """The error comes out, and the update counts as not taken over: it is told again when it comes again."""
    launch(world)
    world.scheduler.fail = True
    with pytest.raises(RuntimeError):
        world.hear(update(TaskState.RUNNING, b"u" * 16))
    assert not any(isinstance(e, Make) and isinstance(e.call, Acknowledge) for e in world.session.take())
    world.scheduler.fail = False
    world.hear(update(TaskState.RUNNING, b"u" * 16))
    assert world.scheduler.told[-1] == (TASK, TaskState.RUNNING, "")


def test_an_update_that_comes_twice_is_told_once_and_acknowledged_twice(world: World) -> None:
    """A lost acknowledgement makes the master send again, also after the task's end."""
    launch(world)
    told = len(world.scheduler.told)
    for _ in range(3):
        (effect,) = world.hear(update(TaskState.FINISHED, b"u" * 16))
        assert isinstance(effect, Make) and isinstance(effect.call, Acknowledge)
    assert len(world.scheduler.told) == told + 1
    assert not world.session.tasks


def test_offers_are_held_until_used_rescinded_or_disconnected(world: World) -> None:
    """Each way an offer becomes void takes it out of what is held."""
    other = Offer(OfferId("o2"), FrameworkId("f1"), "*", AGENT, Resources.of(cpus=1), AgentSpec("box"))
    world.hear(Offers((other,)))
    launch(world)
    assert set(world.session.held) == {"o2"}
    world.hear(Rescind(OfferId("o2")))
    world.hear(Rescind(OfferId("o2")))
    assert world.scheduler.told.count(("rescinded", "o2")) == 1
    world.hear(Offers((other,)))
    world.broke()
    assert not world.session.held


def test_declining_a_void_offer_says_nothing(world: World) -> None:
    """Only what is held can be given back."""
    world.session.decline([OFFER])
    world.session.decline([OFFER])
    assert world.verb() == [Make(1, Decline(("o1",)))]  # type: ignore[arg-type]


def test_a_launch_on_a_void_offer_ends_as_dropped(world: World) -> None:
    """The framework is told by an update like any other, and nothing is sent."""
    world.hear(Rescind(OfferId("o1")))
    world.session.accept([OFFER], [SPEC])
    assert world.verb() == []
    assert world.scheduler.told[-1] == (TASK, TaskState.DROPPED, "an offer that it uses is void")
    assert not world.session.tasks


def test_a_launch_without_a_subscription_ends_as_dropped(world: World) -> None:
    """Between two streams nothing can be launched; the framework hears of it at once."""
    world.broke()
    launch(world)
    assert world.scheduler.told[-1][1] is TaskState.DROPPED  # type: ignore[index]


def test_the_id_of_a_task_that_has_not_ended_is_refused(world: World) -> None:
    """A second launch under the same id changes nothing."""
    launch(world)
    with pytest.raises(Conflict, match="has not ended"):
        world.session.accept([OFFER], [SPEC])
    assert world.verb() == []


def test_a_refused_call_drops_its_tasks_and_subscribes_again(world: World) -> None:
    """What the master refused changed nothing: its tasks are dropped with the master's words."""
    launch(world)
    call = Accept(("o1",), (SPEC,))  # type: ignore[arg-type]
    world.add(world.session.handle(Refused(1, call, "too many tasks"), world.now))
    assert (TASK, TaskState.DROPPED, "too many tasks") in world.scheduler.told
    assert world.session.state is SessionState.DISCONNECTED
    assert isinstance(world.tick()[0], Subscribe)


def test_a_call_that_a_lost_stream_never_sent_drops_its_tasks(world: World) -> None:
    """The shell tells of it after the stream broke, and the task is dropped all the same."""
    launch(world)
    world.broke()
    world.add(world.session.handle(Refused(1, Accept(("o1",), (SPEC,)), "never sent"), world.now))  # type: ignore[arg-type]
    assert world.scheduler.told[-1] == (TASK, TaskState.DROPPED, "never sent")


def test_silence_for_three_heartbeats_ends_the_stream(world: World) -> None:
    """Each event, heartbeats too, buys three intervals more."""
    world.now_s += 40.0
    world.hear(Heartbeat())
    assert world.session.due_s() == 185.0
    effects = world.tick()
    assert effects == [Leave(1)]
    assert world.scheduler.told[-1] == ("disconnected", "the master was silent for too long")


def test_a_subscription_without_an_answer_is_tried_again() -> None:
    """SUBSCRIBED must come within 30 s."""
    world = World()
    assert world.session.due_s() == 130.0
    assert world.tick() == [Leave(1)]
    assert world.tick() == [Subscribe(2, None)]


def test_coming_back_keeps_the_id_and_asks_for_awaited_tasks(world: World) -> None:
    """The next SUBSCRIBE carries the framework's id; then tasks are reconciled and kills repeated."""
    launch(world)
    world.session.kill(TASK)
    assert world.verb() == [Make(1, Kill(TASK, AGENT))]
    world.broke()
    assert world.tick() == [Subscribe(2, FrameworkId("f1"))]
    assert world.hear(Subscribed(FrameworkId("f1"), 15.0)) == [
        Make(2, Reconcile(((TASK, AGENT),))),
        Make(2, Kill(TASK, AGENT)),
    ]


def test_suppression_outlives_the_stream(world: World) -> None:
    """A later SUBSCRIBE names the roles that are suppressed, until they are revived."""
    world.session.suppress()
    assert world.verb() == [Make(1, Suppress())]
    world.broke()
    assert world.tick() == [Subscribe(2, FrameworkId("f1"), ("*",))]
    world.session.revive()
    world.broke()
    assert world.tick() == [Subscribe(3, FrameworkId("f1"))]


def test_awaited_tasks_are_reconciled_now_and_then(world: World) -> None:
    """A stream that lives for long asks for its tasks about every ten minutes."""
    launch(world)
    asked: list[float] = []
    while len(asked) < 3:
        world.now_s += 15.0
        world.hear(Heartbeat())
        effects = world.add(world.session.tick(world.now))
        if any(isinstance(effect, Make) and isinstance(effect.call, Reconcile) for effect in effects):
            asked.append(world.now_s)
            world.hear(Update(Status(TASK, TaskState.RUNNING, AGENT, reason=Reason.RECONCILIATION)))
    assert all(450.0 <= later - earlier <= 630.0 for earlier, later in pairwise(asked))


def test_a_task_without_an_answer_is_asked_for_again_soon(world: World) -> None:
    """A master is silent on a task whose agent has not come back: it is asked again, less and less often."""
    launch(world)
    world.broke()
    world.tick()
    world.hear(Subscribed(FrameworkId("f1"), 15.0))
    begin_s, asked = world.now_s, []
    for _ in range(60):
        world.now_s += 1.0
        world.hear(Heartbeat())
        if Make(2, Reconcile(((TASK, AGENT),))) in world.add(world.session.tick(world.now)):
            asked.append(world.now_s - begin_s)
    assert len(asked) == 5
    assert 1.5 <= asked[0] <= 2.0
    world.hear(Update(Status(TASK, TaskState.GONE, AGENT, reason=Reason.RECONCILIATION)))
    world.now_s += 40.0
    assert world.add(world.session.tick(world.now)) == []


def test_what_an_old_stream_says_is_void(world: World) -> None:
    """Events and ends of a stream that was replaced change nothing."""
    world.broke()
    world.tick()
    told = list(world.scheduler.told)
    assert world.session.handle(Heard(1, Offers((OFFER,))), world.now) == []
    assert world.session.handle(Broke(1, "late"), world.now) == []
    assert (world.scheduler.told, world.session.held) == (told, {})


def test_an_error_ends_the_session_for_good(world: World) -> None:
    """After ERROR no stream is asked for again."""
    assert world.hear(Error("Framework has been removed")) == [Leave(1)]
    assert world.scheduler.told[-1] == ("error", "Framework has been removed")
    assert world.session.due_s() is None


def test_a_final_refusal_of_the_subscription_ends_the_session() -> None:
    """What would be refused again is not asked again."""
    world = World()
    world.broke("not allowed", final=True)
    assert (world.session.state, world.session.why_ended) == (SessionState.ENDED, "not allowed")


def test_teardown_goes_out_before_the_stream_is_left(world: World) -> None:
    """The last call comes first, and nothing is told as an error."""
    world.session.teardown()
    kinds = [type(effect) for effect in world.verb()]
    assert kinds == [Make, Leave]
    assert not any(isinstance(word, tuple) and word[0] == "error" for word in world.scheduler.told)


def test_lost_agents_are_told(world: World) -> None:
    """A FAILURE without an executor is an agent's."""
    world.hear(Failure(AGENT))
    assert world.scheduler.told[-1] == ("lost", AGENT)


@given(st.integers(1, 60), st.binary(max_size=16))
def test_back_off_grows_and_stays_within_bounds(failures: int, seed: bytes) -> None:
    """The wait doubles from 1 s to 30 s, less at most half of it by chance, and a success starts it anew."""
    world = World()
    world.session.seed = seed
    for failure in range(failures):
        begin_s = world.now_s
        world.broke()
        due_s = world.session.due_s()
        assert due_s is not None
        full_s = min(2.0**failure, 30.0)
        assert full_s / 2 <= due_s - begin_s + 1e-9 and due_s - begin_s <= full_s
        world.tick()
    world.hear(Subscribed(FrameworkId("f1"), 15.0))
    begin_s = world.now_s
    world.broke()
    assert world.session.due_s() <= begin_s + 1.0  # type: ignore[operator]


def is_open(world: World) -> bool:
    """Whether there is a stream that can say something."""
    return world.session.state in (SessionState.SUBSCRIBING, SessionState.SUBSCRIBED)


def say(event: Event, *states: SessionState) -> Callable[[World], object]:
    """An event that a master sends in these states only."""
    return lambda world: world.hear(event) if world.session.state in states else None


SUBSCRIBED = SessionState.SUBSCRIBED
HAPPENINGS: dict[str, Callable[[World], object]] = {
    "subscribed": say(Subscribed(FrameworkId("f1"), 15.0), SessionState.SUBSCRIBING),
    "offers": say(Offers((OFFER,)), SUBSCRIBED),
    "rescind": say(Rescind(OfferId("o1")), SUBSCRIBED),
    "running": say(update(TaskState.RUNNING, b"r" * 16), SUBSCRIBED),
    "finished": say(update(TaskState.FINISHED, b"f" * 16), SUBSCRIBED),
    "error": say(Error("over"), SUBSCRIBED, SessionState.SUBSCRIBING),
    "broke": lambda world: world.broke() if is_open(world) else None,
    "tick": lambda world: world.tick() if world.session.due_s() is not None else None,
    "accept": lambda world: launch(world) if TASK not in world.session.tasks else None,
    "decline": lambda world: world.session.decline([OFFER]),
    "kill": lambda world: world.session.kill(TASK),
}


@given(st.lists(st.sampled_from(sorted(HAPPENINGS)), max_size=40))
def test_no_order_of_things_breaks_a_rule(story: list[str]) -> None:
    """Whatever happens in whatever order: no illegal move, no calls after the end, and offers held only on a stream."""
    world = World()
    for step in story:
        ended = world.session.state is SessionState.ENDED
        HAPPENINGS[step](world)
        effects = world.verb()
        assert not (ended and any(isinstance(effect, Make | Subscribe) for effect in effects))
        assert world.session.state is SUBSCRIBED or not world.session.held


NEW = FrameworkSpec("new", "u", ("a", "b"), 60.0)
IN_A = any_of([["zone=a"]])


def test_a_request_is_a_call(world: World) -> None:
    """Nothing comes of it here either."""
    world.session.request(Resources.of(cpus=4))
    assert world.verb() == [Make(1, Request(Resources.of(cpus=4)))]


def test_an_update_holds_for_later_subscriptions(world: World) -> None:
    """The new description and constraints are called for, and said again on each new stream."""
    world.session.suppress("*")
    world.verb()
    world.session.update_framework(NEW, {"a": IN_A})
    assert world.verb() == [Make(1, UpdateFramework(NEW, (), {"a": IN_A}))]
    world.broke()
    assert world.tick() == [Subscribe(2, FrameworkId("f1"), (), {"a": IN_A}, NEW)]
    world.hear(Subscribed(FrameworkId("f1"), 15.0))
    world.session.suppress()
    fewer = replace(NEW, roles=("b",))
    world.session.update_framework(fewer)
    assert world.verb()[-1] == Make(2, UpdateFramework(fewer, ("b",), {})), "constraints of a role go with it"


def test_an_update_between_streams_comes_with_the_next(world: World) -> None:
    """Nobody needs to be subscribed to change what is said of the framework."""
    world.broke()
    world.session.update_framework(NEW, {"a": IN_A})
    assert world.tick() == [Subscribe(2, FrameworkId("f1"), (), {"a": IN_A}, NEW)]


def test_a_refused_update_changes_nothing(world: World) -> None:
    """The framework is told why, and subscribes again as it was before."""
    world.session.update_framework(NEW, {"a": IN_A})
    [make] = world.verb()
    assert isinstance(make, Make)
    world.add(world.session.handle(Refused(1, make.call, "user cannot change"), world.now))
    assert world.scheduler.told[-1] == ("disconnected", "user cannot change")
    assert world.tick() == [Subscribe(2, FrameworkId("f1"))]
    assert world.session.roles == ("*",)


def test_drained_agents_are_told(world: World) -> None:
    """For each inverse offer the agent and in how many seconds, None where the master does not say."""
    framework_id = FrameworkId("f")
    first, second = (InverseOffer(OfferId(f"i{in_s}"), framework_id, AGENT, 1e9, in_s) for in_s in (5.0, None))
    world.hear(InverseOffers((first, second)))
    world.hear(RescindInverse(first.offer_id))
    assert world.scheduler.told[-2:] == [("draining", AGENT, 5.0), ("draining", AGENT, None)]


def test_inverse_offers_are_answered_by_agent(world: World) -> None:
    """The latest one of the agent, while it stands: not once it was rescinded, nor after the stream that brought it."""
    first, second = (InverseOffer(OfferId(name), FrameworkId("f"), AGENT, 1e9, 5.0) for name in ("i1", "i2"))
    world.session.accept_inverse(AGENT)
    assert world.verb() == []
    world.hear(InverseOffers((first,)))
    world.hear(RescindInverse(first.offer_id))
    world.session.accept_inverse(AGENT)
    assert world.verb() == []
    world.hear(InverseOffers((second,)))
    world.hear(RescindInverse(first.offer_id))
    for answer, agreed in ((world.session.accept_inverse, True), (world.session.decline_inverse, False)):
        answer(AGENT)
        [make] = world.verb()
        assert isinstance(make, Make) and make.call == AnswerInverse((second.offer_id,), agreed)
    world.add(world.session.handle(Broke(1, "cut"), world.now))
    world.session.accept_inverse(AGENT)
    assert not [effect for effect in world.verb() if isinstance(effect, Make)]


def test_messages_both_ways(world: World) -> None:
    """A message is handed on, one is sent while the session stands, and one that is no message is refused at once."""
    world.hear(Message(AGENT, ExecutorId(TASK), b"hello"))
    assert world.scheduler.told[-1] == ("message", AGENT, TASK, b"hello")
    world.session.message(AGENT, ExecutorId(TASK), b"hi")
    assert world.verb() == [Make(world.stream, Message(AGENT, ExecutorId(TASK), b"hi"))]
    wrong: list[Any] = [b"", bytes(MESSAGE_BYTES_MAX + 1), "a text", None]
    for data in wrong:
        with pytest.raises(Invalid):
            world.session.message(AGENT, ExecutorId(TASK), data)
    world.broke()
    world.session.message(AGENT, ExecutorId(TASK), b"lost")
    assert world.verb() == []
