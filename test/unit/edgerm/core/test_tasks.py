"""The task machine."""

from __future__ import annotations

from itertools import product

import pytest

from edgerm.core.errors import IllegalMove
from edgerm.core.tasks import MOVES, SIGNAL_OF, TERMINAL, TaskSignal, TaskState, advance, may

S, T = TaskState, TaskSignal


def test_nothing_leaves_a_terminal_state() -> None:
    """A task that has ended stays as it ended."""
    assert {state for state, moves in MOVES.items() if not moves} == TERMINAL
    assert {state for state in TaskState if state.terminal} == TERMINAL


@pytest.mark.parametrize(("state", "signal"), list(product(TaskState, TaskSignal)))
def test_every_pair_has_an_entry_or_is_refused(state: TaskState, signal: TaskSignal) -> None:
    """`advance` follows the table, and raises IllegalMove with the story where it has no entry."""
    if may(state, signal):
        assert advance(state, signal) is MOVES[state][signal]
    else:
        with pytest.raises(IllegalMove, match=f"{state.name}.*{signal.name}.*once upon a time"):
            advance(state, signal, "once upon a time")


def test_every_live_state_can_end_part_and_be_reached() -> None:
    """From STAGING every stored live state can be reached; from each a task may end, or be out of reach."""
    reached, grown = {S.STAGING}, True
    while grown:
        more = reached | {after for state in reached for after in MOVES[state].values()}
        reached, grown = more, more != reached
    live = {state for state, moves in MOVES.items() if moves}
    assert live <= reached
    for state in live:
        assert {S.FINISHED, S.FAILED, S.KILLED, S.GONE, S.UNREACHABLE} <= set(MOVES[state].values())


def test_an_unreachable_task_comes_back_as_whatever_its_agent_reports() -> None:
    """Each state that an agent can report is open to an unreachable task; one not started yet is staged again."""
    for state, signal in SIGNAL_OF.items():
        assert advance(S.UNREACHABLE, signal) is state
    assert advance(S.UNREACHABLE, T.BACK) is S.STAGING


def test_what_has_started_was_not_dropped() -> None:
    """TASK_DROPPED says that a task never ran; so it cannot follow RUNNING or KILLING."""
    assert not may(S.RUNNING, T.DROPPED)
    assert not may(S.KILLING, T.DROPPED)


def test_no_way_leads_back_to_an_earlier_state() -> None:
    """Unless its agent was out of reach, a task only moves forward: staged, starting, running, killed."""
    order = [S.STAGING, S.STARTING, S.RUNNING, S.KILLING]
    for index, state in enumerate(order):
        assert not set(MOVES[state].values()) & set(order[:index])
