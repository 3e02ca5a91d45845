"""Blocking work beside the event loop: a few daemon threads for calls, one of its own for each long answer.

Daemon threads, because a call that hangs must not hold up the agent's end; the standard pool would wait for it.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Protocol, TypeAlias, TypeVar

from edgerm.core.errors import EdgermError

T = TypeVar("T")
Item_contra = TypeVar("Item_contra", contravariant=True)
Out_co = TypeVar("Out_co", covariant=True)
Job: TypeAlias = Callable[[], None]


class Threads:
    """At most `most` calls at once; further ones wait for their turn."""

    def __init__(self, name: str, most: int) -> None:
        self._name = name
        self._most = most
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._started = 0
        self._busy = 0

    async def run(self, work: Callable[[], T]) -> T:
        """The result of `work`, which goes on even if the caller does not wait for it."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def job() -> None:
            try:
                result = work()
            except BaseException as error:
                _tell(loop, partial(self._done, partial(_fail, future, error)))
            else:
                _tell(loop, partial(self._done, partial(_set, future, result)))

        self._busy += 1
        if self._busy > self._started < self._most:
            self._started += 1
            threading.Thread(target=self._serve, name=f"{self._name}-{self._started}", daemon=True).start()
        self._jobs.put(job)
        return await future

    def _done(self, settle: Job) -> None:
        self._busy -= 1
        settle()

    def close(self) -> None:
        """The threads end after their present call."""
        for _ in range(self._started):
            self._jobs.put(None)
        self._started = self._most  # start no more

    def _serve(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()


def _set(future: asyncio.Future[T], result: T) -> None:
    if not future.cancelled():
        future.set_result(result)


def _fail(future: asyncio.Future[T], error: BaseException) -> None:
    if not future.cancelled():
        future.set_exception(error)


def _tell(loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
    with suppress(RuntimeError):  # the loop has ended: nobody waits
        loop.call_soon_threadsafe(callback)


class Reader(Protocol[Item_contra]):
    """Who reads a long answer. All of it is called by the feed's thread."""

    def opened(self) -> None:
        """The answer has begun."""

    def take(self, item: Item_contra, /) -> None:
        """The next part; may block, to slow the other end down."""

    def ended(self, error: EdgermError | None) -> None:
        """No more will come; None also where the connection was cut."""


class Answer(Protocol[Out_co]):
    """A long answer: an iterator that another thread may close."""

    def __iter__(self) -> Iterator[Out_co]: ...

    def close(self) -> None:
        """End the answer, and the iteration with it."""


class Feed:
    """A long answer on its way to its reader; `open_` begins it, `translate` makes its errors ours."""

    def __init__(
        self,
        name: str,
        open_: Callable[[], Answer[T]],
        reader: Reader[T],
        translate: Callable[[Exception], EdgermError],
    ) -> None:
        self._lock = threading.Lock()
        self._answer: Answer[object] | None = None
        self._closed = False

        def work() -> None:
            error: EdgermError | None = None
            try:
                self._copy(open_(), reader)
            except Exception as failure:
                error = None if self._closed else translate(failure)
            reader.ended(error)

        threading.Thread(target=work, name=name, daemon=True).start()

    def close(self) -> None:
        """No more is wanted; `ended` follows."""
        with self._lock:
            self._closed = True
            if self._answer is not None:
                _close(self._answer)

    def _copy(self, answer: Answer[T], reader: Reader[T]) -> None:
        with self._lock:
            self._answer = answer
        try:
            if self._closed:
                return
            reader.opened()
            for item in answer:
                if self._closed:
                    return
                reader.take(item)
        finally:
            with self._lock:
                self._answer = None
                _close(answer)


def _close(answer: Answer[object]) -> None:
    with suppress(Exception):  # of a connection that is dead already
        answer.close()


class ToLoop(Reader[T]):
    """Hands everything to the event loop's thread."""

    def __init__(
        self,
        take: Callable[[T], None],
        ended: Callable[[EdgermError | None], None],
        opened: Callable[[], None] = lambda: None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._opened, self._take, self._ended = opened, take, ended

    def opened(self) -> None:
        _tell(self._loop, self._opened)

    def take(self, item: T, /) -> None:
        _tell(self._loop, lambda: self._take(item))

    def ended(self, error: EdgermError | None) -> None:
        _tell(self._loop, lambda: self._ended(error))
