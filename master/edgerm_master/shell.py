"""The master's shell: the loop around its core, and those who wait for the core's answers.

What does not live here: the order of event, persist and speech, which all programs share (`edgerm.shell`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

from edgerm import shell
from edgerm.core.errors import Unavailable
from edgerm.core.ids import FrameworkId
from edgerm.core.link import HTTP, Beat, BeatAnswer, Carrier, Join, JoinAnswer
from edgerm.core.scheduler import Call
from edgerm.requests import current_request
from edgerm_master.core.effects import Accepted, AnswerAgent
from edgerm_master.core.events import Beaten, Called, Event, Joined, Maintained, Maintenance, Tick
from edgerm_master.core.master import Master

JOINS_AT_ONCE = 16  # a join with many tasks costs milliseconds; between these, offers, calls and beats have their turn


class Shell(shell.Shell[Master, Event]):
    """Runs the master's core; what the faces see of it is `api.port.Port`."""

    def __init__(self, core: Master, write: shell.Write) -> None:
        super().__init__(core, write, Tick())
        self._waiters: dict[int, asyncio.Future[Any]] = {}
        self._requests = 0
        self.joining = asyncio.Semaphore(JOINS_AT_ONCE)
        self.on(Accepted, lambda effect: self._resolve(effect.request, None))
        self.on(AnswerAgent, lambda effect: self._resolve(effect.request, effect.answer))

    async def call(self, framework_id: FrameworkId, call: Call) -> None:
        """Make a framework's call; returns once all that it changed is durable."""
        await self._request(lambda number: Called(number, framework_id, call, current_request()))

    async def maintain(self, call: Maintenance) -> None:
        """An operator's word about an agent; returns once all that it changed is durable."""
        await self._request(lambda number: Maintained(number, call, current_request()))

    async def join(self, join: Join, carrier: Carrier = HTTP) -> JoinAnswer:
        """An agent's join; the answer comes when it is durable."""
        return cast("JoinAnswer", await self._request(lambda number: Joined(number, join, carrier)))

    async def beat(self, beat: Beat, carrier: Carrier = HTTP) -> BeatAnswer:
        """An agent's beat."""
        return cast("BeatAnswer", await self._request(lambda number: Beaten(number, beat, carrier)))

    async def close(self) -> None:
        """Take no more events and write what is left; what was not accepted is answered with `Unavailable`."""
        await super().close()
        for waiter in self._waiters.values():
            if not waiter.done():
                waiter.set_exception(Unavailable("the master is stopping"))

    async def _request(self, event_of: Callable[[int], Event]) -> Any:
        if self.closed:
            raise Unavailable("the master is stopping")
        self._requests += 1
        number = self._requests
        waiter = self._waiters[number] = asyncio.get_running_loop().create_future()
        try:
            self.post(event_of(number))
            return await waiter
        finally:
            del self._waiters[number]

    def _resolve(self, request: int, result: object) -> None:
        waiter = self._waiters.get(request)  # None: whoever asked has gone
        if waiter is not None and not waiter.done():
            waiter.set_result(result)
