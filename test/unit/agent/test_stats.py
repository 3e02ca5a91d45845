"""What tasks use: measured over an interval, shared, cut into frames."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgerm.core.errors import Unavailable
from edgerm.core.ids import FrameworkId, LaunchId, TaskId, TaskKey
from edgerm.core.link import COAP, HTTP, Carrier, Credit, Data, OpenStats, Stats, TaskUsage, usage_bytes
from edgerm.plugin.executor import Handle, LaunchSpec, Usage
from edgerm.testing.executors import FakeExecutor, Script
from edgerm_agent import stats
from edgerm_agent.lane import LaneStream
from edgerm_agent.stats import Look, Usages, frames, rate

KEYS = st.builds(
    TaskKey,
    st.builds(FrameworkId, st.text(max_size=60)),
    st.builds(TaskId, st.text(max_size=400)),
    st.builds(LaunchId, st.text(max_size=40)),
)
USAGES = st.lists(st.builds(TaskUsage, KEYS, st.floats(0, 1e9), st.integers(0, 10**6), st.integers(0, 1 << 50)))
KEY = TaskKey(FrameworkId("f"), TaskId("t"), LaunchId("l"))


class Busy(FakeExecutor):
    """Tasks have used as much CPU as the event loop's clock says; one is never known, and one executor call fails."""

    def __init__(self) -> None:
        super().__init__(lambda spec: Script(exit=None), name="busy")
        self.asked: list[str] = []

    async def usage(self, handle: Handle) -> Usage | None:
        self.asked.append(handle.key.task_id)
        if handle.key.task_id == "unknown":
            return None
        if handle.key.task_id == "unavailable":
            raise Unavailable("the holder does not answer")
        if handle.key.task_id == "faulty":
            raise ValueError("a fault")
        if handle.key.task_id == "gone" and self.asked.count("gone") > 1:
            return None
        return Usage(2 * asyncio.get_running_loop().time(), 1 << 20)


class Reader:
    """A stream at whose other end somebody notes what comes."""

    def __init__(self) -> None:
        self.heard: list[Data | Stats] = []
        self.stream = LaneStream(0, self._hear)

    def _hear(self, body: Data | Stats | Credit) -> None:
        assert not isinstance(body, Credit)
        self.heard.append(body)
        asyncio.get_running_loop().call_soon(self.stream.turn.set)

    @property
    def tasks(self) -> list[TaskUsage]:
        """All that was told; the last frame says that it is the last."""
        told = [body for body in self.heard if isinstance(body, Stats)]
        assert [body.end for body in told] == [False] * (len(told) - 1) + [True]
        return [task for body in told for task in body.tasks]


async def measured(tmp_path: Path, *task_ids: str, carrier: Carrier = HTTP) -> tuple[Busy, Usages]:
    """An executor with these tasks, and who measures them."""
    executor = Busy()
    handles = []
    for task_id in task_ids:
        spec = LaunchSpec(KEY._replace(task_id=TaskId(task_id)), "x", ("x",), (), tmp_path)
        handles.append(await executor.start(spec))
    return executor, Usages({"busy": executor}, lambda: handles, lambda: carrier)


async def test_cpu_is_a_rate(tmp_path: Path) -> None:
    """CPU over the interval, memory as it is; what one executor call does not know leaves the others known."""
    _, usages = await measured(tmp_path, "a", "unknown", "unavailable", "faulty", "gone", "b")
    reader = Reader()
    await usages.send(OpenStats(0.1), reader.stream)
    assert [usage.key.task_id for usage in reader.tasks] == ["a", "b"]
    for usage in reader.tasks:
        assert usage.cpus_milli > 0
        assert usage.memory_bytes == 1 << 20


async def test_one_measurement_for_all(tmp_path: Path) -> None:
    """Whoever asks while a measurement is under way gets its result; who asks later gets a new one."""
    executor, usages = await measured(tmp_path, "a")
    readers = [Reader() for _ in range(3)]
    await asyncio.gather(*(usages.send(OpenStats(0.1), reader.stream) for reader in readers))
    assert executor.asked == ["a", "a"]
    assert len({reader.tasks[0] for reader in readers}) == 1
    await usages.send(OpenStats(0.1), readers[0].stream)
    assert executor.asked == ["a"] * 4


async def test_an_interval_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long or short an interval is asked for, a measurement takes a moment and not for ever."""
    monkeypatch.setattr(stats, "INTERVAL_S_MAX", 0.01)
    monkeypatch.setattr(stats, "INTERVAL_S_MIN", 0.005)
    _, usages = await measured(tmp_path, "a")
    for interval_s in (0.0, 1e9):
        async with asyncio.timeout(30):
            reader = Reader()
            await usages.send(OpenStats(interval_s), reader.stream)
        assert reader.tasks[0].cpus_milli > 0


async def test_whoever_leaves_stops_nobody_else(tmp_path: Path) -> None:
    """A stream that is closed while it waits leaves the measurement to the others; `close` ends it."""
    _, usages = await measured(tmp_path, "a")
    first, second = Reader(), Reader()
    leaving = asyncio.create_task(usages.send(OpenStats(0.1), first.stream))
    staying = asyncio.create_task(usages.send(OpenStats(0.1), second.stream))
    await asyncio.sleep(0)
    leaving.cancel()
    await staying
    assert len(second.tasks) == 1
    assert not first.heard
    waiting = asyncio.create_task(usages.send(OpenStats(10), first.stream))
    await asyncio.sleep(0)
    waiting.cancel()
    await usages.close()


async def test_a_long_answer_takes_many_frames(tmp_path: Path) -> None:
    """Each frame waits for the one before, and none is larger than what carries it."""
    _, usages = await measured(tmp_path, *(f"task-{number}" for number in range(100)), carrier=COAP)
    reader = Reader()
    await usages.send(OpenStats(0.1), reader.stream)
    assert len(reader.tasks) == 100
    assert len(reader.heard) > 5


def test_a_rate() -> None:
    """CPU seconds by the time that passed; a counter that went back counts as standing still."""
    assert rate(KEY, Look(1.0, Usage(5.0, 7)), Look(3.0, Usage(8.0, 9))) == TaskUsage(KEY, 8.0, 1500, 9)
    assert rate(KEY, Look(1.0, Usage(5.0, 7)), Look(2.0, Usage(4.0, 9))) == TaskUsage(KEY, 4.0, 0, 9)
    assert rate(KEY, Look(1.0, Usage(5.0, 7)), Look(1.0, Usage(6.0, 9))) == TaskUsage(KEY, 6.0, 0, 9)


@given(USAGES, st.integers(64, 2000))
def test_frames_fit(usages: list[TaskUsage], data_bytes: int) -> None:
    """All tasks that fit any frame are told once, in order; no frame is too large, the last says so and no other."""
    told = list(frames(usages, data_bytes))
    assert [frame.end for frame in told] == [False] * (len(told) - 1) + [True]
    for frame in told:
        assert stats.FRAME_BYTES + sum(map(usage_bytes, frame.tasks)) <= data_bytes
    fitting = [usage for usage in usages if usage_bytes(usage) <= data_bytes - stats.FRAME_BYTES]
    assert [task for frame in told for task in frame.tasks] == fitting
