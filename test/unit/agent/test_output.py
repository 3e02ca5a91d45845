"""Tasks' output on its way to the master: credit, turns, ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from edgerm.core.errors import NotFound
from edgerm.core.ids import FrameworkId, LaunchId, TaskId, TaskKey
from edgerm.core.link import COAP, HTTP, Close, Credit, Data, Frame, OpenInput, OpenLog, OpenStats
from edgerm.plugin.executor import Chunk, Exit, Handle, LaunchSpec
from edgerm.testing.executors import FakeExecutor, Script
from edgerm_agent import lane as module
from edgerm_agent.core.effects import FramesIn
from edgerm_agent.core.events import Event, SendFrame
from edgerm_agent.lane import Lane, LaneStream
from edgerm_agent.output import Outputs
from edgerm_agent.sandboxes import Sandboxes

KEY = TaskKey(FrameworkId("f"), TaskId("t"), LaunchId("l"))


class NoUsages:
    """Nobody asks."""

    async def send(self, opened: OpenStats, stream: LaneStream) -> None:
        """Not here."""
        raise AssertionError(opened)


class NoInputs:
    """Nobody writes."""

    async def send(self, opened: OpenInput, stream: LaneStream) -> None:
        """Not here."""
        raise AssertionError(opened)


class Master:
    """The master's end: answers a beat whenever a frame comes, or when a test says so."""

    def __init__(self, outputs: Outputs) -> None:
        self.frames: asyncio.Queue[Frame] = asyncio.Queue()
        self.unheard: list[Frame] = []
        self.answers = True
        self.lane = Lane(outputs, NoUsages(), NoInputs(), lambda: self.unheard)
        self.lane.begin(self._take)

    def _take(self, event: Event) -> None:
        assert isinstance(event, SendFrame)
        self.unheard.append(event.frame)
        self.frames.put_nowait(event.frame)
        if self.answers:
            asyncio.get_running_loop().call_soon(self.answer)

    def answer(self, *, carried: bool = True) -> None:
        """A beat is answered, and it carried all frames, or none."""
        if carried:
            self.unheard.clear()
        self.lane.answered()

    def send(self, body: OpenLog | Credit | Close, stream: int = 1) -> None:
        """A frame to the agent."""
        self.lane.take(FramesIn((Frame(stream, body),)))

    async def next(self) -> Data | Close:
        """What the next frame says."""
        async with asyncio.timeout(20):
            body = (await self.frames.get()).body
        assert isinstance(body, Data | Close)
        return body


class Box:
    """One running task and what serves its output."""

    def __init__(self, executor: FakeExecutor, sandboxes: Sandboxes, handle: Handle) -> None:
        self.executor, self.sandboxes = executor, sandboxes
        self.handle: Handle | None = handle
        self.carrier = HTTP
        outputs = Outputs({"fake": executor}, sandboxes, self._find, lambda: self.carrier)
        self.master = Master(outputs)

    def _find(self, key: TaskKey) -> Handle | None:
        return self.handle if key == KEY else None


@pytest_asyncio.fixture
async def box(tmp_path: Path) -> AsyncIterator[Box]:
    """A task that has written 100 bytes."""
    executor = FakeExecutor(lambda spec: Script(exit=None), name="fake")
    sandboxes = Sandboxes(tmp_path / "s", 1.0, 1, tuple)
    spec = LaunchSpec(KEY, "x", ("x",), (), sandboxes.make(KEY))
    handle = await executor.start(spec)
    executor.write(KEY, "stdout", bytes(range(100)))
    made = Box(executor, sandboxes, handle)
    yield made
    await made.master.lane.close()


async def test_credit_bounds_what_is_sent(box: Box) -> None:
    """No more bytes than granted are sent; the rest follows with the next credit."""
    box.master.send(OpenLog(KEY, False, 0, True, 30))
    assert await box.master.next() == Data(0, bytes(range(30)))
    box.master.send(Credit(20))
    assert await box.master.next() == Data(30, bytes(range(30, 50)))
    box.master.send(Credit(1000))
    assert await box.master.next() == Data(50, bytes(range(50, 100)))


async def test_following_to_the_end(box: Box) -> None:
    """A followed output goes on as the task writes, and ends with the task."""
    box.master.send(OpenLog(KEY, False, -10, True, 1000))
    assert await box.master.next() == Data(90, bytes(range(90, 100)))
    box.executor.write(KEY, "stdout", b"more")
    assert await box.master.next() == Data(100, b"more")
    box.executor.end(KEY, Exit(code=0))
    assert await box.master.next() == Data(104, b"", True)


async def test_a_credit_of_nothing_is_answered(box: Box) -> None:
    """The master hears that a silent stream lives, and from where it goes on; nothing is sent twice or left out."""
    box.master.send(OpenLog(KEY, False, 40, True, 1000))
    assert await box.master.next() == Data(40, bytes(range(40, 100)))
    box.master.send(Credit(0))
    assert await box.master.next() == Data(100, b"")
    box.executor.write(KEY, "stdout", b"more")
    assert await box.master.next() == Data(100, b"more")


async def test_a_look_ends_where_the_output_is(box: Box) -> None:
    """Without following, the stream ends at the present end although the task runs."""
    box.master.send(OpenLog(KEY, False, 95, False, 1000))
    assert await box.master.next() == Data(95, bytes(range(95, 100)))
    assert await box.master.next() == Data(100, b"", True)


async def test_output_after_the_end(box: Box) -> None:
    """What was kept of a task that has ended is read by the same offsets, also when its executor has forgotten it."""
    box.sandboxes.save(KEY, "stdout", Chunk(50, b"kept", True))
    box.executor.end(KEY, Exit(code=0))
    assert box.handle is not None
    await box.executor.release(box.handle)
    for handle in (box.handle, None):
        box.handle = handle
        box.master.send(OpenLog(KEY, False, 0, False, 1000))
        assert await box.master.next() == Data(50, b"kept", True)


async def test_a_task_that_nobody_knows(box: Box) -> None:
    """The output of an unknown task is closed with a word that says so."""
    box.master.send(OpenLog(KEY._replace(task_id=TaskId("other")), False, 0, True, 1000))
    closed = await box.master.next()
    assert isinstance(closed, Close)
    assert closed.reason.startswith("not found")


async def test_a_task_that_has_not_started(box: Box, tmp_path: Path) -> None:
    """A task without a process yet is told as such."""

    def find(key: TaskKey) -> Handle | None:
        raise NotFound("task t has not started yet")

    lane = Master(Outputs({}, box.sandboxes, find, lambda: HTTP))
    lane.send(OpenLog(KEY, False, 0, True, 1000))
    assert await lane.next() == Close("not found: task t has not started yet")


async def test_streams_are_bounded(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound a stream is refused; when one is closed there is room again."""
    monkeypatch.setattr(module, "STREAMS_MAX", 1)
    box.master.send(OpenLog(KEY, False, 0, True, 10))
    assert isinstance(await box.master.next(), Data)
    box.master.send(OpenLog(KEY, False, 0, True, 10), stream=2)
    refused = await box.master.next()
    assert isinstance(refused, Close)
    box.master.send(Close(""))
    box.master.send(OpenLog(KEY, False, 0, True, 10), stream=3)
    assert isinstance(await box.master.next(), Data)


async def test_a_silent_master_is_left(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream whose credit is used up is dropped when the master says nothing for too long."""
    monkeypatch.setattr(module, "DEADLINE_S", 0.01)
    box.master.send(OpenLog(KEY, False, 0, True, 10))
    assert isinstance(await box.master.next(), Data)
    assert isinstance(await box.master.next(), Close)


async def test_frames_fit_what_carries_them(box: Box) -> None:
    """No frame has more bytes than the carrier takes at once, also when it changes under way."""
    box.executor.write(KEY, "stdout", bytes(2900))
    box.carrier = COAP
    box.master.send(OpenLog(KEY, False, 0, True, 10_000))
    sizes = []
    for _ in range(2):
        data = await box.master.next()
        assert isinstance(data, Data)
        sizes.append(len(data.data))
    box.carrier = HTTP
    last = await box.master.next()
    assert isinstance(last, Data)
    assert [*sizes, len(last.data)] == [800, 800, 1400]


async def test_one_frame_of_a_stream_is_under_way(box: Box) -> None:
    """Answers to beats that did not carry a stream's frame leave it waiting; the one that did lets it go on."""
    box.master.answers = False
    box.carrier = COAP
    box.executor.write(KEY, "stdout", bytes(2000))
    box.master.send(OpenLog(KEY, False, 0, True, 10_000))
    assert isinstance(await box.master.next(), Data)
    for _ in range(3):
        box.master.answer(carried=False)
        await asyncio.sleep(0)
    assert box.master.frames.empty()
    box.master.answer()
    second = await box.master.next()
    assert isinstance(second, Data)
    assert second.offset == 800
