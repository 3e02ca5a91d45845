"""An agent that only answers: joins, beats, and calls every launch RUNNING and FINISHED at once. Speaks the real link.

What does not live here: a task, a journal, back-off. `support.fake_agent` is the one for tests; this one costs less.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from itertools import count
from uuid import uuid4

from bench import http_load

from edgerm.core.ids import AgentId
from edgerm.core.link import Join, Welcome
from edgerm.core.resources import parse
from edgerm.core.scheduler import AgentSpec
from edgerm.core.tasks import Source, TaskState
from edgerm.wire.codec import link as codec
from edgerm.wire.v1 import link_pb2, tasks_pb2

PROTOBUF = {"Content-Type": "application/x-protobuf"}
RESOURCES = "cpus:100000;mem:100000000"
UPDATES_PER_BEAT = 500
_uuids = count(1)


class LoadAgent:
    """`async with LoadAgent(url):` has joined, and beats whenever there is something to say."""

    def __init__(self, url: str) -> None:
        self.agent_id = AgentId(uuid4().hex)
        self._url = url
        self._client = http_load.Client(url)
        self._head = self._client.post("/link/v1/beat", PROTOBUF)
        self._news = asyncio.Event()
        self._pending: deque[link_pb2.Update] = deque()
        self._beat = link_pb2.Beat()
        self._sent = self._persisted = 0
        self._works: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> LoadAgent:
        await self._client.open(1)
        spec = AgentSpec("127.0.0.1", f"load-{self.agent_id[:6]}", 5051, parse(RESOURCES))
        body = codec.encode_join(Join(self.agent_id, 1, spec))
        answer = await self._client.ask(self._client.post("/link/v1/join", PROTOBUF), body)
        welcome = codec.decode_join_answer(answer.body)
        assert isinstance(welcome, Welcome)
        self._beat.session = welcome.session
        await self.beat_once()
        self._works = [asyncio.create_task(self._beats()), asyncio.create_task(self._doorbell())]
        return self

    async def __aexit__(self, *_: object) -> None:
        for work in self._works:
            work.cancel()
        await asyncio.gather(*self._works, return_exceptions=True)
        self._client.close()

    @property
    def idle_beat(self) -> bytes:
        """A beat without news, as bytes."""
        return self._beat.SerializeToString()

    async def beat_once(self) -> bool:
        """Say what is new; whether there is more to say."""
        message = link_pb2.Beat(session=self._beat.session, seen=self._beat.seen)
        pending = self._pending
        message.updates.extend(pending[index] for index in range(min(len(pending), UPDATES_PER_BEAT)))
        answer = await self._client.ask(self._head, message.SerializeToString())
        told = link_pb2.BeatAnswer.FromString(answer.body)
        if told.join:
            raise RuntimeError("the master does not know a session of the load any more")
        for _ in range(told.persisted - self._persisted):  # 0 is told of a beat without updates
            pending.popleft()
        self._persisted = max(self._persisted, told.persisted)
        for order in told.orders:
            if order.number > self._beat.seen:
                self._beat.seen = order.number
                if order.HasField("launch"):
                    self._launch(order.launch.key)
        return bool(pending or told.orders or told.more)

    def _launch(self, key: link_pb2.Key) -> None:
        for seq, state in enumerate((TaskState.RUNNING, TaskState.FINISHED), 1):
            self._sent += 1
            status = tasks_pb2.TaskStatus(
                state=tasks_pb2.TaskState.ValueType(state),
                source=tasks_pb2.TaskStatus.Source.ValueType(Source.EXECUTOR),
                uuid=next(_uuids).to_bytes(16),
                timestamp=1.0,
                launch_id=key.launch_id,
            )
            status.task_id.value = key.task_id
            status.agent_id.value = self.agent_id
            update = link_pb2.Update(number=self._sent, seq=seq, state=state, status=status.SerializeToString())
            update.key.CopyFrom(key)
            self._pending.append(update)

    async def _beats(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            while await self.beat_once():
                pass

    async def _doorbell(self) -> None:
        host = f"{self._client.host}:{self._client.port}"
        request = f"GET /link/v1/doorbell?session={self._beat.session} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
        with suppress(asyncio.IncompleteReadError):
            async with http_load.stream(self._url, request) as (_, chunks):
                async for chunk in chunks:
                    if b"ring" in chunk:
                        self._news.set()
