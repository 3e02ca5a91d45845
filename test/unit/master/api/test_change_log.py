"""The log of changes: what happened in words, and its values under the keys that all logs share."""

from __future__ import annotations

from edgerm.core.ids import AgentId
from edgerm.core.scheduler import AgentSpec
from edgerm_master.api.change_log import line_of
from edgerm_master.core.agents import Duty
from edgerm_master.core.changes import AgentRemoved, DutyChanged

A1 = AgentId("a1")
BOX = AgentSpec("box.example", "press7")


def test_an_agent_has_the_same_keys_whatever_happens_to_it() -> None:
    """Who searches the log for an agent's id finds what operators made of it, and how it went."""
    for duty in Duty:
        event, values = line_of(DutyChanged(A1, BOX, duty))
        assert (event, values) == ("agent duty changed", {"agent": "a1", "name": "press7", "state": duty.value})
    event, values = line_of(AgentRemoved(A1, BOX, "silent"))
    assert (event, values["agent"], values["reason"]) == ("agent lost", "a1", "silent")
