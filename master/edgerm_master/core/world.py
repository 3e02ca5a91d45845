"""The master's state, and the few moves on it that every machine needs.

The files beside this one hold what may happen to frameworks, agents, offers and tasks, each as functions of a `World`.
"""

from __future__ import annotations

from collections import deque
from copy import copy
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TypeAlias

from edgerm.core.constraints import Matcher, match_whole
from edgerm.core.effects import Drop, Put
from edgerm.core.ids import AgentId, FrameworkId, LaunchId, OfferId, StreamId, TaskKey
from edgerm.core.instant import BEGINNING, Instant
from edgerm.core.scheduler import Event, Offer, Status
from edgerm.core.timers import Timers
from edgerm_master.core.agents import Agent, AgentState
from edgerm_master.core.changes import (
    AgentAdded,
    Change,
    FrameworkAdded,
    FrameworkRemoved,
    FrameworkUpdated,
    TaskAdded,
    TaskUpdated,
)
from edgerm_master.core.effects import Effect, Noticed, Ring, Tell, TellSoon
from edgerm_master.core.fairness import Client, Shares
from edgerm_master.core.frameworks import Framework
from edgerm_master.core.inventories import Inventories, stored
from edgerm_master.core.records import AgentRecord, GoneRecord, RemovedRecord, RunRecord, TaskRecord
from edgerm_master.core.tally import Tally

STATUSES_MAX = 4  # kept of a task, beside those that its framework has not acknowledged


class Timer(Enum):
    """What the master waits for."""

    GONE = "gone"  # (GONE, agent id): unreachable for so long that nobody waits any more
    FAILOVER = "failover"  # (FAILOVER, framework id): away for too long
    OFFER = "offer"  # (OFFER): the oldest offer is unanswered for too long
    FILTER = "filter"  # (FILTER, framework id, role, agent id): a refusal ends
    WITHDRAW = "withdraw"  # (WITHDRAW, framework id): the next slice of the offers of one that is away
    ANSWER = "answer"  # (ANSWER, framework id): the next slice of answers
    RETRY = "retry"  # (RETRY, task key): an update was not acknowledged
    DRAIN = "drain"  # (DRAIN, agent id): how far is its draining, or what is left of one that is gone?


TimerKey: TypeAlias = tuple[Timer, object, str, str] | AgentId
"""An agent's id alone: is it silent for too long? The one deadline that every agent has."""


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
    statuses: tuple[Status, ...] = ()  # the latest of each state it was in, oldest first; for people

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
    matcher: Matcher = match_whole
    now: Instant = BEGINNING
    agents: dict[AgentId, Agent] = field(default_factory=dict)
    inventories: Inventories = field(default_factory=Inventories)
    frameworks: dict[FrameworkId, Framework] = field(default_factory=dict)
    removed: dict[FrameworkId, RemovedRecord] = field(default_factory=dict)  # oldest first
    gone: dict[AgentId, GoneRecord] = field(default_factory=dict)  # agents that may never join again, oldest first
    completed: list[Framework] = field(default_factory=list)  # the latest frameworks that have ended, for people
    offers: dict[OfferId, Offer] = field(default_factory=dict)
    offered_s: dict[OfferId, float] = field(default_factory=dict)
    oldest: deque[OfferId] = field(default_factory=deque)  # offers as they were made; some are not outstanding any more
    tasks: dict[TaskKey, Task] = field(default_factory=dict)
    streams: dict[StreamId, FrameworkId] = field(default_factory=dict)
    sessions: dict[int, AgentId] = field(default_factory=dict)
    shares: Shares = field(default_factory=Shares)
    timers: Timers[TimerKey] = field(default_factory=Timers)
    dirty: dict[AgentId, None] = field(default_factory=dict)  # agents whose free resources may be offered
    swept: list[AgentId] = field(default_factory=list)  # and those that a sweep has still to look at, the last first
    out: list[Effect] = field(default_factory=list)
    count: int = 0  # of ids given
    tally: Tally = field(default_factory=Tally)
    watched: int = 0  # how many want to be told of changes
    request: str = ""  # the id of the request that is being carried out, if it has one

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

    def notice(self, change: Change) -> None:
        """Tell those who watch of a change, once it is durable. Agents and frameworks are kept as they are now."""
        if not self.watched:
            return
        match change:
            case AgentAdded(agent):
                change = AgentAdded(copy(agent))
            case FrameworkAdded(framework):
                change = FrameworkAdded(copy(framework))
            case FrameworkUpdated(framework, why):
                change = FrameworkUpdated(copy(framework), why)
            case FrameworkRemoved(framework, why):
                change = FrameworkRemoved(copy(framework), why)
        self.out.append(Noticed(change, self.request))

    def shown(self, framework_id: FrameworkId) -> Framework | None:
        """The framework, also one of the latest that have ended; None: operators do not know it."""
        framework = self.frameworks.get(framework_id)
        if framework is None:
            framework = next((one for one in self.completed if one.framework_id == framework_id), None)
        return framework

    def note_launch(self, task: Task) -> None:
        """The task is new; operators are told of those whose framework they know."""
        if self.watched and self.shown(task.key.framework_id) is not None:
            self.notice(TaskAdded(task.record, task.run))

    def note_status(self, task: Task, status: Status, *, was_live: bool) -> None:
        """The task has moved, and this status says how; `task.run` is where it stands now."""
        ended = was_live and not task.live
        if ended:
            self.tally.tasks_ended[(task.run.state, status.reason)] += 1
        kept = task.statuses
        if kept and kept[-1].state is status.state:
            kept = kept[:-1]
        task.statuses = (*kept, status)[-STATUSES_MAX:]
        if self.watched and self.shown(task.key.framework_id) is not None:
            self.notice(TaskUpdated(task.key, status, task.run.state, ended))

    def ring(self, agent: Agent) -> None:
        """Let the agent beat now."""
        if agent.half is not None:
            self.out.append(Ring(agent.agent_id, agent.half.session))

    def look_at(self, agent: Agent) -> None:
        """Something of this agent has ended or changed: at the next tick see what that means, if it is not in use."""
        if agent.drain is not None or agent.state is AgentState.GONE:
            self.timers.set((Timer.DRAIN, agent.agent_id, "", ""), self.now.steady_s)

    def put_agent(self, agent: Agent) -> None:
        """Store what must survive of an agent."""
        plan = agent.drain.plan if agent.drain is not None else None
        named = self.inventories.name_of(agent.agent_id)
        spec = stored(agent.spec, named)
        record = AgentRecord(agent.agent_id, spec, agent.incarnation, agent.duty, plan, named)
        self.out.append(Put("agent", agent.agent_id, record))

    def drop_agent(self, agent: Agent) -> None:
        """Forget an agent for good."""
        del self.agents[agent.agent_id]
        self.dirty.pop(agent.agent_id, None)
        self.out.append(Drop("agent", agent.agent_id))
        self.out += self.inventories.let_go(agent.agent_id)

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
            agent.let_go(key)
            self.look_at(agent)
        framework = self.frameworks.get(key.framework_id)
        if framework is not None and framework.tasks.get(key.task_id) == key:
            del framework.tasks[key.task_id]
