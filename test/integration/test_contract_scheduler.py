"""The scheduler API over HTTP, one test for each "must" row of the Mesos v1 contract (sections 1, 2, 3 and 6).

A test's name begins with the section of its row. The master is real, with its store; agents answer from memory.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support.fake_agent import FakeAgent, finishes
from support.master import INFO, SCHEDULER, Framework, Json, running_master, task

from edgerm.core.link import Launch
from edgerm.core.tasks import TaskState
from edgerm.wire.v1 import scheduler_pb2
from edgerm_master.api.http import KEEP_ALIVE_S
from edgerm_master.main import Served

SUBSCRIBE: Json = {"type": "SUBSCRIBE", "subscribe": {"framework_info": INFO}}
JSON_TYPE = {"Content-Type": "application/json"}
HEAD = b"POST /api/v1/scheduler HTTP/1.1\r\nHost: m\r\nContent-Type: application/json\r\n"
PROTOBUF_TYPE = {"Content-Type": "application/x-protobuf"}


@pytest.fixture
async def master(tmp_path: Path) -> AsyncIterator[Served]:
    async with running_master(tmp_path) as served:
        yield served


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    skipped = ["Accept", "Accept-Encoding", "Content-Type"]
    async with aiohttp.ClientSession(skip_auto_headers=skipped, timeout=aiohttp.ClientTimeout(20)) as session:
        yield session


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


async def test_1_1_redirect_leads_to_the_leader(master: Served, http: aiohttp.ClientSession) -> None:
    """`/redirect` answers 307 with the leader's scheme-relative address."""
    async with http.get(master.url + "/redirect", allow_redirects=False) as answer:
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


# --- 1.3 status codes -------------------------------------------------------------------------------------------


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
        ("MESSAGE", {"executor_id": {"value": "e"}, "agent_id": {"value": "a"}, "data": "AA=="}),
        ("REQUEST", {"requests": []}),
        ("ACCEPT_INVERSE_OFFERS", {"inverse_offer_ids": []}),
        ("DECLINE_INVERSE_OFFERS", {"inverse_offer_ids": []}),
        ("RECONCILE_OPERATIONS", {"operations": []}),
        ("ACKNOWLEDGE_OPERATION_STATUS", {"uuid": "AA==", "operation_id": {"value": "o"}}),
        ("UPDATE_FRAMEWORK", {"framework_info": INFO}),
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


@pytest.mark.parametrize("info", [{"role": "-bad"}, {"role": "a b"}, {"roles": ["x"]}, {"failover_timeout": -1}])
async def test_1_3_framework_level_refusal_is_an_error_event(
    master: Served, http: aiohttp.ClientSession, info: Json
) -> None:
    """A framework that may not be is told so by one ERROR event on a stream of status 200, which then ends."""
    body = {"type": "SUBSCRIBE", "subscribe": {"framework_info": {**INFO, **info}}}
    status, text = await post(http, master, body)
    length, _, record = text.partition("\n")
    assert (status, int(length)) == (200, len(record))
    assert json.loads(record)["type"] == "ERROR"


async def test_1_3_idle_connections_stay_open_and_take_many_calls_in_order(master: Served) -> None:
    """One connection takes call after call, and no timer of less than years would close it."""
    async with Framework(master.url) as framework:
        body = json.dumps({"type": "REVIVE", "framework_id": {"value": framework.framework_id}}).encode()
        stream_id = b"Mesos-Stream-Id: " + framework.stream_id.encode()
        request = raw_post(body, b"Content-Type: application/json", stream_id)
        reader, writer = await raw(master, request + request)
        for _ in range(2):
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 202") and b"close" not in head
        writer.close()
    assert KEEP_ALIVE_S > 365 * 86_400


async def test_1_3_headers_and_first_event_come_at_once(master: Served) -> None:
    """A subscription without any agent gets headers and SUBSCRIBED, not only when something happens."""
    async with asyncio.timeout(5), Framework(master.url) as framework:
        assert framework.framework_id


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


# --- 2 JSON -----------------------------------------------------------------------------------------------------


async def test_2_unknown_fields_are_ignored(master: Served, http: aiohttp.ClientSession) -> None:
    """Fields that no message has are ignored: avmesos sends `slave_id` and `credentials`."""
    body = {**SUBSCRIBE, "subscribe": {"framework_info": {**INFO, "nonsense": 1}, "credentials": {"principal": "x"}}}
    async with http.post(master.url + SCHEDULER, data=json.dumps(body), headers=JSON_TYPE) as answer:
        assert answer.status == 200
    async with http.get(master.url + "/metrics") as answer:
        assert "edgerm_json_names_ignored_total 2.0" in await answer.text()


async def test_2_null_is_absent_and_numbers_may_be_text(master: Served, http: aiohttp.ClientSession) -> None:
    """`null` means unset; numbers may come as text, booleans too, and a double may be "Infinity"."""
    info = {**INFO, "hostname": None, "failover_timeout": "10.5", "checkpoint": "true"}
    async with http.post(
        master.url + SCHEDULER,
        data=json.dumps({"type": "SUBSCRIBE", "subscribe": {"framework_info": info}}),
        headers=JSON_TYPE,
    ) as answer:
        assert answer.status == 200
        await answer.content.readline()
        _, text = await post(http, master, {"type": "GET_FRAMEWORKS"}, path="/api/v1")
    shown = json.loads(text)["get_frameworks"]["frameworks"][0]["framework_info"]
    assert (shown["failover_timeout"], shown["checkpoint"], "hostname" in shown) == (10.5, True, False)


async def test_2_uuid_is_base64_of_16_bytes(master: Served) -> None:
    """A status uuid is padded base64 of 16 bytes; an ACKNOWLEDGE with another length is 400."""
    async with FakeAgent(master.url), Framework(master.url) as framework:
        offer = await framework.offer()
        await framework.launch(offer, task(offer, "t"))
        status = await framework.status()
        assert len(base64.b64decode(status["uuid"], validate=True)) == 16
        assert await framework.acknowledge({**status, "uuid": "AAAA"}) == 400
        assert await framework.acknowledge(status) == 202


async def test_2_unknown_enum_name_is_dropped_where_optional(master: Served, http: aiohttp.ClientSession) -> None:
    """A capability that nobody knows is dropped; a resource of an unknown type, which is required, is 400."""
    info = {**INFO, "capabilities": [{"type": "FLYING"}, {"type": "PARTITION_AWARE"}]}
    async with Framework(master.url, info) as framework:
        bad = {"name": "cpus", "type": "COLOUR", "scalar": {"value": 1}}
        launch = {"task_infos": [{**task({"agent_id": {"value": "a"}}, "t"), "resources": [bad]}]}
        body = {"offer_ids": [], "operations": [{"type": "LAUNCH", "launch": launch}]}
        assert await framework.call("ACCEPT", **body) == 400


async def test_2_empty_results_are_left_out(master: Served, http: aiohttp.ClientSession) -> None:
    """An empty result is an empty body that is present."""
    status, text = await post(http, master, {"type": "GET_TASKS"}, path="/api/v1")
    assert (status, text) == (200, '{"type":"GET_TASKS","get_tasks":{}}')


# --- 6.1 updates ------------------------------------------------------------------------------------------------


async def test_6_1_updates_come_in_order_one_at_a_time(master: Served) -> None:
    """Only the oldest unacknowledged update of a task is sent; the ack releases the next at once."""
    async with FakeAgent(master.url, on_launch=finishes) as agent, Framework(master.url) as framework:
        offer = await framework.offer()
        await framework.launch(offer, task(offer, "t"))
        first = await framework.status()
        assert first["state"] == "TASK_RUNNING" and first["uuid"]
        assert first["agent_id"]["value"] == agent.agent_id and first["task_id"]["value"] == "t"
        await agent.until(lambda agent: not agent.half._pending)  # the master has both updates
        await framework.call("RECONCILE", tasks=[])
        assert (await framework.status())["reason"] == "REASON_RECONCILIATION"
        await framework.acknowledge(first)
        assert (await framework.status())["state"] == "TASK_FINISHED"


async def test_6_1_updates_of_the_master_have_no_uuid(master: Served) -> None:
    """What the master itself says of a task has no `uuid` field at all."""
    async with Framework(master.url) as framework:
        await framework.call("RECONCILE", tasks=[{"task_id": {"value": "never"}}])
        assert "uuid" not in await framework.status()


async def test_6_1_late_and_repeated_acks_are_202_and_ignored(master: Served) -> None:
    """An ack that comes twice changes nothing."""
    async with FakeAgent(master.url) as agent, Framework(master.url) as framework:
        offer = await framework.offer()
        await framework.launch(offer, task(offer, "t"))
        status = await framework.status()
        assert await framework.acknowledge(status) == 202
        assert await framework.acknowledge(status) == 202
        agent.report(agent.launches[0].key, TaskState.FINISHED)
        assert (await framework.status())["state"] == "TASK_FINISHED"


async def test_6_1_a_completed_task_stays_known_until_it_is_acknowledged(tmp_path: Path) -> None:
    """A terminal task answers reconciliation until its update is acknowledged; then the agent may forget it."""
    async with (
        running_master(tmp_path, agents={"beat_interval_s": 0.1}) as master,
        FakeAgent(master.url, on_launch=finishes) as agent,
        Framework(master.url) as framework,
    ):
        offer = await framework.offer()
        await framework.launch(offer, task(offer, "t"))
        await framework.acknowledge(await framework.status())
        last = await framework.status()
        await framework.call("RECONCILE", tasks=[])
        assert (await framework.status())["state"] == "TASK_FINISHED"
        assert not agent.forgotten
        await framework.acknowledge(last)
        await agent.until(lambda agent: bool(agent.forgotten))


# --- 6.2 reconciliation -----------------------------------------------------------------------------------------


async def test_6_2_explicit_reconciliation(master: Served) -> None:
    """Known: its state; unknown on a known agent: gone; elsewhere: unknown. SOURCE_MASTER, no data, no labels."""
    info = {"capabilities": [{"type": "PARTITION_AWARE"}]}
    async with FakeAgent(master.url) as agent, Framework(master.url, info) as framework:
        offer = await framework.offer()
        await framework.launch(offer, task(offer, "known"))
        await framework.acknowledge(await framework.status())
        here, nowhere = {"value": agent.agent_id}, {"value": "nowhere"}
        for asked, state in (
            ({"task_id": {"value": "known"}}, "TASK_RUNNING"),
            ({"task_id": {"value": "never"}, "agent_id": here}, "TASK_GONE"),
            ({"task_id": {"value": "never"}, "agent_id": nowhere}, "TASK_UNKNOWN"),
            ({"task_id": {"value": "never"}}, "TASK_UNKNOWN"),
        ):
            await framework.call("RECONCILE", tasks=[asked])
            status = await framework.status()
            assert (status["state"], status["source"]) == (state, "SOURCE_MASTER")
            assert status["reason"] == "REASON_RECONCILIATION"
            assert not {"uuid", "data", "labels"} & set(status)


async def test_6_2_without_partition_aware_it_is_lost(master: Served) -> None:
    """Frameworks that do not know finer states are told TASK_LOST."""
    async with Framework(master.url) as framework:
        await framework.call("RECONCILE", tasks=[{"task_id": {"value": "never"}}])
        assert (await framework.status())["state"] == "TASK_LOST"


async def test_6_2_implicit_reconciliation(master: Served) -> None:
    """An empty list asks for every task of the framework."""
    async with FakeAgent(master.url), Framework(master.url) as framework:
        offer = await framework.offer()
        await framework.launch(offer, *(task(offer, name) for name in "abc"))
        for _ in "abc":
            await framework.acknowledge(await framework.status())
        await framework.call("RECONCILE", tasks=[])
        assert {(await framework.status())["task_id"]["value"] for _ in "abc"} == set("abc")


# --- 6.3 subscription -------------------------------------------------------------------------------------------


async def test_6_3_resubscription(master: Served) -> None:
    """Coming back keeps tasks, gives a new stream id, voids the old one, and ends a live old stream with an ERROR."""
    async with FakeAgent(master.url), Framework(master.url, {"failover_timeout": 1000.0}) as old:
        offer = await old.offer()
        await old.launch(offer, task(offer, "t"))
        await old.acknowledge(await old.status())
        async with Framework(master.url, {"failover_timeout": 1000.0}, old.framework_id) as new:
            assert new.framework_id == old.framework_id and new.stream_id != old.stream_id
            assert (await old.until("ERROR"))["error"]["message"] == "Framework failed over"
            with pytest.raises(EOFError):
                await old.next()
            assert await old.call("REVIVE") == 400
            await new.call("RECONCILE", tasks=[])
            assert (await new.status())["state"] == "TASK_RUNNING"


async def test_6_3_outstanding_offers_are_discarded_without_rescind(master: Served) -> None:
    """On the new stream the old offers are neither rescinded nor usable."""
    async with FakeAgent(master.url), Framework(master.url) as old:
        stale = await old.offer()
        async with Framework(master.url, {}, old.framework_id) as new:
            fresh = await new.event("OFFERS")
            assert fresh["offers"]["offers"][0]["id"] != stale["id"]
            await new.launch(stale, task(stale, "t"))
            assert (await new.status())["reason"] == "REASON_INVALID_OFFERS"


async def test_6_3_teardown_ends_tasks_and_the_id_for_good(master: Served, http: aiohttp.ClientSession) -> None:
    """After TEARDOWN the stream ends, the tasks are killed, and the id can never subscribe again."""
    async with FakeAgent(master.url) as agent, Framework(master.url, {"failover_timeout": 1000.0}) as framework:
        offer = await framework.offer()
        await framework.launch(offer, task(offer, "t"))
        await framework.status()
        assert await framework.call("TEARDOWN") == 202
        with pytest.raises(EOFError):
            await framework.until("nothing more")
        await agent.until(lambda agent: bool(agent.kills))
        info = {**INFO, "id": {"value": framework.framework_id}}
        body = {"type": "SUBSCRIBE", "framework_id": info["id"], "subscribe": {"framework_info": info}}
        status, text = await post(http, master, body)
        assert status == 200 and "Framework has been removed" in text


async def test_6_3_an_unknown_id_is_accepted(master: Served) -> None:
    """An id that the master has not seen is taken: the framework was another master's."""
    async with Framework(master.url, {}, "from-before") as framework:
        assert framework.framework_id == "from-before"


async def test_6_3_without_failover_timeout_a_disconnect_ends_the_framework(master: Served) -> None:
    """The default timeout is 0: the framework's tasks are killed when its stream breaks."""
    async with FakeAgent(master.url) as agent, Framework(master.url) as framework:
        offer = await framework.offer()
        await framework.launch(offer, task(offer, "t"))
        await framework.status()
        framework.answer.close()
        await agent.until(lambda agent: bool(agent.kills))


# --- 6.4 offers -------------------------------------------------------------------------------------------------


async def test_6_4_an_offer_is_exact_sorted_and_old_fashioned(master: Served) -> None:
    """Without capabilities an offer has role `*`, no allocation_info, and sorted, coalesced ranges."""
    resources = "cpus:0.3;mem:64;ports:[31005-31010,31000-31004,32000-32000]"
    async with FakeAgent(master.url, resources), Framework(master.url) as framework:
        offer = await framework.offer()
        assert "allocation_info" not in offer
        by_name = {resource["name"]: resource for resource in offer["resources"]}
        assert all(resource["role"] == "*" and "allocation_info" not in resource for resource in by_name.values())
        assert by_name["cpus"]["scalar"]["value"] == 0.3
        ranges = [{"begin": 31000, "end": 31010}, {"begin": 32000, "end": 32000}]
        assert by_name["ports"]["ranges"]["range"] == ranges


async def test_6_4_leftover_scalars_are_exact(master: Served) -> None:
    """0.3 less 0.1 is offered as 0.2, not as what floats make of it."""
    async with FakeAgent(master.url, "cpus:0.3;mem:64"), Framework(master.url) as framework:
        offer = await framework.offer()
        await framework.launch(offer, task(offer, "t"), refuse_seconds=0.0)
        rest = await framework.offer()
        cpus = [resource for resource in rest["resources"] if resource["name"] == "cpus"]
        assert cpus[0]["scalar"]["value"] == 0.2


@pytest.mark.parametrize("value", ["NaN", "Infinity", -1])
async def test_6_4_amounts_that_are_no_amounts_are_refused(master: Served, value: object) -> None:
    """NaN, infinite and negative amounts make a TASK_ERROR of that task."""
    async with FakeAgent(master.url), Framework(master.url) as framework:
        offer = await framework.offer()
        bad = [{"name": "cpus", "type": "SCALAR", "scalar": {"value": value}}]
        await framework.launch(offer, task(offer, "bad", resources=bad), task(offer, "good"))
        states = {(status := await framework.status())["task_id"]["value"]: status["state"] for _ in range(2)}
        assert states == {"bad": "TASK_ERROR", "good": "TASK_RUNNING"}


@pytest.mark.parametrize(("capabilities", "state"), [([], "TASK_LOST"), (["PARTITION_AWARE"], "TASK_DROPPED")])
async def test_6_4_an_offer_is_used_once(master: Served, capabilities: list[str], state: str) -> None:
    """A used, unknown or missing offer makes each task of the call TASK_LOST or TASK_DROPPED, by the master."""
    info = {"capabilities": [{"type": name} for name in capabilities]}
    async with FakeAgent(master.url) as agent, Framework(master.url, info) as framework:
        offer = await framework.offer()
        await framework.launch(offer, task(offer, "first"))
        await framework.status()
        for offer_ids in ([offer["id"]], [{"value": "never"}], []):
            operations = [{"type": "LAUNCH", "launch": {"task_infos": [task(offer, "second")]}}]
            assert await framework.call("ACCEPT", offer_ids=offer_ids, operations=operations) == 202
            status = await framework.status()
            assert (status["state"], status["source"]) == (state, "SOURCE_MASTER")
            assert status["reason"] == "REASON_INVALID_OFFERS"
        assert len(agent.launches) == 1


async def test_6_4_several_offers_of_one_agent(master: Served) -> None:
    """An ACCEPT may put offers of one agent together."""
    async with FakeAgent(master.url, "cpus:2;mem:512"), Framework(master.url) as framework:
        offer = await framework.offer()
        half = task(offer, "one", cpus=1)
        await framework.launch(offer, half, refuse_seconds=0.0)
        await framework.acknowledge(await framework.status())
        small = await framework.offer()
        await framework.call("KILL", task_id={"value": "one"})
        await framework.acknowledge(await framework.status())
        other = await framework.offer()
        body = {
            "offer_ids": [small["id"], other["id"]],
            "operations": [{"type": "LAUNCH", "launch": {"task_infos": [task(offer, "both", cpus=2)]}}],
        }
        assert await framework.call("ACCEPT", **body) == 202
        assert (await framework.status())["state"] == "TASK_RUNNING"


async def test_6_4_a_bad_task_is_an_error_and_the_others_go_ahead(master: Served) -> None:
    """Too much, or a wrong agent: TASK_ERROR with REASON_TASK_INVALID for that task alone."""
    async with FakeAgent(master.url), Framework(master.url) as framework:
        offer = await framework.offer()
        await framework.launch(
            offer,
            task(offer, "greedy", cpus=100),
            task({"agent_id": {"value": "elsewhere"}}, "lost"),
            task(offer, "fine"),
            task(offer, "fine"),
        )
        told = [await framework.status() for _ in range(4)]
        errors = [status for status in told if status["state"] == "TASK_ERROR"]
        assert sorted(status["task_id"]["value"] for status in errors) == ["fine", "greedy", "lost"]
        assert {status["reason"] for status in errors} == {"REASON_TASK_INVALID"}
        assert [status["state"] for status in told if status not in errors] == ["TASK_RUNNING"]


async def test_6_4_a_refusal_withholds_and_revive_brings_back(master: Served) -> None:
    """A declined offer is withheld for its filter's time; REVIVE clears that."""
    async with FakeAgent(master.url), Framework(master.url) as framework:
        first = await framework.offer()
        assert await framework.call("DECLINE", offer_ids=[first["id"]], filters={"refuse_seconds": 1000.0}) == 202
        await framework.call("RECONCILE", tasks=[{"task_id": {"value": "marker"}}])
        await framework.event("UPDATE")  # and no OFFERS before it
        assert await framework.call("REVIVE") == 202
        assert (await framework.offer())["id"] != first["id"]


async def test_6_4_suppress_stops_offers_until_revive(master: Served) -> None:
    """Nothing is offered to a framework that asked for silence."""
    async with Framework(master.url) as framework:
        assert await framework.call("SUPPRESS") == 202
        async with FakeAgent(master.url):
            await framework.call("RECONCILE", tasks=[{"task_id": {"value": "marker"}}])
            await framework.event("UPDATE")
            assert await framework.call("REVIVE") == 202
            await framework.event("OFFERS")


async def test_6_4_launch_without_tasks_declines(master: Served) -> None:
    """An ACCEPT that launches nothing gives the offer back, with its filter."""
    async with FakeAgent(master.url), Framework(master.url) as framework:
        offer = await framework.offer()
        assert await framework.launch(offer) == 202
        await framework.call("REVIVE")
        assert (await framework.offer())["id"] != offer["id"]


async def test_6_4_and_6_6_a_lost_agent(tmp_path: Path) -> None:
    """A silent agent: its offers are rescinded, FAILURE, TASK_LOST with REASON_AGENT_REMOVED and no uuid."""
    beats = {"beat_interval_s": 0.2, "missed_beats": 3}
    async with running_master(tmp_path, agents=beats) as master, Framework(master.url) as framework:
        async with FakeAgent(master.url) as agent:
            offer = await framework.offer()
            await framework.launch(offer, task(offer, "t"), refuse_seconds=0.0)
            await framework.acknowledge(await framework.status())
            rest = await framework.offer()
        told = {(event := await framework.next())["type"]: event for _ in range(3)}
        assert told["RESCIND"]["rescind"]["offer_id"] == rest["id"]
        assert told["FAILURE"]["failure"] == {"agent_id": {"value": agent.agent_id}}
        status = told["UPDATE"]["update"]["status"]
        assert (status["state"], status["reason"]) == ("TASK_LOST", "REASON_AGENT_REMOVED")
        assert "uuid" not in status


async def test_6_6_an_agent_that_returns_brings_its_tasks_back(tmp_path: Path) -> None:
    """The tasks of an agent that comes back are kept, and the framework is told their present state."""
    beats = {"beat_interval_s": 0.2, "missed_beats": 3}
    info = {"capabilities": [{"type": "PARTITION_AWARE"}]}
    async with running_master(tmp_path, agents=beats) as master, Framework(master.url, info) as framework:
        async with FakeAgent(master.url) as agent:
            offer = await framework.offer()
            await framework.launch(offer, task(offer, "t"))
            await framework.acknowledge(await framework.status())
        assert (await framework.status())["state"] == "TASK_UNREACHABLE"
        back = FakeAgent(master.url, agent_id=agent.agent_id, incarnation=2, tasks=agent.tasks)
        async with back:
            status = await framework.status()
            assert (status["state"], status["reason"]) == ("TASK_RUNNING", "REASON_AGENT_REREGISTERED")
            assert not back.kills


# --- 6.5 kill ---------------------------------------------------------------------------------------------------


async def test_6_5_a_kill_is_forwarded_each_time(master: Served) -> None:
    """A task that does not end is asked again with every KILL."""

    class Stubborn(FakeAgent):
        def report(self, key: Any, state: TaskState, message: str = "") -> None:
            if state is not TaskState.KILLED:
                super().report(key, state, message)

    async with Stubborn(master.url) as agent, Framework(master.url) as framework:
        offer = await framework.offer()
        await framework.launch(offer, task(offer, "t"))
        await framework.acknowledge(await framework.status())
        assert await framework.call("KILL", task_id={"value": "t"}) == 202
        await agent.until(lambda agent: len(agent.kills) == 1)
        grace = {"grace_period": {"nanoseconds": 500_000_000}}
        assert await framework.call("KILL", task_id={"value": "t"}, kill_policy=grace) == 202
        await agent.until(lambda agent: len(agent.kills) == 2)
        assert agent.kills[1].grace_s == 0.5


async def test_6_5_a_kill_with_a_wrong_agent_is_dropped(master: Served) -> None:
    """A KILL that names another agent than the task's reaches nobody."""
    async with FakeAgent(master.url) as agent, Framework(master.url) as framework:
        offer = await framework.offer()
        await framework.launch(offer, task(offer, "t"))
        await framework.acknowledge(await framework.status())
        assert await framework.call("KILL", task_id={"value": "t"}, agent_id={"value": "elsewhere"}) == 202
        await framework.call("KILL", task_id={"value": "t"}, agent_id={"value": agent.agent_id})
        assert (await framework.status())["state"] == "TASK_KILLED"
        assert len(agent.kills) == 1


async def test_6_5_a_kill_of_an_unknown_task_is_answered_as_reconciliation(master: Served) -> None:
    """KILL of a task that is not known tells what is known of it."""
    async with Framework(master.url) as framework:
        assert await framework.call("KILL", task_id={"value": "never"}) == 202
        assert (await framework.status())["state"] == "TASK_LOST"


# --- bytes that nobody here decides on --------------------------------------------------------------------------


async def test_unknown_protobuf_fields_of_a_task_arrive_unchanged(master: Served, http: aiohttp.ClientSession) -> None:
    """A field that edgerm does not know reaches the agent byte for byte."""
    arrived: list[Launch] = []

    def keep(launch: Launch) -> tuple[TaskState, ...]:
        arrived.append(launch)
        return (TaskState.RUNNING,)

    unknown = b"\xfa\x7f\x03abc"  # field 2047, three bytes
    async with FakeAgent(master.url, on_launch=keep) as agent, Framework(master.url) as framework:
        offer = await framework.offer()
        call = scheduler_pb2.Call(type=scheduler_pb2.Call.ACCEPT)
        call.framework_id.value = framework.framework_id
        call.accept.offer_ids.add(value=offer["id"]["value"])
        info = call.accept.operations.add(type=1).launch.task_infos.add(name="t")
        info.task_id.value, info.agent_id.value, info.command.value = "t", agent.agent_id, "true"
        info.resources.add(name="cpus", type=0).scalar.value = 1
        info.MergeFromString(unknown)
        headers = {**PROTOBUF_TYPE, "Mesos-Stream-Id": framework.stream_id}
        assert (await post(http, master, call.SerializeToString(), headers))[0] == 202
        await framework.status()
    assert unknown in arrived[0].task.info
