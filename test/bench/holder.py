"""A framework that holds what it is offered: fills agents with tasks once, launches single ones, comes back.

What does not live here: the SDK, so that the load costs little. `load_framework` is the one that launches for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import count
from time import monotonic
from types import TracebackType

from bench import http_load
from bench.load_framework import EVENT_BYTES_MAX, PATH, Offered, ProtobufSpeech, Updated

from edgerm.wire.content import PROTOBUF
from edgerm.wire.recordio import Decoder
from edgerm.wire.v1 import scheduler_pb2

CONNECTIONS = 16
LONG_S = 1e6
PATIENCE_S = 180.0


class Holder:
    """`async with Holder(url) as framework:` is subscribed; with an id it comes back."""

    def __init__(self, url: str, framework_id: str = "", batch: int = 0) -> None:
        self.framework_id = framework_id
        self.offers: dict[str, Offered] = {}  # by agent
        self.batch = batch  # tasks that each agent's first offer is used for
        self.running = 0
        self.first_offer_s = self.subscribed_s = 0.0
        self._url, self._speech, self._numbers = url, ProtobufSpeech(), count(1)
        self._client = http_load.Client(url)
        self._filled: set[str] = set()
        self._calls: set[asyncio.Task[object]] = set()
        self._changed = asyncio.Event()
        self._work: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Holder:
        await self._client.open(CONNECTIONS)
        self._work = asyncio.create_task(self._listen())
        await self.until(lambda: bool(self.framework_id and self.subscribed_s))
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        works = [work for work in (self._work, *self._calls) if work is not None]
        for work in works:
            work.cancel()
        await asyncio.gather(*works, return_exceptions=True)
        self._client.close()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something that was told makes `condition` hold."""
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                if self._work is not None and self._work.done():
                    self._work.result()
                self._changed.clear()
                await self._changed.wait()

    async def launch(self, agent_id: str) -> float:
        """A task with the offer of this agent; seconds until it runs. What is left is offered again at once."""
        before, began = self.running, monotonic()
        self._accept(self.offers.pop(agent_id), 1, 0.0)
        await self.until(lambda: self.running > before)
        taken_s = monotonic() - began
        await self.until(lambda: agent_id in self.offers)
        return taken_s

    async def settled(self) -> None:
        """Wait until every call made so far is answered."""
        while self._calls:
            await asyncio.gather(*self._calls)

    def _accept(self, offer: Offered, tasks: int, refuse_s: float) -> None:
        names = [f"task-{next(self._numbers)}" for _ in range(tasks)]
        call = scheduler_pb2.Call.FromString(self._speech.accept(self.framework_id, offer, names))
        call.accept.filters.refuse_seconds = refuse_s
        self._call(call.SerializeToString())

    def _call(self, body: bytes) -> None:
        work = asyncio.create_task(self._client.ask(self._head, body))
        self._calls.add(work)
        work.add_done_callback(self._calls.discard)

    async def _listen(self) -> None:
        headers = {"Content-Type": PROTOBUF, "Accept": PROTOBUF}
        call = scheduler_pb2.Call.FromString(self._speech.subscribe())
        call.subscribe.framework_info.failover_timeout = 1e6
        if self.framework_id:
            call.framework_id.value = call.subscribe.framework_info.id.value = self.framework_id
        body, decoder = call.SerializeToString(), Decoder(EVENT_BYTES_MAX)
        request = self._client.post(PATH, headers) + b"Content-Length: %d\r\n\r\n" % len(body) + body
        async with http_load.stream(self._url, request) as (answer, chunks):
            self._head = self._client.post(PATH, {**headers, "Mesos-Stream-Id": answer.header("Mesos-Stream-Id")})
            async for chunk in chunks:
                for record in decoder.feed(chunk):
                    self._hear(*self._speech.read(record))
                self._changed.set()

    def _hear(self, framework_id: str, offers: list[Offered], update: Updated | None) -> None:
        if framework_id:
            self.framework_id, self.subscribed_s = framework_id, monotonic()
        if offers:
            self.first_offer_s = self.first_offer_s or monotonic()
        for offer in offers:
            if self.batch and offer[1] not in self._filled:
                self._filled.add(offer[1])
                self._accept(offer, self.batch, LONG_S)
            else:
                self.offers[offer[1]] = offer
        if update is not None and update[2].uuid:
            self.running += 1
            self._call(self._speech.acknowledge(self.framework_id, update))
