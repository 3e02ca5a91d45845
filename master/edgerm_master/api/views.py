"""The core's state as messages of the operator API: for people and tools, made when somebody looks.

What does not live here: requests, and who may make them.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address

from aiohttp import web

from edgerm.core.errors import NotFound
from edgerm.core.ids import TaskKey
from edgerm.core.resources import NOTHING, Resources
from edgerm.core.scheduler import Capability, Offer
from edgerm.core.tasks import TaskState
from edgerm.wire.codec.infos import agent_info, framework_info
from edgerm.wire.codec.resources import resources_to_messages
from edgerm.wire.codec.scheduler import write_offer
from edgerm.wire.codec.status import status_to_message
from edgerm.wire.codec.tasks import task_info
from edgerm.wire.v1 import basics_pb2, infos_pb2, master_pb2, offers_pb2, operator_pb2, resources_pb2, tasks_pb2
from edgerm_master.api.http import local_address
from edgerm_master.api.look import EDGERM_VERSION, MESOS_VERSION
from edgerm_master.api.port import Port
from edgerm_master.core.agents import Agent
from edgerm_master.core.frameworks import Framework, FrameworkState
from edgerm_master.core.master import Master
from edgerm_master.core.records import RunRecord, TaskRecord

GetAgents = master_pb2.Response.GetAgents
GetFrameworks = master_pb2.Response.GetFrameworks


class Views:
    """Reads the core behind a port."""

    def __init__(self, port: Port) -> None:
        self._port = port

    # --- numbers ---

    def gauges(self) -> dict[str, float]:
        """What Mesos' metrics of the same names say, as far as we have it."""
        core = self._port.core
        states = [task.run.state for task in core.tasks.values() if not task.run.settled]
        joined = sum(agent.joined for agent in core.agents.values())
        active = sum(framework.stream is not None for framework in core.frameworks.values())
        return {
            "master/slaves_connected": joined,
            "master/slaves_disconnected": len(core.agents) - joined,
            "master/frameworks_active": active,
            "master/frameworks_disconnected": len(core.frameworks) - active,
            "master/outstanding_offers": len(core.offers),
            **{f"master/tasks_{state.name.lower()}": states.count(state) for state in _COUNTED},
        }

    # --- agents ---

    def agents(self) -> master_pb2.Response.GetAgents:
        """Agents that have joined since this master started, and those that are still waited for."""
        view = GetAgents()
        for agent in self._port.core.agents.values():
            if agent.joined_wall_s:
                view.agents.append(self._agent(agent))
            else:
                view.recovered_agents.append(agent_info(agent.spec, agent.agent_id))
        return view

    def _agent(self, agent: Agent) -> master_pb2.Response.GetAgents.Agent:
        core = self._port.core
        used = [core.tasks[key].record.task.resources for key in agent.tasks if core.tasks[key].live]
        return GetAgents.Agent(
            agent_info=agent_info(agent.spec, agent.agent_id),
            active=agent.joined,
            version=EDGERM_VERSION,
            registered_time=_time(agent.joined_wall_s),
            total_resources=_wire(agent.spec.resources),
            allocated_resources=_wire(_sum(used)),
            offered_resources=_wire(_sum(core.offers[offer_id].resources for offer_id in agent.offers)),
            link_state=agent.state.value,
            last_beat_s=max(0.0, self._port.now().steady_s - agent.heard_s),
            carrier=agent.half.carrier.name if agent.half is not None else "",
        )

    # --- frameworks ---

    def frameworks(self) -> master_pb2.Response.GetFrameworks:
        """Present frameworks, and the latest that have ended."""
        core = self._port.core
        return GetFrameworks(
            frameworks=[self._framework(framework) for framework in core.frameworks.values()],
            completed_frameworks=[self._framework(framework) for framework in core.completed],
        )

    def _framework(self, framework: Framework) -> master_pb2.Response.GetFrameworks.Framework:
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
        for record, run in self.records():
            if run.state.terminal:
                view.completed_tasks.append(task_message(record, run))
            elif run.state is TaskState.UNREACHABLE:
                view.unreachable_tasks.append(task_message(record, run))
            else:
                view.tasks.append(task_message(record, run))
        return view

    def records(self) -> Iterator[tuple[TaskRecord, RunRecord]]:
        """Every task that is remembered, once."""
        core = self._port.core
        for task in core.tasks.values():
            if not task.run.settled:
                yield task.record, task.run
        for framework in (*core.frameworks.values(), *core.completed):
            yield from framework.completed

    def record(self, key: TaskKey) -> tuple[TaskRecord, RunRecord]:
        """The task with this key; raises `NotFound`."""
        task = self._port.core.tasks.get(key)
        if task is not None:
            return task.record, task.run
        for record, run in self.records():
            if record.key == key:
                return record, run
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


_COUNTED = [state for state in TaskState if state is not TaskState.UNKNOWN]


def task_message(record: TaskRecord, run: RunRecord) -> tasks_pb2.Task:
    """A task and how far it has come; of a big one only what the master itself knows."""
    key, task = record.key, record.task
    info = task_info(task)
    shown = run.owed[0].state if run.owed else run.state
    message = tasks_pb2.Task(
        name=task.name,
        task_id=basics_pb2.TaskID(value=key.task_id),
        framework_id=basics_pb2.FrameworkID(value=key.framework_id),
        agent_id=basics_pb2.AgentID(value=task.agent_id),
        state=run.state.value,  # type: ignore[arg-type]
        resources=_wire(task.resources),
        statuses=[status_to_message(status) for status in run.owed],
        status_update_state=shown.value,  # type: ignore[arg-type]
        launch_id=key.launch_id,
    )
    for name in ("labels", "discovery", "container", "health_check", "kill_policy"):
        if info.HasField(name):
            getattr(message, name).CopyFrom(getattr(info, name))
    return message


def _wire(resources: Resources) -> tuple[resources_pb2.Resource, ...]:
    return tuple(resources_to_messages(resources))


def _sum(some: Iterator[Resources] | list[Resources]) -> Resources:
    total = NOTHING
    for resources in some:
        total = total + resources
    return total


def _time(wall_s: float) -> basics_pb2.TimeInfo:
    return basics_pb2.TimeInfo(nanoseconds=int(wall_s * 1e9))


def master_info(core: Master, request: web.Request) -> infos_pb2.MasterInfo:
    """This master, as it is seen by whoever sent the request."""
    host, port = local_address(request)
    address = ip_address(host)
    number = int.from_bytes(address.packed, "little") if address.version == 4 else 0  # as Mesos: network byte order
    return infos_pb2.MasterInfo(
        id=core.world.run_id,
        ip=number,
        port=port,
        pid=f"master@{host}:{port}",
        hostname=host,
        version=MESOS_VERSION,
        address=basics_pb2.Address(hostname=host, ip=host, port=port),
        edgerm_version=EDGERM_VERSION,
    )
