"""A framework that launches as fast as it is let: every offer is accepted for `batch` tasks, every update acknowledged.

What does not live here: the SDK, on purpose: what is measured is the master, so the load must cost little.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable, Coroutine
from itertools import count
from typing import Any, Protocol

from bench import http_load

from edgerm.core.tasks import TaskState
from edgerm.wire.content import JSON, PROTOBUF
from edgerm.wire.recordio import Decoder
from edgerm.wire.v1 import scheduler_pb2
from edgerm.wire.v1.offers_pb2 import Offer

PATH = "/api/v1/scheduler"
CONNECTIONS = 64  # many calls share a commit; fewer would wait for the disk, not for the master
CPUS, MEM_MIB = 0.01, 1.0
EVENT_BYTES_MAX = 64 << 20

Offered = tuple[str, str]  # offer id, agent id
Updated = tuple[str, bool, Any]  # task id, whether it has ended, what the acknowledgement repeats


class Speech(Protocol):
    """How the load reads and writes one encoding."""

    media_type: str

    def subscribe(self) -> bytes: ...
    def read(self, record: bytes) -> tuple[str, list[Offered], Updated | None]: ...
    def accept(self, framework_id: str, offer: Offered, task_ids: list[str]) -> bytes: ...
    def acknowledge(self, framework_id: str, update: Updated) -> bytes: ...


class JsonSpeech:
    """JSON, by the standard library."""

    media_type = JSON

    def subscribe(self) -> bytes:
        info = {"user": "bench", "name": "load", "failover_timeout": 60.0}
        return json.dumps({"type": "SUBSCRIBE", "subscribe": {"framework_info": info}}).encode()

    def read(self, record: bytes) -> tuple[str, list[Offered], Updated | None]:
        event = json.loads(record)
        match event["type"]:
            case "SUBSCRIBED":
                return event["subscribed"]["framework_id"]["value"], [], None
            case "OFFERS":
                offers = event["offers"]["offers"]
                return "", [(offer["id"]["value"], offer["agent_id"]["value"]) for offer in offers], None
            case "UPDATE":
                status = event["update"]["status"]
                again = {name: status[name] for name in ("agent_id", "task_id", "uuid")}
                return "", [], (status["task_id"]["value"], _ended(status["state"]), again)
        return "", [], None

    def accept(self, framework_id: str, offer: Offered, task_ids: list[str]) -> bytes:
        resources = [
            {"name": "cpus", "type": "SCALAR", "scalar": {"value": CPUS}},
            {"name": "mem", "type": "SCALAR", "scalar": {"value": MEM_MIB}},
        ]
        tasks = [
            {
                "name": "load",
                "task_id": {"value": task_id},
                "agent_id": {"value": offer[1]},
                "resources": resources,
                "command": {"value": "true"},
            }
            for task_id in task_ids
        ]
        launch = {"type": "LAUNCH", "launch": {"task_infos": tasks}}
        accept = {"offer_ids": [{"value": offer[0]}], "operations": [launch], "filters": {"refuse_seconds": 0.0}}
        return json.dumps({"type": "ACCEPT", "framework_id": {"value": framework_id}, "accept": accept}).encode()

    def acknowledge(self, framework_id: str, update: Updated) -> bytes:
        call = {"type": "ACKNOWLEDGE", "framework_id": {"value": framework_id}, "acknowledge": update[2]}
        return json.dumps(call).encode()


class ProtobufSpeech:
    """Protobuf, by our generated messages."""

    media_type = PROTOBUF

    def subscribe(self) -> bytes:
        call = scheduler_pb2.Call(type=scheduler_pb2.Call.SUBSCRIBE)
        info = call.subscribe.framework_info
        info.user, info.name, info.failover_timeout = "bench", "load", 60.0
        return call.SerializeToString()

    def read(self, record: bytes) -> tuple[str, list[Offered], Updated | None]:
        event = scheduler_pb2.Event.FromString(record)
        match event.type:
            case scheduler_pb2.Event.SUBSCRIBED:
                return event.subscribed.framework_id.value, [], None
            case scheduler_pb2.Event.OFFERS:
                return "", [(offer.id.value, offer.agent_id.value) for offer in event.offers.offers], None
            case scheduler_pb2.Event.UPDATE:
                status = event.update.status
                return "", [], (status.task_id.value, TaskState(status.state).terminal, status)
        return "", [], None

    def accept(self, framework_id: str, offer: Offered, task_ids: list[str]) -> bytes:
        call = scheduler_pb2.Call(type=scheduler_pb2.Call.ACCEPT)
        call.framework_id.value = framework_id
        call.accept.offer_ids.add().value = offer[0]
        call.accept.filters.refuse_seconds = 0.0
        operation = call.accept.operations.add(type=Offer.Operation.LAUNCH)
        for task_id in task_ids:
            task = operation.launch.task_infos.add(name="load")
            task.task_id.value = task_id
            task.agent_id.value = offer[1]
            task.command.value = "true"
            task.resources.add(name="cpus", type=0).scalar.value = CPUS
            task.resources.add(name="mem", type=0).scalar.value = MEM_MIB
        return call.SerializeToString()

    def acknowledge(self, framework_id: str, update: Updated) -> bytes:
        call = scheduler_pb2.Call(type=scheduler_pb2.Call.ACKNOWLEDGE)
        call.framework_id.value = framework_id
        status, acknowledge = update[2], call.acknowledge
        acknowledge.agent_id.CopyFrom(status.agent_id)
        acknowledge.task_id.CopyFrom(status.task_id)
        acknowledge.uuid = status.uuid
        return call.SerializeToString()


def _ended(state: str) -> bool:
    return TaskState[state.removeprefix("TASK_")].terminal


class LoadFramework:
    """`async with LoadFramework(url, speech, batch, window) as load:` launches until the block is left."""

    def __init__(self, url: str, speech: Speech, batch: int, window: int) -> None:
        self.ended = self.updates = 0
        self.failed: BaseException | None = None
        self._url, self._speech, self._batch, self._window = url, speech, batch, window
        self._client = http_load.Client(url)
        self._framework_id = ""
        self._offers: deque[Offered] = deque()
        self._in_flight = 0
        self._numbers = count(1)
        self._works: set[asyncio.Task[None]] = set()
        self._stopped = False
        self._changed = asyncio.Event()

    async def __aenter__(self) -> LoadFramework:
        await self._client.open(CONNECTIONS)
        self._go(self._listen())
        await self.until(lambda: self.ended > self._window)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Let what is in flight end, then go for good."""
        self._stopped = True
        await self.until(lambda: not self._in_flight)
        teardown = json.dumps({"type": "TEARDOWN", "framework_id": {"value": self._framework_id}}).encode()
        await self._client.ask(self._head.replace(self._speech.media_type.encode(), JSON.encode()), teardown)
        for work in self._works:
            work.cancel()
        await asyncio.gather(*self._works, return_exceptions=True)
        self._client.close()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until `condition` holds; looked at when a task ends. Raises what broke the load."""
        while not condition():
            self._changed.clear()
            async with asyncio.timeout(30):
                await self._changed.wait()
            if self.failed is not None:
                raise self.failed

    def _go(self, work: Coroutine[Any, Any, object]) -> None:
        async def guarded() -> None:
            try:
                await work
            except Exception as error:
                self.failed = error
                self._changed.set()

        task = asyncio.create_task(guarded())
        self._works.add(task)
        task.add_done_callback(self._works.discard)

    async def _listen(self) -> None:
        media_type = self._speech.media_type
        headers = {"Content-Type": media_type, "Accept": media_type}
        body, decoder = self._speech.subscribe(), Decoder(EVENT_BYTES_MAX)
        request = self._client.post(PATH, headers) + b"Content-Length: %d\r\n\r\n" % len(body) + body
        async with http_load.stream(self._url, request) as (answer, chunks):
            self._head = self._client.post(PATH, {**headers, "Mesos-Stream-Id": answer.header("Mesos-Stream-Id")})
            async for chunk in chunks:
                for record in decoder.feed(chunk):
                    self._hear(*self._speech.read(record))
                self._launch()

    def _hear(self, framework_id: str, offers: list[Offered], update: Updated | None) -> None:
        self._framework_id = self._framework_id or framework_id
        self._offers.extend(offers)
        if update is not None:
            self.updates += 1
            if update[1]:
                self.ended += 1
                self._in_flight -= 1
                self._changed.set()
            self._go(self._client.ask(self._head, self._speech.acknowledge(self._framework_id, update)))

    def _launch(self) -> None:
        while self._offers and self._in_flight + self._batch <= self._window and not self._stopped:
            task_ids = [f"task-{next(self._numbers)}" for _ in range(self._batch)]
            self._in_flight += self._batch
            body = self._speech.accept(self._framework_id, self._offers.popleft(), task_ids)
            self._go(self._client.ask(self._head, body))
