"""What the faces know of the shell behind them: they hand in events, and await what the core says to them.

What does not live here: how it is done (`edgerm_master.shell`). A face may read the core's state, in the same turn as
it posts, and never changes it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol, TypeVar

from edgerm.core.ids import FrameworkId
from edgerm.core.instant import Instant
from edgerm.core.link import HTTP, Beat, BeatAnswer, Carrier, Join, JoinAnswer
from edgerm.core.scheduler import Call
from edgerm_master.core.effects import Speech
from edgerm_master.core.events import Event, Maintenance
from edgerm_master.core.master import Master

E = TypeVar("E", bound=Speech)


class Port(Protocol):
    """The master as its faces see it. All of it is for the event loop's thread only."""

    @property
    def core(self) -> Master:
        """To look at, not to touch."""

    @property
    def closed(self) -> bool:
        """Whether the master is stopping: events are taken no more."""

    def now(self) -> Instant:
        """This moment."""

    def post(self, event: Event) -> None:
        """Let `event` happen, at once; its effects follow."""

    def on(self, kind: type[E], take: Callable[[E], None]) -> None:
        """From now on `take` is given every effect of this kind, after those who asked for it before."""

    async def call(self, framework_id: FrameworkId, call: Call) -> None:
        """Make a framework's call; returns once all that it changed is durable."""

    async def maintain(self, call: Maintenance) -> None:
        """An operator's word about an agent; returns once it is durable."""

    @property
    def joining(self) -> asyncio.Semaphore:
        """To be held while a join is read and answered: a fleet that comes back must not hold up all else."""

    async def join(self, join: Join, carrier: Carrier = HTTP) -> JoinAnswer:
        """An agent's join; the answer comes when it is durable."""

    async def beat(self, beat: Beat, carrier: Carrier = HTTP) -> BeatAnswer:
        """An agent's beat."""
