"""The agent's core: phases before steps, orders twice, kills in every phase, ends, and what a beat may carry."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgerm.core.blobs import digest_of
from edgerm.core.effects import Change, Drop, Put
from edgerm.core.ids import AgentId, FrameworkId, LaunchId, TaskId, TaskKey
from edgerm.core.instant import Instant
from edgerm.core.link import (
    REJOIN,
    Beat,
    BeatAnswer,
    Close,
    Forget,
    Frame,
    Join,
    Kill,
    Launch,
    Order,
    OrderBody,
    Welcome,
)
from edgerm.core.resources import parse
from edgerm.core.scheduler import AgentSpec, BlobRef, Status, TaskSpec
from edgerm.core.tasks import Reason, Source, TaskState
from edgerm.plugin.executor import Exit, ExitReason, Handle
from edgerm_agent.core.agent import Agent, Identity
from edgerm_agent.core.effects import (
    Abandon,
    Discard,
    Effect,
    Fetch,
    FramesIn,
    Noted,
    Release,
    Send,
    SessionBegan,
    Start,
    Stop,
    Watch,
    What,
)
from edgerm_agent.core.events import (
    BeatAnswered,
    Described,
    Ended,
    Event,
    ExecutorFound,
    Fetched,
    FetchFailed,
    InstanceChanged,
    JoinAnswered,
    Preparing,
    Rang,
    Recovered,
    RequestFailed,
    SendFrame,
    Started,
    StartFailed,
    Tick,
)
from edgerm_agent.core.records import Phase, Record, RunRecord, TaskRecord

KEY = TaskKey(FrameworkId("f"), TaskId("t1"), LaunchId("l1"))
BLOB = BlobRef(digest_of(b"module"), 6)
SPEC = TaskSpec(TaskId("t1"), AgentId("a1"), parse("cpus:1;mem:64"), executor="wasm")
HANDLE = Handle(KEY, "wasm", "host-1", 42)
IDENTITY = Identity(AgentId("a1"), AgentSpec("box", resources=parse("cpus:2;mem:256")), 7, "boot")
KINDS = {"wasm": "host-1", "process": "keeper-1"}


class Box:
    """An agent's core with a master that answers as told; `rows` is its journal."""

    def __init__(self, records: tuple[Record, ...] = ()) -> None:
        self.agent = Agent(IDENTITY, records)
        self.now_s = 0.0
        self.rows: dict[tuple[str, str], object] = {
            ("task" if isinstance(record, TaskRecord) else "run", str(record.key)): record for record in records
        }
        self.request = 0
        self.number = 0
        self.sent: list[Join | Beat] = []
        self.notes: list[Noted] = []  # for the log

    def happen(self, event: Event) -> list[Effect]:
        effects = self.agent.handle(event, Instant(self.now_s, 1e6 + self.now_s))
        for effect in effects:
            match effect:
                case Put(kind, key, record):
                    self.rows[(kind, key)] = record
                case Drop(kind, key):
                    del self.rows[(kind, key)]
                case Send(request, body):
                    self.request = request
                    self.sent.append(body)
                case Noted():
                    self.notes.append(effect)
        return [effect for effect in effects if not isinstance(effect, Noted)]

    def up(self, held: tuple[Handle, ...] = (), kinds: dict[str, str] | None = None) -> list[Effect]:
        """Recovered, with these executors and what they hold."""
        return self.happen(Recovered(KINDS if kinds is None else kinds, {handle.key: handle for handle in held}))

    def welcome(self) -> list[Effect]:
        """The master takes the join."""
        self.number = 0
        return self.happen(JoinAnswered(self.request, Welcome(77, 15.0)))

    def order(self, *bodies: OrderBody, present: bool = True) -> list[Effect]:
        """The master answers the beat under way with orders (rings for one if none is)."""
        self.beat()
        orders = []
        for body in bodies:
            self.number += 1
            orders.append(Order(self.number, body))
        blobs = frozenset({BLOB.digest}) if present else frozenset[object]()
        return self.happen(BeatAnswered(self.request, BeatAnswer(orders=tuple(orders)), blobs))  # type: ignore[arg-type]

    def beat(self) -> Beat:
        """The beat that is under way, or that a ring brings about."""
        if self.agent.due_s() is not None:
            self.happen(Rang())
        last = self.sent[-1]
        assert isinstance(last, Beat)
        return last

    def persist(self) -> None:
        """The master persists all updates that are under way."""
        while updates := self.beat().updates:
            self.happen(BeatAnswered(self.request, BeatAnswer(persisted=updates[-1].number)))

    @property
    def run(self) -> RunRecord:
        """How far t1 has come: what is in memory, and in the journal, which may still owe what was persisted since."""
        run = self.agent.tasks[KEY].run
        stored = self.rows[("run", str(KEY))]
        assert isinstance(stored, RunRecord)
        assert stored.owed[len(stored.owed) - len(run.owed) :] == run.owed
        assert replace(stored, owed=run.owed) == run
        return run

    def told(self) -> list[Status]:
        """What is owed to the master."""
        return [update.status for update in self.run.owed]

    def restarted(self) -> Box:
        """Another process over the same journal."""
        return Box(tuple(self.rows.values()))  # type: ignore[arg-type]


@pytest.fixture
def box() -> Box:
    """An agent with a session and nothing to do."""
    found = Box()
    found.up()
    found.welcome()
    return found


@pytest.fixture
def running(box: Box) -> Box:
    """Its task t1 runs, and the master knows."""
    box.order(Launch(KEY, "*", SPEC))
    box.happen(Started(KEY, HANDLE))
    box.persist()
    return box


def steps(effects: list[Effect]) -> list[type]:
    return [type(effect) for effect in effects if not isinstance(effect, Send)]


def of(kind: type, effects: list[Effect]) -> list[Effect]:
    return [effect for effect in effects if isinstance(effect, kind)]


# --- launch -----------------------------------------------------------------------------------------------------


def test_a_start_follows_its_record(box: Box) -> None:
    """The journal says "starting" before the executor is asked."""
    effects = box.order(Launch(KEY, "*", SPEC))
    assert steps(effects) == [Put, Put, Start]
    assert isinstance(effects[0], Put)
    assert effects[0].record == RunRecord(KEY, Phase.STARTING, TaskState.STAGING, "host-1")
    assert isinstance(effects[1], Put)
    assert effects[1].record == TaskRecord(KEY, "*", SPEC)


def test_what_is_missing_is_fetched_first(box: Box) -> None:
    """The journal says "fetching", then the fetch, then "starting", then the start."""
    spec = replace(SPEC, blobs=(BLOB,))
    effects = box.order(Launch(KEY, "*", spec), present=False)
    assert steps(effects) == [Put, Put, Fetch]
    assert box.run.phase.value == "fetching"
    assert box.agent.needs() == {BLOB.digest}
    effects = box.happen(Fetched(KEY))
    assert steps(effects) == [Put, Start]
    assert box.run.phase.value == "starting"


def test_what_is_here_is_not_fetched(box: Box) -> None:
    """A task whose blobs are present starts at once."""
    assert steps(box.order(Launch(KEY, "*", replace(SPEC, blobs=(BLOB,))))) == [Put, Put, Start]


def test_an_order_twice_is_one_start(box: Box) -> None:
    """The same launch again, in this session or the next, starts nothing, in whatever phase the task is."""
    order = Launch(KEY, "*", SPEC)
    box.order(order)
    assert of(Start, box.order(order)) == []
    box.happen(Started(KEY, HANDLE))
    assert of(Start, box.order(order)) == []
    box.happen(Ended(KEY, Exit(code=0)))
    assert of(Start, box.order(order)) == []
    box.persist()
    box.happen(Rang())
    box.happen(BeatAnswered(box.request, REJOIN))
    box.welcome()
    assert of(Start, box.order(order)) == []


def test_a_late_or_repeated_started_changes_nothing(running: Box) -> None:
    """Started counts while the task is starting, once."""
    assert of(Put, running.happen(Started(KEY, HANDLE))) == []
    running.happen(Ended(KEY, Exit(code=0)))
    assert of(Put, running.happen(Started(KEY, HANDLE))) == []


def test_no_executor_is_a_failed_launch(box: Box) -> None:
    """A kind that this box cannot run: TASK_FAILED, naming what it has, and nothing is started."""
    effects = box.order(Launch(KEY, "*", replace(SPEC, executor="docker")))
    assert of(Start, effects) == []
    [status] = box.told()
    assert (status.state, status.reason) == (TaskState.FAILED, Reason.CONTAINER_LAUNCH_FAILED)
    assert "'docker'" in status.message
    assert "process, wasm" in status.message


def test_what_does_not_fit_is_dropped(running: Box) -> None:
    """The agent is the authority on what it has: TASK_DROPPED, SOURCE_AGENT, REASON_RESOURCES_UNKNOWN."""
    other = KEY._replace(task_id=TaskId("t2"))
    effects = running.order(Launch(other, "*", replace(SPEC, task_id=TaskId("t2"), resources=parse("cpus:1.5;mem:1"))))
    assert of(Start, effects) == []
    [update] = running.agent.tasks[other].run.owed
    expected = (TaskState.DROPPED, Source.AGENT, Reason.RESOURCES_UNKNOWN)
    assert (update.status.state, update.status.source, update.status.reason) == expected
    assert "cpus:1;mem:192 is left" in update.status.message


def test_ended_tasks_hold_nothing(running: Box) -> None:
    """What an ended task used may be used again before it is forgotten."""
    running.happen(Ended(KEY, Exit(code=0)))
    other = KEY._replace(launch_id=LaunchId("l2"))
    assert of(Start, running.order(Launch(other, "*", replace(SPEC, resources=parse("cpus:2;mem:256")))))


@pytest.mark.parametrize("event", [FetchFailed(KEY, "no such blob"), StartFailed(KEY, "no such blob")])
def test_what_cannot_start_fails(box: Box, event: Event) -> None:
    """TASK_FAILED, REASON_CONTAINER_LAUNCH_FAILED, with the reason in words."""
    box.order(Launch(KEY, "*", replace(SPEC, blobs=(BLOB,))), present=isinstance(event, StartFailed))
    box.happen(event)
    [status] = box.told()
    assert (status.state, status.reason) == (TaskState.FAILED, Reason.CONTAINER_LAUNCH_FAILED)
    assert status.message == "no such blob"


def test_a_failure_to_start_what_runs_is_void(running: Box) -> None:
    """A late StartFailed or Fetched does not touch a running task."""
    for event in (StartFailed(KEY, "late"), FetchFailed(KEY, "late"), Fetched(KEY)):
        assert steps(running.happen(event)) == []
    assert running.run.phase is Phase.RUNNING


# --- kill -------------------------------------------------------------------------------------------------------


def test_a_kill_while_fetching_ends_the_task(box: Box) -> None:
    """Nothing was started: TASK_KILLED at once, and the blobs that come later start nothing."""
    box.order(Launch(KEY, "*", replace(SPEC, blobs=(BLOB,))), present=False)
    effects = box.order(Kill(KEY))
    assert of(Stop, effects) == []
    [status] = box.told()
    assert (status.state, status.reason) == (TaskState.KILLED, Reason.TASK_KILLED_DURING_LAUNCH)
    assert of(Start, box.happen(Fetched(KEY))) == []


def test_a_kill_while_starting_waits_for_the_handle(box: Box) -> None:
    """The wish is journaled; as soon as the task has started it is stopped."""
    box.order(Launch(KEY, "*", SPEC))
    effects = box.order(Kill(KEY, 1.5))
    assert of(Stop, effects) == []
    assert of(Abandon, effects) == [Abandon(KEY, "wasm")]
    assert box.run.kill_asked
    effects = box.happen(Started(KEY, HANDLE))
    assert steps(effects) == [Put, Stop]
    assert of(Stop, effects) == [Stop(HANDLE, 1.5)]


def test_a_kill_while_starting_of_what_never_starts(box: Box) -> None:
    """It is killed, not failed."""
    box.order(Launch(KEY, "*", SPEC))
    box.order(Kill(KEY))
    box.happen(StartFailed(KEY, "bad module"))
    [status] = box.told()
    assert (status.state, status.reason) == (TaskState.KILLED, Reason.TASK_KILLED_DURING_LAUNCH)


def test_a_kill_while_running_is_told_journaled_and_done(running: Box) -> None:
    """TASK_KILLING is journaled before the stop; the end is TASK_KILLED also with exit code 0."""
    effects = running.order(Kill(KEY))
    assert steps(effects) == [Put, Stop]
    assert [status.state for status in running.told()] == [TaskState.KILLING]
    running.happen(Ended(KEY, Exit(code=0)))
    assert [status.state for status in running.told()] == [TaskState.KILLING, TaskState.KILLED]


@pytest.mark.parametrize(
    ("own_s", "asked_s", "grace_s"),
    [(None, None, 3.0), (9.0, None, 9.0), (9.0, 1.0, 1.0), (None, 0.0, 0.0), (0.0, None, 0.0)],
)
def test_whose_grace_counts(box: Box, own_s: float | None, asked_s: float | None, grace_s: float) -> None:
    """The kill's grace, else the task's own, else 3 s; 0 is a grace too."""
    box.order(Launch(KEY, "*", replace(SPEC, grace_s=own_s)))
    box.happen(Started(KEY, HANDLE))
    assert of(Stop, box.order(Kill(KEY, asked_s))) == [Stop(HANDLE, grace_s)]


def test_a_repeated_kill_may_shorten_the_grace(running: Box) -> None:
    """Each kill is a stop with its grace; TASK_KILLING is told once."""
    assert of(Stop, running.order(Kill(KEY, 30.0))) == [Stop(HANDLE, 30.0)]
    assert of(Stop, running.order(Kill(KEY, 1.0))) == [Stop(HANDLE, 1.0)]
    assert [status.state for status in running.told()] == [TaskState.KILLING]


def test_a_kill_of_the_ended_or_unknown_does_nothing(running: Box) -> None:
    """Late kills find nothing to do."""
    running.happen(Ended(KEY, Exit(code=0)))
    assert steps(running.order(Kill(KEY), Kill(KEY._replace(task_id=TaskId("t9"))))) == []


def test_a_task_that_takes_too_long_is_stopped_and_fails(box: Box) -> None:
    """After max_completion_time: a stop with grace, then TASK_FAILED, REASON_MAX_COMPLETION_TIME_REACHED."""
    box.order(Launch(KEY, "*", replace(SPEC, completion_s=60.0)))
    box.now_s = 10.0
    box.happen(Started(KEY, HANDLE))
    box.persist()
    box.now_s = 69.9
    assert of(Stop, box.happen(Tick())) == []
    box.now_s = 70.0
    effects = box.happen(Tick())
    assert [kind for kind in steps(effects) if kind in (Put, Stop)] == [Put, Stop]
    box.happen(Ended(KEY, Exit(signal=15)))
    status = box.told()[-1]
    assert (status.state, status.reason) == (TaskState.FAILED, Reason.MAX_COMPLETION_TIME_REACHED)


def test_the_end_stops_the_clock(box: Box) -> None:
    """A task that ended in time is not stopped later."""
    box.order(Launch(KEY, "*", replace(SPEC, completion_s=60.0)))
    box.happen(Started(KEY, HANDLE))
    box.happen(Ended(KEY, Exit(code=0)))
    box.now_s = 100.0
    assert of(Stop, box.happen(Tick())) == []


# --- ends -------------------------------------------------------------------------------------------------------


def test_an_end_is_journaled_before_the_executor_forgets_it(running: Box) -> None:
    """The record of the end comes before the release of the handle."""
    effects = running.happen(Ended(KEY, Exit(code=3, tail="oops")))
    assert steps(effects) == [Put, Release]
    [status] = running.told()
    assert (status.exit_code, status.output_tail, status.state) == (3, "oops", TaskState.FAILED)
    assert running.run.phase is Phase.ENDED
    assert steps(running.happen(Ended(KEY, Exit(code=0)))) == []


def test_only_ended_tasks_are_forgotten(running: Box) -> None:
    """A forget for a live task does nothing; for an ended one its records and its sandbox go."""
    assert steps(running.order(Forget(KEY))) == []
    running.happen(Ended(KEY, Exit(code=0)))
    running.persist()
    effects = running.order(Forget(KEY))
    assert steps(effects) == [Drop, Drop, Discard]
    assert (running.rows, running.agent.tasks) == ({}, {})
    assert steps(running.order(Forget(KEY))) == []


# --- what beats carry -------------------------------------------------------------------------------------------


def test_an_update_is_put_in_the_event_that_sends_it(box: Box) -> None:
    """A beat carries an update only together with, and after, the record that owes it."""
    box.order(Launch(KEY, "*", SPEC))
    effects = box.happen(Started(KEY, HANDLE))
    kinds = [type(effect) for effect in effects]
    assert kinds == [Put, Send]
    beat = box.sent[-1]
    assert isinstance(beat, Beat)
    assert [update.status for update in beat.updates] == box.told()
    assert beat.updates[0].status.uuid


def test_seen_follows_the_journal(box: Box) -> None:
    """The beat that says "seen" comes after the puts of the orders that it speaks of."""
    effects = box.order(Launch(KEY, "*", SPEC))
    assert box.beat().seen == 1
    assert [type(effect) for effect in effects].index(Put) == 0


def test_persisted_updates_are_owed_no_more(running: Box) -> None:
    """Once the master has an update no beat repeats it, and nothing is written for that."""
    running.beat()
    running.happen(Ended(KEY, Exit(code=0)))
    running.happen(BeatAnswered(running.request, BeatAnswer(persisted=1)))
    [update] = running.beat().updates
    effects = running.happen(BeatAnswered(running.request, BeatAnswer(persisted=update.number)))
    assert not [effect for effect in effects if isinstance(effect, (Put, Drop))]
    assert running.told() == []
    assert running.beat().updates == ()


def test_a_beat_without_news_writes_nothing(running: Box) -> None:
    """An idle beat and its answer cause no write."""
    running.beat()
    for _ in range(3):
        running.now_s += 15
        effects = running.happen(BeatAnswered(running.request, BeatAnswer())) + running.happen(Tick())
        assert not [effect for effect in effects if isinstance(effect, (Put, Drop))]


def test_uuids_never_repeat_and_survive(running: Box) -> None:
    """Each update of each launch has a uuid of its own, the same again after a crash."""
    running.happen(Ended(KEY, Exit(code=0)))
    [before] = running.told()
    again = running.restarted()
    again.up()
    [after] = again.told()
    assert before == after
    other = Box()
    other.up()
    other.welcome()
    second = KEY._replace(launch_id=LaunchId("l2"))
    other.order(Launch(second, "*", SPEC))
    other.happen(StartFailed(second, "no"))
    assert other.agent.tasks[second].run.owed[0].status.uuid != before.uuid


def test_nothing_is_sent_before_recovery() -> None:
    """Until the executors are known the agent neither joins nor takes orders."""
    box = Box()
    assert box.agent.due_s() is None
    assert box.happen(Tick()) == []
    assert steps(box.up()) == []
    [join] = box.sent
    assert isinstance(join, Join)
    assert (join.agent_id, join.incarnation, join.boot_id, join.agent) == ("a1", 7, "boot", IDENTITY.spec)


def test_a_join_reports_every_task(running: Box) -> None:
    """What runs and what ended and is not forgotten, with its state and whether updates follow."""
    running.happen(Ended(KEY, Exit(code=0)))
    again = running.restarted()
    again.up()
    [join] = again.sent
    assert isinstance(join, Join)
    [report] = join.tasks
    assert (report.key, report.state, report.seq, report.role, report.owes) == (KEY, TaskState.FINISHED, 2, "*", True)


def test_contact_lost_ends_nothing(running: Box) -> None:
    """However long no request is answered, the task runs on and its end is journaled."""
    for _ in range(20):
        running.happen(Rang())
        running.happen(RequestFailed(running.request))
        running.now_s += 60
        running.happen(Tick())
    assert running.run.phase is Phase.RUNNING
    running.happen(Ended(KEY, Exit(code=0)))
    assert [status.state for status in running.told()] == [TaskState.FINISHED]


def test_sessions_and_frames_are_handed_on(box: Box) -> None:
    """A session is told to the doorbell; frames go both ways."""
    again = Box()
    again.up()
    assert SessionBegan(77) in again.welcome()
    frame = Frame(1, Close())
    again.beat()
    effects = again.happen(BeatAnswered(again.request, BeatAnswer(frames=(frame,), frames_first=1)))
    assert FramesIn((frame,)) in effects
    again.happen(SendFrame(frame))
    assert again.beat().frames == (frame,)


# --- recovery ---------------------------------------------------------------------------------------------------


def crash(phase: Phase, **fields: object) -> Box:
    """A new process over a journal in which t1 has this phase."""
    state = TaskState.RUNNING if phase is Phase.RUNNING else TaskState.STAGING
    run = RunRecord(KEY, phase, state, "host-1", HANDLE if phase is Phase.RUNNING else None, **fields)  # type: ignore[arg-type]
    return Box((TaskRecord(KEY, "*", replace(SPEC, blobs=(BLOB,), completion_s=60.0)), run))


def test_a_fetch_goes_on(box: Box) -> None:
    """Fetching: it is fetched again."""
    assert of(Fetch, crash(Phase.FETCHING).up()) == [Fetch(KEY, (BLOB,))]


def test_a_start_that_may_not_have_happened_is_repeated() -> None:
    """Starting, same executor instance, not held: it never started, so it is started."""
    assert of(Start, crash(Phase.STARTING).up())


@pytest.mark.parametrize("phase", Phase)
def test_an_ended_task_is_not_present(phase: Phase) -> None:
    """What an agent that was killed left of a task that had ended is nobody's, though the task is not forgotten yet."""
    assert crash(phase).agent.present == (set() if phase is Phase.ENDED else {KEY})


def test_what_is_held_is_adopted() -> None:
    """Starting but held: it did start; RUNNING is owed, and it is watched."""
    box = crash(Phase.STARTING)
    effects = box.up((HANDLE,))
    assert of(Start, effects) == []
    assert of(Watch, effects) == [Watch(HANDLE)]
    assert box.run.phase is Phase.RUNNING
    assert [status.state for status in box.told()] == [TaskState.RUNNING]


def test_what_runs_is_watched_and_nothing_more() -> None:
    """Running and held: no word to the master, no second start."""
    box = crash(Phase.RUNNING)
    assert steps(box.up((HANDLE,))) == [Watch]
    box.now_s = 60.0
    assert of(Stop, box.happen(Tick())) == [Stop(HANDLE, 3.0)]


def test_a_kill_is_carried_on() -> None:
    """A kill that was journaled before the crash is done after it."""
    box = crash(Phase.RUNNING, kill_asked=True, kill_grace_s=2.0)
    assert of(Stop, box.up((HANDLE,))) == [Stop(HANDLE, 2.0)]


@pytest.mark.parametrize("phase", [Phase.STARTING, Phase.RUNNING])
@pytest.mark.parametrize("kinds", [{"wasm": "host-2"}, {}])
def test_what_its_holder_took_along_has_failed(phase: Phase, kinds: dict[str, str]) -> None:
    """Not held, and its executor is another instance or not there: TASK_FAILED, REASON_EXECUTOR_TERMINATED."""
    box = crash(phase)
    effects = box.up(kinds=kinds)
    assert of(Start, effects) == []
    [status] = box.told()
    assert (status.state, status.reason) == (TaskState.FAILED, Reason.EXECUTOR_TERMINATED)


def test_running_and_not_held_has_failed() -> None:
    """Even where the instance is the same: an executor keeps an exit until it is journaled, so this one is gone."""
    box = crash(Phase.RUNNING)
    box.up()
    assert [status.state for status in box.told()] == [TaskState.FAILED]


def test_what_nobody_ordered_is_ended() -> None:
    """A held task without a record, or whose end is journaled, is stopped and released."""
    stranger = replace(HANDLE, key=KEY._replace(task_id=TaskId("t9")))
    ended = crash(Phase.ENDED)
    for box, handle in ((Box(), stranger), (ended, HANDLE)):
        effects = box.up((handle,))
        assert steps(effects) == [Stop, Release]


def test_a_task_without_a_run_was_never_promised(box: Box) -> None:
    """A batch that ended between the two records leaves a journal that can be read: what is whole counts."""
    effects = box.order(Launch(KEY, "*", SPEC))
    changes: list[Change] = [effect for effect in effects if isinstance(effect, (Put, Drop))]
    for cut in range(len(changes) + 1):
        rows = tuple(change.record for change in changes[:cut] if isinstance(change, Put))
        found = Box(rows)  # type: ignore[arg-type]
        found.up()
        assert len(found.agent.tasks) == (cut == len(changes))


def test_a_new_instance_takes_the_next_tasks(box: Box) -> None:
    """After InstanceChanged a launch is recorded under the new instance."""
    box.happen(InstanceChanged("wasm", "host-2"))
    box.order(Launch(KEY, "*", SPEC))
    assert box.run.instance == "host-2"


def test_an_executor_that_went_away_while_fetching(box: Box) -> None:
    """After a restart without the executor, the fetched task fails instead of waiting for ever."""
    found = crash(Phase.FETCHING)
    found.up(kinds={})
    found.happen(Fetched(KEY))
    [status] = found.told()
    assert (status.state, status.reason) == (TaskState.FAILED, Reason.CONTAINER_LAUNCH_FAILED)
    assert ExitReason.EXECUTOR_DIED.value not in status.message


# --- starts that take long, engines that are away ---------------------------------------------------------------

DOCKER = replace(SPEC, executor="docker")
CONTAINER = Handle(KEY, "docker", "engine-1")
AWAY = {"docker": "waits for the Docker engine"}


def states(box: Box) -> list[tuple[TaskState, str]]:
    """What is owed to the master of t1, in short."""
    return [(status.state, status.message) for status in box.told()]


def test_a_start_that_takes_long_is_told(box: Box) -> None:
    """TASK_STARTING with the message; while the master lacks one, only the latest of those that follow is kept."""
    box.order(Launch(KEY, "*", SPEC))
    for percent in (1, 2, 3):
        box.happen(Preparing(KEY, f"{percent} %"))
    assert states(box) == [(TaskState.STARTING, "1 %")]
    box.happen(BeatAnswered(box.request, BeatAnswer(persisted=1)))
    assert states(box) == [(TaskState.STARTING, "3 %")]
    box.persist()
    box.happen(Preparing(KEY, "4 %"))
    box.happen(Preparing(KEY, "5 %"))
    box.happen(Started(KEY, HANDLE))
    assert states(box) == [(TaskState.STARTING, "4 %"), (TaskState.RUNNING, "")]
    box.happen(BeatAnswered(box.request, BeatAnswer()))
    box.persist()
    assert states(box) == []


def test_news_of_what_does_not_start_now_is_void(running: Box) -> None:
    """News about a task that runs, has ended, shall end, or is unknown changes nothing."""
    assert of(Put, running.happen(Preparing(KEY, "late"))) == []
    assert of(Put, running.happen(Preparing(KEY._replace(task_id=TaskId("t9")), "who?"))) == []
    running.happen(Ended(KEY, Exit(code=0)))
    assert of(Put, running.happen(Preparing(KEY, "late"))) == []
    other = KEY._replace(task_id=TaskId("t2"))
    running.order(Launch(other, "*", replace(SPEC, task_id=TaskId("t2"))))
    running.order(Kill(other))
    assert of(Put, running.happen(Preparing(other, "late"))) == []


def test_a_kill_abandons_a_start(box: Box) -> None:
    """The executor gives the start up, and the task is killed, not failed."""
    box.order(Launch(KEY, "*", SPEC))
    box.happen(Preparing(KEY, "1 %"))
    assert of(Abandon, box.order(Kill(KEY))) == [Abandon(KEY, "wasm")]
    box.happen(StartFailed(KEY, "given up"))
    assert box.told()[-1].state is TaskState.KILLED
    assert box.told()[-1].reason is Reason.TASK_KILLED_DURING_LAUNCH


def away(phase: Phase, **fields: object) -> Box:
    """A new process over a journal in which a container has this phase; its engine does not answer."""
    state = TaskState.RUNNING if phase is Phase.RUNNING else TaskState.STAGING
    handle = CONTAINER if phase is Phase.RUNNING else None
    run = RunRecord(KEY, phase, state, "engine-1", handle, **fields)  # type: ignore[arg-type]
    box = Box((TaskRecord(KEY, "*", DOCKER), run))
    box.happen(Recovered(KINDS, {}, AWAY))
    return box


@pytest.mark.parametrize("phase", [Phase.STARTING, Phase.RUNNING])
def test_tasks_of_an_engine_that_is_away_are_left_alone(phase: Phase) -> None:
    """Nobody knows what it holds: nothing is started, lost or told."""
    box = away(phase)
    assert box.run.phase is phase
    assert box.told() == []
    assert box.agent.tasks[KEY].live


@pytest.mark.parametrize(
    ("phase", "instance", "held", "effects"),
    [
        (Phase.STARTING, "engine-1", False, [Start(KEY, DOCKER)]),
        (Phase.STARTING, "engine-1", True, [Watch(CONTAINER)]),
        (Phase.RUNNING, "engine-1", True, [Watch(CONTAINER)]),
        (Phase.RUNNING, "engine-1", False, [Release(KEY, CONTAINER)]),
        (Phase.STARTING, "engine-2", False, []),
        (Phase.RUNNING, "engine-2", False, [Release(KEY, CONTAINER)]),
        (Phase.STARTING, None, False, []),
        (Phase.RUNNING, None, True, [Watch(CONTAINER)]),
    ],
)
def test_an_engine_that_is_back_is_asked_once(
    phase: Phase, instance: str | None, held: bool, effects: list[Effect]
) -> None:
    """Its tasks are recovered as at a start; a second answer, whatever it says, starts and adopts nothing."""
    box = away(phase)
    found = ExecutorFound("docker", instance, {KEY: CONTAINER} if held else {})
    kinds = (Start, Watch, Release)
    assert [effect for effect in box.happen(found) if isinstance(effect, kinds)] == effects
    live = bool(effects) and not isinstance(effects[0], Release)
    assert box.agent.tasks[KEY].live is live
    assert [effect for effect in box.happen(found) if isinstance(effect, (Start, Watch))] == []


def test_a_launch_on_an_engine_that_is_away_waits() -> None:
    """It is taken and told, survives another restart, and starts once the engine is there."""
    box = Box()
    box.happen(Recovered(KINDS, {}, AWAY))
    box.welcome()
    assert of(Start, box.order(Launch(KEY, "*", DOCKER))) == []
    assert states(box) == [(TaskState.STARTING, AWAY["docker"])]
    again = box.restarted()
    effects = again.happen(Recovered(KINDS, {}, AWAY))
    assert of(Fetch, effects) == [Fetch(KEY, ())]
    assert of(Start, again.happen(Fetched(KEY))) == []
    again.happen(ExecutorFound("docker", "engine-1"))
    assert of(Start, again.happen(Fetched(KEY))) == [Start(KEY, DOCKER)]
    assert of(Start, again.happen(Fetched(KEY))) == []
    assert again.run.instance == "engine-1"


def test_a_kill_ends_the_wait_for_an_engine() -> None:
    """What was never asked for is killed at once; what may run is killed when the engine answers."""
    box = Box()
    box.happen(Recovered(KINDS, {}, AWAY))
    box.welcome()
    box.order(Launch(KEY, "*", DOCKER), Kill(KEY))
    assert states(box)[-1][0] is TaskState.KILLED
    assert of(Start, box.happen(ExecutorFound("docker", "engine-1"))) == []
    for held, expected in ((False, []), (True, [Stop(CONTAINER, 3.0)])):
        box = away(Phase.STARTING, kill_asked=True)
        effects = box.happen(ExecutorFound("docker", "engine-1", {KEY: CONTAINER} if held else {}))
        assert of(Start, effects) == []
        assert of(Stop, effects) == expected
        assert box.agent.tasks[KEY].live is held


def test_an_engine_that_appears_takes_tasks(box: Box) -> None:
    """What it holds and nobody knows is ended; what is launched from then on is started."""
    stranger = replace(CONTAINER, key=KEY._replace(task_id=TaskId("t9")))
    effects = box.happen(ExecutorFound("docker", "engine-1", {stranger.key: stranger}))
    assert of(Stop, effects) == [Stop(stranger, 0.0)]
    assert of(Release, effects) == [Release(stranger.key, stranger)]
    assert of(Start, box.order(Launch(KEY, "*", DOCKER))) == [Start(KEY, DOCKER)]
    assert of(Start, box.happen(ExecutorFound("docker", "engine-1"))) == []


def test_an_instance_makes_no_executor_ready(box: Box) -> None:
    """InstanceChanged of an executor that is off or awaited is void."""
    box.happen(InstanceChanged("docker", "engine-1"))
    box.order(Launch(KEY, "*", DOCKER))
    assert box.told()[-1].state is TaskState.FAILED


def test_what_the_agent_says_of_itself_may_change(running: Box) -> None:
    """It joins again with the new description and all tasks; they run on, and the session after that is a plain one."""
    spec = replace(IDENTITY.spec, info=b"with docker")
    before = running.beat()
    running.happen(Described(spec))
    running.happen(BeatAnswered(running.request, BeatAnswer()))
    join = running.sent[-1]
    assert isinstance(join, Join)
    assert (join.agent, join.incarnation, [report.key for report in join.tasks]) == (spec, 8, [KEY])
    running.happen(JoinAnswered(running.request, Welcome(78, 15.0)))
    beat = running.beat()
    assert (beat.session, before.session) == (78, 77)
    assert running.run.phase is Phase.RUNNING
    assert running.agent.spec == spec


PLAY = st.lists(
    st.sampled_from(
        [
            Launch(KEY, "*", DOCKER),
            Kill(KEY),
            ExecutorFound("docker", "engine-1"),
            ExecutorFound("docker", "engine-1", {KEY: CONTAINER}),
            ExecutorFound("docker", None),
            InstanceChanged("docker", "engine-2"),
            Fetched(KEY),
            Preparing(KEY, "1 %"),
            Started(KEY, CONTAINER),
            StartFailed(KEY, "no"),
            Ended(KEY, Exit(code=0)),
            Recovered(KINDS, {}, AWAY),
        ]
    ),
    max_size=12,
)


@given(PLAY)
def test_no_order_of_events_starts_a_task_twice(play: list[Event | OrderBody]) -> None:
    """Whatever comes in whatever order: one start in each life of the agent, none after the task's end."""
    box = Box()
    box.happen(Recovered(KINDS, {}, AWAY))
    box.welcome()
    starts = 0
    for step in play:
        ended = KEY in box.agent.tasks and not box.agent.tasks[KEY].live
        match step:
            case Recovered():  # a crash, with nothing held: another start is right
                box, starts = box.restarted(), 0
                effects = box.happen(step)
                box.welcome()
            case Launch() | Kill() | Forget():
                effects = box.order(step)
            case _:
                effects = box.happen(step)
        starts += len(of(Start, effects))
        assert starts <= 1
        assert not (ended and of(Start, effects))


def test_a_log_line_names_the_request_that_the_order_names(running: Box) -> None:
    """Launch and kill are noted with the request that caused them, and an end with how it came."""
    other = KEY._replace(launch_id=LaunchId("l9"), task_id=TaskId("t9"))
    running.order(Launch(other, "*", replace(SPEC, task_id=other.task_id), "cli-1"))
    running.order(Kill(KEY, None, "cli-2"))
    running.happen(Ended(KEY, Exit(signal=15)))
    told = [(note.what, note.key, note.request) for note in running.notes]
    assert told[-3:] == [(What.LAUNCH, other, "cli-1"), (What.KILL, KEY, "cli-2"), (What.ENDED, KEY, "")]
    assert running.notes[-1].status is not None and running.notes[-1].status.state is TaskState.KILLED
