"""The loop around a core: event, core, persist, then speak. The one place where a core meets clock and store.

What lives here: the order of things, the same for master and agent. The core decides, `Outbox` holds back what is not
durable yet, one thread writes. A write that fails ends the process: nobody may be told what the disk does not know.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, Protocol, TypeVar

from edgerm import logs
from edgerm.core.effects import Change, Outbox, Spoken
from edgerm.core.errors import EdgermError
from edgerm.core.instant import Instant

V_contra = TypeVar("V_contra", contravariant=True)
V = TypeVar("V")
E = TypeVar("E", bound=Spoken)
Taker = Callable[[Any], None]
Write = Callable[[Sequence[Change]], None]

log = logs.get("shell")


class Core(Protocol[V_contra]):
    """What a core is to its shell; see `edgerm.core.effects` for the duties of both."""

    def handle(self, event: V_contra, now: Instant) -> Iterable[Any]:
        """Let `event` happen; answers effects: changes of records, and what is to be said."""

    def due_s(self) -> float | None:
        """When to hand in a tick (steady seconds), or None."""


C = TypeVar("C", bound=Core[Any])


class Shell(Generic[C, V]):
    """Runs a core. Everything but the writing happens in the event loop's thread; `post` is synchronous.

    `write` makes a batch durable or raises; it is called in a thread of its own. When it raises, or the core breaks
    one of its own rules, `failed` becomes done with that error and nothing more happens or is said. `tick` is the
    event that the core wants when its deadline has come.
    """

    def __init__(self, core: C, write: Write, tick: V) -> None:
        self.core = core
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._loop = asyncio.get_running_loop()
        self._write = write
        self._tick_event = tick
        # Loop and writer hand each other short work many times a second: Python's 5 ms would be most of the wait.
        sys.setswitchinterval(0.0005)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._outbox: Outbox[Spoken] = Outbox()
        self._takers: dict[type, list[Taker]] = {}
        self._events: deque[V] = deque()
        self._busy = self._closed = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_s: float | None = None
        self._drained = asyncio.Event()

    # --- what edges use ---

    def now(self) -> Instant:
        """This moment; the steady part is the event loop's clock."""
        return Instant(self._loop.time(), time.time())

    def on(self, kind: type[E], take: Callable[[E], None]) -> None:
        """From now on `take` is given every effect of this kind, after those who asked for it before."""
        self._takers.setdefault(kind, []).append(take)

    def post(self, event: V) -> None:
        """Let `event` happen now; when called from within an effect, right after it. After `close` nothing happens."""
        self._events.append(event)
        if not self._busy:
            self._run()

    @property
    def closed(self) -> bool:
        """Whether events are taken no more."""
        return self._closed

    # --- the loop ---

    def start(self, effects: Iterable[Any] = ()) -> None:
        """Begin: carry out what recovery led to, and set the first timer."""
        self._busy = True
        try:
            self._take(effects)
        finally:
            self._busy = False
        self._run()

    def _run(self) -> None:
        """Handle what was posted, one event after another, then start the next write and set the timer."""
        self._busy = True
        try:
            while self._events and not self._closed:
                self._take(self.core.handle(self._events.popleft(), self.now()))
            if not self.failed.done():
                self._persist()
            self._set_timer()
        except Exception as error:  # a broken rule of the core: its state can no longer be trusted
            self._fail(error)
        finally:
            self._busy = False

    def _take(self, effects: Iterable[Any]) -> None:
        for speech in self._outbox.add(effects):
            self._say(speech)

    def _say(self, speech: Spoken) -> None:
        for take in self._takers[type(speech)]:
            take(speech)

    def _persist(self) -> None:
        batch = self._outbox.take_batch()
        if batch:
            self._writer.submit(self._write, batch).add_done_callback(self._from_writer)
        elif self._closed and self._outbox.idle:
            self._drained.set()

    def _from_writer(self, done: Future[None]) -> None:
        """In the writer's thread: hand over to the loop, which is gone only when the process ends."""
        self._loop.call_soon_threadsafe(self._written, done)

    def _written(self, done: Future[None]) -> None:
        error = done.exception()
        if error is not None:
            self._fail(error)
            return
        self._busy = True
        try:
            for speech in self._outbox.committed():
                self._say(speech)
        except Exception as broken:  # what was not said now would never be said
            self._fail(broken)
        finally:
            self._busy = False
        self._run()

    def _set_timer(self) -> None:
        due_s = None if self._closed else self.core.due_s()
        if due_s == self._timer_s:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_s = due_s
        self._timer = None if due_s is None else self._loop.call_at(due_s, self._tick)

    def _tick(self) -> None:
        self._timer = self._timer_s = None
        self.post(self._tick_event)

    # --- the end ---

    def _fail(self, error: BaseException) -> None:
        self._closed = True
        self._events.clear()
        self._drained.set()
        if not isinstance(error, EdgermError):
            log.error("a rule of our own is broken: stopping", exc_info=error)
        if not self.failed.done():
            self.failed.set_exception(error)

    async def close(self) -> None:
        """Take no more events, write what is left, end the thread."""
        self._closed = True
        self._set_timer()
        if not self.failed.done():
            self._persist()
            await self._drained.wait()
        self._writer.shutdown(wait=False)
        if not self.failed.done():
            self.failed.cancel()
