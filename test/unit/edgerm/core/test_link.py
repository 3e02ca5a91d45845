"""Both halves of the agent link: over a channel that loses, doubles, delays and reorders, and one promise at a time."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from strategies import GPIO, inventories

from edgerm.core.devices import DEVICES_MAX, INVENTORY_BYTES_MAX, Device, DeviceClass, Inventory
from edgerm.core.errors import IllegalMove
from edgerm.core.ids import AgentId, FrameworkId, LaunchId, TaskId, TaskKey
from edgerm.core.link import (
    COAP,
    HTTP,
    JOIN_BUDGET_BYTES,
    LINK_MOVES,
    QUEUED_FRAMES_MAX,
    REASON_BYTES_MAX,
    REJOIN,
    RETRY_FIRST_S,
    AgentHalf,
    Beat,
    BeatAnswer,
    Carrier,
    Close,
    Credit,
    Data,
    Forget,
    Frame,
    Gone,
    Intake,
    Join,
    JoinAnswer,
    Kill,
    Launch,
    LinkSignal,
    LinkState,
    MasterHalf,
    NextPart,
    OrderBody,
    Request,
    Stale,
    TaskReport,
    Update,
    WantsInventory,
    Welcome,
    make_session,
    next_turn_s,
)
from edgerm.core.link.sizes import tellable
from edgerm.core.scheduler import AgentSpec, Status, TaskSpec
from edgerm.core.tasks import TaskState
from edgerm.wire.codec.devices import encode_inventory

AGENT = AgentId("a1")
SMALL = Carrier("small", 1000, 500)  # a few orders or updates fit


def key(name: str) -> TaskKey:
    return TaskKey(FrameworkId("f"), TaskId(name), LaunchId("l"))


def spec(name: str, size_bytes: int = 0) -> TaskSpec:
    return TaskSpec(TaskId(name), AGENT, resources=AgentSpec("h").resources, info=bytes(size_bytes))


def launch(name: str, size_bytes: int = 0) -> Launch:
    return Launch(key(name), "*", spec(name, size_bytes))


def update(seq: int, size: int = 0) -> Update:
    return Update(key("t"), seq, Status(TaskId("t"), TaskState.RUNNING, message="x" * size))


def report(name: str, size_bytes: int = 0) -> TaskReport:
    return TaskReport(key(name), TaskState.RUNNING, 1, "*", spec(name, size_bytes))


def agent_half(**settings: object) -> AgentHalf:
    return AgentHalf(AGENT, AgentSpec("h"), 1, **settings)  # type: ignore[arg-type]


def ask(half: AgentHalf, now_s: float = 0.0, reports: tuple[TaskReport, ...] = ()) -> tuple[int, Request]:
    request = half.poll(now_s, reports)
    assert request is not None
    return request


def ask_beat(half: AgentHalf, now_s: float = 0.0) -> tuple[int, Beat]:
    number, beat = ask(half, now_s)
    assert isinstance(beat, Beat)
    return number, beat


def joined(**settings: object) -> AgentHalf:
    """An agent's half with session 7 at time 0."""
    half = agent_half(**settings)
    number, _ = ask(half)
    assert half.join_answered(number, Welcome(7, 15.0), 0.0).joined
    return half


# --- both halves over a bad line --------------------------------------------------------------------------------


class BadLine(RuleBasedStateMachine):
    """Orders, updates and frames arrive once and in order, whatever happens to the packets and to sessions."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self.agent = agent_half(carrier=SMALL, seed=b"s")
        self.master: MasterHalf | None = None
        self.sessions = self.sessions_incarnation = 0
        self.count = 0
        self.to_master: list[tuple[int, Request]] = []
        self.to_agent: list[tuple[int, JoinAnswer | BeatAnswer]] = []
        self.ordered: list[OrderBody] = []  # within this session
        self.seen = 0  # of them the master knows to be journaled
        self.journaled: list[OrderBody] = []  # by the agent, within its session
        self.reported: list[Update] = []
        self.persisted: list[Update] = []  # by the master, over all sessions
        self.released: list[Update] = []  # what the agent resends no more
        self.asked: list[Frame] = []  # by the master, within its session
        self.heard: list[Frame] = []  # by the agent, within its session
        self.told: list[Frame] = []  # by the agent, within its session
        self.taken: list[Frame] = []  # by the master, within its session
        self.progress = (0, 0, 0)

    # what the cores do

    @rule(size_bytes=st.sampled_from([0, 100, 2000]))
    def order(self, size_bytes: int) -> None:
        """The master wants something, if there is a session."""
        if self.master is not None:
            self.count += 1
            body = launch(f"t{self.count}", size_bytes)
            self.master.order(body)
            self.ordered.append(body)

    @rule(size=st.sampled_from([0, 200, 1500]))
    def report(self, size: int) -> None:
        """The agent has news."""
        self.reported.append(update(len(self.reported) + 1, size))
        self.agent.report(self.reported[-1])

    @rule(size=st.sampled_from([0, 200, 1500]))
    def ask_for_output(self, size: int) -> None:
        """The master has a frame, if there is a session; nobody else needs to know if its queue is full."""
        if self.master is not None:
            frame = Frame(len(self.asked), Data(0, bytes(size)))
            if self.master.send(frame):
                self.asked.append(frame)

    @rule(size=st.sampled_from([0, 200, 1500]))
    def tell_output(self, size: int) -> None:
        """The agent has a frame, if it has a session."""
        if self.agent.state is LinkState.JOINED:
            frame = Frame(1, Data(len(self.told), bytes(size)))
            if self.agent.send(frame):
                self.told.append(frame)

    @rule()
    def ring(self) -> None:
        """The doorbell."""
        self.agent.ring()

    @rule(wait_s=st.sampled_from([0.0, 0.3, 1.0, 20.0]))
    def poll(self, wait_s: float) -> None:
        """Time passes, and the agent may ask."""
        self.now_s += wait_s
        request = self.agent.poll(self.now_s, ())
        if request is not None:
            self.to_master.append(request)

    # what the line does

    @rule(data=st.data())
    def arrive_at_master(self, data: st.DataObject) -> None:
        """Any packet under way arrives; it may arrive again later."""
        if self.to_master:
            index = data.draw(st.integers(0, len(self.to_master) - 1))
            number, body = self.to_master[index] if data.draw(st.booleans()) else self.to_master.pop(index)
            self.serve(number, body)

    @rule(data=st.data())
    def arrive_at_agent(self, data: st.DataObject) -> None:
        """Any answer under way arrives; it may arrive again later."""
        if self.to_agent:
            index = data.draw(st.integers(0, len(self.to_agent) - 1))
            number, answer = self.to_agent[index] if data.draw(st.booleans()) else self.to_agent.pop(index)
            self.hear(number, answer)

    @rule(lost=st.sampled_from(["nothing", "nothing", "the request", "the answer"]), late=st.booleans())
    def talk(self, lost: str, late: bool) -> None:
        """A request and its answer, or one of them lost, which may still arrive later; without luck that is rare."""
        self.give_up()
        self.now_s += 20.0
        number, body = ask(self.agent, self.now_s)
        if lost == "the request":
            self.to_master += [(number, body)] * late
            self.give_up()
            return
        self.serve(number, body)
        answer = self.to_agent.pop()
        if lost == "the answer":
            self.to_agent += [answer] * late
            self.give_up()
            return
        self.hear(*answer)

    @rule()
    def give_up(self) -> None:
        """The request under way times out."""
        self.agent.failed(self.agent._request, self.now_s)

    @rule()
    def lose_everything(self) -> None:
        """All packets under way are lost."""
        self.to_master, self.to_agent = [], []

    @rule()
    def master_restarts(self) -> None:
        """The session is void; what the master had persisted stays."""
        self.master = None

    # the ends of the line

    def serve(self, number: int, body: Request) -> None:
        if isinstance(body, Join):
            self.to_agent.append((number, self.take_join(body)))
        elif self.master is None or body.session != self.master.session:
            self.to_agent.append((number, REJOIN))
        else:
            fresh, seen = self.master.take(body)
            known = self.persisted[-1].seq if self.persisted else 0
            self.persisted += [found for found in fresh if found.seq > known]
            assert seen == self.ordered[self.seen : self.seen + len(seen)]
            self.seen += len(seen)
            for frame in body.frames:
                assert isinstance(frame.body, Data)
                assert frame.body.offset <= len(self.taken), "a frame is missing"
                if frame.body.offset == len(self.taken):
                    self.taken.append(frame)
            self.to_agent.append((number, self.master.answer()))

    def take_join(self, body: Join) -> JoinAnswer:
        if self.master is not None and body.incarnation <= self.master.incarnation:
            return Welcome(self.master.session, 15.0) if body.incarnation == self.master.incarnation else Stale()
        if body.incarnation <= self.sessions_incarnation:
            return Stale()
        self.sessions += 1
        self.sessions_incarnation = body.incarnation
        self.master = MasterHalf(1000 + self.sessions, body.incarnation, SMALL)
        self.ordered, self.seen, self.asked, self.taken = [], 0, [], []
        return Welcome(self.master.session, 15.0)

    def hear(self, number: int, answer: JoinAnswer | BeatAnswer) -> None:
        if isinstance(answer, BeatAnswer):
            intake = self.agent.beat_answered(number, answer, self.now_s)
        else:
            intake = self.agent.join_answered(number, answer, self.now_s)
        if intake.joined:
            self.journaled, self.progress = [], (self.agent.session, 0, 0)
            self.heard, self.told = [], []
        self.journaled += [order.body for order in intake.orders]
        self.released += intake.persisted
        self.heard += intake.frames

    @invariant()
    def orders_arrive_once_in_order(self) -> None:
        """What the agent took over in a session is a prefix of what was ordered in it."""
        if self.master is not None and self.agent.session == self.master.session:
            assert self.journaled == self.ordered[: len(self.journaled)]
            assert self.seen <= len(self.journaled)

    @invariant()
    def frames_arrive_once_in_order(self) -> None:
        """What one side took of the other's frames is a prefix of what was sent in the session."""
        if self.master is not None and self.agent.session == self.master.session:
            assert self.heard == self.asked[: len(self.heard)]
            assert self.taken == self.told[: len(self.taken)]

    @invariant()
    def updates_arrive_once_in_order(self) -> None:
        """What the master persisted is a prefix of what was reported, and only that is resent no more."""
        assert self.persisted == [
            Update(made.key, made.seq, made.status, found.number)
            for made, found in zip(self.reported, self.persisted, strict=False)
        ]
        assert self.released == self.reported[: len(self.released)]
        assert len(self.released) <= len(self.persisted)

    @invariant()
    def nothing_goes_back(self) -> None:
        """Within a session `seen` and `persisted` only grow."""
        session, seen, persisted = self.progress
        if session == self.agent.session:
            assert self.agent.seen >= seen
            assert self.agent._persisted >= persisted
        self.progress = (self.agent.session, self.agent.seen, self.agent._persisted)

    def teardown(self) -> None:
        """When the line is good again, everything arrives."""
        self.give_up()
        self.lose_everything()
        for _ in range(200):
            due_s = self.agent.due_s(self.now_s)
            assert due_s is not None
            self.now_s = max(due_s, self.now_s)
            number, body = ask(self.agent, self.now_s)
            self.serve(number, body)
            self.hear(*self.to_agent.pop())
            self.orders_arrive_once_in_order()
            self.updates_arrive_once_in_order()
            self.frames_arrive_once_in_order()
            if self.at_rest():
                break
        assert self.heard == self.asked
        assert self.taken == self.told
        assert not self.agent._frames
        assert self.journaled == self.ordered
        assert self.released == self.reported
        assert len(self.persisted) == len(self.reported)

    def at_rest(self) -> bool:
        """Whether each side has and knows all that the other has."""
        if self.agent.state is not LinkState.JOINED or self.agent._pending or self.agent._frames:
            return False
        return self.journaled == self.ordered and self.heard == self.asked


TestBadLine = BadLine.TestCase
TestBadLine.settings = settings(max_examples=150, stateful_step_count=40)


# --- the master's half ------------------------------------------------------------------------------------------


def beat(seen: int = 0, *numbers: int) -> Beat:
    return Beat(7, seen, tuple(Update(key("t"), number, update(number).status, number) for number in numbers))


def test_orders_go_with_every_answer_until_seen() -> None:
    """An order is in each answer until a beat says that it is journaled; then never again."""
    half = MasterHalf(7, 1)
    half.order(launch("t1"))
    half.order(Kill(key("t1")))
    assert half.answer().orders == half.answer().orders
    assert [order.number for order in half.answer().orders] == [1, 2]
    assert half.take(beat(seen=1)) == ([], [launch("t1")])
    assert [order.body for order in half.answer().orders] == [Kill(key("t1"))]
    assert half.take(beat(seen=2)) == ([], [Kill(key("t1"))])
    assert half.answer().orders == ()


def test_updates_are_taken_in_order_and_once() -> None:
    """An update is taken only when it is the next one; the answer says up to which they are."""
    half = MasterHalf(7, 1)
    fresh, _ = half.take(beat(0, 2, 3))
    assert fresh == []
    fresh, _ = half.take(beat(0, 1, 2))
    assert [found.number for found in fresh] == [1, 2]
    fresh, _ = half.take(beat(0, 1, 2, 3))
    assert [found.number for found in fresh] == [3]
    assert half.answer().persisted == 3


def test_a_launch_is_withdrawn_only_before_it_was_sent() -> None:
    """What has been in an answer cannot be taken back; a kill or another task's launch never is."""
    half = MasterHalf(7, 1)
    half.order(launch("t1"))
    half.order(launch("t2"))
    half.order(Kill(key("t3")))
    assert half.withdraw(key("t2"))
    assert not half.withdraw(key("t2"))
    assert not half.withdraw(key("t3"))
    half.answer()
    assert not half.withdraw(key("t1"))
    assert half.take(beat(seen=3)) == ([], [launch("t1"), Kill(key("t3"))])


def test_a_launch_that_did_not_fit_can_still_be_withdrawn() -> None:
    """Only what was in an answer counts as sent."""
    half = MasterHalf(7, 1, SMALL)
    half.order(launch("t1", 900))
    half.order(launch("t2", 900))
    answer = half.answer()
    assert [order.body.key for order in answer.orders] == [key("t1")]
    assert answer.more
    assert half.withdraw(key("t2"))
    assert not half.answer().more


@given(st.lists(st.integers(0, 400), max_size=12), st.integers(1, 1000))
def test_an_answer_keeps_its_budget(sizes: list[int], budget_bytes: int) -> None:
    """An answer carries the first orders that fit, at least one; `more` exactly if some were left out."""
    half = MasterHalf(7, 1, Carrier("", budget_bytes, 0))
    for index, size in enumerate(sizes):
        half.order(launch(f"t{index}", size))
    answer = half.answer()
    count = len(answer.orders)
    assert [order.number for order in answer.orders] == list(range(1, count + 1))
    assert count >= min(1, len(sizes))
    assert answer.more == (count < len(sizes))
    assert count <= 1 or sum(sizes[:count]) <= budget_bytes


def test_frames_wait_for_room_and_are_sent_until_heard() -> None:
    """Frames fill what orders leave of the budget, in order, until the agent says that it heard them."""
    half = MasterHalf(7, 1, SMALL)
    half.order(launch("t1", 500))
    frames = [Frame(1, Data(index, bytes(300))) for index in range(3)]
    assert all(half.send(frame) for frame in frames)
    first = half.answer()
    assert (first.frames, first.frames_first, first.more) == ((frames[0],), 1, True)
    assert half.answer() == first
    half.take(Beat(7, 1, heard=1))
    second = half.answer()
    assert (second.frames, second.frames_first, second.more) == (tuple(frames[1:]), 2, False)
    half.take(Beat(7, 1))
    assert half.answer() == second
    half.take(Beat(7, 1, heard=3))
    assert half.answer() == BeatAnswer()


def test_the_queues_of_frames_are_bounded() -> None:
    """Both halves refuse a frame when 256 wait, also when these are on their way and not heard yet."""
    master, agent = MasterHalf(7, 1), joined()
    for half in (master, agent):
        assert all(half.send(Frame(1, Close())) for _ in range(QUEUED_FRAMES_MAX))
        assert not half.send(Frame(1, Close()))
    assert len(master.answer().frames) == QUEUED_FRAMES_MAX
    assert not master.send(Frame(1, Close()))
    master.take(Beat(7, 0, heard=1))
    assert master.send(Frame(1, Close()))
    number, _ = ask_beat(agent)
    assert not agent.send(Frame(1, Close()))
    agent.beat_answered(number, BeatAnswer(), 0.0)
    assert agent.send(Frame(1, Close()))


@pytest.mark.parametrize("body", [Data(0, bytes(5000)), Close("x" * 5000)])
def test_no_frame_blocks_the_queue(body: Data | Close) -> None:
    """A frame that is too big for the carrier goes alone, and a reason is cut, so that what follows comes through."""
    news = Frame(1, body)
    master, agent = MasterHalf(7, 1, SMALL), joined(carrier=SMALL)
    for half in (master, agent):
        assert half.send(news)
        assert half.send(Frame(2, Close()))
    answer = master.answer()
    number, beat = ask_beat(agent)
    assert [frame.stream for frame in answer.frames] == [frame.stream for frame in beat.frames]
    assert answer.frames[0].stream == 1
    master.take(Beat(7, 0, heard=len(answer.frames)))
    agent.beat_answered(number, BeatAnswer(), 0.0)
    sent = [*answer.frames, *master.answer().frames]
    assert [frame.stream for frame in sent] == [1, 2]
    if isinstance(body, Close):
        assert sent[0].body == Close("x" * REASON_BYTES_MAX)


def test_only_a_beat_with_updates_is_told_what_is_persisted() -> None:
    """An answer to a beat without updates leaves it out: an idle answer is empty."""
    half = MasterHalf(7, 1)
    half.take(beat(0, 1))
    assert half.answer() == BeatAnswer(persisted=1)
    half.take(beat())
    assert half.answer() == BeatAnswer()
    half.take(beat(0, 1))
    assert half.answer() == BeatAnswer(persisted=1)


# --- the agent's half: joins ------------------------------------------------------------------------------------


def test_the_first_request_is_a_join_with_all_that_runs() -> None:
    """An agent without a session introduces itself, with every task that it knows."""
    number, request = ask(agent_half(boot_id="b"), reports=(report("t1"), report("t2")))
    expected = Join(AGENT, 1, AgentSpec("h"), "b", (report("t1"), report("t2")))
    assert (number, request) == (1, expected)


@given(st.lists(st.integers(0, JOIN_BUDGET_BYTES), max_size=12))
def test_a_big_join_comes_in_parts(sizes: list[int]) -> None:
    """The parts are numbered, say `more` on all but the last, and join to the whole; a small carrier cuts none."""
    half = agent_half(carrier=COAP)
    reports = tuple(report(f"t{index}", size) for index, size in enumerate(sizes))
    parts: list[Join] = []
    number, request = ask(half, 0.0, reports)
    while True:
        assert isinstance(request, Join)
        parts.append(request)
        if not request.more:
            break
        assert half.join_answered(number, NextPart(), 0.0) == Intake()
        number, request = ask(half, 0.0, ())
    assert half.join_answered(number, Welcome(7, 15.0), 0.0).joined
    assert [part.part for part in parts] == list(range(len(parts)))
    assert tuple(found for part in parts for found in part.tasks) == reports
    for part in parts:
        assert len(part.tasks) <= 1 or sum(len(found.task.info) for found in part.tasks) <= JOIN_BUDGET_BYTES
        assert part.tasks or not reports


def test_a_join_without_an_answer_is_repeated_as_it_was() -> None:
    """The same incarnation again, from the first part on, after a wait."""
    half = agent_half()
    big = JOIN_BUDGET_BYTES - 100
    number, first = ask(half, 0.0, (report("t1", big), report("t2", big)))
    half.join_answered(number, NextPart(), 0.0)
    number, _ = ask(half, 0.0)
    half.failed(number, 0.0)
    assert half.poll(0.0, ()) is None
    _, again = ask(half, 10.0, (report("t1", big), report("t2", big)))
    assert again == first


@pytest.mark.parametrize("answer", [Stale(), NextPart()])
def test_a_join_that_the_master_refuses_is_made_under_a_higher_number(answer: JoinAnswer) -> None:
    """Stale, or a master that lost the parts: a new incarnation, after a wait."""
    half = agent_half()
    number, _ = ask(half)
    assert half.join_answered(number, answer, 0.0) == Intake()
    assert half.poll(0.0, ()) is None
    _, again = ask(half, 10.0)
    assert isinstance(again, Join)
    assert again.incarnation == 2


def test_the_inventory_goes_along_when_it_is_asked_for() -> None:
    """The same part comes again at once, with the devices; a master that still asks is tried again later."""
    half = AgentHalf(AGENT, AgentSpec("h", inventory=GPIO), 1)
    number, first = ask(half, 0.0, (report("t"),))
    assert half.join_answered(number, WantsInventory(), 0.0) == Intake()
    number, second = ask(half)
    assert isinstance(first, Join)
    assert (first.devices, second) == (False, replace(first, devices=True))
    assert half.join_answered(number, WantsInventory(), 0.0) == Intake()
    assert (half.state, half.incarnation) == (LinkState.APART, 2)
    assert (half.due_s(0.0) or 0.0) > 0.0


@pytest.mark.parametrize("count", [0, 1, 2000, 2001, 5000])
def test_an_inventory_is_cut_to_what_a_join_may_tell(count: int) -> None:
    """Too many devices keep no agent out: the first ones are told."""
    devices = tuple(Device("g", f"{n}", metadata="x" * 100) for n in range(count))
    agent = AgentSpec("h", inventory=Inventory((DeviceClass("g"),), devices, 3))
    _, join = ask(AgentHalf(AGENT, agent, 1))
    assert isinstance(join, Join)
    assert join.agent.inventory == replace(agent.inventory, devices=devices[:DEVICES_MAX])
    assert (join.agent is agent) == (count <= DEVICES_MAX)


@settings(max_examples=25)
@given(inventories, st.integers(0, 900), st.integers(0, 900))
def test_a_told_inventory_can_be_written(inventory: Inventory, many: int, long: int) -> None:
    """However long metadata, evidence and schemas are, what is told fits."""
    devices = tuple(Device("g", f"{n}", quarantine="Ü" * long, metadata="x" * long) for n in range(many))
    classes = tuple(DeviceClass(f"c{n}", schema="x" * 50 * long) for n in range(30))
    whole = Inventory(inventory.classes + classes, inventory.devices + devices, 2**63)
    told = tellable(AgentSpec("h", inventory=whole)).inventory
    assert len(encode_inventory(told)) <= INVENTORY_BYTES_MAX
    assert told.devices == whole.devices[: len(told.devices)]


def test_an_agent_that_is_gone_asks_no_more() -> None:
    """It is told why, once; nothing is due any more, whatever there is to tell."""
    half = agent_half()
    number, _ = ask(half)
    assert half.join_answered(number, Gone("an operator said so"), 0.0) == Intake(gone="an operator said so")
    half.ring()
    half.describe(AgentSpec("other"))
    assert (half.state, half.due_s(1e9), half.poll(1e9, ())) == (LinkState.GONE, None, None)
    assert half.join_answered(number, Welcome(7, 15.0), 0.0) == Intake()


def test_an_outcast_joins_again_at_once() -> None:
    """A beat that is answered "join" is followed at once by a join with a higher incarnation."""
    half = joined()
    number, _ = ask_beat(half)
    assert half.beat_answered(number, REJOIN, 5.0) == Intake()
    _, again = ask(half, 5.0)
    assert isinstance(again, Join)
    assert again.incarnation == 2


def test_a_session_starts_from_nothing() -> None:
    """In a new session orders and updates count from 1, and frames of the old one are gone."""
    half = joined()
    half.report(update(1))
    half.report(update(2))
    master = MasterHalf(7, 1)
    master.order(launch("t1"))
    number, first = ask_beat(half)
    master.take(first)
    intake = half.beat_answered(number, master.answer(), 0.0)
    assert [found.seq for found in intake.persisted] == [1, 2]
    assert half.seen == 1
    half.report(update(3))
    half.send(Frame(1, Close()))
    half.ring()
    number, _ = ask_beat(half)
    half.send(Frame(2, Close()))
    half.beat_answered(number, REJOIN, 0.0)
    number, _ = ask(half)
    half.join_answered(number, Welcome(8, 15.0), 0.0)
    _, after = ask_beat(half)
    assert (after.session, after.seen, after.frames) == (8, 0, ())
    assert [(found.number, found.seq) for found in after.updates] == [(1, 3)]


# --- the agent's half: beats ------------------------------------------------------------------------------------


def test_a_beat_is_due_at_once_after_a_join_and_then_every_interval() -> None:
    """The first beat fetches the orders that the join led to; the interval is the master's."""
    half = agent_half()
    number, _ = ask(half)
    half.join_answered(number, Welcome(7, 4.0), 10.0)
    number, _ = ask_beat(half, 10.0)
    assert half.due_s(10.0) is None
    half.beat_answered(number, BeatAnswer(), 11.0)
    due_s = half.due_s(11.0)
    assert due_s == next_turn_s(half.agent_id, 4.0, 11.0)
    assert half.poll(due_s - 0.1, ()) is None
    assert half.poll(due_s, ()) is not None


@given(st.text("0123456789abcdef", min_size=1), st.floats(0.1, 3600), st.floats(0, 1e9))
def test_an_idle_beat_is_never_later_than_an_interval(agent_id: str, interval_s: float, now_s: float) -> None:
    """And an agent that beats at its turn has its next one an interval after."""
    due_s = next_turn_s(AgentId(agent_id), interval_s, now_s)
    assert now_s < due_s <= now_s + interval_s * 1.001
    gap_s = next_turn_s(AgentId(agent_id), interval_s, due_s) - due_s
    assert abs(gap_s - interval_s) <= interval_s / 1000


def test_an_idle_hour() -> None:
    """An agent without news beats once each interval, however fast it is answered."""
    for agent_id, begin_s in ((f"{number:032x}", 0.1 + 1234.5 * number) for number in range(50)):
        half = AgentHalf(AgentId(agent_id), AgentSpec("h"), 1)
        polled = half.poll(begin_s, ())
        assert polled is not None
        half.join_answered(polled[0], Welcome(7, 15.0), begin_s)
        beats, now_s = 0, begin_s
        while (now_s := half.due_s(now_s) or 0.0) < begin_s + 3600.0:
            polled = half.poll(now_s, ())
            assert polled is not None
            half.beat_answered(polled[0], BeatAnswer(), now_s)
            beats += 1
        assert beats in (240, 241)  # the first fetches what the join led to


def test_turns_of_many_agents_are_apart() -> None:
    """Of a thousand agents that beat at the same moment, each tenth of the interval has some to beat next."""
    turns = [next_turn_s(AgentId(f"{number:032x}"), 15.0, 1000.0) for number in range(1000)]
    assert {int((turn_s - 1000.0) / 1.5) for turn_s in turns} >= set(range(10))


@pytest.mark.parametrize("news", ["report", "frame", "ring"])
def test_news_is_told_at_once(news: str) -> None:
    """An update, a frame or a ring makes a beat due now."""
    half = joined()
    number, _ = ask_beat(half)
    half.beat_answered(number, BeatAnswer(), 0.0)
    assert half.due_s(1.0) != 1.0
    match news:
        case "report":
            half.report(update(1))
        case "frame":
            half.send(Frame(1, Close()))
        case "ring":
            half.ring()
    assert half.due_s(1.0) == 1.0


def test_more_is_fetched_at_once() -> None:
    """An answer that says `more` is followed by a beat now."""
    half = joined()
    number, _ = ask_beat(half)
    half.beat_answered(number, BeatAnswer(more=True), 3.0)
    assert half.due_s(3.0) == 3.0


@given(st.lists(st.integers(0, 300), max_size=8))
def test_a_beat_keeps_its_budget(sizes: list[int]) -> None:
    """A beat carries the first updates that fit, at least one; `more` exactly if some were left out."""
    half = joined(carrier=SMALL)
    for index, size in enumerate(sizes):
        half.report(update(index + 1, size))
    _, sent = ask_beat(half)
    count = len(sent.updates)
    assert [found.seq for found in sent.updates] == list(range(1, count + 1))
    assert count >= min(1, len(sizes))
    assert sent.more == (count < len(sizes))
    assert count <= 1 or sum(sizes[:count]) <= 1000


def test_an_answer_to_an_earlier_request_is_void() -> None:
    """Neither its orders nor its word on updates count, nor does it start a session."""
    half = joined()
    half.report(update(1))
    number, _ = ask_beat(half)
    half.failed(number, 0.0)
    later, _ = ask_beat(half, 10.0)
    master = MasterHalf(7, 1)
    master.order(launch("t1"))
    late = BeatAnswer(persisted=1, orders=master.answer().orders)
    assert half.beat_answered(number, late, 10.0) == Intake()
    assert half.join_answered(number, Welcome(9, 1.0), 10.0) == Intake()
    assert half.beat_answered(later, late, 10.0).persisted
    assert half.beat_answered(later, late, 10.0) == Intake()
    assert half.session == 7


def test_a_master_cannot_persist_what_was_not_sent() -> None:
    """A `persisted` beyond what is pending, or below what was told before, does no harm."""
    half = joined()
    half.report(update(1))
    number, _ = ask_beat(half)
    assert half.beat_answered(number, BeatAnswer(persisted=99), 0.0).persisted == (update(1),)
    half.report(update(2))
    number, sent = ask_beat(half)
    assert [found.number for found in sent.updates] == [2]
    assert half.beat_answered(number, BeatAnswer(persisted=0), 0.0).persisted == ()


def test_frames_of_an_unanswered_beat_are_sent_again() -> None:
    """Until a beat with them is answered; newer ones follow in order."""
    half = joined()
    first, second = Frame(1, Data(0, b"a")), Frame(1, Data(1, b"b"))
    half.send(first)
    number, beat = ask_beat(half)
    assert beat.frames == (first,)
    half.send(second)
    half.failed(number, 0.0)
    number, beat = ask_beat(half, 10.0)
    assert beat.frames == (first, second)
    half.beat_answered(number, BeatAnswer(), 10.0)
    assert half.due_s(10.0) == next_turn_s(half.agent_id, 15.0, 10.0)
    number, beat = ask_beat(half, 25.0)
    assert beat.frames == ()


def test_frames_are_heard_once_and_the_master_is_told_so() -> None:
    """The same frames again are dropped; `heard` is said until a beat that said it was answered, and no longer."""
    half = joined()
    frames = tuple(Frame(1, Credit(number)) for number in range(3))
    number, beat = ask_beat(half)
    assert beat.heard == 0
    assert half.beat_answered(number, BeatAnswer(frames=frames[:2], frames_first=1), 0.0).frames == frames[:2]
    number, beat = ask_beat(half, 15.0)
    assert beat.heard == 2
    half.failed(number, 15.0)
    number, beat = ask_beat(half, 30.0)
    assert beat.heard == 2
    assert half.beat_answered(number, BeatAnswer(frames=frames, frames_first=1), 30.0).frames == frames[2:]
    number, beat = ask_beat(half, 45.0)
    assert beat.heard == 3
    half.beat_answered(number, BeatAnswer(), 45.0)
    number, beat = ask_beat(half, 60.0)
    assert beat.heard == 0
    assert half.beat_answered(number, BeatAnswer(frames=frames, frames_first=5), 60.0).frames == ()


# --- the agent's half: contact lost -----------------------------------------------------------------------------


@given(st.binary(min_size=16, max_size=16), st.integers(1, 40), st.booleans())
def test_waits_double_up_to_the_interval_and_are_shortened_at_random(seed: bytes, failures: int, beats: bool) -> None:
    """The wait after the n-th failure is more than half of, and at most, 1 s doubled n-1 times or the interval."""
    half = joined(seed=seed) if beats else agent_half(seed=seed)
    now_s = 1000.0
    for _ in range(failures):
        number, _ = ask(half, now_s)
        half.failed(number, now_s)
        due_s = half.due_s(now_s)
        assert due_s is not None
        wait_s, now_s = due_s - now_s, due_s
    full_s = min(RETRY_FIRST_S * 2.0 ** (failures - 1), 15.0)
    assert full_s / 2 - 1e-9 < wait_s <= full_s + 1e-9
    assert half.state is (LinkState.JOINED if beats else LinkState.APART)


def test_agents_with_other_seeds_wait_for_other_times() -> None:
    """Jitter spreads agents: of fifty that fail together no two try again together."""
    dues = set()
    for index in range(50):
        half = agent_half(seed=bytes([index]) * 16)
        number, _ = ask(half)
        half.failed(number, 0.0)
        dues.add(half.due_s(0.0))
    assert len(dues) == 50


def test_neither_news_nor_a_ring_shortens_the_wait() -> None:
    """While requests fail, an agent with much to tell waits as long as one with nothing."""
    half = joined()
    number, _ = ask_beat(half)
    half.failed(number, 0.0)
    due_s = half.due_s(0.0)
    half.report(update(1))
    half.ring()
    assert half.due_s(0.0) == due_s


def test_success_ends_the_back_off() -> None:
    """After an answer the first failure waits for the first, shortest time again."""
    half = joined()
    for now_s in (0.0, 100.0, 200.0, 300.0):
        number, _ = ask_beat(half, now_s)
        half.failed(number, now_s)
    number, _ = ask_beat(half, 400.0)
    half.beat_answered(number, BeatAnswer(), 400.0)
    number, _ = ask_beat(half, 500.0)
    half.failed(number, 500.0)
    due_s = half.due_s(500.0)
    assert due_s is not None
    assert due_s <= 500.0 + RETRY_FIRST_S


def test_one_request_is_under_way_at_a_time() -> None:
    """While an answer is awaited nothing is due; a failure of an older request does not end the wait."""
    half = joined()
    number, _ = ask_beat(half)
    half.ring()
    assert half.due_s(1e6) is None
    assert half.poll(1e6, ()) is None
    half.failed(number - 1, 0.0)
    assert half.due_s(1e6) is None


# --- the table, and sessions ------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", list(LinkState))
@pytest.mark.parametrize("signal", list(LinkSignal))
def test_the_half_follows_its_table(state: LinkState, signal: LinkSignal) -> None:
    """A pair without an entry raises IllegalMove and moves nothing."""
    half = agent_half(state=state)
    after = LINK_MOVES[state].get(signal)
    if after is None:
        with pytest.raises(IllegalMove, match=f"{state.name} on .*{signal.name}"):
            half._move(signal)
        assert half.state is state
    else:
        half._move(signal)
        assert half.state is after


@given(st.binary(min_size=16, max_size=16), st.integers(0, 10**6))
def test_a_session_is_32_bits_and_never_0(seed: bytes, count: int) -> None:
    """Sessions are numbers from 1 to 2³²-1, the same for the same seed and count."""
    session = make_session(seed, count)
    assert 0 < session < 2**32
    assert session == make_session(seed, count)


def test_sessions_are_no_counter() -> None:
    """Neither the next session nor another master's can be told from one."""
    mine = [make_session(b"a" * 16, count) for count in range(100)]
    other = [make_session(b"b" * 16, count) for count in range(100)]
    assert len({*mine, *other}) == 200
    steps = {after - before for before, after in pairwise(mine)}
    assert len(steps) == 99


def test_an_order_of_each_kind_is_carried() -> None:
    """Launch, kill and forget arrive as they were given, within one default budget."""
    half = MasterHalf(7, 1)
    bodies: list[OrderBody] = [launch("t1", HTTP.budget_bytes // 2), Kill(key("t1"), 2.5), Forget(key("t1"))]
    for body in bodies:
        half.order(body)
    answer = half.answer()
    assert [order.body for order in answer.orders] == bodies
    assert not answer.more
