"""The scheduler API's transport: endpoints, headers, RecordIO, heartbeats (Mesos v1 contract, sections 1.1, 1.2, 1.5).

A test's name begins with the section of its "must" row.
"""

from __future__ import annotations

import asyncio
import json

import aiohttp
import pytest
from support.fake_agent import FakeAgent
from support.master import JSON_TYPE, PROTOBUF_TYPE, SCHEDULER, SUBSCRIBE, Framework, post, raw, raw_post, task

from edgerm.wire.v1 import scheduler_pb2
from edgerm_master.api import event_stream
from edgerm_master.main import Served

# --- 1.1 endpoints ----------------------------------------------------------------------------------------------


async def test_1_1_scheduler_endpoint_takes_post_only(master: Served, http: aiohttp.ClientSession) -> None:
    """The scheduler API is POST; another method is 405."""
    async with http.get(master.url + SCHEDULER) as answer:
        assert answer.status == 405


@pytest.mark.parametrize("path", ["/api/v1", "/api/v1/operator"])
async def test_1_1_operator_endpoint(master: Served, http: aiohttp.ClientSession, path: str) -> None:
    """The operator API answers on Mesos' path and on the one that pymesos posts to."""
    status, text = await post(http, master, {"type": "GET_HEALTH"}, path=path)
    assert (status, json.loads(text)) == (200, {"type": "GET_HEALTH", "get_health": {"healthy": True}})


async def test_1_1_version_and_1_4_digits_only(master: Served, http: aiohttp.ClientSession) -> None:
    """`/version` gives a version of digits and dots, which pymesos takes apart, and ours beside it."""
    async with http.get(master.url + "/version") as answer:
        body = await answer.json()
    assert [int(part) for part in body["version"].split(".")] >= [1, 0, 0]
    assert body["edgerm_version"]


@pytest.mark.parametrize("path", ["/health", "/master/health"])
async def test_1_1_health(master: Served, http: aiohttp.ClientSession, path: str) -> None:
    """`/health` answers 200 without a body, also where Mesos' proxies look for it."""
    async with http.get(master.url + path) as answer:
        assert (answer.status, await answer.read()) == (200, b"")


@pytest.mark.parametrize("path", ["/redirect", "/master/redirect"])
async def test_1_1_redirect_leads_to_the_leader(master: Served, http: aiohttp.ClientSession, path: str) -> None:
    """`/redirect` answers 307 with the leader's scheme-relative address."""
    async with http.get(master.url + path, allow_redirects=False) as answer:
        assert (answer.status, "http:" + answer.headers["Location"]) == (307, master.url)


# --- 1.2 headers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content_type", "status"),
    [(None, 400), ("text/plain", 415), ("application/json; charset=utf-8", 501), ("application/x-protobuf", 501)],
)
async def test_1_2_content_type(
    master: Served, http: aiohttp.ClientSession, content_type: str | None, status: int
) -> None:
    """A missing Content-Type is 400, a foreign one 415; parameters are tolerated (501: the call was read)."""
    body = b"\x10\x00" if content_type == "application/x-protobuf" else b'{"type":"UNKNOWN"}'
    headers = {"Content-Type": content_type} if content_type else {}
    assert (await post(http, master, body, headers))[0] == status


@pytest.mark.parametrize(
    ("accept", "given"),
    [
        ([], "application/json"),
        (["*/*"], "application/json"),
        (["application/x-protobuf"], "application/x-protobuf"),
        (["application/x-protobuf, application/json"], "application/json"),
        (["application/x-protobuf", "application/json"], "application/json"),
    ],
)
async def test_1_2_accept_and_response_content_type(
    master: Served, http: aiohttp.ClientSession, accept: list[str], given: str
) -> None:
    """All Accept lines count, JSON wins where both are allowed, and the answer names exactly the message's type."""
    headers = [("Content-Type", "application/json"), *(("Accept", line) for line in accept)]
    async with http.post(master.url + SCHEDULER, data=json.dumps(SUBSCRIBE), headers=headers) as answer:
        assert (answer.status, answer.headers["Content-Type"]) == (200, given)


async def test_1_2_accept_of_neither_is_406(master: Served, http: aiohttp.ClientSession) -> None:
    """A SUBSCRIBE that takes neither JSON nor protobuf is 406."""
    assert (await post(http, master, SUBSCRIBE, {**JSON_TYPE, "Accept": "text/html"}))[0] == 406


async def test_1_2_accept_is_looked_at_on_subscribe_only(master: Served, http: aiohttp.ClientSession) -> None:
    """Another scheduler call is taken whatever its Accept; the operator API always looks at it."""
    async with Framework(master.url) as framework:
        call = {"type": "REVIVE", "framework_id": {"value": framework.framework_id}}
        headers = {**JSON_TYPE, "Accept": "text/html", "Mesos-Stream-Id": framework.stream_id}
        assert (await post(http, master, call, headers))[0] == 202
    assert (await post(http, master, {"type": "GET_HEALTH"}, headers, path="/api/v1"))[0] == 406


async def test_1_2_streams_are_chunked_and_never_compressed(master: Served) -> None:
    """A stream is chunked although the client asks to close, and plain although it takes gzip."""
    request = raw_post(
        json.dumps(SUBSCRIBE).encode(),
        b"Content-Type: application/json",
        b"Connection: close",
        b"Accept-Encoding: gzip",
    )
    reader, writer = await raw(master, request)
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    writer.close()
    assert head.startswith("http/1.1 200")
    assert "transfer-encoding: chunked" in head
    assert "content-encoding" not in head and "content-length" not in head


async def test_1_2_subscribe_answers_with_a_stream_id(master: Served) -> None:
    """The answer to SUBSCRIBE carries a Mesos-Stream-Id of at most 128 bytes, a new one each time."""
    async with Framework(master.url) as one, Framework(master.url) as other:
        assert 0 < len(one.stream_id) <= 128
        assert one.stream_id != other.stream_id


async def test_1_2_stream_id_is_required_and_must_be_right(master: Served, http: aiohttp.ClientSession) -> None:
    """A call without the stream id, or with another one, is 400."""
    async with Framework(master.url) as framework:
        call = {"type": "REVIVE", "framework_id": {"value": framework.framework_id}}
        assert (await post(http, master, call))[0] == 400
        assert (await post(http, master, call, {**JSON_TYPE, "Mesos-Stream-Id": "another"}))[0] == 400


async def test_1_2_stream_id_is_forbidden_on_subscribe(master: Served, http: aiohttp.ClientSession) -> None:
    """A SUBSCRIBE with a stream id is 400."""
    assert (await post(http, master, SUBSCRIBE, {**JSON_TYPE, "Mesos-Stream-Id": "x"}))[0] == 400


async def test_1_2_stream_id_is_ignored_on_operator_calls(master: Served, http: aiohttp.ClientSession) -> None:
    """pymesos sends stray stream ids to the operator API, which takes no notice."""
    headers = {**JSON_TYPE, "Mesos-Stream-Id": "stray"}
    assert (await post(http, master, {"type": "GET_VERSION"}, headers, path="/api/v1"))[0] == 200


async def test_1_2_works_without_authorization(master: Served) -> None:
    """No credentials are needed on the machine itself."""
    async with Framework(master.url) as framework:
        assert framework.framework_id


# --- 1.5 RecordIO and heartbeats --------------------------------------------------------------------------------


async def test_1_5_records_are_one_line_of_ascii(master: Served) -> None:
    """A JSON record has its exact length before it, no line feed in it, and only ASCII."""
    async with FakeAgent(master.url), Framework(master.url) as framework:
        offer = await framework.offer()
        await framework.launch(offer, task(offer, "größe\u2028"))
        length = int(await framework.answer.content.readline())
        record = await framework.answer.content.readexactly(length)
        assert b"\n" not in record and record.isascii()
        assert json.loads(record)["update"]["status"]["task_id"]["value"] == "größe\u2028"


async def test_1_5_heartbeat_follows_subscribed_and_3_subscribed_is_first(
    master: Served, http: aiohttp.ClientSession
) -> None:
    """SUBSCRIBED is the first event and says 15 s; a HEARTBEAT, which has no body, comes right after it."""
    async with http.post(master.url + SCHEDULER, data=json.dumps(SUBSCRIBE), headers=JSON_TYPE) as answer:
        first = json.loads(await answer.content.readexactly(int(await answer.content.readline())))
        second = json.loads(await answer.content.readexactly(int(await answer.content.readline())))
    assert first["type"] == "SUBSCRIBED"
    assert first["subscribed"]["heartbeat_interval_seconds"] == 15
    assert first["subscribed"]["master_info"]["version"] == "1.11.0"
    assert second == {"type": "HEARTBEAT"}


async def test_1_5_heartbeats_go_on(master: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """A HEARTBEAT comes every 15 s, not only the one after SUBSCRIBED."""
    assert event_stream.HEARTBEAT_S == 15.0
    monkeypatch.setattr(event_stream, "HEARTBEAT_S", 0.02)
    async with asyncio.timeout(10), Framework(master.url) as framework:
        for _ in range(3):
            assert await framework.event("HEARTBEAT") == {"type": "HEARTBEAT"}


async def test_1_5_a_new_stream_has_a_timer_of_its_own(master: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a re-SUBSCRIBE the heartbeats go on upon the new stream, although the old one's timer went with it."""
    async with Framework(master.url, {"failover_timeout": 1000.0}) as old:
        monkeypatch.setattr(event_stream, "HEARTBEAT_S", 0.02)
        async with asyncio.timeout(10), Framework(master.url, {}, old.framework_id) as new:
            await old.until("ERROR")
            for _ in range(3):
                await new.event("HEARTBEAT")


async def test_1_5_protobuf_stream(master: Served, http: aiohttp.ClientSession) -> None:
    """In protobuf the same events are the same records."""
    call = scheduler_pb2.Call(type=scheduler_pb2.Call.SUBSCRIBE)
    call.subscribe.framework_info.user = call.subscribe.framework_info.name = "p"
    headers = {**PROTOBUF_TYPE, "Accept": "application/x-protobuf"}
    async with http.post(master.url + SCHEDULER, data=call.SerializeToString(), headers=headers) as answer:
        kinds = []
        for _ in range(2):
            record = await answer.content.readexactly(int(await answer.content.readline()))
            kinds.append(scheduler_pb2.Event.FromString(record).type)
    assert kinds == [scheduler_pb2.Event.SUBSCRIBED, scheduler_pb2.Event.HEARTBEAT]
