"""What `edgerm drain` reads and shows."""

from __future__ import annotations

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgerm.cli.drain import command, span_s
from edgerm.cli.listing import agent_state
from edgerm.wire.v1 import infos_pb2, master_pb2

CONTEXT, OPTION = click.Context(command), command.params[0]


@pytest.mark.parametrize(
    ("text", "value_s"),
    [("90", 90), ("90s", 90), ("10m", 600), ("1.5h", 5400), ("1h30m", 5400), ("2d", 172_800), ("500ms", 0.5), ("0", 0)],
)
def test_times_with_units(text: str, value_s: float) -> None:
    """Seconds without a unit; units may be combined."""
    assert span_s(CONTEXT, OPTION, text) == value_s


@pytest.mark.parametrize("text", ["", "soon", "-5s", "10 m", "5m30", "1e9", "10y", "367d", "s", "1.s", "nan"])
def test_what_is_no_time_is_refused(text: str) -> None:
    """With the forms that are read."""
    with pytest.raises(click.BadParameter, match="write 90s, 10m"):
        span_s(CONTEXT, OPTION, text)


@given(st.text(max_size=12))
def test_no_text_leads_to_another_error(text: str) -> None:
    """A time between 0 and 366 days, or a refusal."""
    try:
        value_s = span_s(CONTEXT, OPTION, text)
    except click.BadParameter:
        return
    assert value_s is not None
    assert 0 <= value_s <= 366 * 86_400


@pytest.mark.parametrize(
    ("link_state", "state", "deactivated", "shown"),
    [
        ("joined", None, False, "joined"),
        ("joined", None, True, "DEACTIVATED"),
        ("joined", infos_pb2.DRAINING, True, "DRAINING"),
        ("unreachable", infos_pb2.DRAINING, True, "DRAINING (unreachable)"),
        ("joined", infos_pb2.DRAINED, True, "DRAINED"),
        ("recovering", infos_pb2.DRAINED, True, "DRAINED (recovering)"),
        ("unreachable", None, False, "unreachable"),
    ],
)
def test_the_list_of_agents_tells_what_an_operator_wants(
    link_state: str, state: infos_pb2.DrainState.ValueType | None, deactivated: bool, shown: str
) -> None:
    """DRAINING, DRAINED or DEACTIVATED stand before how the link is."""
    agent = master_pb2.Response.GetAgents.Agent(link_state=link_state, deactivated=deactivated)
    if state is not None:
        agent.drain_info.state = state
    assert agent_state(agent) == shown
