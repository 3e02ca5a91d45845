"""Who asks, and whether they may: one `authorize` that stands before every handler.

What lives here: principals and the rule. So far there is one rule, of place: whoever reaches a loopback address is
trusted with everything; others only if the operator said `insecure`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from ipaddress import ip_address

from edgerm.core.errors import Forbidden


class Action(Enum):
    """What a request wants to do."""

    LOOK = "look"  # version, health, metrics
    SCHEDULE = "schedule"  # the scheduler API
    LINK = "link"  # an agent's link
    READ_BLOB = "read blob"
    WRITE_BLOB = "write blob"
    READ_STATE = "read state"  # of all agents, frameworks and tasks
    READ_OUTPUT = "read output"  # of a task
    KILL = "kill"  # a task of any framework
    WRITE_INPUT = "write input"  # of a task of any framework
    TEARDOWN = "teardown"  # of any framework
    MAINTAIN = "maintain"  # an agent: drain it, take it out of service, or back


@dataclass(frozen=True, slots=True)
class Principal:
    """Who sent a request, and from where."""

    name: str  # empty: nobody knows
    peer: str  # address, without port


class Access:
    """The rule in force."""

    def __init__(self, insecure: bool) -> None:
        self._insecure = insecure

    def authorize(self, principal: Principal, action: Action, thing: str = "") -> None:
        """Return if the principal may do this to `thing`; raises `Forbidden` otherwise."""
        if self._insecure or _loopback(principal.peer):
            return
        raise Forbidden(
            f"{principal.peer or 'unknown peer'} may not {action.value} {thing}".rstrip()
            + ": without authentication this master serves its own machine only"
        )


@lru_cache(maxsize=1024)
def _loopback(peer: str) -> bool:
    try:
        address = ip_address(peer.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback
