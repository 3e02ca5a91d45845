"""What the agent's log says of tasks: one line for each launch, start, kill and end, once it is journaled.

What does not live here: when that is (the core).
"""

from __future__ import annotations

from edgerm import logs
from edgerm_agent.core.effects import Noted

log = logs.get("agent.tasks")


def note(effect: Noted) -> None:
    """Write the line; it never has what the task printed or was given."""
    values: dict[str, object] = {"task": str(effect.key), "executor": effect.executor}
    if effect.request:
        values["request"] = effect.request
    status = effect.status
    if status is not None:
        values["state"] = f"TASK_{status.state.name}"
        values["reason"] = status.reason.name if status.reason is not None else None
        values["message"] = status.message or None
        values["exit_code"], values["signal"] = status.exit_code, status.signal
    log.info(effect.what.value, **{name: value for name, value in values.items() if value is not None})
