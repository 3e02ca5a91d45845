"""SUBSCRIBE of the operator API: the state, and then every change of it, to a real reader."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support.fake_agent import FakeAgent, finishes
from support.master import PATIENCE_S, Framework, Json, running_master, task

from edgerm.core.effects import Change
from edgerm.wire.recordio import Decoder
from edgerm.wire.v1 import master_pb2
from edgerm_master.api import operator_stream
from edgerm_master.core.effects import Noticed
from edgerm_master.main import Served
from edgerm_master.registry import Registry


class Watcher:
    """A reader of the stream, in JSON."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self.answer = answer

    async def next(self) -> Json:
        """The next event; raises EOFError at the stream's end."""
        async with asyncio.timeout(PATIENCE_S):
            line = await self.answer.content.readline()
            if not line:
                raise EOFError
            event: Json = json.loads(await self.answer.content.readexactly(int(line)))
            return event

    async def until(self, kind: str) -> list[Json]:
        """The events up to the next of this kind, which is the last of them."""
        events = [await self.next()]
        while events[-1]["type"] != kind:
            events.append(await self.next())
        return events


@asynccontextmanager
async def watching(master: Served, path: str = "/api/v1") -> AsyncIterator[Watcher]:
    """A watcher that has read nothing."""
    timeout = aiohttp.ClientTimeout(None)
    async with aiohttp.ClientSession(timeout=timeout) as http:
        headers = {"Connection": "close"}
        async with http.post(master.url + path, json={"type": "SUBSCRIBE"}, headers=headers) as answer:
            assert answer.status == 200, await answer.text()
            yield Watcher(answer)


@pytest.mark.parametrize("path", ["/api/v1", "/api/v1/operator"])
async def test_a_stream_begins_with_the_state(master: Served, path: str) -> None:
    """200, chunked even for who asks for the end of the connection: SUBSCRIBED with the state, then HEARTBEAT."""
    async with FakeAgent(master.url) as agent, watching(master, path) as watcher:
        assert watcher.answer.headers["Transfer-Encoding"] == "chunked"
        assert watcher.answer.headers["Content-Type"] == "application/json"
        first, second = await watcher.next(), await watcher.next()
        assert first["type"] == "SUBSCRIBED" and second == {"type": "HEARTBEAT"}
        assert first["subscribed"]["heartbeat_interval_seconds"] == 15.0
        [known] = first["subscribed"]["get_state"]["get_agents"]["agents"]
        assert known["agent_info"]["id"]["value"] == agent.agent_id


async def test_every_change_is_told_in_order(master: Served) -> None:
    """Agent, framework, task from launch to end, and the framework's end: each once, in the order of happening."""
    async with watching(master) as watcher:
        await watcher.until("HEARTBEAT")
        async with FakeAgent(master.url, on_launch=finishes) as agent, Framework(master.url) as framework:
            offer = await framework.offer()
            await framework.launch(offer, task(offer, "t"))
            for _ in range(2):
                await framework.acknowledge(await framework.status())
            await framework.call("TEARDOWN")
            told = await watcher.until("FRAMEWORK_REMOVED")
        kinds = [event["type"] for event in told]
        assert kinds[:3] == ["AGENT_ADDED", "FRAMEWORK_ADDED", "TASK_ADDED"]
        assert kinds[3:] == ["TASK_UPDATED", "TASK_UPDATED", "FRAMEWORK_REMOVED"]
        assert told[0]["agent_added"]["agent"]["agent_info"]["id"]["value"] == agent.agent_id
        added = told[2]["task_added"]["task"]
        assert (added["task_id"]["value"], added["state"]) == ("t", "TASK_STAGING")
        runs, ends = told[3]["task_updated"], told[4]["task_updated"]
        assert (runs["state"], ends["state"]) == ("TASK_RUNNING", "TASK_FINISHED")
        assert ends["status"]["task_id"]["value"] == "t" and ends["framework_id"]["value"] == framework.framework_id
        removed = told[5]["framework_removed"]["framework_info"]
        assert removed["id"]["value"] == framework.framework_id


async def test_no_change_is_lost_or_doubled_at_the_seam(master: Served) -> None:
    """Watchers that begin while tasks are launched see each task once: in their first state, or as news."""

    async def seen() -> list[str]:
        async with watching(master) as watcher:
            first = (await watcher.next())["subscribed"]["get_state"]["get_tasks"]
            ids = [one["task_id"]["value"] for kind in first for one in first[kind]]
            while len(ids) < count:
                event = await watcher.next()
                if event["type"] == "TASK_ADDED":
                    ids.append(event["task_added"]["task"]["task_id"]["value"])
            return ids

    count = 30
    async with FakeAgent(master.url, resources="cpus:64;mem:65536"), Framework(master.url) as framework:
        async with asyncio.TaskGroup() as group:
            watchers = []
            for number in range(count):
                offer = await framework.offer()
                watchers.append(group.create_task(seen()))
                offer_id = {"value": offer["id"]["value"]}
                launch = {"type": "LAUNCH", "launch": {"task_infos": [task(offer, f"t{number}")]}}
                body: Json = {"offer_ids": [offer_id], "operations": [launch], "filters": {"refuse_seconds": 0}}
                await framework.call("ACCEPT", **body)
        for watcher in watchers:
            assert sorted(watcher.result()) == sorted(f"t{number}" for number in range(count))


async def test_protobuf_says_the_same(master: Served) -> None:
    """A watcher that takes protobuf reads the same events."""
    headers = {"Accept": "application/x-protobuf"}
    decoder, events = Decoder(1 << 20), list[master_pb2.Event]()
    async with (
        aiohttp.request("POST", master.url + "/api/v1", json={"type": "SUBSCRIBE"}, headers=headers) as answer,
        FakeAgent(master.url) as agent,
        asyncio.timeout(PATIENCE_S),
    ):
        while len(events) < 3:
            records = decoder.feed(await answer.content.readany())
            events += [master_pb2.Event.FromString(record) for record in records]
    kinds = [event.type for event in events]
    assert kinds == [master_pb2.Event.SUBSCRIBED, master_pb2.Event.HEARTBEAT, master_pb2.Event.AGENT_ADDED]
    assert events[2].agent_added.agent.agent_info.id.value == agent.agent_id


async def test_a_reader_that_never_reads_is_cut(tmp_path: Path) -> None:
    """What waits for a reader is bounded: it is cut, and counted, while others go on."""
    limits = {"stream_bytes": 1024}
    async with running_master(tmp_path, limits=limits) as master, watching(master) as good:
        await good.until("HEARTBEAT")
        port = int(master.url.rsplit(":", 1)[1])
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1)
        body = b'{"type":"SUBSCRIBE"}'
        head = b"POST /api/v1 HTTP/1.1\r\nHost: m\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        writer.write(head % len(body) + body)
        await reader.readexactly(1)
        cut = 'edgerm_streams_broken_total{kind="operator"} 1.0'
        async with asyncio.timeout(PATIENCE_S), aiohttp.ClientSession() as http:
            text = ""
            while cut not in text:
                async with Framework(master.url, {"name": "n" * 60_000}):
                    await good.until("FRAMEWORK_ADDED")
                async with http.get(master.url + "/metrics") as answer:
                    text = await answer.text()
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def test_the_oldest_of_too_many_goes(master: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """One subscriber more than the bound ends the stream of the oldest, and of no other."""
    assert operator_stream.SUBSCRIBERS_MAX == 1000
    monkeypatch.setattr(operator_stream, "SUBSCRIBERS_MAX", 2)
    async with watching(master) as oldest, watching(master) as second:
        await oldest.until("HEARTBEAT")
        await second.until("HEARTBEAT")
        async with watching(master) as newest:
            await newest.until("HEARTBEAT")
            with pytest.raises((EOFError, aiohttp.ClientError)):
                await oldest.next()
            async with FakeAgent(master.url):
                assert (await second.next())["type"] == (await newest.next())["type"] == "AGENT_ADDED"


async def test_many_at_once_end_as_many_of_the_oldest(master: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Subscribers that come in one moment make room for each other too: the bound holds."""
    monkeypatch.setattr(operator_stream, "SUBSCRIBERS_MAX", 3)
    async with AsyncExitStack() as stack:
        for _ in range(3):
            watcher = await stack.enter_async_context(watching(master))
            await watcher.until("HEARTBEAT")
        together = [asyncio.create_task(stack.enter_async_context(watching(master))) for _ in range(6)]
        watchers = await asyncio.gather(*together)
        kept = [await _survives(watcher) for watcher in watchers]
        assert sum(kept) <= 3


async def _survives(watcher: Watcher) -> bool:
    """Whether it still stands when everything that was told is read."""
    try:
        await watcher.until("HEARTBEAT")
    except (EOFError, aiohttp.ClientError):
        return False
    return not watcher.answer.content.at_eof() and watcher.answer.content.exception() is None


class SlowDisk:
    """Batches of changes that stand still on their way to the registry, until they are let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._write = Registry.write
        self._loop = asyncio.get_running_loop()
        self.asked = asyncio.Event()
        self.go_on = threading.Event()
        disk = self

        def write(registry: Registry, changes: Sequence[Change]) -> None:
            disk._loop.call_soon_threadsafe(disk.asked.set)
            assert disk.go_on.wait(PATIENCE_S)
            disk._write(registry, changes)

        monkeypatch.setattr(Registry, "write", write)


async def test_only_what_is_durable_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the registry writes, the master knows of a change and tells no watcher, neither as news nor as state."""
    disk = SlowDisk(monkeypatch)
    told: list[Noticed] = []
    async with running_master(tmp_path) as master, watching(master) as early, AsyncExitStack() as stack:
        await early.until("HEARTBEAT")
        master.shell.on(Noticed, told.append)
        agent = FakeAgent(master.url)
        join = asyncio.create_task(stack.enter_async_context(agent))
        async with asyncio.timeout(PATIENCE_S):
            await disk.asked.wait()
        assert list(master.shell.core.agents) == [agent.agent_id]
        late = await stack.enter_async_context(watching(master))
        first = asyncio.create_task(late.next())
        async with aiohttp.ClientSession() as http, http.get(master.url + "/health") as answer:
            assert answer.status == 200  # the loop had its turns: what may be told was told
        early_told = (list(told), first.done(), join.done())
        disk.go_on.set()
        assert early_told == ([], False, False)
        assert [event["type"] for event in await early.until("AGENT_ADDED")] == ["AGENT_ADDED"]
        await join
        state = (await first)["subscribed"]["get_state"]
        assert state["get_agents"]["agents"][0]["agent_info"]["id"]["value"] == agent.agent_id
        assert await late.next() == {"type": "HEARTBEAT"}
        async with FakeAgent(master.url) as other:
            added = (await late.next())["agent_added"]["agent"]["agent_info"]
            assert added["id"]["value"] == other.agent_id


async def test_an_event_that_cannot_be_written_ends_streams_only(
    master: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault in how a change is shown cuts those who look on, and the master goes on."""

    def fails(*_: object) -> None:
        raise KeyError("a task that is not there any more")

    async with watching(master) as watcher, AsyncExitStack() as stack:
        await watcher.until("HEARTBEAT")
        monkeypatch.setattr(operator_stream, "event_of", fails)
        join = asyncio.ensure_future(stack.enter_async_context(FakeAgent(master.url)))
        works: list[asyncio.Future[Any]] = [join, master.shell.failed]
        await asyncio.wait(works, return_when=asyncio.FIRST_COMPLETED)
        assert not master.shell.failed.done()
        with pytest.raises((EOFError, aiohttp.ClientError)):
            await watcher.next()
