"""Operators' calls about one agent: DRAIN_AGENT, DEACTIVATE_AGENT, REACTIVATE_AGENT, MARK_AGENT_GONE; how far it is.

What does not live here: what they lead to (`edgerm_master.core.draining`, `departing`).
"""

from __future__ import annotations

from typing import Final

from aiohttp import web

from edgerm.core.errors import Invalid, NotFound
from edgerm.core.ids import AgentId
from edgerm.core.instant import Instant
from edgerm.wire.codec.events import write_inverse_offer
from edgerm.wire.codec.times import nanoseconds, seconds
from edgerm.wire.v1 import infos_pb2, master_pb2, offers_pb2
from edgerm_master.api.access import Access, Action
from edgerm_master.api.http import PRINCIPAL
from edgerm_master.api.port import Port
from edgerm_master.core.agents import Agent, AgentState, Duty, Invitation
from edgerm_master.core.events import DeactivateAgent, DrainAgent, Maintenance, MarkAgentGone, ReactivateAgent
from edgerm_master.core.master import Master

AgentView = master_pb2.Response.GetAgents.Agent
Call = master_pb2.Call
SPAN_MAX_S: Final = 366 * 86_400.0
CALLS: Final = frozenset({Call.DRAIN_AGENT, Call.DEACTIVATE_AGENT, Call.REACTIVATE_AGENT, Call.MARK_AGENT_GONE})


class MaintenanceCalls:
    """Carries them out; each may be repeated."""

    def __init__(self, port: Port, access: Access) -> None:
        self._port = port
        self._access = access

    async def carry_out(self, request: web.Request, message: Call) -> web.StreamResponse:
        """200 once it is durable; raises `Invalid` (400), `Forbidden`, and `NotFound` (404) for MARK_AGENT_GONE."""
        call = read(message)
        self._access.authorize(request[PRINCIPAL], Action.MAINTAIN, call.agent_id)
        agent = self._port.core.agents.get(call.agent_id)
        if agent is None or agent.state is AgentState.GONE:
            if not isinstance(call, MarkAgentGone):
                raise Invalid(self._unknown(call.agent_id))  # as Mesos
            if call.agent_id not in self._port.core.world.gone:
                raise NotFound(self._unknown(call.agent_id))
        await self._port.maintain(call)
        return web.Response()

    def _unknown(self, agent_id: AgentId) -> str:
        if agent_id in self._port.core.world.gone:
            return f"agent {agent_id} was marked gone: it never comes back"
        return f"no agent {agent_id!r} is known; see: edgerm agents"


def read(message: Call) -> Maintenance:
    """The call as a value; raises `Invalid`."""
    kind = Call.Type.Name(message.type)
    if not message.HasField(kind.lower()):  # type: ignore[arg-type]
        raise Invalid(f"{kind} without its body, {kind.lower()}")
    match message.type:
        case Call.DEACTIVATE_AGENT:
            return DeactivateAgent(AgentId(message.deactivate_agent.agent_id.value))
        case Call.REACTIVATE_AGENT:
            return ReactivateAgent(AgentId(message.reactivate_agent.agent_id.value))
        case Call.MARK_AGENT_GONE:
            return MarkAgentGone(AgentId(message.mark_agent_gone.agent_id.value))
    body = message.drain_agent
    grace_s = None
    if body.HasField("max_grace_period"):
        grace_s = _span_s("max_grace_period", body.max_grace_period.ToNanoseconds())
    return DrainAgent(
        AgentId(body.agent_id.value), _span_s("deadline", body.deadline.ToNanoseconds()), grace_s, body.mark_gone
    )


def show_drain(view: AgentView, agent: Agent, master: Master, now: Instant) -> None:
    """Fill in what became of DRAIN_AGENT, if that was asked for."""
    if agent.drain is None:
        return
    plan = agent.drain.plan
    drained = agent.duty is Duty.DRAINED
    view.drain_info.state = infos_pb2.DRAINED if drained else infos_pb2.DRAINING
    config = view.drain_info.config
    config.mark_gone = plan.mark_gone
    config.deadline.nanoseconds = nanoseconds("the deadline", plan.deadline_s)
    if plan.max_grace_s is not None:
        config.max_grace_period.nanoseconds = nanoseconds("the grace period", plan.max_grace_s)
    view.estimated_drain_start_time.nanoseconds = nanoseconds("the time", plan.asked_wall_s)
    tasks = [master.tasks[key] for key in agent.tasks]
    view.drain.left_s = 0.0 if drained else agent.drain.left_s(now.steady_s)
    view.drain.live_tasks = sum(task.live for task in tasks)
    view.drain.unacknowledged_tasks = sum(not task.live and not task.run.settled for task in tasks)
    for invitation in agent.drain.invited.values():
        show_invitation(view.drain.inverse_offers.add(), invitation)


def show_invitation(message: offers_pb2.InverseOffer, invitation: Invitation) -> None:
    """What a framework was told, and what it said."""
    write_inverse_offer(message, invitation.offer)
    message.answer = invitation.answer


def _span_s(what: str, value_ns: int) -> float:
    value_s = seconds(value_ns)
    if not 0 <= value_s <= SPAN_MAX_S:
        raise Invalid(f"drain_agent.{what} is {value_s:g} s: use 0 to {SPAN_MAX_S:.0f}")
    return value_s
