"""Prints docs/states.md: every machine of edgerm, drawn from the table that the code itself follows.

`python docs/states.py [FILE]`; `make docs` runs it. The same tables give the same page; nothing is written by hand.
What a state or signal means is the comment beside it in the source; what a machine is for, its module's docstring.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

from edgerm.core import link, tasks
from edgerm.sdk.core import moves as session_moves
from edgerm_agent.core import grants
from edgerm_master.core import agents, frameworks

PAGE = Path(__file__).with_name("states.md")
MEMBER = re.compile(r"\s+(\w+) = [^#]*?(?:  # (.*))?$")

Moves = Mapping[Any, Mapping[Any, Any]]


class Machine(NamedTuple):
    """One machine: its heading, where it is written down, and its table."""

    title: str
    source: str  # the module's file and the table's name
    text: str
    first: Enum
    moves: Moves


MACHINES = [
    Machine(
        "A task",
        "`edgerm/core/tasks.py`, `MOVES`",
        "Master and agent move a task by the same table. Nothing leaves a terminal state; an unreachable task comes "
        "back in whatever state its agent reports.",
        tasks.TaskState.STAGING,
        tasks.MOVES,
    ),
    Machine(
        "The agent's half of the link",
        "`edgerm/core/link/moves.py`, `LINK_MOVES`",
        "How an agent stands with its master ([link.md](link.md)). Contact lost ends nothing.",
        link.LinkState.APART,
        link.LINK_MOVES,
    ),
    Machine(
        "The devices of a task",
        "`edgerm_agent/core/grants.py`, `GRANT_MOVES`",
        "From the launch, which journals them first, until their plugins have said that they are clean. A task's end "
        "is told when they were taken back.",
        grants.GrantState.FREE,
        grants.GRANT_MOVES,
    ),
    Machine(
        "An agent, as the master sees it",
        "`edgerm_master/core/agents.py`, `AGENT_MOVES`",
        "A new agent joins at once; one that the registry knows is waited for after a master start.",
        agents.AgentState.RECOVERING,
        agents.AGENT_MOVES,
    ),
    Machine(
        "An agent's duty",
        "`edgerm_master/core/agents.py`, `DUTY_MOVES`",
        "What an operator wants an agent to be used for, beside how it stands; it outlives links, agents and masters.",
        agents.Duty.ACTIVE,
        agents.DUTY_MOVES,
    ),
    Machine(
        "A framework, as the master sees it",
        "`edgerm_master/core/frameworks.py`, `FRAMEWORK_MOVES`",
        "A new framework subscribes at once; one that the registry knows is disconnected until it comes back.",
        frameworks.FrameworkState.DISCONNECTED,
        frameworks.FRAMEWORK_MOVES,
    ),
    Machine(
        "A framework's session, in the SDK",
        "`edgerm/sdk/core/moves.py`, `SESSION_MOVES`",
        "It subscribes, and again with its id whenever the stream breaks, until one side ends it.",
        session_moves.SessionState.DISCONNECTED,
        session_moves.SESSION_MOVES,
    ),
]


def comments(kind: type[Enum]) -> dict[str, str]:
    """Member → the comment on its line."""
    found = (MEMBER.match(line) for line in inspect.getsource(kind).splitlines())
    return {match[1]: match[2] or "" for match in found if match and match[1] in kind.__members__}


def diagram(machine: Machine) -> Iterator[str]:
    """A Mermaid state diagram; signals between the same two states share one arrow."""
    yield "```mermaid"
    yield "stateDiagram-v2"
    yield f"    [*] --> {machine.first.name}"
    for state, moves in machine.moves.items():
        arrows: dict[str, list[str]] = {}
        for signal, after in moves.items():
            arrows.setdefault(after.name, []).append(signal.name)
        for after_name, signals in arrows.items():
            yield f"    {state.name} --> {after_name}: {', '.join(signals)}"
        if not moves:
            yield f"    {state.name} --> [*]"
    yield "```"


def table(machine: Machine) -> Iterator[str]:
    """Rows: the state before; columns: the signal; cells: the state after."""
    signals = [signal for signal in _signal_kind(machine) if any(signal in moves for moves in machine.moves.values())]
    yield "| from \\ on | " + " | ".join(signal.name for signal in signals) + " |"
    yield "| --- |" + " --- |" * len(signals)
    for state, moves in machine.moves.items():
        cells = [moves[signal].name if signal in moves else "–" for signal in signals]
        if moves:
            yield f"| {state.name} | " + " | ".join(cells) + " |"


def meanings(machine: Machine) -> Iterator[str]:
    """What each state and signal is."""
    states, signals = comments(type(machine.first)), comments(_signal_kind(machine))
    yield "| state | meaning |"
    yield "| --- | --- |"
    for state in type(machine.first):
        yield f"| {state.name} | {_told(states[state.name], _ends(machine, state))} |"
    yield ""
    yield "| signal | meaning |"
    yield "| --- | --- |"
    for name, text in signals.items():
        yield f"| {name} | {text or '–'} |"


def _ends(machine: Machine, state: Enum) -> str:
    if state not in machine.moves:
        return "never stored: only an answer"
    return "" if machine.moves[state] else "terminal"


def _told(comment: str, end: str) -> str:
    return "; ".join(filter(None, (comment, end))) or "–"


def _signal_kind(machine: Machine) -> type[Enum]:
    return next(type(signal) for moves in machine.moves.values() for signal in moves)


def page() -> str:
    """The whole page."""
    lines = [
        "# States",
        "",
        "Printed by `make docs` from the tables that the code follows; do not edit. A pair of state and signal without",
        "an entry is a bug: the machine raises `IllegalMove` with the story so far.",
    ]
    for machine in MACHINES:
        lines += ["", f"## {machine.title}", "", f"{machine.text} Source: {machine.source}.", ""]
        lines += [*diagram(machine), "", *table(machine), "", *meanings(machine)]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    (Path(sys.argv[1]) if len(sys.argv) > 1 else PAGE).write_text(page())
