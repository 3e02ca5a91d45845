"""READ_STATS: what live tasks use, asked of their agents through the ephemeral lane.

What does not live here: the lane (`streams.py`), how use is measured (the agent).
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass

from edgerm.core.errors import Unavailable
from edgerm.core.ids import AgentId, TaskKey
from edgerm.core.link import Credit, Data, OpenStats, Stats, TaskUsage
from edgerm.wire.v1 import basics_pb2, operator_pb2
from edgerm_master.api.port import Port
from edgerm_master.api.streams import Streams

INTERVAL_S = 1.0  # over which CPU is measured
DEADLINE_S = 10.0  # for all agents; those that have not answered are missing
SHARED_S = 2.0  # whoever asks within so long after another gets the same answer
TASKS_MAX = 100_000  # of one agent

ReadStats = operator_pb2.Response.ReadStats


@dataclass(slots=True)
class _Measurement:
    """One agent's answer, on its way or here."""

    asked_s: float
    told: asyncio.Task[dict[TaskKey, TaskUsage] | str]  # or the reason why there is none


class UsageReader:
    """Asks agents, all at once, each at most once in `SHARED_S`."""

    def __init__(self, port: Port, streams: Streams) -> None:
        self._port = port
        self._streams = streams
        self._measurements: dict[AgentId, _Measurement] = {}

    async def read(self, keys: Collection[TaskKey]) -> ReadStats:
        """What these tasks use, those of them that live."""
        wanted: dict[AgentId, list[TaskKey]] = {}
        for key in keys:
            task = self._port.core.tasks.get(key)
            if task is not None and task.live:
                wanted.setdefault(task.record.task.agent_id, []).append(key)
        self._forget_old()
        asked = {agent_id: self._measure(agent_id) for agent_id in wanted}
        if asked:
            await asyncio.wait(asked.values())
        answer = ReadStats()
        for agent_id, measured in asked.items():
            told = measured.result()
            if isinstance(told, str):
                answer.missing.add(agent_id=basics_pb2.AgentID(value=agent_id), reason=told)
            else:
                _fill(answer, agent_id, told, wanted[agent_id])
        return answer

    def _forget_old(self) -> None:
        now_s = asyncio.get_running_loop().time()
        for agent_id, old in list(self._measurements.items()):
            if now_s - old.asked_s > SHARED_S and old.told.done():
                del self._measurements[agent_id]

    def _measure(self, agent_id: AgentId) -> asyncio.Task[dict[TaskKey, TaskUsage] | str]:
        now_s = asyncio.get_running_loop().time()
        measurement = self._measurements.get(agent_id)
        if measurement is None or now_s - measurement.asked_s > SHARED_S:
            work = asyncio.create_task(self._ask(agent_id), name=f"stats {agent_id}")
            measurement = self._measurements[agent_id] = _Measurement(now_s, work)
        return measurement.told

    async def _ask(self, agent_id: AgentId) -> dict[TaskKey, TaskUsage] | str:
        usages: dict[TaskKey, TaskUsage] = {}
        ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        def end(why: str) -> None:
            if not ended.done():
                ended.set_result(why)

        def take(body: Data | Stats | Credit) -> None:
            if isinstance(body, Stats):  # what comes twice is the same
                usages.update({usage.key: usage for usage in body.tasks})
                if body.end:
                    end("")
                elif len(usages) > TASKS_MAX:
                    end(f"agent {agent_id} tells of more than {TASKS_MAX} tasks")

        try:
            stream = self._streams.open(agent_id, take, end)
        except Unavailable as error:
            return str(error)
        stream.send(OpenStats(INTERVAL_S))
        try:
            await asyncio.wait({ended}, timeout=DEADLINE_S)
            end(f"agent {agent_id} did not answer within {DEADLINE_S:g} s")
            return ended.result() or usages
        finally:
            if ended.done() and not ended.result():
                stream.done()
            else:
                stream.close()


def _fill(answer: ReadStats, agent_id: AgentId, usages: dict[TaskKey, TaskUsage], wanted: Collection[TaskKey]) -> None:
    for key in wanted:
        usage = usages.get(key)
        if usage is not None:
            answer.tasks.add(
                framework_id=basics_pb2.FrameworkID(value=key.framework_id),
                task_id=basics_pb2.TaskID(value=key.task_id),
                launch_id=key.launch_id,
                agent_id=basics_pb2.AgentID(value=agent_id),
                cpu_s=usage.cpu_s,
                cpus=usage.cpus_milli / 1000,
                memory_bytes=usage.memory_bytes,
            )
