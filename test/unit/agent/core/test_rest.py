"""An executor that sleeps: when it does, how a task wakes it, and that no crash starts a task twice or loses it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgerm.core.effects import Drop, Put
from edgerm.core.ids import AgentId, FrameworkId, LaunchId, TaskId, TaskKey
from edgerm.core.instant import Instant
from edgerm.core.link import Beat, BeatAnswer, Kill, Launch, Order, OrderBody, Welcome
from edgerm.core.resources import parse
from edgerm.core.scheduler import AgentSpec, TaskSpec
from edgerm.core.tasks import TaskState
from edgerm.plugin.executor import Exit, ExitReason, Handle
from edgerm_agent.core import effects
from edgerm_agent.core.agent import Agent, Identity
from edgerm_agent.core.events import (
    BeatAnswered,
    Ended,
    Event,
    Fetched,
    InstanceChanged,
    JoinAnswered,
    Rang,
    Recovered,
    Started,
    Tick,
)
from edgerm_agent.core.records import Phase, Record, RunRecord, TaskRecord
from edgerm_agent.core.rest import Rest

IDLE_S = 60.0
KEYS = [TaskKey(FrameworkId("f"), TaskId(f"t{n}"), LaunchId("l")) for n in (1, 2)]
KEY = KEYS[0]
SPEC = TaskSpec(KEY.task_id, AgentId("a1"), parse("cpus:0.5"), executor="wasm")
IDENTITY = Identity(AgentId("a1"), AgentSpec("box", resources=parse("cpus:2")), 7, "boot")
DIED = Exit(ExitReason.EXECUTOR_DIED)


class Box:
    """A core whose executor may sleep, with its journal and a master that is always there."""

    def __init__(self, instance: str, records: tuple[Record, ...] = (), held: tuple[Handle, ...] = ()) -> None:
        self.core = Agent(IDENTITY, records, {"wasm": IDLE_S})
        self.now_s = 0.0
        self.rows: dict[tuple[str, str], object] = {(_kind(record), str(record.key)): record for record in records}
        self.sent: list[effects.Send] = []
        self.orders = 0
        self.begun = self.happen(Recovered({"wasm": instance}, {handle.key: handle for handle in held}))
        self.happen(JoinAnswered(self.sent[-1].request, Welcome(77, 15.0)))

    def happen(self, event: Event) -> list[effects.Effect]:
        """What the core wants done about a task or the executor; it journals."""
        found = self.core.handle(event, Instant(self.now_s, 1e6 + self.now_s))
        for effect in found:
            match effect:
                case Put(kind, key, record):
                    self.rows[kind, key] = record
                case Drop(kind, key):
                    del self.rows[kind, key]
                case effects.Send():
                    self.sent.append(effect)
        return [effect for effect in found if isinstance(effect, ACTS)]

    def order(self, body: OrderBody) -> list[effects.Effect]:
        """The master's next order."""
        self.happen(Rang())
        self.orders += 1
        assert isinstance(self.sent[-1].body, Beat)
        answer = BeatAnswer(orders=(Order(self.orders, body),))
        return self.happen(BeatAnswered(self.sent[-1].request, answer))

    def wait(self, wait_s: float) -> list[effects.Effect]:
        """Time passes."""
        self.now_s += wait_s
        return self.happen(Tick())

    @property
    def records(self) -> tuple[Record, ...]:
        """The journal."""
        return tuple(self.rows.values())  # type: ignore[arg-type]

    def run(self, key: TaskKey = KEY) -> RunRecord:
        """How far a task has come, in the journal."""
        record = self.rows["run", str(key)]
        assert isinstance(record, RunRecord)
        return record


ACTS = (effects.Fetch, effects.Start, effects.Sleep, effects.Watch, effects.Stop, effects.Abandon, effects.Release)


def _kind(record: Record) -> str:
    return "task" if isinstance(record, TaskRecord) else "run"


def launch(key: TaskKey = KEY) -> Launch:
    """A module without blobs."""
    return Launch(key, "*", replace(SPEC, task_id=key.task_id))


@pytest.fixture
def awake() -> Box:
    """Nothing to do, the executor is awake."""
    return Box("host-1")


@pytest.fixture
def asleep() -> Box:
    """Nothing to do, the executor sleeps."""
    return Box("")


def test_what_is_idle_sleeps_once(awake: Box) -> None:
    """After so long without a task, and only once; one that cannot be told to sleep any more is left alone."""
    assert awake.wait(IDLE_S - 1) == []
    assert awake.wait(1) == [effects.Sleep("wasm")]
    assert awake.wait(10 * IDLE_S) == []


def test_what_has_a_task_does_not_sleep(awake: Box) -> None:
    """However long it takes, in whichever phase; and for so long after its end."""
    awake.order(launch())
    assert awake.wait(10 * IDLE_S) == []
    awake.happen(Started(KEY, Handle(KEY, "wasm", "host-1")))
    assert awake.wait(10 * IDLE_S) == []
    awake.happen(Ended(KEY, Exit(code=0)))
    assert awake.wait(IDLE_S - 1) == []
    assert awake.wait(1) == [effects.Sleep("wasm")]


def test_a_task_wakes_it_before_it_is_started(asleep: Box) -> None:
    """The journal says FETCHING until it knows the instance that is asked to start the task."""
    assert asleep.order(launch()) == [effects.Fetch(KEY, (), "wasm")]
    assert asleep.run().phase is Phase.FETCHING
    asleep.happen(InstanceChanged("wasm", "host-2"))
    assert asleep.happen(Fetched(KEY)) == [effects.Start(KEY, SPEC)]
    assert (asleep.run().phase, asleep.run().instance) == (Phase.STARTING, "host-2")


def test_a_task_that_found_it_asleep_again_wakes_it_again(asleep: Box) -> None:
    """Nothing is started by nobody."""
    asleep.order(launch())
    assert asleep.happen(Fetched(KEY)) == [effects.Fetch(KEY, (), "wasm")]
    assert asleep.run().phase is Phase.FETCHING


def test_what_could_not_sleep_is_awake(awake: Box) -> None:
    """When it still held something, tasks start at once again, and it is told to sleep later."""
    awake.wait(IDLE_S)
    awake.happen(InstanceChanged("wasm", "host-1"))
    assert awake.wait(IDLE_S) == [effects.Sleep("wasm")]
    awake.happen(InstanceChanged("wasm", "host-1"))
    assert awake.order(launch()) == [effects.Start(KEY, SPEC)]


def test_a_kill_needs_nobody_awake(asleep: Box) -> None:
    """A task that waits for the executor is killed at once and never started."""
    asleep.order(launch())
    assert asleep.order(Kill(KEY)) == []
    assert asleep.run().state is TaskState.KILLED
    asleep.happen(InstanceChanged("wasm", "host-2"))
    assert asleep.happen(Fetched(KEY)) == []


@pytest.mark.parametrize(
    ("phase", "instance", "live"),
    [
        (Phase.FETCHING, "", True),
        (Phase.STARTING, "host-1", False),
        (Phase.STARTING, "", False),
        (Phase.RUNNING, "host-1", False),
    ],
)
def test_an_agent_that_comes_back_to_a_sleeping_executor(phase: Phase, instance: str, live: bool) -> None:
    """What was never asked for goes on; what may have been started went with whoever was asked."""
    handle = Handle(KEY, "wasm", instance) if phase is Phase.RUNNING else None
    state = TaskState.RUNNING if handle else TaskState.STAGING
    box = Box("", (TaskRecord(KEY, "*", SPEC), RunRecord(KEY, phase, state, instance, handle)))
    assert (effects.Fetch(KEY, (), "wasm") in box.begun) is live
    assert not any(isinstance(effect, effects.Start) for effect in box.begun)
    assert box.core.tasks[KEY].live is live


def test_others_never_sleep() -> None:
    """Only executors that were named do; a use moves the hour, and being busy at that hour too."""
    rest = Rest({"wasm": 10.0})
    rest.used("process", 0.0)
    assert rest.next_s() is None
    rest.used("wasm", 0.0)
    rest.used("wasm", 4.0)
    assert rest.pop(10.0, lambda _: False) is None
    assert rest.next_s() == 14.0
    assert rest.pop(14.0, lambda _: True) is None
    assert rest.next_s() == 24.0
    assert rest.pop(24.0, lambda _: False) == "wasm"
    assert rest.next_s() is None


class World:
    """A box whose agent and host may die at any time; what the core asked for is done late, and in any order."""

    def __init__(self) -> None:
        self.host, self.hosts = "", 0
        self.holds: dict[TaskKey, Handle] = {}  # until released
        self.ends: set[TaskKey] = set()
        self.started: Counter[TaskKey] = Counter()
        self.todo: list[effects.Effect] = []
        self.box = Box("")

    def happen(self, event: Event) -> None:
        self.todo += self.box.happen(event)

    def wake(self) -> str:
        if not self.host:
            self.hosts += 1
            self.host = f"host-{self.hosts}"
        return self.host

    def crash(self) -> None:
        """The agent dies, and the next one finds what is there."""
        self.box = Box(self.host, self.box.records, tuple(self.holds.values()))
        self.todo = list(self.box.begun)

    def kill_host(self) -> None:
        """The agent notices, and starts the next host if it believes that there is one."""
        lost, believed = list(self.holds), self.host
        self.holds, self.host = {}, ""
        self.ends = set()
        for key in lost:
            self.happen(Ended(key, DIED))
        if believed and self.box.core._way.instances["wasm"]:
            self.happen(InstanceChanged("wasm", self.wake()))

    def do(self, index: int, *, crash: bool = False) -> None:
        """One of the things to be done; with `crash` the agent dies before it hears what came of it."""
        if not self.todo:
            return
        effect = self.todo.pop(index % len(self.todo))
        if isinstance(effect, effects.Fetch) and effect.wakes and effects.Sleep("wasm") in self.todo:
            self.todo.append(effect)  # whoever wakes it waits until it has fallen asleep
            effect = self.todo.pop(self.todo.index(effects.Sleep("wasm")))
        told = self.done(effect)
        if crash:
            self.crash()
            return
        for event in told:
            self.happen(event)

    def done(self, effect: effects.Effect) -> list[Event]:
        """Do it; what it leads to."""
        told: list[Event] = []
        match effect:
            case effects.Fetch(key, _, wakes):
                told = [*([InstanceChanged("wasm", self.wake())] if wakes else []), Fetched(key)]
            case effects.Start(key):
                if key not in self.holds:
                    self.started[key] += 1
                    self.holds[key] = Handle(key, "wasm", self.wake())
                told = [Started(key, self.holds[key])]
            case effects.Watch(handle) if handle.key not in self.holds:
                told = [Ended(handle.key, DIED)]
            case effects.Watch(handle) | effects.Stop(handle) if handle.key in self.ends:
                told = [Ended(handle.key, Exit(code=0))]
            case effects.Stop(handle) if handle.key in self.holds:
                self.ends.add(handle.key)
                told = [Ended(handle.key, Exit(trap="killed"))]
            case effects.Release(key):
                self.holds.pop(key, None)
                self.ends.discard(key)
            case effects.Sleep() if self.holds:
                told = [InstanceChanged("wasm", self.wake())]
            case effects.Sleep():
                self.host = ""
        return told

    def end(self, key: TaskKey) -> None:
        """The task ends by itself."""
        if key in self.holds and key not in self.ends:
            self.ends.add(key)
            self.happen(Ended(key, Exit(code=0)))

    def settle(self) -> None:
        """Let everything come to its end."""
        for _ in range(100):
            if not self.todo and not self.holds:
                return
            self.do(0)
            for key in KEYS:
                if not self.todo:
                    self.end(key)
                    if key in self.ends and self.box.core.tasks[key].live:  # its end was told to an agent that died
                        self.happen(Ended(key, Exit(code=0)))
        raise AssertionError((self.todo, self.holds))


STEPS = st.one_of(
    st.tuples(st.sampled_from(["launch", "kill", "end"]), st.sampled_from(KEYS)),
    st.tuples(st.sampled_from(["do", "do and crash"]), st.integers(0, 3)),
    st.tuples(st.sampled_from(["wait", "crash"]), st.none()),
)


def play(world: World, steps: list[tuple[str, object]]) -> None:
    """Let it happen."""
    for step, what in steps:
        match step, what:
            case "launch", TaskKey() as key:
                world.todo += world.box.order(launch(key))
            case "kill", TaskKey() as key:
                world.todo += world.box.order(Kill(key))
            case "end", TaskKey() as key:
                world.end(key)
            case "do" | "do and crash", int() as index:
                world.do(index, crash=step != "do")
            case "wait", None:
                world.todo += world.box.wait(IDLE_S)
            case "host dies", None:
                world.kill_host()
            case _:
                world.crash()
        assert all(times == 1 for times in world.started.values()), "started twice"


@given(st.lists(STEPS, max_size=30))
def test_nothing_is_started_twice_or_lost(steps: list[tuple[str, object]]) -> None:
    """Whatever happens in whatever order, and wherever the agent dies: while no host dies every task gets its due."""
    world = World()
    play(world, steps)
    world.settle()
    for task in world.box.core.tasks.values():
        assert not task.live
        assert task.run.state in (TaskState.FINISHED, TaskState.KILLED), task.run
        assert task.run.state is TaskState.KILLED or world.started[task.key] == 1


@given(st.lists(st.one_of(STEPS, st.just(("host dies", None))), max_size=30))
def test_nothing_is_started_twice_when_hosts_die(steps: list[tuple[str, object]]) -> None:
    """A task whose host died is told as lost, never started by the next one."""
    play(World(), steps)
