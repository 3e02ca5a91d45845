"""An open standard input: what there is no room for waits, what was taken is skipped, nothing is written twice."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgerm_agent.keeper import protocol
from edgerm_agent.keeper.feeding import Feed
from edgerm_agent.keeper.loop import Loop
from edgerm_agent.keeper.protocol import Refused
from edgerm_agent.keeper.server import Request


class Put:
    """A request, and what it was answered."""

    def __init__(self, offset: int, data: bytes = b"", *, end: bool = False, wait_s: float = 60.0) -> None:
        self.body = {"offset": offset, "end": end, "wait_s": wait_s}
        self.payload = data
        self.gone = False
        self.answer: object = None

    def reply(self, body: dict[str, Any]) -> None:
        """As `Request.reply`."""
        self.answer = (body["offset"], body["closed"])

    def fail(self, code: str, message: str) -> None:
        """As `Request.fail`."""
        self.answer = code


class Task:
    """The reading end of a feed, and the loop that it is in."""

    def __init__(self, source: int | None = None) -> None:
        self.loop = Loop()
        self.read_end, write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.feed = Feed(self.loop, write_end, source)

    def put(self, *args: Any, **fields: Any) -> Put:
        """Ask; what can be done at once is done."""
        put = Put(*args, **fields)
        self.feed.put(cast("Request", put))
        return put

    def read(self) -> bytes:
        """All that is in the pipe now; then the loop has a turn."""
        data = b""
        try:
            while part := os.read(self.read_end, 1 << 20):
                data += part
        except BlockingIOError:
            pass
        self.turn()
        return data

    def turn(self) -> None:
        """Let the loop do what is due."""
        self.loop.later(0.005, self.loop.stop)
        self.loop._running = True
        self.loop.run()

    def close(self) -> None:
        """Free it."""
        self.feed.close()
        self.loop.close()
        os.close(self.read_end)


@pytest.fixture
def task() -> Iterator[Task]:
    """A task that reads when it is told to."""
    made = Task()
    yield made
    made.close()


@given(st.lists(st.tuples(st.integers(0, 40), st.binary(max_size=30)), max_size=20))
def test_each_byte_once(pieces: list[tuple[int, bytes]]) -> None:
    """Whatever comes again is skipped, whatever leaves a gap is refused: the task reads one unbroken row."""
    task, expected = Task(), b""
    for offset, data in pieces:
        if offset > len(expected):
            with pytest.raises(Refused, match="has come to byte"):
                task.put(offset, data)
            continue
        expected += data[len(expected) - offset :]
        assert task.put(offset, data).answer == (len(expected), False)
    assert task.read() == expected
    task.close()


def test_a_full_pipe(task: Task) -> None:
    """What a full pipe has no room for waits, and goes on when the task reads."""
    first = task.put(0, bytes(1 << 20))
    assert isinstance(first.answer, tuple)
    taken = first.answer[0]
    assert 0 < taken < 1 << 20
    second, third = task.put(taken, b"x" * 10), task.put(taken, b"x" * 20, end=True)
    assert [second.answer, third.answer] == [None, None]
    assert task.read() == bytes(taken)
    assert (second.answer, third.answer) == ((taken + 10, False), (taken + 20, True))
    assert task.read() == b"x" * 20
    assert os.read(task.read_end, 1) == b""


def test_a_wait_that_is_over(task: Task) -> None:
    """A request is answered how far the task is when its time is over, and nothing is written for it later."""
    taken = cast("tuple[int, bool]", task.put(0, bytes(1 << 20)).answer)[0]
    late = task.put(taken, b"late", wait_s=0)
    gone = task.put(taken, b"gone")
    gone.gone = True
    task.feed.forget_gone()
    task.turn()
    assert (late.answer, gone.answer) == ((taken, False), None)
    assert task.read() == bytes(taken)
    assert task.read() == b""


def test_the_end(task: Task) -> None:
    """An input is closed once; the end may be asked for again, and bytes after it are refused."""
    assert task.put(0, b"abc", end=True).answer == (3, True)
    assert task.put(3, end=True).answer == (3, True)
    assert task.put(0, b"abc").answer == (3, True)
    assert task.put(3, b"d").answer == protocol.NOT_FOUND
    assert task.read() == b"abc"


def test_a_task_that_does_not_read_any_more(task: Task) -> None:
    """When the task has closed its end, who waits and who comes is told."""
    taken = cast("tuple[int, bool]", task.put(0, bytes(1 << 20)).answer)[0]
    waits = task.put(taken, b"x")
    os.close(task.read_end)
    task.read_end = os.open(os.devnull, os.O_RDONLY)
    task.read()
    assert waits.answer == protocol.NOT_FOUND
    assert task.put(taken, b"x").answer == protocol.NOT_FOUND


def test_a_file_comes_first(tmp_path: Path) -> None:
    """What the file holds comes before what is written, however large it is."""
    file = tmp_path / "input"
    file.write_bytes(os.urandom(300_000))
    task = Task(os.open(file, os.O_RDONLY))
    waits = task.put(0, b"live", end=True)
    assert waits.answer is None
    data = b""
    while not data.endswith(b"live"):
        data += task.read()
    assert data == file.read_bytes() + b"live"
    assert waits.answer == (4, True)
    task.close()


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    """When the disk fails under the first file the input ends there, and the keeper and its other tasks live on."""
    task = Task(os.open(tmp_path, os.O_RDONLY | os.O_CLOEXEC))  # reading a directory fails as a bad disk does
    assert task.feed.closed
    assert task.put(0, b"x").answer == protocol.NOT_FOUND
    task.close()
