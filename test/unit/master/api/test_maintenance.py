"""Calls about one agent, as values."""

from __future__ import annotations

import pytest

from edgerm.core.errors import Invalid
from edgerm.core.ids import AgentId
from edgerm.wire.v1 import master_pb2
from edgerm_master.api.maintenance import CALLS, read
from edgerm_master.core.events import DeactivateAgent, DrainAgent, MarkAgentGone, ReactivateAgent

Call = master_pb2.Call
A1 = AgentId("a1")


def drain(**fields: float) -> Call:
    """DRAIN_AGENT with these seconds."""
    message = Call(type=Call.DRAIN_AGENT)
    message.drain_agent.agent_id.value = A1
    for name, value_s in fields.items():
        getattr(message.drain_agent, name).FromNanoseconds(int(value_s * 1e9))
    return message


def test_a_drain_without_times_is_at_once_and_leaves_each_task_its_grace() -> None:
    """As Mesos has it."""
    assert read(drain()) == DrainAgent(A1, 0.0, None, mark_gone=False)


def test_times_are_seconds() -> None:
    """A grace of 0 is one, not none."""
    assert read(drain(deadline=1.5, max_grace_period=0.0)) == DrainAgent(A1, 1.5, 0.0)


@pytest.mark.parametrize("what", ["deadline", "max_grace_period"])
@pytest.mark.parametrize("value_s", [-0.5, 400 * 86_400.0])
def test_times_have_bounds(what: str, value_s: float) -> None:
    """Neither negative nor above 366 days; the field is named."""
    with pytest.raises(Invalid, match=f"drain_agent.{what} is"):
        read(drain(**{what: value_s}))


def test_the_others_name_an_agent() -> None:
    """One value each; without its body a call is refused."""
    for kind, value in (
        (Call.DEACTIVATE_AGENT, DeactivateAgent(A1)),
        (Call.REACTIVATE_AGENT, ReactivateAgent(A1)),
        (Call.MARK_AGENT_GONE, MarkAgentGone(A1)),
    ):
        message = Call(type=kind)
        with pytest.raises(Invalid, match="without its body"):
            read(message)
        getattr(message, Call.Type.Name(kind).lower()).agent_id.value = A1
        assert read(message) == value
    assert len(CALLS) == 4
