"""A master in this process, on a port of its own, and the bytes that go to and fro."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from edgerm_master.config import Config
from edgerm_master.main import Served, serving

Json = dict[str, Any]
SCHEDULER = "/api/v1/scheduler"
INFO: Json = {"user": "tester", "name": "contract"}
SUBSCRIBE: Json = {"type": "SUBSCRIBE", "subscribe": {"framework_info": INFO}}
JSON_TYPE = {"Content-Type": "application/json"}
PROTOBUF_TYPE = {"Content-Type": "application/x-protobuf"}
PATIENCE_S = 60.0  # so that a test that waits for what does not come fails
NOWHERE: Json = {"value": "nowhere"}  # an agent that no master knows


@asynccontextmanager
async def running_master(tmp_path: Path, **settings: Any) -> AsyncIterator[Served]:
    """A master with its data in `tmp_path`; `settings` are those of `Config`, tables as dictionaries."""
    config = msgspec.convert(
        {"http": "127.0.0.1:0", "coap": "127.0.0.1:0", "data_dir": str(tmp_path / "master"), **settings}, Config
    )
    async with serving(config) as served:
        yield served


async def post(
    http: aiohttp.ClientSession, master: Served, body: object, headers: object = None, path: str = SCHEDULER
) -> tuple[int, str]:
    """Status and text of the answer to a body: bytes as they are, else as JSON."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    given: Any = JSON_TYPE if headers is None else headers
    async with http.post(master.url + path, data=data, headers=given) as answer:
        return answer.status, await answer.text()


async def raw(master: Served, request: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Send these bytes over a connection of its own."""
    port = int(master.url.rsplit(":", 1)[1])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    return reader, writer


def raw_post(body: bytes, *headers: bytes) -> bytes:
    """An HTTP request for the scheduler API."""
    lines = [b"POST /api/v1/scheduler HTTP/1.1", b"Host: master", b"Content-Length: %d" % len(body), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


@dataclass
class Framework:
    """A framework in bare JSON. `async with Framework(url):` is subscribed."""

    url: str
    info: Json = field(default_factory=dict)
    framework_id: str = ""
    headers: Json = field(default_factory=dict)
    suppressed: list[str] = field(default_factory=list)  # roles
    unread: list[Json] = field(default_factory=list)  # events that `until` went past

    async def __aenter__(self) -> Framework:
        self._http = aiohttp.ClientSession(skip_auto_headers=["Accept", "Accept-Encoding"])
        await self.subscribe()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.answer.close()
        await self._http.close()

    async def subscribe(self) -> None:
        """Open the stream and read SUBSCRIBED and the first HEARTBEAT."""
        info = {**INFO, **self.info}
        body: Json = {"type": "SUBSCRIBE", "subscribe": {"framework_info": info}}
        if self.suppressed:
            body["subscribe"]["suppressed_roles"] = self.suppressed
        if self.framework_id:
            body["framework_id"] = info["id"] = {"value": self.framework_id}
        self.answer = await self._http.post(
            self.url + SCHEDULER, json=body, headers=self.headers, timeout=aiohttp.ClientTimeout(None)
        )
        assert self.answer.status == 200, await self.answer.text()
        self.stream_id = self.answer.headers["Mesos-Stream-Id"]
        event = await self.event("SUBSCRIBED")
        self.framework_id = event["subscribed"]["framework_id"]["value"]
        await self.event("HEARTBEAT")

    async def next(self) -> Json:
        """The next event, whatever it is; raises EOFError at the end of the stream."""
        if self.unread:
            return self.unread.pop(0)
        async with asyncio.timeout(PATIENCE_S):
            return await self._read()

    async def _read(self) -> Json:
        line = await self.answer.content.readline()
        if not line:
            raise EOFError
        event: Json = json.loads(await self.answer.content.readexactly(int(line)))
        return event

    async def event(self, kind: str) -> Json:
        """The next event, which must be of this kind."""
        event = await self.next()
        assert event["type"] == kind, event
        return event

    async def until(self, kind: str) -> Json:
        """The next event of this kind; others before it stay unread."""
        for index, event in enumerate(self.unread):
            if event["type"] == kind:
                return self.unread.pop(index)
        async with asyncio.timeout(PATIENCE_S):
            while (event := await self._read())["type"] != kind:
                self.unread.append(event)
        return event

    async def offer(self) -> Json:
        """The first of the next offers."""
        offer: Json = (await self.until("OFFERS"))["offers"]["offers"][0]
        return offer

    async def status(self) -> Json:
        """The status in the next update."""
        status: Json = (await self.until("UPDATE"))["update"]["status"]
        return status

    async def hears_nothing(self) -> None:
        """The next event is the answer to a question asked now: whatever was to be told would have come before it."""
        await self.call("RECONCILE", tasks=[{"task_id": {"value": "marker"}, "agent_id": NOWHERE}])
        event = await self.event("UPDATE")
        assert event["update"]["status"]["task_id"]["value"] == "marker", event

    async def call(self, kind: str, **body: Any) -> int:
        """Make a call with `body` under the call's own name; its status."""
        message: Json = {"type": kind, "framework_id": {"value": self.framework_id}}
        if body or kind not in ("TEARDOWN", "REVIVE", "SUPPRESS"):
            message[kind.lower()] = body
        return (await self.post(message))[0]

    async def post(self, message: Json) -> tuple[int, str]:
        """Send this message; status and text of the answer."""
        headers = {"Mesos-Stream-Id": self.stream_id, "Content-Type": "application/json"}
        body = BytesIO(json.dumps(message).encode())
        async with self._http.post(self.url + SCHEDULER, data=body, headers=headers) as answer:
            return answer.status, await answer.text()

    async def launch(self, offer: Json, *tasks: Json, **filters: Any) -> int:
        """ACCEPT one offer for tasks; the rest is refused for long, so that no offers come between updates."""
        return await self.call(
            "ACCEPT",
            offer_ids=[offer["id"]],
            operations=[{"type": "LAUNCH", "launch": {"task_infos": list(tasks)}}],
            filters={"refuse_seconds": 1000.0, **filters},
        )

    async def acknowledge(self, status: Json) -> int:
        """ACKNOWLEDGE a status with a uuid."""
        return await self.call(
            "ACKNOWLEDGE", agent_id=status["agent_id"], task_id=status["task_id"], uuid=status["uuid"]
        )


async def status_of(framework: Framework, within_s: float = 30.0) -> Json:
    """The status in the next update, acknowledged."""
    async with asyncio.timeout(within_s):
        status = await framework.status()
        await framework.acknowledge(status)
    return status


def task(offer: Json, task_id: str, cpus: float = 0.1, **more: Any) -> Json:
    """A small command task for the offer's agent."""
    return {
        "name": task_id,
        "task_id": {"value": task_id},
        "agent_id": offer["agent_id"],
        "resources": [{"name": "cpus", "type": "SCALAR", "scalar": {"value": cpus}}],
        "command": {"value": "true"},
        **more,
    }
