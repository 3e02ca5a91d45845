"""Streams to readers that are too slow, and doorbells."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path

import aiohttp
import pytest
from support.fake_agent import FakeAgent
from support.master import SCHEDULER, Framework, running_master, task

from edgerm.core.errors import Invalid
from edgerm.core.ids import AgentId
from edgerm.core.link import Join
from edgerm.core.resources import parse
from edgerm.core.scheduler import AgentSpec, Decline, Update
from edgerm.wire.codec.event_bytes import event_to_bytes
from edgerm_master.api import scheduler
from edgerm_master.core import offers
from edgerm_master.core.frameworks import Framework as Known
from edgerm_master.core.world import World

SUBSCRIBE = {"type": "SUBSCRIBE", "subscribe": {"framework_info": {"user": "u", "name": "slow"}}}


async def test_a_reader_that_never_reads_is_cut_off(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Events for a stalled framework are bounded: its stream is closed, with a word in the log, and others go on."""
    async with running_master(tmp_path, limits={"stream_bytes": 100_000}) as master:
        port = int(master.url.rsplit(":", 1)[1])
        slow = socket.create_connection(("127.0.0.1", port))
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        body = json.dumps(SUBSCRIBE).encode()
        head = f"POST {SCHEDULER} HTTP/1.1\r\nHost: m\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        slow.sendall(head.encode() + b"\r\n\r\n" + body)
        first = b""
        while b"HEARTBEAT" not in first:  # it read so far, and then no more
            first += await asyncio.to_thread(slow.recv, 4096)
        core = master.shell.core
        [framework_id] = core.frameworks
        stream_id = core.stream_of(framework_id)
        assert stream_id is not None
        async with aiohttp.ClientSession() as http:
            headers = {"Mesos-Stream-Id": str(stream_id)}
            unknown = [{"task_id": {"value": f"{number}-" + "x" * 200}} for number in range(1000)]
            call = {"type": "RECONCILE", "framework_id": {"value": framework_id}, "reconcile": {"tasks": unknown}}
            status = 202
            async with asyncio.timeout(60):
                for _ in range(50):  # answers of 20 MB, more than any kernel takes for it
                    async with http.post(master.url + SCHEDULER, json=call, headers=headers) as answer:
                        status = answer.status
                call = {"type": "REVIVE", "framework_id": {"value": framework_id}}
                while status == 202:  # they come in slices
                    async with http.post(master.url + SCHEDULER, json=call, headers=headers) as answer:
                        status = answer.status
            assert status in (400, 403)  # its stream is gone, and with it the framework
            async with http.get(master.url + "/metrics") as answer:
                assert 'edgerm_streams_broken_total{kind="scheduler"} 1.0' in await answer.text()
        slow.close()
        async with FakeAgent(master.url), Framework(master.url) as other:
            offer = await other.offer()
            await other.launch(offer, task(offer, "t"))
            assert (await other.status())["state"] == "TASK_RUNNING"
        assert [record for record in caplog.records if record.name.startswith("aiohttp")] == []


async def test_a_stream_that_breaks_leaves_one_line(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An event that cannot be written ends its stream with the reason in one line of the log, and no traceback."""

    def unwritable(event: object, *rest: object) -> object:
        if isinstance(event, Update):
            raise Invalid("this cannot be said")
        return event_to_bytes(event, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(scheduler, "event_to_bytes", unwritable)
    async with running_master(tmp_path) as master, Framework(master.url) as framework:
        nobody = {"task_id": {"value": "t"}, "agent_id": {"value": "nowhere"}}
        assert await framework.call("RECONCILE", tasks=[nobody]) == 202
        with pytest.raises((aiohttp.ClientError, EOFError)):
            await framework.next()
        while await framework.call("REVIVE") == 202:  # until the master has seen the end
            pass
    assert capsys.readouterr().out.count("this cannot be said") == 1
    assert [record for record in caplog.records if record.name.startswith("aiohttp")] == []


async def test_thousands_of_offers_are_declined_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A DECLINE of more offers than go at once is carried out part by part, and all of it before it is answered."""
    monkeypatch.setattr(scheduler, "DECLINED_AT_ONCE", 2)
    decline, parts = offers.decline, []

    def counted(world: World, framework: Known, call: Decline) -> None:
        parts.append(len(call.offer_ids))
        decline(world, framework, call)

    monkeypatch.setattr(offers, "decline", counted)
    async with running_master(tmp_path) as master, Framework(master.url) as framework:
        for number in range(5):
            join = Join(AgentId(f"{number:032x}"), 1, AgentSpec("h", resources=parse("cpus:1;mem:64")))
            await master.shell.join(join)
        held = [(await framework.offer())["id"] for _ in range(5)]
        assert await framework.call("DECLINE", offer_ids=held) == 202
        assert parts == [2, 2, 1]
        assert not master.shell.core.offers


async def test_a_doorbell_rings_and_idles(tmp_path: Path) -> None:
    """A line per ring, a line per silent interval; an unknown session is 409, a malformed one 400."""
    beats = {"beat_interval_s": 0.2, "missed_beats": 100}
    async with (
        running_master(tmp_path, agents=beats) as master,
        aiohttp.ClientSession(master.url) as http,
        Framework(master.url) as framework,
    ):
        for session, status in (("1", 409), ("x", 400)):
            async with http.get(f"/link/v1/doorbell?session={session}") as answer:
                assert answer.status == status
        async with FakeAgent(master.url) as agent:
            offer = await framework.offer()
        async with http.get(f"/link/v1/doorbell?session={agent.half.session}") as answer:
            assert answer.status == 200
            assert await answer.content.readline() == b"idle\n"
            await framework.launch(offer, task(offer, "t"))
            while (line := await answer.content.readline()) == b"idle\n":
                pass
            assert line == b"ring\n"


async def test_a_malformed_link_body_is_refused(tmp_path: Path) -> None:
    """Bytes that are no beat are 400, a foreign type 415, and a beat of an unknown session is told to join."""
    async with running_master(tmp_path) as master, aiohttp.ClientSession(master.url) as http:
        headers = {"Content-Type": "application/x-protobuf"}
        for path in ("/link/v1/join", "/link/v1/beat"):
            async with http.post(path, data=b"\xff\xff\xff", headers=headers) as answer:
                assert answer.status == 400
            async with http.post(path, data=b"", headers={"Content-Type": "text/plain"}) as answer:
                assert answer.status == 415
        async with http.post("/link/v1/beat", data=b"\x0d\x01\x00\x00\x00", headers=headers) as answer:
            assert (answer.status, await answer.read()) == (200, b"\x08\x01")
