"""Why a framework gets no offer, or a task does not move: reason codes with a sentence each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from edgerm.core.granting import fit
from edgerm.core.ids import AgentId, FrameworkId, TaskKey
from edgerm.core.matching import Mismatch
from edgerm.core.resources import to_text
from edgerm.core.scheduler import Waiting
from edgerm.core.tasks import TaskState
from edgerm.core.texts import cut
from edgerm_master.core.admitting import admits, enough, worth_offering
from edgerm_master.core.agents import Agent, AgentState, Duty
from edgerm_master.core.explain_devices import devices_of, short_of
from edgerm_master.core.frameworks import Framework
from edgerm_master.core.offers import filtered, offerable
from edgerm_master.core.world import World

CONSTRAINTS_SHOWN_BYTES = 500
TASK_SHOWN_BYTES = 2000


class Code(Enum):
    """Stable names; scripts may match them."""

    FRAMEWORK_UNKNOWN = "framework-unknown"
    FRAMEWORK_COMPLETED = "framework-completed"
    FRAMEWORK_AWAY = "framework-away"
    NO_AGENTS = "no-agents"
    SUPPRESSED = "suppressed"
    AGENT_RECOVERING = "agent-recovering"
    AGENT_UNREACHABLE = "agent-unreachable"
    AGENT_DEACTIVATED = "agent-deactivated"
    AGENT_DRAINING = "agent-draining"
    AGENT_GONE = "agent-gone"
    NOTHING_FREE = "nothing-free"
    RESERVED = "reserved"
    CONSTRAINED = "constrained"
    TOO_LITTLE = "too-little"
    CLAIM_UNMET = "claim-unmet"
    DEVICES_SHORT = "devices-short"
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
        why
        for agent in world.agents.values()
        for why in (
            *(why for role in roles for why in _of_agent(world, framework, role, agent)),
            *(_of_devices(world, framework, agent) if roles else ()),
        )
    ]


def _of_agent(world: World, framework: Framework, role: str, agent: Agent) -> Iterator[Why]:
    name, agent_id = agent.spec.name or agent.spec.hostname, agent.agent_id
    if agent.state is AgentState.RECOVERING:
        yield Why(Code.AGENT_RECOVERING, f"{name} has not come back since this master started", agent_id)
        return
    if agent.state is AgentState.UNREACHABLE:
        yield Why(Code.AGENT_UNREACHABLE, f"{name} has not been heard of for too long", agent_id)
        return
    if not agent.takes_tasks:
        yield _out_of_service(name, agent)
        return
    mine = [offer_id for offer_id in agent.offers if offer_id in framework.offers]
    if mine:
        yield Why(Code.OFFERED, f"{name} is offered to this framework: {', '.join(mine)}", agent_id)
    elif not admits(world, framework, role, agent.spec):
        wanted = cut(str(framework.constraints[role]), CONSTRAINTS_SHOWN_BYTES)
        message = f"{name} does not meet the framework's offer constraints for role {role!r}: {wanted}"
        yield Why(Code.CONSTRAINED, message, agent_id)
    else:
        yield _of_free(world, framework, role, agent)


def _of_devices(world: World, framework: Framework, agent: Agent) -> Iterator[Why]:
    """Why an offer of the agent has not all of its devices, or would not."""
    if agent.takes_tasks:
        name = agent.spec.name or agent.spec.hostname
        for short in short_of(world, framework, agent):
            yield Why(Code.DEVICES_SHORT, f"{name}: {short}", agent.agent_id)


def _of_free(world: World, framework: Framework, role: str, agent: Agent) -> Why:
    """What stands between the framework and what is free on the agent."""
    name, agent_id = agent.spec.name or agent.spec.hostname, agent.agent_id
    offered = offerable(framework, role, agent.free)
    if enough(framework, role, offered):
        if not filtered(world, framework, role, agent_id, offered):
            return Why(Code.NEXT, f"{name} will be offered next: {to_text(offered)}", agent_id)
        left_s = max(refusal.until_s for refusal in framework.filters[(role, agent_id)]) - world.now.steady_s
        message = f"the framework refused {name} with these or more resources for another {left_s:.0f} s"
        return Why(Code.REFUSED, message, agent_id)
    if not worth_offering(agent.free):
        others = bool(agent.offers)
        code = Code.OFFERED_TO_OTHERS if others else Code.NOTHING_FREE
        what = "is offered to another framework" if others else "has nothing free"
        return Why(code, f"{name} {what} (free: {to_text(agent.free) or 'nothing'})", agent_id)
    if worth_offering(offered):
        message = f"{name} has less free than the framework's offer_filters ask for (free: {to_text(offered)})"
        return Why(Code.TOO_LITTLE, message, agent_id)
    message = f"what is free on {name} is reserved for other roles than {role!r}, or of a kind unknown to it"
    return Why(Code.RESERVED, message, agent_id)


def _out_of_service(name: str, agent: Agent) -> Why:
    remedy = f"it is offered again after: edgerm drain {name} --cancel"
    if agent.state is AgentState.GONE:
        return Why(Code.AGENT_GONE, f"an operator marked {name} gone: it never comes back", agent.agent_id)
    if agent.duty is Duty.DEACTIVATED:
        return Why(Code.AGENT_DEACTIVATED, f"an operator deactivated {name}; {remedy}", agent.agent_id)
    message = f"an operator has {name} drained, it is {agent.duty.name}; {remedy}"
    return Why(Code.AGENT_DRAINING, message, agent.agent_id)


def explain_waiting(world: World, framework: Framework, waiting: Waiting) -> list[Why]:
    """What a task that has no place yet waits for: what of its claims cannot be met, agent by agent."""
    unmet = {}
    if framework.stream is not None:
        found = ((agent, _unmet(world, framework, waiting, agent)) for agent in world.agents.values())
        unmet = {agent.agent_id: why for agent, why in found if why is not None}
    general = explain_framework(world, framework.framework_id)
    return [*unmet.values(), *(why for why in general if why.agent_id not in unmet)]


def _unmet(world: World, framework: Framework, waiting: Waiting, agent: Agent) -> Why | None:
    """Of what is free, or offered to this very framework."""
    if not agent.joined or not agent.takes_tasks:
        return None
    own = (world.offers[offer_id].resources for offer_id in agent.offers if offer_id in framework.offers)
    found = fit(waiting.claims, sum(own, agent.free), agent.spec)
    if not isinstance(found, Mismatch):
        return None
    name = agent.spec.name or agent.spec.hostname
    return Why(Code.CLAIM_UNMET, f"on {name}, {found.reason}", agent.agent_id)


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
        build = f", as its build {task.record.task.alternative!r}" if task.record.task.alternative else ""
        how = f"it is {run.state.name} on {name}{build}{devices_of(task.record.task)}"
        reasons.append(Why(Code.RUNNING, cut(how, TASK_SHOWN_BYTES), agent.agent_id))
    else:
        reasons.append(Why(Code.ENDED, f"it ended as TASK_{run.state.name} on {name}", agent.agent_id))
    if task.live and agent.duty is Duty.DRAINING and agent.drain is not None:
        left_s = agent.drain.left_s(world.now.steady_s)
        how = f"in {left_s:.0f} s it is killed" if left_s else "it is killed"
        reasons.append(Why(Code.AGENT_DRAINING, f"an operator has its agent {name} drained: {how}", agent.agent_id))
    if run.owed:
        first = f"the first TASK_{run.owed[0].state.name}"
        message = f"its framework has not acknowledged {len(run.owed)} update(s), {first}"
        reasons.append(Why(Code.NOT_ACKNOWLEDGED, message))
    return reasons
