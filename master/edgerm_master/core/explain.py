"""Why a framework gets no offer, or a task does not move: reason codes with a sentence each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from edgerm.core.ids import AgentId, FrameworkId, TaskKey
from edgerm.core.resources import to_text
from edgerm.core.tasks import TaskState
from edgerm_master.core.agents import Agent, AgentState
from edgerm_master.core.frameworks import Framework
from edgerm_master.core.offers import filtered, offerable, worth_offering
from edgerm_master.core.world import World


class Code(Enum):
    """Stable names; scripts may match them."""

    FRAMEWORK_UNKNOWN = "framework-unknown"
    FRAMEWORK_COMPLETED = "framework-completed"
    FRAMEWORK_AWAY = "framework-away"
    NO_AGENTS = "no-agents"
    SUPPRESSED = "suppressed"
    AGENT_RECOVERING = "agent-recovering"
    AGENT_UNREACHABLE = "agent-unreachable"
    NOTHING_FREE = "nothing-free"
    RESERVED = "reserved"
    REFUSED = "refused"
    OFFERED = "offered"
    OFFERED_TO_OTHERS = "offered-to-others"
    NEXT = "next"
    TASK_UNKNOWN = "task-unknown"
    ORDER_UNDERWAY = "order-underway"
    KILL_UNDERWAY = "kill-underway"
    RUNNING = "running"
    NOT_ACKNOWLEDGED = "not-acknowledged"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Why:
    """One reason."""

    code: Code
    message: str
    agent_id: AgentId | None = None


def explain_framework(world: World, framework_id: FrameworkId) -> list[Why]:
    """Per agent and role: what stands between this framework and an offer."""
    if framework_id in world.removed:
        return [Why(Code.FRAMEWORK_COMPLETED, f"framework {framework_id} has ended; subscribe without an id")]
    framework = world.frameworks.get(framework_id)
    if framework is None:
        return [Why(Code.FRAMEWORK_UNKNOWN, f"no framework {framework_id}; see: edgerm frameworks")]
    if framework.stream is None:
        return [Why(Code.FRAMEWORK_AWAY, "the framework has no open stream; offers go to subscribed ones only")]
    if not world.agents:
        return [Why(Code.NO_AGENTS, "no agent has joined; start one with: edgerm agent --master URL")]
    roles = [role for role in framework.spec.roles if role not in framework.suppressed]
    silent = [
        Why(Code.SUPPRESSED, f"the framework has suppressed offers for role {role!r}; it must REVIVE")
        for role in framework.spec.roles
        if role in framework.suppressed
    ]
    return silent + [
        why for agent in world.agents.values() for role in roles for why in _of_agent(world, framework, role, agent)
    ]


def _of_agent(world: World, framework: Framework, role: str, agent: Agent) -> Iterator[Why]:
    name, agent_id = agent.spec.name or agent.spec.hostname, agent.agent_id
    if agent.state is AgentState.RECOVERING:
        yield Why(Code.AGENT_RECOVERING, f"{name} has not come back since this master started", agent_id)
        return
    if agent.state is AgentState.UNREACHABLE:
        yield Why(Code.AGENT_UNREACHABLE, f"{name} has not been heard of for too long", agent_id)
        return
    mine = [offer_id for offer_id in agent.offers if offer_id in framework.offers]
    if mine:
        yield Why(Code.OFFERED, f"{name} is offered to this framework: {', '.join(mine)}", agent_id)
    elif not worth_offering(agent.free):
        others = bool(agent.offers)
        code = Code.OFFERED_TO_OTHERS if others else Code.NOTHING_FREE
        what = "is offered to another framework" if others else "has nothing free"
        yield Why(code, f"{name} {what} (free: {to_text(agent.free) or 'nothing'})", agent_id)
    elif not worth_offering(offerable(framework, role, agent.free)):
        yield Why(
            Code.RESERVED,
            f"what is free on {name} is reserved for other roles than {role!r}, or of a kind unknown to it",
            agent_id,
        )
    elif filtered(world, framework, role, agent_id, offerable(framework, role, agent.free)):
        until_s = max(refusal.until_s for refusal in framework.filters[(role, agent_id)])
        left_s = until_s - world.now.steady_s
        message = f"the framework refused {name} with these or more resources for another {left_s:.0f} s"
        yield Why(Code.REFUSED, message, agent_id)
    else:
        yield Why(Code.NEXT, f"{name} will be offered next: {to_text(agent.free)}", agent_id)


def explain_task(world: World, key: TaskKey) -> list[Why]:
    """What the task waits for, or how it ended."""
    task = world.tasks.get(key)
    if task is None:
        return [Why(Code.TASK_UNKNOWN, f"no task {key} is live; see: edgerm ps --all")]
    agent = world.agents[task.agent_id]
    name, run = agent.spec.name or agent.spec.hostname, task.run
    reasons: list[Why] = []
    if not agent.joined and task.live:
        lost = agent.state is AgentState.UNREACHABLE
        code = Code.AGENT_UNREACHABLE if lost else Code.AGENT_RECOVERING
        reasons.append(Why(code, f"its agent {name} is {agent.state.value}; it runs on there", agent.agent_id))
    elif run.kill_asked and task.live:
        reasons.append(Why(Code.KILL_UNDERWAY, f"a kill is on its way to {name}", agent.agent_id))
    elif run.state is TaskState.STAGING:
        message = f"the launch is ordered; {name} has not reported yet (it may be fetching what the task needs)"
        reasons.append(Why(Code.ORDER_UNDERWAY, message, agent.agent_id))
    elif task.live:
        reasons.append(Why(Code.RUNNING, f"it is {run.state.name} on {name}", agent.agent_id))
    else:
        reasons.append(Why(Code.ENDED, f"it ended as TASK_{run.state.name} on {name}", agent.agent_id))
    if run.owed:
        first = f"the first TASK_{run.owed[0].state.name}"
        message = f"its framework has not acknowledged {len(run.owed)} update(s), {first}"
        reasons.append(Why(Code.NOT_ACKNOWLEDGED, message))
    return reasons
