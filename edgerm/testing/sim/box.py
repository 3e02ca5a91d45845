"""An edge box in the simulator: the real agent core, and the tasks that run beside it and outlive it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, cast

from edgerm.core.ids import AgentId, TaskKey
from edgerm.core.link import HTTP, Beat, BeatAnswer, Carrier, Frame, Join, JoinAnswer, Letter
from edgerm.core.resources import NOTHING
from edgerm.core.scheduler import AgentSpec
from edgerm.core.tasks import TaskState
from edgerm.plugin.executor import Exit, ExitReason, Handle
from edgerm.testing.sim.clock import Clock
from edgerm.testing.sim.network import Network
from edgerm.testing.sim.node import Node
from edgerm.testing.sim.output import Writers
from edgerm.testing.sim.talk import Talk
from edgerm_agent.core import effects
from edgerm_agent.core.agent import Agent, Identity
from edgerm_agent.core.events import (
    BeatAnswered,
    Ended,
    Event,
    ExecutorFound,
    Fetched,
    InstanceChanged,
    JoinAnswered,
    Preparing,
    Rang,
    Recovered,
    RequestFailed,
    SendFrame,
    SendMessage,
    Started,
    StartFailed,
    Tick,
)
from edgerm_agent.core.records import Record

if TYPE_CHECKING:
    from edgerm.testing.sim.master import SimMaster

REQUEST_TIMEOUT_S = 10.0
AWAY = 0.4  # of an agent's starts, what holds the tasks answers only later
SLOW = 0.2  # of the tasks take long to start
IDLE_S = 5.0  # what holds the tasks sleeps after so long without any
RESTLESS = 0.3  # of the times it does not, for it still has something to clear away


@dataclass(slots=True)
class Running:
    """A task in the executor: alive, or ended and not released."""

    handle: Handle
    exit: Exit | None = None


class SimBox(Node[effects.Speech]):
    """One box. Its executor survives the agent's crash, not the loss of power; a host within it sleeps and wakes."""

    def __init__(
        self,
        clock: Clock,
        network: Network,
        master: SimMaster,
        agent_id: AgentId,
        spec: AgentSpec,
        carrier: Carrier = HTTP,
    ) -> None:
        super().__init__(clock)
        self._carrier = carrier
        self._network = network
        self._master = master
        self._agent_id = agent_id
        self._spec = spec
        self._boots = 1
        self._starts = 0  # journaled before the first join, as the real shell does
        self._begin_session(0)
        self.executor: dict[TaskKey, Running] = {}
        self._hosts = 0
        self._host = ""  # the instance that takes tasks; empty: none runs
        self._unwanted: set[TaskKey] = set()  # starts that were abandoned
        self._stopped: set[TaskKey] = set()  # tasks that were asked to end
        self.started: dict[TaskKey, int] = {}  # the ledger: how often each task was ever started
        self.talk = Talk()  # of all tasks that ever ran here
        self.ended: dict[TaskKey, TaskState] = {}  # and how it ended, once that was on the disk
        self.on_start: Callable[[TaskKey], None] = lambda _key: None  # told of each first start
        self.duration_s: Callable[[TaskKey], float] = lambda _key: clock.random.expovariate(1 / 20)
        self.core = self._make()

    def _make(self) -> Agent:
        incarnation = self._starts << 20
        boot_id = f"boot{self._boots}"
        identity = Identity(self._agent_id, self._spec, incarnation, boot_id, b"jitter", self._carrier)
        return Agent(identity, cast("list[Record]", list(self.disk.rows.values())), {"wasm": IDLE_S})

    def begin(self) -> None:
        self._starts += 1
        self._begin_session(0)
        self.core = self._make()
        self._unwanted = set()
        if self.clock.random.random() < AWAY:
            instance = self._wake()
            self.post(Recovered(awaited={"wasm": "it is away"}))
            self.later(self.clock.random.uniform(0.1, 60.0), lambda: self._find(instance))
        else:
            self.post(Recovered({"wasm": self._host}, self._held()))

    def _held(self) -> dict[TaskKey, Handle]:
        return {key: running.handle for key, running in self.executor.items()}

    def _find(self, instance: str) -> None:
        """What was away is back; that it is told twice must do no harm."""
        self.post(ExecutorFound("wasm", instance, self._held()))
        self.later(1.0, lambda: self.post(ExecutorFound("wasm", instance, self._held())))

    def cut_power(self) -> None:
        """Everything on the box stops, tasks too."""
        if self.alive:
            self.crash()
        self.executor = {}
        self._host = ""
        self._boots += 1

    def due_s(self) -> float | None:
        return self.core.due_s()

    def tick(self) -> None:
        self.post(Tick())

    def post(self, event: Event) -> None:
        """Let `event` happen, if the agent lives."""
        if self.alive:
            made = self.core.handle(event, self.now)
            self._check(event)
            self.take(made)

    def _check(self, event: object) -> None:
        used = NOTHING
        for key, running in self.executor.items():
            if running.exit is None and key in self.core.tasks:
                used = used + self.core.tasks[key].record.task.resources
        assert self._spec.resources.covers(used), f"{self._agent_id}, after {event}: {used} runs at once"

    def rang(self, session: int) -> None:
        """The doorbell of `session` rang."""
        if session == self._session:
            self.post(Rang())

    # --- what the core asks for ---

    def speak(self, effect: effects.Speech) -> None:
        random = self.clock.random
        match effect:
            case effects.Send(request, body):
                self._note_ends(body)
                self._send(request, body)
            case effects.SessionBegan(session):
                self._begin_session(session)
                self.later(0.001, lambda: self.post(Rang()))
            case effects.Fetch(key, _, wakes):
                self.later(random.uniform(0.01, 3.0), lambda: self._fetched(key, wakes))
            case effects.Start(key, _):
                self._prepare(key)
            case effects.Abandon(key, _):
                self._unwanted.add(key)
            case effects.Watch(handle):
                self._watch(handle)
            case effects.Sleep():
                self.later(0.0, self._fall_asleep)  # before whoever wakes it
            case effects.Stop(handle, grace_s):
                self._stopped.add(handle.key)
                self.clock.after(random.uniform(0.0, grace_s), lambda: self._end(handle, Exit(signal=15)))
            case effects.Release(key, _):
                running = self.executor.pop(key, None)
                ends = running is None or running.exit is not None or key in self._stopped
                assert ends, f"{key} is released while it runs"
            case effects.MessageIn() | effects.FramesIn():
                self._hear(effect)
            case effects.Discard() | effects.Dismissed():
                pass

    def _hear(self, effect: effects.MessageIn | effects.FramesIn) -> None:
        if isinstance(effect, effects.MessageIn):
            self._answer(effect.letter)
            return
        for frame in effect.frames:
            self._writers.take(frame)

    def _answer(self, letter: Letter) -> None:
        """A task that hears something says up to two things."""
        self.talk.hear(letter.key, letter.data)
        for _ in range(self.clock.random.randrange(3)):
            data = self.talk.say(letter.key)
            self.later(0.0, partial(self.post, SendMessage(Letter(letter.key, data))))

    def _begin_session(self, session: int) -> None:
        def send(frame: Frame) -> None:
            self.later(0.0, lambda: self.post(SendFrame(frame)) if session == self._session else None)

        self._session = session
        self._writers = Writers(send, self._carrier.data_bytes)

    def _note_ends(self, body: Join | Beat) -> None:
        if isinstance(body, Beat):
            ends = {update.key: update.status.state for update in body.updates if update.status.state.terminal}
            for key, state in ends.items():
                assert self.ended.setdefault(key, state) is state, f"{key} ended as {self.ended[key]} and as {state}"

    def _send(self, request: int, body: Join | Beat) -> None:
        self.later(REQUEST_TIMEOUT_S, lambda: self.post(RequestFailed(request)))
        life = self.life

        def answered(answer: JoinAnswer | BeatAnswer) -> None:
            self._network.carry(self._agent_id, answer, lambda got: self._answered(life, request, got))

        self._network.carry(self._agent_id, body, lambda got: self._master.agent_asks(got, self._carrier, answered))

    def _answered(self, life: int, request: int, answer: JoinAnswer | BeatAnswer) -> None:
        if life != self.life:
            return
        if isinstance(answer, BeatAnswer):
            self.post(BeatAnswered(request, answer))
        else:
            self.post(JoinAnswered(request, answer))

    # --- the executor ---

    def _fetched(self, key: TaskKey, wakes: str) -> None:
        if wakes:
            self.post(InstanceChanged("wasm", self._wake()))
        self.post(Fetched(key))

    def _wake(self) -> str:
        if not self._host:
            self._hosts += 1
            self._host = f"host{self._hosts}"
        return self._host

    def _fall_asleep(self) -> None:
        if self.executor or self.clock.random.random() < RESTLESS:
            self.post(InstanceChanged("wasm", self._host))
        else:
            self._host = ""

    def _prepare(self, key: TaskKey) -> None:
        random = self.clock.random
        if random.random() >= SLOW:
            self.later(random.uniform(0.0, 0.05), lambda: self._start(key))
            return
        takes_s = random.uniform(0.1, 30.0)
        for part in (0.1, 0.2, 0.9):
            self.later(takes_s * part, lambda: self.post(Preparing(key, "it takes long")))
        self.later(takes_s, lambda: self._start(key))

    def _start(self, key: TaskKey) -> None:
        running = self.executor.get(key)
        if running is None and key in self._unwanted:
            self.post(StartFailed(key, "it was given up"))
            return
        if running is None:
            if key not in self.started:
                self.on_start(key)
            self.started[key] = self.started.get(key, 0) + 1
            assert self._host, f"{key} is started while nothing is there to hold it"
            running = self.executor[key] = Running(Handle(key, "wasm", self._host))
            code = 0 if self.clock.random.random() < 0.8 else 1
            handle = running.handle
            self.clock.after(self.duration_s(key), lambda: self._end(handle, Exit(code=code)))
        self.post(Started(key, running.handle))
        self._tell_end(running)

    def _watch(self, handle: Handle) -> None:
        running = self.executor.get(handle.key)
        if running is None or running.handle != handle:
            gone = Exit(ExitReason.EXECUTOR_DIED)
            self.later(0.0, lambda: self.post(Ended(handle.key, gone)))
        else:
            self._tell_end(running)

    def _end(self, handle: Handle, end: Exit) -> None:
        running = self.executor.get(handle.key)
        if running is not None and running.handle == handle and running.exit is None:
            running.exit = end
            self._tell_end(running)

    def _tell_end(self, running: Running) -> None:
        if running.exit is not None:
            end, key = running.exit, running.handle.key
            self.later(0.0, partial(self.post, Ended(key, end)))
