"""`Driver`: runs a `Scheduler` against a master over HTTP.

What lives here: the loop around the session machine (`edgerm.sdk.core`), and its clock. What does not: HTTP (`line`),
when to subscribe, acknowledge or reconcile (the machine), what to launch (the scheduler).
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from edgerm.core.constraints import Constraints
from edgerm.core.errors import Conflict, Unavailable
from edgerm.core.ids import FrameworkId
from edgerm.core.instant import Instant
from edgerm.core.scheduler import BlobRef, Capability, FrameworkSpec
from edgerm.sdk.blobs import Blobs
from edgerm.sdk.core.moves import SessionState
from edgerm.sdk.core.session import Session
from edgerm.sdk.core.values import Broke, Effect, Happening, Leave, Make, Refused, Subscribe
from edgerm.sdk.line import Line
from edgerm.sdk.scheduler import Scheduler
from edgerm.transport.http_client import HttpClient
from edgerm.wire.content import JSON, PROTOBUF

FAILOVER_S = 600.0
STOP_S = 10.0  # for the last calls, when the driver stops
CAPABILITIES = frozenset(
    {
        Capability.PARTITION_AWARE,
        Capability.TASK_KILLING_STATE,
        Capability.RESERVATION_REFINEMENT,
        Capability.SHARED_RESOURCES,
    }
)


def framework(
    name: str, *, role: str = "*", user: str = "", failover_timeout_s: float = FAILOVER_S, principal: str = ""
) -> FrameworkSpec:
    """What a framework says of itself. Its tasks outlive it by `failover_timeout_s` when it goes without a word."""
    return FrameworkSpec(name, user, (role,), failover_timeout_s, CAPABILITIES, principal)


class Driver:
    """`async with Driver(scheduler, master, framework("mine")) as driver: await driver.ended()`.

    On leaving the block the framework leaves too: its tasks run on for its failover timeout, and `framework_id` lets a
    later driver come back to them. `session.teardown()` ends them instead. A `patient` driver waits for a master that
    is away when it starts; one that is not ends at once with `Unavailable`. `headers` go with each request.
    `constraints` name the agents of which it takes offers, by role: {"*": any_of([["zone=a"], ["zone=b"]])}.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        master: str,
        spec: FrameworkSpec,
        *,
        framework_id: FrameworkId | None = None,
        patient: bool = True,
        json: bool = False,
        headers: Mapping[str, str] | None = None,
        constraints: Mapping[str, Constraints] | None = None,
    ) -> None:
        if not spec.failover_timeout_s:  # the default of Mesos, 0, would end all tasks when the connection breaks
            spec = replace(spec, failover_timeout_s=FAILOVER_S)
        self.spec = spec
        self.session = Session(scheduler, secrets.token_bytes(16), framework_id, spec.roles, constraints or {})
        self.client = HttpClient(master, headers)
        self._media_type = JSON if json else PROTOBUF
        self._patient = patient
        self._welcomed = False
        self._blobs = Blobs(self.client)
        self._lines: dict[int, Line] = {}
        self._changed = asyncio.Event()
        self._error: BaseException | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._flush_is_due = False

    async def __aenter__(self) -> Driver:
        self._loop = asyncio.get_running_loop()
        await self.client.__aenter__()
        self.session.news = self._news
        self._do(self.session.start(self._now()))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.session.leave()
            self._flush()
            await self._close_lines()
        finally:
            self._stop_timer()
            await self.client.__aexit__(None, None, None)

    async def _close_lines(self) -> None:
        try:
            async with asyncio.timeout(STOP_S):
                while self._lines:
                    await self._next_change()
        except TimeoutError:  # the master is away: it will find out by itself
            pass
        finally:
            for line in list(self._lines.values()):
                await line.cancel()

    # --- what others use ---

    @property
    def framework_id(self) -> FrameworkId | None:
        """The master's name for us, once we are subscribed."""
        return self.session.framework_id

    async def subscribed(self) -> FrameworkId:
        """Wait for the first subscription; raises what ended the driver before."""
        while not self._welcomed:
            self._raise_error()
            if self.session.state is SessionState.ENDED:
                raise Unavailable("the framework left before it was subscribed")
            await self._next_change()
        assert self.session.framework_id is not None
        return self.session.framework_id

    async def ended(self) -> None:
        """Wait for the end. Raises `Unavailable`, `Conflict` (the master said ERROR), or what a callback raised."""
        while self.session.state is not SessionState.ENDED or self._lines:
            self._raise_error()
            await self._next_change()
        self._raise_error()

    async def keep(self, content: bytes | Path) -> BlobRef:
        """Make the master keep these bytes as a blob, for tasks to use; uploads what it lacks."""
        return await self._blobs.keep(content)

    # --- the loop ---

    def _now(self) -> Instant:
        return Instant(self._loop.time(), time.time())

    def _happen(self, happening: Happening) -> None:
        """Something happened on a line."""
        if isinstance(happening, Broke) and not (self._welcomed or self._patient):
            happening = replace(happening, final=True)
        try:
            self._do(self.session.handle(happening, self._now()))
        except Exception as error:
            self._fail(error)

    def _do(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Subscribe):
                self._lines[effect.stream] = Line(
                    self.client, effect.spec or self.spec, self._media_type, effect, self._happen
                )
                self._lines[effect.stream].start(self._line_ended)
            elif (line := self._lines.get(effect.stream)) is None:
                if isinstance(effect, Make):
                    self._happen(Refused(effect.stream, effect.call, "its stream is gone"))
            elif isinstance(effect, Leave):
                line.leave()
            else:
                line.make(effect.call)
        self._after()

    def _after(self) -> None:
        session = self.session
        if session.state is SessionState.SUBSCRIBED:
            self._welcomed = True
        elif session.state is SessionState.ENDED and session.why_ended and self._error is None:
            kind = Conflict if self._welcomed else Unavailable
            self._error = kind(session.why_ended)
        self._set_timer()
        self._changed.set()

    def _set_timer(self) -> None:
        self._stop_timer()
        due_s = self.session.due_s()
        if due_s is not None:
            self._timer = self._loop.call_at(due_s, self._tick)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tick(self) -> None:
        try:
            self._do(self.session.tick(self._now()))
        except Exception as error:
            self._fail(error)

    def _news(self) -> None:
        """A verb was used: perhaps not in a callback, so nobody else carries its effects out."""
        if not self._flush_is_due:
            self._flush_is_due = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_is_due = False
        try:
            self._do(self.session.take())
        except Exception as error:
            self._fail(error)

    def _line_ended(self, line: Line) -> None:
        del self._lines[line.number]
        self._changed.set()

    def _fail(self, error: BaseException) -> None:
        """A callback raised: nothing more is heard, and whoever waits is told."""
        if self._error is None:
            self._error = error
        self.session.leave()
        for line in self._lines.values():
            line.leave()
        self._after()

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    async def _next_change(self) -> None:
        self._changed.clear()
        await self._changed.wait()
