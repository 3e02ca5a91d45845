"""A small event loop: file descriptors, timers, calls from other threads. asyncio would triple the keeper's memory."""

from __future__ import annotations

import heapq
import os
import selectors
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

Callback = Callable[[], None]


class Timer:
    """A call to come; `cancel` makes it none."""

    __slots__ = ("callback",)

    def __init__(self, callback: Callback) -> None:
        self.callback: Callback | None = callback

    def cancel(self) -> None:
        """The call will not happen."""
        self.callback = None


class Loop:
    """Runs call-backs of one thread until `stop`."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Timer]] = []
        self._count = 0
        self._calls: deque[Callback] = deque()
        self._running = True
        self._wake_read, self.wake_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.watch(self._wake_read, self._drain_wake)

    def watch(self, fd: int, on_read: Callback, on_write: Callback | None = None) -> None:
        """Call `on_read` while `fd` is readable, and `on_write`, if given, while it is writable."""
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if on_write else 0)
        if self._selector.get_map().get(fd):
            self._selector.modify(fd, events, (on_read, on_write))
        else:
            self._selector.register(fd, events, (on_read, on_write))

    def unwatch(self, fd: int) -> None:
        """Must come before `fd` is closed."""
        self._selector.unregister(fd)

    @staticmethod
    def now() -> float:
        """The monotonic clock, in seconds."""
        return time.monotonic()

    def later(self, delay_s: float, callback: Callback) -> Timer:
        """Call `callback` in `delay_s`, on the monotonic clock."""
        timer = Timer(callback)
        self._count += 1
        heapq.heappush(self._timers, (time.monotonic() + delay_s, self._count, timer))
        if self._count % 256 == 0:  # cancelled ones that lie far ahead must not pile up
            self._timers = [entry for entry in self._timers if entry[2].callback]
            heapq.heapify(self._timers)
        return timer

    def call_threadsafe(self, callback: Callback) -> None:
        """Call `callback` in the loop's thread, soon; the one method that other threads may use."""
        self._calls.append(callback)
        with suppress(BlockingIOError):  # a full pipe wakes as well
            os.write(self.wake_fd, b"\0")

    def stop(self) -> None:
        """`run` returns after the present call-back."""
        self._running = False

    def close(self) -> None:
        """Free the loop's own descriptors."""
        self._selector.close()
        os.close(self._wake_read)
        os.close(self.wake_fd)

    def run(self) -> None:
        """Serve until `stop`."""
        while self._running:
            for key, events in self._selector.select(self._run_timers()):
                on_read, on_write = key.data
                if events & selectors.EVENT_WRITE and on_write and self._is_current(key):
                    on_write()
                if events & selectors.EVENT_READ and self._is_current(key):
                    on_read()

    def _is_current(self, key: selectors.SelectorKey) -> bool:
        """Whether no earlier call-back of this round closed the descriptor or watched it anew."""
        now = self._selector.get_map().get(key.fd)
        return now is not None and now.data is key.data and self._running

    def _run_timers(self) -> float | None:
        while self._timers and self._running:
            when, _, timer = self._timers[0]
            if timer.callback and when > time.monotonic():
                return max(0.0, when - time.monotonic())
            heapq.heappop(self._timers)
            if timer.callback:
                timer.callback()
        return None if self._running else 0

    def _drain_wake(self) -> None:
        with suppress(BlockingIOError):
            while len(os.read(self._wake_read, 4096)) == 4096:
                pass
        for _ in range(len(self._calls)):
            self._calls.popleft()()
