"""What the master's log says of changes: one line each, once it is durable, with who and why (docs/reference/logs.md).

What does not live here: when that is, and what changed (the core).
"""

from __future__ import annotations

from edgerm import logs
from edgerm.core.ids import StreamId
from edgerm_master.api.port import Port
from edgerm_master.core.changes import (
    AgentAdded,
    AgentRemoved,
    Change,
    DutyChanged,
    FrameworkAdded,
    FrameworkRemoved,
    FrameworkUpdated,
    KillAsked,
    TaskAdded,
    TaskUpdated,
)
from edgerm_master.core.effects import Noticed
from edgerm_master.core.events import Watch

log = logs.get("master.changes")
Values = dict[str, object]


class ChangeLog:
    """Writes the lines. Nothing is asked of the core, and no line is made, where nobody would read it."""

    def __init__(self, port: Port) -> None:
        self._port = port
        self._log = log
        self._shows_quiet = False

    def begin(self, level: str) -> None:
        """Follow the changes from now on, if the log shows them at this level."""
        if level in ("debug", "info"):
            self._log = log.bind()
            self._shows_quiet = level == "debug"
            self._port.on(Noticed, self._note)
            self._port.post(Watch(StreamId("log")))

    def _note(self, effect: Noticed) -> None:
        quiet = isinstance(effect.change, TaskUpdated) and not effect.change.ended
        if quiet and not self._shows_quiet:
            return
        event, values = line_of(effect.change)
        if effect.request:
            values["request"] = effect.request
        kept = {name: value for name, value in values.items() if value not in (None, "")}
        (self._log.debug if quiet else self._log.info)(event, **kept)


def line_of(change: Change) -> tuple[str, Values]:
    """The event in words, and its values; never what a task was given or printed."""
    match change:
        case TaskAdded() | TaskUpdated() | KillAsked():
            return _of_task(change)
        case AgentAdded(agent):
            carrier = agent.half.carrier.name if agent.half is not None else None
            told = {"agent": agent.agent_id, "name": agent.spec.name, "hostname": agent.spec.hostname}
            return "agent joined", {**told, "carrier": carrier}
        case AgentRemoved(agent_id, spec, why):
            return "agent lost", {"agent": agent_id, "name": spec.name, "hostname": spec.hostname, "reason": why}
        case DutyChanged(agent_id, spec, duty):
            return "agent duty changed", {"agent": agent_id, "name": spec.name, "state": duty.value}
        case _:
            return _of_framework(change)


def _of_task(change: TaskAdded | TaskUpdated | KillAsked) -> tuple[str, Values]:
    match change:
        case TaskAdded(record, run):
            agent_id = record.task.agent_id
            return "task launched", {"task": str(record.key), "agent": agent_id, "state": f"TASK_{run.state.name}"}
        case KillAsked(key, agent_id, why):
            return "task kill asked", {"task": str(key), "agent": agent_id, "reason": why}
        case TaskUpdated(key, status, state, ended):
            values: Values = {"task": str(key), "agent": status.agent_id, "state": f"TASK_{state.name}"}
            values["reason"] = status.reason.name if status.reason is not None else None
            values["source"], values["message"] = status.source.name, status.message
            values["exit_code"], values["signal"] = status.exit_code, status.signal
            return "task ended" if ended else "task updated", values


def _of_framework(change: FrameworkAdded | FrameworkUpdated | FrameworkRemoved) -> tuple[str, Values]:
    framework = change.framework
    values: Values = {"framework": framework.framework_id, "name": framework.spec.name}
    match change:
        case FrameworkAdded():
            principal = framework.spec.principal
            return "framework subscribed", {**values, "roles": ",".join(framework.spec.roles), "principal": principal}
        case FrameworkUpdated(why=why):
            return "framework updated", {**values, "reason": why, "state": framework.state.value}
        case FrameworkRemoved(why=why):
            return "framework ended", {**values, "reason": why}
