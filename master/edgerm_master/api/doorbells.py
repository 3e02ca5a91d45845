"""The agents' doorbells, one for each session, whichever face of the link they hang at.

What does not live here: how a ring reaches the agent (the faces), when to ring (the core).
"""

from __future__ import annotations

from typing import Protocol

from edgerm.core.errors import Conflict
from edgerm_master.api.port import Port
from edgerm_master.core.effects import Ring, SessionEnded


class Doorbell(Protocol):
    """What a face hangs up for an agent that listens."""

    def ring(self, count: int) -> None:
        """Beat now: this is the session's ring number `count`."""

    def take_down(self, session_over: bool) -> None:
        """Never again: the session is over, or a newer doorbell hangs in this one's place."""


class Doorbells:
    """All of them, and how often each session was rung for, heard or not."""

    def __init__(self, port: Port) -> None:
        self._port = port
        self._hanging: dict[int, Doorbell] = {}
        self._rings: dict[int, int] = {}
        port.on(Ring, self._ring)
        port.on(SessionEnded, self._end)

    def check(self, session: int) -> None:
        """Raises `Conflict` if the session is not known."""
        if session not in self._port.core.world.sessions:
            raise Conflict(f"session {session} is not known here: join")

    def count(self, session: int) -> int:
        """How often it was rung for this session."""
        return self._rings.get(session, 0)

    def hang(self, session: int, doorbell: Doorbell) -> None:
        """From now on this one rings for the session, and none before it; raises `Conflict` if there is no session."""
        self.check(session)
        older, self._hanging[session] = self._hanging.get(session), doorbell
        if older is not None:
            older.take_down(session_over=False)

    def gone(self, session: int, doorbell: Doorbell) -> None:
        """Nobody listens to this doorbell any more."""
        if self._hanging.get(session) is doorbell:
            del self._hanging[session]

    def close(self) -> None:
        """Take all down: the master stops."""
        while self._hanging:
            self._hanging.popitem()[1].take_down(session_over=False)

    def _ring(self, effect: Ring) -> None:
        count = self._rings[effect.session] = self.count(effect.session) + 1
        doorbell = self._hanging.get(effect.session)
        if doorbell is not None:
            doorbell.ring(count)

    def _end(self, effect: SessionEnded) -> None:
        self._rings.pop(effect.session, None)
        doorbell = self._hanging.pop(effect.session, None)
        if doorbell is not None:
            doorbell.take_down(session_over=True)
