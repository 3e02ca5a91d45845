"""The scheduler API's status codes, connections and bounds (Mesos v1 contract, section 1.3; 3.1 for what is counted).

A test's name begins with the section of its "must" row.
"""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path

import aiohttp
import pytest
from support.fake_agent import FakeAgent
from support.master import (
    INFO,
    JSON_TYPE,
    PROTOBUF_TYPE,
    SCHEDULER,
    SUBSCRIBE,
    Framework,
    Json,
    post,
    raw,
    raw_post,
    running_master,
    task,
)

from edgerm_master.api import event_stream
from edgerm_master.api import http as face
from edgerm_master.main import Served

HEAD = b"POST /api/v1/scheduler HTTP/1.1\r\nHost: m\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"type":"NO_SUCH_CALL"}',
        b'{"type":"SUBSCRIBE"}',
        b'{"type":"SUBSCRIBE","subscribe":{}}',
        b'{"type":"SUBSCRIBE","subscribe":{"framework_info":{"user":"u"}}}',
        b'{"type":"KILL","framework_id":{"value":"x"}}',
        b'{"type":"REVIVE"}',
        b'{"type":"REVIVE","framework_id":{}}',
        b'{"type":"REVIVE","framework_id":{"value":"never-seen"}}',
    ],
)
async def test_1_3_malformed_is_400(master: Served, http: aiohttp.ClientSession, body: bytes) -> None:
    """What cannot be read, lacks a required part or names an unknown framework is 400, in one line."""
    status, text = await post(http, master, body, {**JSON_TYPE, "Mesos-Stream-Id": "x"} if b"REVIVE" in body else None)
    assert status == 400
    assert text.strip() and text.count("\n") == 1


async def test_1_3_unrecognised_type_in_protobuf_is_400(master: Served, http: aiohttp.ClientSession) -> None:
    """A call type with a number that nobody knows is a missing type."""
    assert (await post(http, master, b"\x10\x63", PROTOBUF_TYPE))[0] == 400


async def test_1_3_explicit_unknown_is_501(master: Served, http: aiohttp.ClientSession) -> None:
    """The type UNKNOWN, given explicitly, is 501."""
    assert (await post(http, master, {"type": "UNKNOWN"}))[0] == 501


async def test_1_3_framework_ids_must_agree(master: Served, http: aiohttp.ClientSession) -> None:
    """A SUBSCRIBE whose two framework ids differ, or of which one is absent, is 400."""
    for outer, inner in (("a", "b"), ("a", None), (None, "b")):
        info = {**INFO, **({"id": {"value": inner}} if inner else {})}
        body: Json = {"type": "SUBSCRIBE", "subscribe": {"framework_info": info}}
        if outer:
            body["framework_id"] = {"value": outer}
        assert (await post(http, master, body))[0] == 400


async def test_1_3_known_but_not_subscribed_is_403(master: Served, http: aiohttp.ClientSession) -> None:
    """A call of a framework whose stream is closed is 403."""
    async with Framework(master.url, {"failover_timeout": 1000.0}) as framework:
        framework.answer.close()
        call = {"type": "REVIVE", "framework_id": {"value": framework.framework_id}}
        headers = {**JSON_TYPE, "Mesos-Stream-Id": framework.stream_id}
        while (answer := await post(http, master, call, headers))[0] == 202:
            pass  # the master has not seen the end of the stream yet
        assert answer[0] == 403


async def test_1_3_a_torn_down_framework_is_400(master: Served) -> None:
    """After TEARDOWN every further call of the id is one of an unknown framework, and changes nothing."""
    async with Framework(master.url) as framework:
        assert await framework.call("TEARDOWN") == 202
        for kind in ("REVIVE", "TEARDOWN"):
            status, text = await framework.post({"type": kind, "framework_id": {"value": framework.framework_id}})
            assert status == 400 and framework.framework_id in text


async def test_1_3_a_stopping_master_is_503(master: Served, http: aiohttp.ClientSession) -> None:
    """While the master stops, calls and subscriptions are 503: clients then try again."""
    async with Framework(master.url) as framework:
        await master.shell.close()
        assert await framework.call("REVIVE") == 503
        assert (await post(http, master, SUBSCRIBE))[0] == 503


async def test_1_3_a_503_to_subscribe_is_held_back_for_a_moment(
    master: Served, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stopping master lets a SUBSCRIBE wait before its 503, for some clients come back without any pause."""
    monkeypatch.setattr(event_stream, "REFUSED_HOLD_S", 3600.0)
    await master.shell.close()
    subscribing = asyncio.create_task(post(http, master, SUBSCRIBE))
    async with aiohttp.ClientSession() as later:
        for _ in range(3):
            async with later.get(master.url + "/version"):
                pass  # an answer without a hold would have come by now
    assert not subscribing.done()
    subscribing.cancel()


async def test_1_3_semantically_bad_calls_are_202(master: Served) -> None:
    """Used offers, unknown tasks and agents, late acks: 202 for all of them."""
    nothing = {"value": "nothing"}
    uuid = base64.b64encode(bytes(16)).decode()
    async with Framework(master.url) as framework:
        assert await framework.call("ACCEPT", offer_ids=[nothing]) == 202
        assert await framework.call("DECLINE", offer_ids=[nothing]) == 202
        assert await framework.call("KILL", task_id=nothing) == 202
        assert await framework.call("KILL", task_id=nothing, agent_id=nothing) == 202
        assert await framework.call("ACKNOWLEDGE", agent_id=nothing, task_id=nothing, uuid=uuid) == 202
        assert await framework.call("RECONCILE", tasks=[{"task_id": nothing, "agent_id": nothing}]) == 202
        assert await framework.call("REVIVE", roles=["nothing"]) == 202
        assert await framework.call("SUPPRESS", roles=["nothing"]) == 202


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("SHUTDOWN", {"executor_id": {"value": "e"}, "agent_id": {"value": "a"}}),
        ("RECONCILE_OPERATIONS", {"operations": []}),
        ("ACKNOWLEDGE_OPERATION_STATUS", {"uuid": "AA==", "operation_id": {"value": "o"}}),
    ],
)
async def test_3_1_known_calls_that_are_not_built_are_202_and_counted(
    master: Served, http: aiohttp.ClientSession, kind: str, body: Json
) -> None:
    """A call of the contract that is not built is accepted, and stands in the metrics."""
    async with Framework(master.url) as framework:
        assert await framework.call(kind, **body) == 202
        assert await framework.call(kind, **body) == 202
    async with http.get(master.url + "/metrics") as answer:
        assert f'edgerm_calls_not_built_total{{type="{kind}"}} 2.0' in await answer.text()


@pytest.mark.parametrize("info", [{"role": "-bad"}, {"roles": ["x"]}, {"failover_timeout": -1}])
async def test_1_3_framework_level_refusal_is_an_error_event(
    master: Served, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch, info: Json
) -> None:
    """A framework that may not be is told so by one ERROR event on a stream of status 200, which then ends."""
    monkeypatch.setattr(event_stream, "REFUSED_HOLD_S", 0.0)
    body = {"type": "SUBSCRIBE", "subscribe": {"framework_info": {**INFO, **info}}}
    status, text = await post(http, master, body)
    length, _, record = text.partition("\n")
    assert (status, int(length)) == (200, len(record))
    assert json.loads(record)["type"] == "ERROR"


async def test_1_3_a_refused_stream_is_held_open_for_a_moment(
    master: Served, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ERROR comes at once and the end only after the hold, for some clients come back without any pause."""
    assert event_stream.REFUSED_HOLD_S >= 0.1
    monkeypatch.setattr(event_stream, "REFUSED_HOLD_S", 3600.0)
    body = {"type": "SUBSCRIBE", "subscribe": {"framework_info": {**INFO, "role": "-bad"}}}
    async with http.post(master.url + SCHEDULER, data=json.dumps(body), headers=JSON_TYPE) as answer:
        record = await answer.content.readexactly(int(await answer.content.readline()))
        assert json.loads(record)["type"] == "ERROR"
        async with http.get(master.url + "/version"):
            pass  # an end sent with the ERROR would have arrived by now
        assert not answer.content.at_eof()


async def test_1_3_one_connection_takes_many_calls_in_order(master: Served) -> None:
    """Calls that follow each other on one connection take effect in that order, and it stays open."""
    async with Framework(master.url) as framework:
        stream_id = b"Mesos-Stream-Id: " + framework.stream_id.encode()
        names = [f"task-{number}" for number in range(20)]
        requests = [
            raw_post(
                json.dumps(
                    {
                        "type": "RECONCILE",
                        "framework_id": {"value": framework.framework_id},
                        "reconcile": {"tasks": [{"task_id": {"value": name}}]},
                    }
                ).encode(),
                b"Content-Type: application/json",
                stream_id,
            )
            for name in names
        ]
        reader, writer = await raw(master, b"".join(requests))
        for _ in names:
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 202") and b"close" not in head
        assert [(await framework.status())["task_id"]["value"] for _ in names] == names
        writer.close()


async def test_1_3_idle_connections_stay_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one timer that closes idle connections is ours, and it is set to years."""
    assert face.KEEP_ALIVE_S > 365 * 86_400
    monkeypatch.setattr(face, "KEEP_ALIVE_S", 0.02)
    async with asyncio.timeout(10), running_master(tmp_path) as master:
        reader, writer = await raw(master, b"GET /version HTTP/1.1\r\nHost: m\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        await reader.read()  # the end comes by that timer, and no other
        writer.close()


async def test_1_3_headers_and_first_event_come_at_once(master: Served) -> None:
    """A subscription without any agent gets headers and SUBSCRIBED, not only when something happens."""
    async with asyncio.timeout(5), Framework(master.url) as framework:
        assert framework.framework_id


# --- bounds -----------------------------------------------------------------------------------------------------


async def test_a_call_of_2_mb_passes(master: Served) -> None:
    """A big call is taken, and its big task travels as a blob that the agent can fetch whole."""
    size = 3 << 19  # 2 MB in base64
    async with FakeAgent(master.url) as agent, Framework(master.url) as framework:
        offer = await framework.offer()
        assert await framework.launch(offer, task(offer, "big", data=base64.b64encode(bytes(size)).decode())) == 202
        assert (await framework.status())["state"] == "TASK_RUNNING"
        blob = agent.launches[0].task.info_blob
        assert blob is not None and blob.size_bytes > size
        async with aiohttp.request("GET", f"{master.url}/artifacts/{blob.digest}") as answer:
            assert len(await answer.read()) == blob.size_bytes


async def test_an_announced_body_of_2_gib_is_refused_before_it_is_read(master: Served) -> None:
    """The announcement alone is enough for 413."""
    reader, writer = await raw(master, HEAD + b"Content-Length: 2147483648\r\n\r\n")
    assert (await reader.readline()).startswith(b"HTTP/1.1 413")
    writer.close()


async def test_a_chunked_body_of_128_mib_is_refused_before_it_is_read_whole(master: Served) -> None:
    """The answer comes when the bound is passed, long before the end; the connection then ends."""
    reader, writer = await raw(master, HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
    chunk = b"100000\r\n" + bytes(1 << 20) + b"\r\n"
    answer = asyncio.create_task(reader.readline())
    sent = 0
    try:
        while not answer.done() and sent < 128:
            writer.write(chunk)
            await writer.drain()
            sent += 1
    except ConnectionError:
        pass
    assert (await answer).startswith(b"HTTP/1.1 413")
    assert sent < 64
    writer.close()
