"""What tasks use, measured when the master asks: CPU over an interval, and memory.

What does not live here: how an executor knows (`executors/`), the stream (`lane.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from edgerm import logs
from edgerm.core.errors import EdgermError
from edgerm.core.ids import TaskKey
from edgerm.core.link import Carrier, OpenStats, Stats, TaskUsage, usage_bytes
from edgerm.plugin.executor import Executor, Handle, Usage
from edgerm_agent.lane import LaneStream

INTERVAL_S_MIN, INTERVAL_S_MAX = 0.1, 10.0
ASKED_AT_ONCE = 16
ANSWER_S = 3.0  # an executor that takes longer does not know
FRAME_BYTES = 32  # of a frame without tasks

log = logs.get("agent.stats")


class Look(NamedTuple):
    """What a task had used at a moment (steady seconds)."""

    at_s: float
    usage: Usage


class Usages:
    """Measures; whoever asks while a measurement is under way gets its result. `live` tells the tasks that run."""

    def __init__(
        self,
        executors: Mapping[str, Executor],
        live: Callable[[], Iterable[Handle]],
        carrier: Callable[[], Carrier],
    ) -> None:
        self._executors = executors
        self._live = live
        self._carrier = carrier
        self._under_way: asyncio.Task[list[TaskUsage]] | None = None

    async def send(self, opened: OpenStats, stream: LaneStream) -> None:
        """See `lane.Usages`."""
        if self._under_way is None or self._under_way.done():
            interval_s = min(max(opened.interval_s, INTERVAL_S_MIN), INTERVAL_S_MAX)
            self._under_way = asyncio.create_task(self._measure(interval_s), name="stats")
        usages = await asyncio.shield(self._under_way)
        for frame in frames(usages, self._carrier().data_bytes):
            await stream.had_turn()
            stream.say(frame)

    async def close(self) -> None:
        """End what is under way."""
        if self._under_way is not None:
            self._under_way.cancel()
            await asyncio.gather(self._under_way, return_exceptions=True)

    async def _measure(self, interval_s: float) -> list[TaskUsage]:
        handles = list(self._live())
        before = await self._look(handles)
        await asyncio.sleep(interval_s)
        after = await self._look([handle for handle in handles if handle.key in before])
        return [rate(key, before[key], look) for key, look in after.items()]

    async def _look(self, handles: Sequence[Handle]) -> dict[TaskKey, Look]:
        loop = asyncio.get_running_loop()
        gate = asyncio.Semaphore(ASKED_AT_ONCE)
        looks: dict[TaskKey, Look] = {}

        async def look(handle: Handle) -> None:
            async with gate:
                usage = await self._usage(handle)
            if usage is not None:
                looks[handle.key] = Look(loop.time(), usage)

        await asyncio.gather(*map(look, handles))
        return looks

    async def _usage(self, handle: Handle) -> Usage | None:
        try:
            async with asyncio.timeout(ANSWER_S):
                return await self._executors[handle.executor].usage(handle)
        except (EdgermError, TimeoutError) as error:
            log.debug("the use of a task is not known", task=str(handle.key), error=str(error))
        except Exception as error:  # one executor's fault leaves the others' tasks known
            log.error("the use of a task is not known by a fault of ours", task=str(handle.key), exc_info=error)
        return None


def rate(key: TaskKey, before: Look, after: Look) -> TaskUsage:
    """What a task used between two looks; counters that went back count as standing still."""
    passed_s = after.at_s - before.at_s
    used_s = max(0.0, after.usage.cpu_s - before.usage.cpu_s)
    milli = round(1000 * used_s / passed_s) if passed_s > 0 else 0
    return TaskUsage(key, max(0.0, after.usage.cpu_s), milli, max(0, after.usage.memory_bytes))


def frames(usages: Iterable[TaskUsage], data_bytes: int) -> Iterator[Stats]:
    """`usages` in frames of at most so many bytes, at least one; a task whose ids alone take more is left out."""
    tasks: list[TaskUsage] = []
    left = data_bytes - FRAME_BYTES
    for usage in usages:
        size = usage_bytes(usage)
        if size > data_bytes - FRAME_BYTES:
            continue
        if size > left:
            yield Stats(tuple(tasks))
            tasks, left = [], data_bytes - FRAME_BYTES
        tasks.append(usage)
        left -= size
    yield Stats(tuple(tasks), end=True)
