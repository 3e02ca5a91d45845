"""What a framework's offer constraints say of agents, remembered: a fleet has few kinds, and each is judged once.

What does not live here: what a constraint means (`edgerm.core.constraints`), and who asks (`admitting`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from edgerm.core.attributes import Attribute
from edgerm.core.constraints import NO_CONSTRAINTS, Constraints, Matcher
from edgerm.core.scheduler import AgentSpec

REMEMBERED_MAX = 1024  # kinds of agents, over all roles

_Kind: TypeAlias = tuple[str, tuple[Attribute, ...], str | None, str | None]  # role, attributes, region, zone


class Verdicts:
    """Those of one set of constraints, by role. Agents are of a kind that say the same of themselves.

    Where a host name is tested, every agent is of its own kind, and nothing is remembered.
    """

    __slots__ = ("_by_host", "_constraints", "_said")

    def __init__(self, constraints: Mapping[str, Constraints] = NO_CONSTRAINTS) -> None:
        self._constraints = constraints
        self._by_host = frozenset(role for role, some in constraints.items() if some.names("@hostname"))
        self._said: dict[_Kind, bool] = {}

    @property
    def remembered(self) -> int:
        """How many kinds are remembered now, over all roles."""
        return len(self._said)

    def admits(self, role: str, agent: AgentSpec, matcher: Matcher) -> bool:
        """Whether this agent may be offered for `role`; a role without constraints takes all."""
        constraints = self._constraints.get(role)
        if constraints is None:
            return True
        if role in self._by_host:
            return constraints.admits(agent, matcher)
        kind = (role, agent.attributes, agent.region, agent.zone)
        said = self._said.get(kind)
        if said is None:
            if len(self._said) >= REMEMBERED_MAX:
                self._said.clear()
            said = self._said[kind] = constraints.admits(agent, matcher)
        return said
