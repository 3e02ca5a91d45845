"""A framework in the simulator: the SDK's real session around an author's scheduler."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING

from edgerm.core.ids import AgentId, ExecutorId, FrameworkId, StreamId, TaskId
from edgerm.core.scheduler import Accept, Call, Capability, Event, FrameworkSpec, Heartbeat, Offer, Status
from edgerm.core.tasks import TaskState
from edgerm.sdk.core.moves import SessionState
from edgerm.sdk.core.session import Callbacks, Session
from edgerm.sdk.core.values import Broke, Effect, Heard, Leave, Make, Refused, Subscribe
from edgerm.testing.sim.clock import Clock

if TYPE_CHECKING:
    from edgerm.testing.sim.master import SimMaster

HEARTBEAT_S = 15.0
SPEC = FrameworkSpec("simulated", failover_timeout_s=7 * 86400.0, capabilities=frozenset({Capability.PARTITION_AWARE}))


class SimFramework:
    """One framework. It records what its scheduler launched and what it was told of each task's end."""

    def __init__(
        self,
        clock: Clock,
        master: SimMaster,
        scheduler: Callbacks,
        done: Callable[[], bool],
        spec: FrameworkSpec = SPEC,
    ) -> None:
        self._clock = clock
        self._done = done  # whether the scheduler has launched all that it wants to
        self._master = master
        self._scheduler = scheduler
        self._spec = spec
        self._session = self._make_session(None)
        self._stream: StreamId | None = None  # the master's name of the open stream
        self._number = 0  # the session's own
        self._due_s: float | None = None
        self.launched: set[TaskId] = set()
        self.told: dict[TaskId, TaskState] = {}  # terminal states

    def _make_session(self, framework_id: FrameworkId | None) -> Session:
        session = Session(self, b"jitter", framework_id, self._spec.roles)
        session.news = lambda: self._clock.after(0.0, self._flush)
        return session

    @property
    def session(self) -> Session:
        return self._session

    def start(self) -> None:
        """Subscribe for the first time."""
        self._carry_out(self._session.start(self._clock.instant()))

    def crash(self) -> None:
        """The stream breaks; or the process dies and another takes over, which knows the ids that it must."""
        if self._clock.random.random() < 0.5:
            self._break("the line is cut")
            return
        old = self._session
        self._drop_stream()
        self._session = self._make_session(old.framework_id)
        for task in old.tasks.values():
            self._session.watch(task.task_id, task.agent_id)
        self._due_s = None
        self._clock.after(self._clock.random.uniform(0.5, 30.0), partial(self._take_over, self._session))

    def _take_over(self, session: Session) -> None:
        if session is self._session and session.state is SessionState.DISCONNECTED:
            self._carry_out(session.start(self._clock.instant()))

    def at_rest(self) -> bool:
        """Whether all tasks were launched and have ended, and the session stands."""
        return self._done() and not self._session.tasks and self._session.state is SessionState.SUBSCRIBED

    def ends(self) -> dict[tuple[FrameworkId, TaskId], TaskState]:
        """The terminal state that was told of each task."""
        framework_id = self._session.framework_id or FrameworkId("")
        return {(framework_id, task_id): state for task_id, state in self.told.items()}

    # --- the master's side of the stream ---

    def hear(self, stream: StreamId, event: Event) -> None:
        """An event arrived."""
        if stream == self._stream:
            self._carry_out(self._session.handle(Heard(self._number, event), self._clock.instant()))

    def stream_broke(self, stream: StreamId) -> None:
        """The stream ended from the other side."""
        if stream == self._stream:
            self._stream = None
            self._carry_out(self._session.handle(Broke(self._number, "the stream ended"), self._clock.instant()))

    def _heartbeat(self, stream: StreamId) -> None:
        if stream == self._stream:
            self.hear(stream, Heartbeat())
            self._clock.after(HEARTBEAT_S, partial(self._heartbeat, stream))

    # --- what the session asks for ---

    def _flush(self) -> None:
        self._carry_out(self._session.take())

    def _carry_out(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            match effect:
                case Subscribe():
                    self._clock.after(0.001, partial(self._open, effect))
                case Make(number, call):
                    self._clock.after(0.001, partial(self._call, number, call))
                case Leave():
                    self._drop_stream()
        self._set_timer()

    def _open(self, asked: Subscribe) -> None:
        self._number = number = asked.stream
        spec = asked.spec or self._spec
        self._stream = self._master.subscribe(self, spec, asked.framework_id, asked.suppressed_roles, asked.constraints)
        if self._stream is None:
            self._carry_out(self._session.handle(Broke(number, "nobody answers"), self._clock.instant()))
        else:
            self._clock.after(HEARTBEAT_S, partial(self._heartbeat, self._stream))

    def _call(self, number: int, call: Call) -> None:
        stream, framework_id = self._stream, self._session.framework_id
        if stream is None or framework_id is None or number != self._number:
            self._carry_out(self._session.handle(Refused(number, call, "not connected"), self._clock.instant()))
            return
        if isinstance(call, Accept):
            self.launched.update(task.task_id for task in call.tasks)
        if not self._master.call(stream, framework_id, call):
            self._carry_out(self._session.handle(Refused(number, call, "refused"), self._clock.instant()))

    def _break(self, why: str) -> None:
        self._drop_stream()
        self._carry_out(self._session.handle(Broke(self._number, why), self._clock.instant()))

    def _drop_stream(self) -> None:
        if self._stream is not None:
            stream, self._stream = self._stream, None
            self._master.close_stream(stream)

    def _set_timer(self) -> None:
        due_s = self._session.due_s()
        if due_s is not None and due_s != self._due_s:
            self._due_s = due_s
            self._clock.after(due_s - self._clock.now_s, partial(self._timer, due_s, self._session))

    def _timer(self, due_s: float, session: Session) -> None:
        if due_s == self._due_s and session is self._session:
            self._due_s = None
            self._carry_out(session.tick(self._clock.instant()))

    # --- the scheduler's callbacks, seen on their way ---

    def subscribed(self, driver: Session, framework_id: FrameworkId, /) -> None:
        self._scheduler.subscribed(driver, framework_id)

    def offers(self, driver: Session, offers: tuple[Offer, ...], /) -> None:
        self._scheduler.offers(driver, offers)

    def rescinded(self, driver: Session, offer: Offer, /) -> None:
        self._scheduler.rescinded(driver, offer)

    def update(self, driver: Session, status: Status, /) -> None:
        if status.state.terminal:
            was = self.told.setdefault(status.task_id, status.state)
            assert was is status.state, f"task {status.task_id} ended {was.name}, and then {status.state.name}"
        self._scheduler.update(driver, status)

    def message(self, driver: Session, agent_id: AgentId, executor_id: ExecutorId, data: bytes, /) -> None:
        self._scheduler.message(driver, agent_id, executor_id, data)

    def agent_lost(self, driver: Session, agent_id: AgentId, /) -> None:
        self._scheduler.agent_lost(driver, agent_id)

    def draining(self, driver: Session, agent_id: AgentId, in_s: float | None, /) -> None:
        self._scheduler.draining(driver, agent_id, in_s)

    def disconnected(self, driver: Session, why: str, /) -> None:
        self._scheduler.disconnected(driver, why)

    def error(self, driver: Session, message: str, /) -> None:
        self._scheduler.error(driver, message)
