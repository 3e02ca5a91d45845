"""The core's state as messages of the operator API: for people and tools, made when somebody looks.

What does not live here: requests, and who may make them.
"""

from __future__ import annotations

from collections.abc import Iterator

from edgerm.core.errors import NotFound
from edgerm.core.ids import TaskKey
from edgerm.core.resources import NOTHING, Resources
from edgerm.core.scheduler import Capability, Offer
from edgerm.core.tasks import TaskState
from edgerm.wire.codec.constraints import constraints_to_message
from edgerm.wire.codec.events import write_offer
from edgerm.wire.codec.infos import agent_info, framework_info
from edgerm.wire.codec.resources import resources_to_messages
from edgerm.wire.v1 import basics_pb2, infos_pb2, master_pb2, offers_pb2, operator_pb2, resources_pb2
from edgerm_master.api.maintenance import show_drain, show_invitation
from edgerm_master.api.pictures import task_message
from edgerm_master.api.port import Port
from edgerm_master.api.versions import EDGERM_VERSION
from edgerm_master.core.agents import Agent, AgentState, Duty
from edgerm_master.core.frameworks import Completed, Framework, FrameworkState
from edgerm_master.core.records import RunRecord, TaskRecord

GetAgents = master_pb2.Response.GetAgents
GetFrameworks = master_pb2.Response.GetFrameworks


class Views:
    """Reads the core behind a port."""

    def __init__(self, port: Port) -> None:
        self._port = port

    def state(self) -> master_pb2.Response.GetState:
        """All of it at one moment."""
        return master_pb2.Response.GetState(
            get_tasks=self.tasks(),
            get_executors=self.executors(),
            get_frameworks=self.frameworks(),
            get_agents=self.agents(),
        )

    def executors(self) -> master_pb2.Response.GetExecutors:
        """None: what runs tasks here belongs to agents, as Mesos' command executors do, which it does not list."""
        return master_pb2.Response.GetExecutors()

    # --- agents ---

    def agents(self) -> master_pb2.Response.GetAgents:
        """Agents that have joined since this master started, and those that are still waited for."""
        view = GetAgents()
        for agent in self._port.core.agents.values():
            if agent.state is AgentState.GONE:
                continue
            if agent.joined_wall_s or agent.duty is not Duty.ACTIVE:
                view.agents.append(self.agent(agent))
            else:
                view.recovered_agents.append(agent_info(agent.spec, agent.agent_id))
        return view

    def agent(self, agent: Agent) -> master_pb2.Response.GetAgents.Agent:
        """One agent; also one as it was."""
        core = self._port.core
        tasks = [core.tasks[key] for key in agent.tasks if key in core.tasks]
        used = [task.record.task.resources for task in tasks if task.live]
        offers = [core.offers[offer_id] for offer_id in agent.offers if offer_id in core.offers]
        view = GetAgents.Agent(
            agent_info=agent_info(agent.spec, agent.agent_id),
            active=agent.takes_tasks,
            deactivated=agent.duty is not Duty.ACTIVE,
            version=EDGERM_VERSION,
            total_resources=_wire(agent.spec.resources),
            allocated_resources=_wire(_sum(used)),
            offered_resources=_wire(_sum(offer.resources for offer in offers)),
            capabilities=_CAPABILITIES,
            link_state=agent.state.value,
            last_beat_s=max(0.0, self._port.now().steady_s - agent.heard_s),
            carrier=agent.half.carrier.name if agent.half is not None else "",
        )
        for field, wall_s in (
            (view.registered_time, agent.joined_wall_s),
            (view.reregistered_time, agent.rejoined_wall_s),
        ):
            if wall_s:
                field.CopyFrom(_time(wall_s))
        show_drain(view, agent, core, self._port.now())
        return view

    # --- frameworks ---

    def frameworks(self) -> master_pb2.Response.GetFrameworks:
        """Present frameworks, and the latest that have ended."""
        core = self._port.core
        return GetFrameworks(
            frameworks=[self.framework(framework) for framework in core.frameworks.values()],
            completed_frameworks=[self.framework(framework) for framework in core.completed],
        )

    def framework(self, framework: Framework) -> master_pb2.Response.GetFrameworks.Framework:
        """One framework; also one as it was."""
        core = self._port.core
        tasks = (core.tasks[key] for key in framework.tasks.values() if key in core.tasks)
        offers = [core.offers[offer_id] for offer_id in framework.offers if offer_id in core.offers]
        view = GetFrameworks.Framework(
            framework_info=framework_info(framework.spec, framework.framework_id),
            active=framework.state is FrameworkState.ACTIVE,
            connected=framework.stream is not None,
            recovered=not framework.subscribed_wall_s,
            offers=[self.offer(offer) for offer in offers],
            allocated_resources=_wire(_sum(task.record.task.resources for task in tasks if task.live)),
            offered_resources=_wire(_sum(offer.resources for offer in offers)),
        )
        for offer_id, agent_id in framework.invited.items():
            agent = core.agents.get(agent_id)
            drain = agent.drain if agent is not None else None
            invitation = drain.invited.get(framework.framework_id) if drain is not None else None
            if invitation is not None and invitation.offer.offer_id == offer_id:
                show_invitation(view.inverse_offers.add(), invitation)
        if framework.constraints:
            view.offer_constraints.CopyFrom(constraints_to_message(framework.constraints))
        for field, wall_s in (
            (view.registered_time, framework.subscribed_wall_s),
            (view.reregistered_time, framework.resubscribed_wall_s),
            (view.unregistered_time, framework.ended_wall_s),
        ):
            if wall_s:
                field.CopyFrom(_time(wall_s))
        return view

    # --- tasks ---

    def tasks(self) -> master_pb2.Response.GetTasks:
        """Tasks that run, that nobody can reach, and that have ended."""
        view = master_pb2.Response.GetTasks()
        known = {framework.framework_id for framework in self._frameworks()}
        for task in self.records():
            message = task_message(*task, self.user_of(task.record))
            if task.record.key.framework_id not in known:
                view.orphan_tasks.append(message)
            elif task.run.state.terminal:
                view.completed_tasks.append(message)
            elif task.run.state is TaskState.UNREACHABLE:
                view.unreachable_tasks.append(message)
            else:
                view.tasks.append(message)
        return view

    def _frameworks(self) -> tuple[Framework, ...]:
        core = self._port.core
        return (*core.frameworks.values(), *core.completed)

    def user_of(self, record: TaskRecord) -> str:
        """Whom the task runs as, if it does not say so itself: its framework's user."""
        framework = self._port.core.world.shown(record.key.framework_id)
        return framework.spec.user if framework is not None else ""

    def records(self) -> Iterator[Completed]:
        """Every task that is remembered, once."""
        for task in self._port.core.tasks.values():
            if not task.run.settled:
                yield Completed(task.record, task.run, task.statuses)
        for framework in self._frameworks():
            yield from framework.completed

    # --- roles ---

    def roles(self) -> master_pb2.Response.GetRoles:
        """Every role that a framework has, or in which something is used, with what is used or offered in it."""
        core = self._port.core
        held: dict[str, Resources] = {}
        members: dict[str, list[Framework]] = {}
        for framework in core.frameworks.values():
            for role in framework.spec.roles:
                members.setdefault(role, []).append(framework)
        for task in core.tasks.values():
            if task.live:
                held[task.record.role] = held.get(task.record.role, NOTHING) + task.record.task.resources
        for offer in core.offers.values():
            held[offer.role] = held.get(offer.role, NOTHING) + offer.resources
        return master_pb2.Response.GetRoles(
            roles=[
                infos_pb2.Role(
                    name=name,
                    weight=1.0,  # nothing sets another yet
                    frameworks=[basics_pb2.FrameworkID(value=one.framework_id) for one in members.get(name, ())],
                    resources=_wire(held.get(name, NOTHING)),
                )
                for name in sorted(members.keys() | held.keys())
            ]
        )

    def record(self, key: TaskKey) -> tuple[TaskRecord, RunRecord]:
        """The task with this key; raises `NotFound`."""
        task = self._port.core.tasks.get(key)
        if task is not None:
            return task.record, task.run
        for old in self.records():
            if old.record.key == key:
                return old.record, old.run
        raise NotFound(f"task {key} is no longer known")

    # --- offers ---

    def offer(self, offer: Offer) -> offers_pb2.Offer:
        """One offer, in the form for frameworks that know roles."""
        message = offers_pb2.Offer()
        write_offer(message, offer, frozenset({Capability.MULTI_ROLE, Capability.RESERVATION_REFINEMENT}))
        return message

    def open_offers(self) -> operator_pb2.Response.GetOffers:
        """The offers that no framework has answered."""
        core = self._port.core
        now_s = self._port.now().steady_s
        return operator_pb2.Response.GetOffers(
            offers=[
                operator_pb2.Response.GetOffers.OpenOffer(
                    offer=self.offer(offer), age_s=max(0.0, now_s - core.world.offered_s[offer.offer_id])
                )
                for offer in core.offers.values()
            ]
        )


_CAPABILITIES = [
    infos_pb2.AgentInfo.Capability(type=kind)
    for kind in (
        infos_pb2.AgentInfo.Capability.MULTI_ROLE,
        infos_pb2.AgentInfo.Capability.HIERARCHICAL_ROLE,
        infos_pb2.AgentInfo.Capability.RESERVATION_REFINEMENT,
        infos_pb2.AgentInfo.Capability.AGENT_DRAINING,
    )
]


def _wire(resources: Resources) -> tuple[resources_pb2.Resource, ...]:
    return tuple(resources_to_messages(resources))


def _sum(some: Iterator[Resources] | list[Resources]) -> Resources:
    total = NOTHING
    for resources in some:
        total = total + resources
    return total


def _time(wall_s: float) -> basics_pb2.TimeInfo:
    return basics_pb2.TimeInfo(nanoseconds=int(wall_s * 1e9))
