"""How an agent stands with its master, as a machine: `docs/states.md` is drawn from it.

What does not live here: what is sent in each state, and when (`agent_half`).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType


class LinkState(Enum):
    """How an agent stands with its master."""

    APART = "apart"  # no session; a join is due
    JOINING = "joining"  # a join is under way
    JOINED = "joined"  # there is a session
    GONE = "gone"  # an operator marked this agent gone: nothing is sent any more


class LinkSignal(Enum):
    """What can happen to the agent's half."""

    DIAL = "dial"  # a join is sent
    WELCOME = "welcome"  # the master gave a session
    FAIL = "fail"  # a request had no answer
    OUTCAST = "outcast"  # the master does not know the session
    CHANGED = "changed"  # the agent is not any more what it said when it joined
    DISMISS = "dismiss"  # the master says that this agent may never join again


LINK_MOVES: Mapping[LinkState, Mapping[LinkSignal, LinkState]] = MappingProxyType(
    {
        LinkState.APART: {LinkSignal.DIAL: LinkState.JOINING},
        LinkState.JOINING: {
            LinkSignal.DIAL: LinkState.JOINING,  # the next part
            LinkSignal.WELCOME: LinkState.JOINED,
            LinkSignal.FAIL: LinkState.APART,
            LinkSignal.OUTCAST: LinkState.APART,
            LinkSignal.DISMISS: LinkState.GONE,
        },
        LinkState.JOINED: {
            LinkSignal.FAIL: LinkState.JOINED,  # tried again with back-off; contact lost is no reason to leave
            LinkSignal.OUTCAST: LinkState.APART,
            LinkSignal.CHANGED: LinkState.APART,
        },
        LinkState.GONE: {},
    }
)
