"""How a framework stands with its master, as a machine: `docs/states.md` is drawn from it.

What does not live here: what is done in each state (`session`).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType


class SessionState(Enum):
    """How a framework stands with its master."""

    DISCONNECTED = "disconnected"  # no stream; a retry is due
    SUBSCRIBING = "subscribing"  # a stream is asked for
    SUBSCRIBED = "subscribed"  # events arrive, calls may be made
    ENDED = "ended"  # by the master's ERROR, a refusal, or our own will


class SessionSignal(Enum):
    """What can happen to a session."""

    DIAL = "dial"  # a stream is asked for
    WELCOME = "welcome"  # SUBSCRIBED arrived
    BREAK = "break"  # the stream ended, or fell silent
    END = "end"  # for good


_S, _T = SessionState, SessionSignal
SESSION_MOVES: Mapping[SessionState, Mapping[SessionSignal, SessionState]] = MappingProxyType(
    {
        _S.DISCONNECTED: {_T.DIAL: _S.SUBSCRIBING, _T.END: _S.ENDED},
        _S.SUBSCRIBING: {_T.WELCOME: _S.SUBSCRIBED, _T.BREAK: _S.DISCONNECTED, _T.END: _S.ENDED},
        _S.SUBSCRIBED: {_T.BREAK: _S.DISCONNECTED, _T.END: _S.ENDED},
        _S.ENDED: {},
    }
)
"""State → signal → next state. A pair without an entry is a bug."""
