"""The metrics that Mesos' tools ask for by name: GET_METRICS and `/metrics/snapshot`.

A name is here only if its number says what it says in Mesos. What does not live here: our own names (`measures.py`).
"""

from __future__ import annotations

import os
from collections import Counter

from edgerm.core.tasks import TaskState
from edgerm_master.core.agents import AgentState
from edgerm_master.core.master import Master

_NOW = (TaskState.STAGING, TaskState.STARTING, TaskState.RUNNING, TaskState.KILLING, TaskState.UNREACHABLE)
_SCALARS = ("cpus", "gpus", "mem", "disk")


def mesos_metrics(core: Master, uptime_s: float) -> dict[str, float]:
    """By name, in Mesos' order of subjects."""
    return {
        "master/elected": 1.0,
        "master/uptime_secs": uptime_s,
        **_agents(core),
        **_frameworks(core),
        "master/outstanding_offers": len(core.offers),
        **_tasks(core),
        **_resources(core),
        **_system(),
    }


def _agents(core: Master) -> dict[str, float]:
    states = Counter(agent.state for agent in core.agents.values())
    joined, tally = states[AgentState.JOINED], core.world.tally
    active = sum(agent.takes_tasks for agent in core.agents.values())
    return {
        "master/slaves_active": active,
        "master/slaves_inactive": joined - active,
        "master/slaves_connected": joined,
        "master/slaves_disconnected": 0,  # one that does not beat is unreachable here, and nothing in between
        "master/slaves_unreachable": states[AgentState.UNREACHABLE],
        "master/slave_registrations": sum(times for (_, how), times in tally.joins.items() if how == "joined"),
        "master/slave_removals": tally.agents_lost,
        "master/slave_unreachable_completed": tally.agents_lost,
    }


def _frameworks(core: Master) -> dict[str, float]:
    connected = sum(framework.stream is not None for framework in core.frameworks.values())
    away = len(core.frameworks) - connected
    return {
        "master/frameworks_active": connected,
        "master/frameworks_inactive": away,
        "master/frameworks_connected": connected,
        "master/frameworks_disconnected": away,
    }


def _tasks(core: Master) -> dict[str, float]:
    """States that pass are how many tasks are in them now, ends are how many have ended so since the start."""
    now = Counter(task.run.state for task in core.tasks.values() if task.live)
    ended: Counter[TaskState] = Counter()
    for (state, _), times in core.world.tally.tasks_ended.items():
        ended[state] += times
    ends = [state for state in TaskState if state.terminal and state is not TaskState.UNKNOWN]
    return {
        **{f"master/tasks_{state.name.lower()}": float(now[state]) for state in _NOW},
        **{f"master/tasks_{state.name.lower()}": float(ended[state]) for state in ends},
        "master/valid_status_updates": core.world.tally.updates,
    }


def _resources(core: Master) -> dict[str, float]:
    total = dict.fromkeys(_SCALARS, 0.0)
    used = dict(total)
    for agent in core.agents.values():
        if agent.joined:
            for name in _SCALARS:
                total[name] += agent.spec.resources.scalar_milli(name) / 1000
    for task in core.tasks.values():
        agent_of = core.agents.get(task.agent_id)
        if task.live and agent_of is not None and agent_of.joined:
            for name in _SCALARS:
                used[name] += task.record.task.resources.scalar_milli(name) / 1000
    values: dict[str, float] = {}
    for name in _SCALARS:
        values[f"master/{name}_total"], values[f"master/{name}_used"] = total[name], used[name]
        values[f"master/{name}_percent"] = used[name] / total[name] if total[name] else 0.0
    return values


def _system() -> dict[str, float]:
    one, five, fifteen = os.getloadavg()
    pages = os.sysconf("SC_PAGE_SIZE")
    return {
        "system/cpus_total": float(os.cpu_count() or 0),
        "system/load_1min": one,
        "system/load_5min": five,
        "system/load_15min": fifteen,
        "system/mem_total_bytes": float(pages * os.sysconf("SC_PHYS_PAGES")),
        "system/mem_free_bytes": float(pages * os.sysconf("SC_AVPHYS_PAGES")),
    }
