"""The keeper's event loop: descriptors, timers, and calls from other threads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from threading import Thread

import pytest

from edgerm_agent.keeper.loop import Loop


@pytest.fixture
def loop() -> Iterator[Loop]:
    """A loop whose descriptors are closed afterwards."""
    made = Loop()
    yield made
    made.close()


def test_timers_run_in_their_order(loop: Loop) -> None:
    """Timers run by time, equal ones as they were set, cancelled ones never."""
    told: list[str] = []
    loop.later(0.02, loop.stop)
    loop.later(0.01, lambda: told.append("late"))
    loop.later(0, lambda: told.append("first"))
    loop.later(0, lambda: told.append("never")).cancel()
    loop.later(0, lambda: told.append("second"))
    loop.run()
    assert told == ["first", "second", "late"]


def test_cancelled_timers_do_not_pile_up(loop: Loop) -> None:
    """Setting and cancelling timers that lie far ahead takes bounded memory."""
    for _ in range(10_000):
        loop.later(1000, loop.stop).cancel()
    assert len(loop._timers) <= 512


def test_other_threads_can_call(loop: Loop) -> None:
    """Each call from another thread is made once, in order, even when the wake-up pipe is full."""
    told: list[int] = []

    def many() -> None:
        for number in range(100_000):
            loop.call_threadsafe(lambda number=number: told.append(number))  # type: ignore[misc]
        loop.call_threadsafe(loop.stop)

    thread = Thread(target=many)
    thread.start()
    thread.join()
    loop.run()
    assert told == list(range(100_000))


def test_a_descriptor_closed_in_its_round_is_not_called(loop: Loop) -> None:
    """When the first of two ready descriptors closes the second, the second's call-back is not made."""
    pipes = [os.pipe() for _ in range(2)]
    called: list[int] = []

    def close_other(own: int) -> None:
        called.append(own)
        other = pipes[1 - own][0]
        loop.unwatch(other)
        loop.unwatch(pipes[own][0])
        loop.stop()

    for number, (read, write) in enumerate(pipes):
        loop.watch(read, lambda number=number: close_other(number))  # type: ignore[misc]
        os.write(write, b"x")
    loop.run()
    assert len(called) == 1
    for fd in (fd for pipe in pipes for fd in pipe):
        os.close(fd)
