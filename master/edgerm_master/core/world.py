"""The master's state, and the few moves on it that every machine needs.

The files beside this one hold what may happen to frameworks, agents, offers and tasks, each as functions of a `World`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TypeAlias

from edgerm.core.effects import Drop, Put
from edgerm.core.ids import AgentId, FrameworkId, LaunchId, OfferId, StreamId, TaskKey
from edgerm.core.instant import BEGINNING, Instant
from edgerm.core.scheduler import Event, Offer
from edgerm.core.timers import Timers
from edgerm_master.core.agents import Agent
from edgerm_master.core.effects import Effect, Ring, Tell, TellSoon
from edgerm_master.core.fairness import Client, Shares
from edgerm_master.core.frameworks import Framework
from edgerm_master.core.records import RemovedRecord, RunRecord, TaskRecord


class Timer(Enum):
    """What the master waits for."""

    AGENT = "agent"  # (AGENT, agent id): silent for too long?
    GONE = "gone"  # (GONE, agent id): unreachable for so long that nobody waits any more
    FAILOVER = "failover"  # (FAILOVER, framework id): away for too long
    OFFER = "offer"  # (OFFER, offer id): unanswered for too long
    FILTER = "filter"  # (FILTER, framework id, role, agent id): a refusal ends
    ANSWER = "answer"  # (ANSWER, framework id): the next slice of answers
    RETRY = "retry"  # (RETRY, task key): an update was not acknowledged


TimerKey: TypeAlias = tuple[Timer, object, str, str]


@dataclass(frozen=True, slots=True)
class Settings:
    """What an operator may set of the core's behaviour; seconds."""

    beat_interval_s: float = 15.0
    missed_beats_max: int = 5
    offer_timeout_s: float = 300.0
    recovery_s: float = 600.0  # after a master start: how long agents and frameworks are waited for at least


@dataclass(slots=True)
class Task:
    """One task: what it is, how far it has come, and whether its resources count for its framework."""

    record: TaskRecord
    run: RunRecord
    charged: bool = False
    retries: int = 0  # of the update in flight

    @property
    def key(self) -> TaskKey:
        return self.record.key

    @property
    def live(self) -> bool:
        """Whether it holds its agent's resources."""
        return not self.run.state.terminal

    @property
    def agent_id(self) -> AgentId:
        return self.record.task.agent_id

    @property
    def client(self) -> Client:
        return Client(self.record.role, self.record.key.framework_id)


@dataclass(slots=True)
class World:
    """All that the master knows. `out` collects the effects of the event being handled."""

    run_id: str
    seed: bytes
    settings: Settings
    now: Instant = BEGINNING
    agents: dict[AgentId, Agent] = field(default_factory=dict)
    frameworks: dict[FrameworkId, Framework] = field(default_factory=dict)
    removed: dict[FrameworkId, RemovedRecord] = field(default_factory=dict)  # oldest first
    completed: list[Framework] = field(default_factory=list)  # the latest of them, for people
    offers: dict[OfferId, Offer] = field(default_factory=dict)
    offered_s: dict[OfferId, float] = field(default_factory=dict)
    tasks: dict[TaskKey, Task] = field(default_factory=dict)
    streams: dict[StreamId, FrameworkId] = field(default_factory=dict)
    sessions: dict[int, AgentId] = field(default_factory=dict)
    shares: Shares = field(default_factory=Shares)
    timers: Timers[TimerKey] = field(default_factory=Timers)
    dirty: dict[AgentId, None] = field(default_factory=dict)  # agents whose free resources may be offered
    out: list[Effect] = field(default_factory=list)
    count: int = 0  # of ids given

    def next_id(self) -> str:
        """An id that no other master, and no other call of this one, gives."""
        self.count += 1
        return f"{self.run_id}-{self.count}"

    def next_launch_id(self) -> LaunchId:
        return LaunchId(self.next_id())

    def tell(self, framework: Framework, event: Event) -> None:
        """Tell a framework what depends on what was stored; nothing if it is away."""
        if framework.stream is not None:
            self.out.append(Tell(framework.stream, event))

    def tell_soon(self, framework: Framework, event: Event) -> None:
        """Tell a framework what promises nothing durable; nothing if it is away."""
        if framework.stream is not None:
            self.out.append(TellSoon(framework.stream, event))

    def ring(self, agent: Agent) -> None:
        """Let the agent beat now."""
        if agent.half is not None:
            self.out.append(Ring(agent.agent_id, agent.half.session))

    def put_run(self, task: Task, run: RunRecord) -> None:
        """Move a task's progress, in memory and in the registry."""
        task.run = run
        self.out.append(Put("run", str(task.key), run))

    def change_run(self, task: Task, **changes: object) -> None:
        """As `put_run`, with some fields changed."""
        self.put_run(task, replace(task.run, **changes))  # type: ignore[arg-type]

    def drop_task(self, task: Task) -> None:
        """Forget a task for good."""
        key = task.key
        self.out += (Drop("task", str(key)), Drop("run", str(key)))
        self.timers.cancel((Timer.RETRY, key, "", ""))
        self.tasks.pop(key, None)
        agent = self.agents.get(task.agent_id)
        if agent is not None:
            agent.tasks.pop(key, None)
        framework = self.frameworks.get(key.framework_id)
        if framework is not None and framework.tasks.get(key.task_id) == key:
            del framework.tasks[key.task_id]
