"""An edge box in the simulator: the real agent core, and the tasks that run beside it and outlive it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, cast

from edgerm.core.ids import AgentId, TaskKey
from edgerm.core.link import Beat, BeatAnswer, Join, JoinAnswer
from edgerm.core.resources import NOTHING
from edgerm.core.scheduler import AgentSpec
from edgerm.core.tasks import TaskState
from edgerm.plugin.executor import Exit, ExitReason, Handle
from edgerm.testing.sim.clock import Clock
from edgerm.testing.sim.network import Network
from edgerm.testing.sim.node import Node
from edgerm_agent.core import effects
from edgerm_agent.core.agent import Agent, Identity
from edgerm_agent.core.events import (
    BeatAnswered,
    Ended,
    Event,
    Fetched,
    JoinAnswered,
    Rang,
    Recovered,
    RequestFailed,
    Started,
    Tick,
)
from edgerm_agent.core.records import Record

if TYPE_CHECKING:
    from edgerm.testing.sim.master import SimMaster

REQUEST_TIMEOUT_S = 10.0


@dataclass(slots=True)
class Running:
    """A task in the executor: alive, or ended and not released."""

    handle: Handle
    exit: Exit | None = None


class SimBox(Node[effects.Speech]):
    """One box. Its executor survives the agent's crash, not the loss of power."""

    def __init__(self, clock: Clock, network: Network, master: SimMaster, agent_id: AgentId, spec: AgentSpec) -> None:
        super().__init__(clock)
        self._network = network
        self._master = master
        self._agent_id = agent_id
        self._spec = spec
        self._boots = 1
        self._starts = 0  # journaled before the first join, as the real shell does
        self._session = 0
        self.executor: dict[TaskKey, Running] = {}
        self.started: dict[TaskKey, int] = {}  # the ledger: how often each task was ever started
        self.ended: dict[TaskKey, TaskState] = {}  # and how it ended, once that was on the disk
        self.duration_s: Callable[[TaskKey], float] = lambda _key: clock.random.expovariate(1 / 20)
        self.core = self._make()

    def _make(self) -> Agent:
        incarnation = self._starts << 20
        identity = Identity(self._agent_id, self._spec, incarnation, f"boot{self._boots}", b"jitter")
        return Agent(identity, cast("list[Record]", list(self.disk.rows.values())))

    def begin(self) -> None:
        self._starts += 1
        self._session = 0
        self.core = self._make()
        held = {key: running.handle for key, running in self.executor.items()}
        self.post(Recovered({"wasm": f"host{self._boots}"}, held))

    def cut_power(self) -> None:
        """Everything on the box stops, tasks too."""
        if self.alive:
            self.crash()
        self.executor = {}
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
                self._session = session
                self.later(0.001, lambda: self.post(Rang()))
            case effects.Fetch(key, _):
                self.later(random.uniform(0.01, 3.0), lambda: self.post(Fetched(key)))
            case effects.Start(key, _):
                self.later(random.uniform(0.0, 0.05), lambda: self._start(key))
            case effects.Watch(handle):
                self._watch(handle)
            case effects.Stop(handle, grace_s):
                self.clock.after(random.uniform(0.0, grace_s), lambda: self._end(handle, Exit(signal=15)))
            case effects.Release(key, _):
                self.executor.pop(key, None)
            case effects.Discard() | effects.FramesIn():
                pass

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

        self._network.carry(self._agent_id, body, lambda got: self._master.agent_asks(got, answered))

    def _answered(self, life: int, request: int, answer: JoinAnswer | BeatAnswer) -> None:
        if life != self.life:
            return
        if isinstance(answer, BeatAnswer):
            self.post(BeatAnswered(request, answer))
        else:
            self.post(JoinAnswered(request, answer))

    # --- the executor ---

    def _start(self, key: TaskKey) -> None:
        running = self.executor.get(key)
        if running is None:
            self.started[key] = self.started.get(key, 0) + 1
            running = self.executor[key] = Running(Handle(key, "wasm", f"host{self._boots}"))
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
