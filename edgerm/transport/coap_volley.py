"""Many numbered requests over a lossy path: non-confirmable, several in flight, each repeated until it is answered.

What lives here: who is sent when, and again when. What does not: how many at a time (`coap_window`), what is asked.
A repetition is a request of its own, so an answer tells which try it belongs to; late ones count as well.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from edgerm.core.errors import Unavailable
from edgerm.transport.coap_dial import Forget, Request, Socket
from edgerm.transport.coap_values import CoapReply
from edgerm.transport.coap_window import Window

SILENCE_S: Final = 30.0  # without any answer for so long the path is down
SENT_MAX: Final = 60_000  # by one socket: message ids repeat after 65,536, and servers remember them for 247 s
TRIES_KEPT: Final = 4  # of one request, whose answers are still welcome
SOCKETS_KEPT: Final = 2  # answers to what the one before has sent may still come
COPIES_MAX: Final = 2  # of one request, in flight


@dataclass(slots=True)
class _Try:
    number: int
    sent_s: float
    socket: Socket
    forget: Forget
    over: bool = False  # answered, or so late that a repetition takes its place


class Volley:
    """`async with Volley(…) as volley:` sends the requests `ask(first)` up to `ask(end - 1)`; `end` may be raised.

    Its sockets are its own, opened by `open_socket`.
    """

    def __init__(
        self, open_socket: Callable[[], Awaitable[Socket]], ask: Callable[[int], Request], first: int, end: int
    ) -> None:
        self._open_socket = open_socket
        self._ask = ask
        self._next = first
        self._end = end
        self._again: list[int] = []  # a heap: the lowest numbers first, the others may have to wait for them
        self._in_flight: deque[_Try] = deque()  # in the order of sending; those that are over go when they come first
        self._waiting = 0  # of those, how many are not over
        self._tries: dict[int, list[_Try]] = {}  # of requests without an answer
        self._window = Window()
        self._sockets: list[Socket] = []
        self._replies: deque[tuple[int, CoapReply]] = deque()
        self._came = asyncio.Event()
        self._wake = asyncio.Event()
        self._failed: Exception | None = None
        self._loop = asyncio.get_running_loop()
        self._heard_s = self._loop.time()

    async def __aenter__(self) -> Volley:
        self._pump = asyncio.create_task(self._run(), name="CoAP volley")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._pump.cancel()
        await asyncio.gather(self._pump, return_exceptions=True)
        self._tries.clear()
        for socket in self._sockets:
            await socket.close()

    def allow(self, end: int) -> None:
        """Requests below `end` may be sent."""
        if end > self._end:
            self._end = end
            self._wake.set()

    async def reply(self) -> tuple[int, CoapReply]:
        """The next answer, each number's once, in the order in which they come; raises `Unavailable`."""
        while not self._replies:
            if self._failed is not None:
                raise self._failed
            self._came.clear()
            await self._came.wait()
        return self._replies.popleft()

    async def _run(self) -> None:
        try:
            while True:
                self._wake.clear()
                self._expire(self._loop.time())
                while self._window.room(self._waiting) and (number := self._choose()) is not None:
                    self._send(number, await self._socket())
                with suppress(TimeoutError):
                    async with asyncio.timeout_at(self._due_s()):
                        await self._wake.wait()
        except Exception as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        self._failed = self._failed or error
        self._came.set()

    def _choose(self) -> int | None:
        while self._again:
            if (number := heapq.heappop(self._again)) in self._tries:
                return number
        if self._next < self._end:
            self._next += 1
            return self._next - 1
        return self._spare() if self._window.lossy else None

    def _spare(self) -> int | None:
        """There is room and nothing else to send: a second copy of what may be lost is sooner than its repetition."""
        single = (number for number, tries in self._tries.items() if sum(not one.over for one in tries) < COPIES_MAX)
        return min(single, default=None)

    async def _socket(self) -> Socket:
        if not self._sockets or self._sockets[-1].sent >= SENT_MAX:
            self._sockets.append(await self._open_socket())
            if len(self._sockets) > SOCKETS_KEPT:
                await self._sockets.pop(0).close()
        return self._sockets[-1]

    def _send(self, number: int, socket: Socket) -> None:
        tries = self._tries.setdefault(number, [])
        if len(tries) >= TRIES_KEPT:
            tries.pop(0).forget()
        if not self._waiting:
            self._heard_s = self._loop.time()  # nothing was to be heard before
        attempt = _Try(number, self._loop.time(), socket, lambda: None)
        tries.append(attempt)
        self._in_flight.append(attempt)
        self._waiting += 1
        attempt.forget = socket.send(self._ask(number), lambda heard: self._hear(attempt, heard))

    def _hear(self, attempt: _Try, heard: CoapReply | Unavailable) -> None:
        if (tries := self._tries.get(attempt.number)) is None:
            return
        if isinstance(heard, Unavailable):
            if attempt.socket in self._sockets:  # else it was closed: the request is repeated from another one
                self._fail(heard)
            return
        now_s = self._heard_s = self._loop.time()
        self._window.answered(now_s - attempt.sent_s, now_s)
        del self._tries[attempt.number]
        for other in tries:
            if other is not attempt:
                other.forget()
            if not other.over:
                other.over = True
                self._waiting -= 1
        self._replies.append((attempt.number, heard))
        self._came.set()
        self._wake.set()

    def _expire(self, now_s: float) -> None:
        while self._in_flight and (self._in_flight[0].over or self._in_flight[0].sent_s + self._window.rto_s <= now_s):
            attempt = self._in_flight.popleft()
            if not attempt.over:
                attempt.over = True
                self._waiting -= 1
                self._window.lost(now_s)
                heapq.heappush(self._again, attempt.number)
        if self._tries and now_s > self._heard_s + SILENCE_S:
            raise Unavailable(f"no answer from {self._sockets[-1].address} for {SILENCE_S:.0f} s")

    def _due_s(self) -> float | None:
        return self._in_flight[0].sent_s + self._window.rto_s if self._in_flight else None
