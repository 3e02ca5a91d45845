"""The JSON form: what Mesos clients send is understood, what we send they understand, and bad input is named."""

from __future__ import annotations

import json
import math

import pytest
from google.protobuf.message import Message

from edgerm.core.errors import EdgermError, Invalid, TooLarge
from edgerm.wire import json as wire_json
from edgerm.wire.json import Ignored, from_json, to_json
from edgerm.wire.v1 import (
    basics_pb2,
    infos_pb2,
    master_pb2,
    offers_pb2,
    operator_pb2,
    resources_pb2,
    scheduler_pb2,
    tasks_pb2,
)

UUID = bytes(range(16))
Response = master_pb2.Response
CapabilityInfo = tasks_pb2.CapabilityInfo


def read(message_class: type[Message], document: object) -> Message:
    return from_json(message_class, json.dumps(document).encode())


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (
            master_pb2.Response(type=Response.GET_TASKS, get_tasks=Response.GetTasks()),
            '{"type":"GET_TASKS","get_tasks":{}}',
        ),
        (basics_pb2.DurationInfo(nanoseconds=2**62), '{"nanoseconds":4611686018427387904}'),
        (resources_pb2.Value.Range(begin=0, end=2**64 - 1), '{"begin":0,"end":18446744073709551615}'),
        (basics_pb2.UUID(value=UUID), '{"value":"AAECAwQFBgcICQoLDA0ODw=="}'),
        (basics_pb2.UUID(value=b"\xfb\xff"), '{"value":"+/8="}'),
        (basics_pb2.UUID(value=b""), '{"value":""}'),
        (basics_pb2.TaskID(value="a\nb\u00e9\U0001f600"), '{"value":"a\\nb\\u00e9\\ud83d\\ude00"}'),
        (resources_pb2.Value.Scalar(value=3), '{"value":3.0}'),
        (resources_pb2.Value.Scalar(value=math.inf), '{"value":"Infinity"}'),
        (resources_pb2.Value.Scalar(value=-math.inf), '{"value":"-Infinity"}'),
        (resources_pb2.Value.Scalar(value=math.nan), '{"value":"NaN"}'),
        (offers_pb2.Filters(), "{}"),
        (offers_pb2.Filters(refuse_seconds=5), '{"refuse_seconds":5.0}'),
        (tasks_pb2.CommandInfo(shell=False, arguments=["a", ""]), '{"shell":false,"arguments":["a",""]}'),
        (
            tasks_pb2.CapabilityInfo(capabilities=[CapabilityInfo.CHOWN, CapabilityInfo.KILL]),
            '{"capabilities":["CHOWN","KILL"]}',
        ),
        (
            basics_pb2.ContainerID(value="child", parent=basics_pb2.ContainerID(value="top")),
            '{"value":"child","parent":{"value":"top"}}',
        ),
    ],
)
def test_a_message_is_written_in_mesos_form(message: Message, text: str) -> None:
    """Set fields only, 64-bit numbers as numbers, enums by name, bytes as padded base64, one line of ASCII."""
    assert to_json(message).decode() == text


def test_maps_are_written_as_objects() -> None:
    """A map is an object whose values are in the form of their type."""
    quantities = infos_pb2.OfferFilters.ResourceQuantities()
    quantities.quantities["cpus"].value = 0.5
    assert to_json(quantities) == b'{"quantities":{"cpus":{"value":0.5}}}'


def test_an_incomplete_message_is_not_written() -> None:
    """Writing a message without its required fields is our own fault, and no Invalid."""
    with pytest.raises(EdgermError, match="cannot write AgentInfo: missing required hostname") as caught:
        to_json(infos_pb2.AgentInfo())
    assert not isinstance(caught.value, Invalid)


@pytest.mark.parametrize(
    ("message_class", "document", "expected"),
    [
        (basics_pb2.DurationInfo, {"nanoseconds": "-9223372036854775808"}, {"nanoseconds": -(2**63)}),
        (basics_pb2.DurationInfo, {"nanoseconds": 3.0}, {"nanoseconds": 3}),
        (basics_pb2.Address, {"port": "2147483647"}, {"port": 2**31 - 1}),
        (resources_pb2.Value.Scalar, {"value": 2}, {"value": 2.0}),
        (resources_pb2.Value.Scalar, {"value": "1.5e3"}, {"value": 1500.0}),
        (resources_pb2.Value.Scalar, {"value": "Infinity"}, {"value": math.inf}),
        (resources_pb2.Value.Scalar, {"value": "-Infinity"}, {"value": -math.inf}),
        (tasks_pb2.CommandInfo, {"shell": "false", "value": "x"}, {"shell": False, "value": "x"}),
        (tasks_pb2.CommandInfo, {"shell": "true"}, {"shell": True}),
        (tasks_pb2.CommandInfo, {"shell": None, "value": None, "arguments": None}, {}),
        (scheduler_pb2.Call, {"type": "REVIVE", "revive": {}}, {"type": "REVIVE", "revive": {}}),
        (scheduler_pb2.Call, {"type": "REVIVE", "revive": None}, {"type": "REVIVE"}),
        (scheduler_pb2.Call, {"type": 3}, {"type": "ACCEPT"}),
        (scheduler_pb2.Call.Revive, {"roles": ["a", "b"]}, {"roles": ["a", "b"]}),
        (basics_pb2.TaskID, {"value": "\U0001f600"}, {"value": "\U0001f600"}),
    ],
)
def test_what_clients_write_is_understood(message_class: type[Message], document: object, expected: object) -> None:
    """Numbers and booleans may come as text, enums as numbers, and null means absent."""
    assert read(message_class, document) == message_class(**expected)  # type: ignore[arg-type]


def test_nan_is_understood() -> None:
    """A double may be the text NaN."""
    assert math.isnan(from_json(resources_pb2.Value.Scalar, b'{"value": "NaN"}').value)


@pytest.mark.parametrize("grace", ["90s", {"seconds": 90}, {"seconds": "90"}])
def test_a_duration_of_protobuf_comes_as_text_or_as_an_object(grace: object) -> None:
    """DRAIN_AGENT takes its grace period in both forms that protobuf's Duration has."""
    call = from_json(
        master_pb2.Call,
        json.dumps({"drain_agent": {"agent_id": {"value": "A1"}, "max_grace_period": grace}}).encode(),
    )
    assert call.drain_agent.max_grace_period.seconds == 90


def test_the_last_of_two_equal_names_wins() -> None:
    """A name that stands twice in an object counts with its last value, and the first leaves nothing behind."""
    call = from_json(scheduler_pb2.Call, b'{"revive": {"roles": ["a"]}, "revive": {"roles": ["b"]}}')
    assert list(call.revive.roles) == ["b"]


def test_unknown_names_are_ignored_and_counted() -> None:
    """What Mesos does not have is left out, as for avmesos' `slave_id`, and a face can say how much it was."""
    ignored = Ignored()
    body = b'{"type": "KILL", "kill": {"task_id": {"value": "T1"}, "slave_id": {"deep": [1]}}, "credentials": 1}'
    call = from_json(scheduler_pb2.Call, body, ignored=ignored)
    assert call == from_json(scheduler_pb2.Call, b'{"type": "KILL", "kill": {"task_id": {"value": "T1"}}}')
    assert call.kill.task_id.value == "T1"
    assert (ignored.total, list(ignored.latest)) == (2, ["slave_id", "credentials"])


def test_ignored_names_take_bounded_memory() -> None:
    """However many and long the unknown names are, only the latest are kept, and shortened."""
    ignored = Ignored()
    body = json.dumps({"x" * 1000 + str(n): n for n in range(1000)}).encode()
    from_json(scheduler_pb2.Call, body, ignored=ignored)
    assert ignored.total == 1000
    assert len(ignored.latest) == 16
    assert max(map(len, ignored.latest)) == 64


def test_an_unknown_enum_name_is_dropped_where_it_may_be() -> None:
    """An enum name or number that we do not know leaves an optional field unset and a list shorter, and is counted."""
    ignored = Ignored()
    call = from_json(scheduler_pb2.Call, b'{"type": "SOMETHING_NEW"}', ignored=ignored)
    assert not call.HasField("type")
    assert not from_json(scheduler_pb2.Call, b'{"type": 99}', ignored=ignored).HasField("type")
    names = b'{"capabilities": ["CHOWN", "SOMETHING_NEW", "KILL"]}'
    assert list(from_json(tasks_pb2.CapabilityInfo, names, ignored=ignored).capabilities) == [1000, 1005]
    assert ignored.total == 3


def test_our_own_messages_travel_in_the_same_form() -> None:
    """The calls that Mesos does not have follow the same rules."""
    call = operator_pb2.Call(type=operator_pb2.Call.READ_LOG)
    call.read_log.task_id.value = "T1"
    call.read_log.stream = operator_pb2.STDERR
    call.read_log.offset = -10
    call.read_log.follow = True
    text = b'{"type":"READ_LOG","read_log":{"task_id":{"value":"T1"},"stream":"STDERR","offset":-10,"follow":true}}'
    assert to_json(call) == text
    assert from_json(operator_pb2.Call, text) == call


@pytest.mark.parametrize(
    ("message_class", "body", "text"),
    [
        (scheduler_pb2.Call, "", "scheduler.Call in JSON: Expecting value"),
        (scheduler_pb2.Call, "{", "scheduler.Call in JSON: Expecting property name"),
        (scheduler_pb2.Call, "[]", "the document: expected an object, got an array of 0"),
        (scheduler_pb2.Call, '{"kill": 7}', "kill: expected an object, got 7"),
        (scheduler_pb2.Call, '{"type": {}}', "type: expected a name of edgerm.v1.scheduler.Call.Type, got an object"),
        (scheduler_pb2.Call, '{"type": true}', "type: expected a name of .*, got True"),
        (scheduler_pb2.Call, '{"accept": {"offer_ids": {}}}', r"accept\.offer_ids: expected an array, got an object"),
        (
            scheduler_pb2.Call,
            '{"accept": {"offer_ids": [{"value": "O1"}, {"value": 5}]}}',
            r"accept\.offer_ids\[1\]\.value: expected a string, got 5",
        ),
        (scheduler_pb2.Call, '{"revive": {"roles": ["a", null]}}', r"revive\.roles\[1\]: expected a string, got None"),
        (scheduler_pb2.Call, '{"kill": {}}', r"scheduler\.Call in JSON: missing required kill\.task_id"),
        (basics_pb2.TaskID, r'{"value": "\ud800"}', "value: .* holds half of a surrogate pair"),
        (basics_pb2.UUID, '{"value": "AAE"}', "value: 'AAE' is not padded standard base64"),
        (basics_pb2.UUID, '{"value": "AA=="}AA"}', "in JSON: Extra data"),
        (basics_pb2.UUID, '{"value": "A A="}', "value: .* is not padded standard base64"),
        (basics_pb2.UUID, '{"value": "-_8="}', "value: .* is not padded standard base64"),
        (basics_pb2.UUID, '{"value": "\u00e9"}', r"value: '\\xe9' is not padded standard base64"),
        (basics_pb2.UUID, '{"value": 1}', "value: expected base64 text, got 1"),
        (basics_pb2.Address, '{"port": 2147483648}', r"port: 2147483648 is not within -2147483648\.\.2147483647"),
        (basics_pb2.Address, '{"port": "1.0"}', "port: expected an integer, got '1.0'"),
        (basics_pb2.Address, '{"port": 1.5}', "port: expected an integer, got 1.5"),
        (basics_pb2.Address, '{"port": true}', "port: expected an integer, got True"),
        (basics_pb2.Address, '{"port": " 1"}', "port: expected an integer, got ' 1'"),
        (basics_pb2.Address, '{"port": 1e999}', "port: expected an integer, got inf"),
        (basics_pb2.Address, f'{{"port": {"9" * 1000}}}', "port: an integer of 3322 bits is not within"),
        (basics_pb2.Address, f'{{"port": {"9" * 5000}}}', "Address in JSON: Exceeds the limit"),
        (resources_pb2.Value.Range, '{"begin": -1, "end": 1}', r"begin: -1 is not within 0\.\.18446744073709551615"),
        (resources_pb2.Value.Scalar, '{"value": 1e999}', "value: inf does not fit a double"),
        (resources_pb2.Value.Scalar, f'{{"value": {"9" * 400}}}', "value: an integer of .* bits does not fit a double"),
        (resources_pb2.Value.Scalar, '{"value": NaN}', 'NaN is no JSON; write "NaN" in quotes'),
        (resources_pb2.Value.Scalar, '{"value": "inf"}', "value: expected a number, got 'inf'"),
        (resources_pb2.Value.Scalar, '{"value": "1_0"}', "value: expected a number, got '1_0'"),
        (resources_pb2.Value.Scalar, '{"value": false}', "value: expected a number, got False"),
        (tasks_pb2.CommandInfo, '{"shell": 1}', "shell: expected true or false, got 1"),
        (
            tasks_pb2.TaskGroupInfo,
            '{"tasks": [{"limits": []}]}',
            r"tasks\[0\]\.limits: expected an object, got an array",
        ),
        (
            infos_pb2.OfferFilters.ResourceQuantities,
            '{"quantities": {"cpus": {"value": "x"}}}',
            r"quantities\['cpus'\]\.value: expected a number, got 'x'",
        ),
        (
            tasks_pb2.TaskStatus,
            '{"task_id": {"value": "T1"}, "state": "TASK_NEW"}',
            "state: 'TASK_NEW' is no value of edgerm.v1.TaskState; known: TASK_STAGING, TASK_STARTING",
        ),
        (
            master_pb2.Call,
            '{"drain_agent": {"max_grace_period": "long"}}',
            r"drain_agent\.max_grace_period: expected a duration such as 1\.5s, got 'long'",
        ),
    ],
)
def test_what_does_not_fit_is_named_with_its_path(message_class: type[Message], body: str, text: str) -> None:
    """Bad input is refused with one line that says where the value stands and what it is."""
    with pytest.raises(Invalid, match=text) as caught:
        from_json(message_class, body.encode())
    assert "\n" not in str(caught.value)


def test_text_that_is_not_utf8_is_refused() -> None:
    """A body in another encoding is refused, with the place of the first wrong byte."""
    with pytest.raises(Invalid, match="not UTF-8 at byte 11"):
        from_json(basics_pb2.TaskID, b'{"value": "\xff"}')
    with pytest.raises(Invalid, match="TaskID in JSON"):
        from_json(basics_pb2.TaskID, '{"value": "x"}'.encode("utf-16"))


def test_a_body_beyond_its_bound_is_refused() -> None:
    """A body one byte larger than allowed is too large, and one of the size allowed is not."""
    body = b'{"value":"x"}'
    assert from_json(basics_pb2.TaskID, body, max_bytes=len(body)).value == "x"
    with pytest.raises(TooLarge, match="TaskID of 13 bytes; at most 12"):
        from_json(basics_pb2.TaskID, body, max_bytes=len(body) - 1)


def container_id(depth: int) -> bytes:
    """A container id with `depth` messages within each other."""
    return b'{"value":"x","parent":' * (depth - 1) + b'{"value":"x"}' + b"}" * (depth - 1)


def test_nesting_is_bounded() -> None:
    """Messages may be nested 64 deep and no deeper, and a hundred thousand brackets are refused as calmly."""
    assert from_json(basics_pb2.ContainerID, container_id(64)).value == "x"
    with pytest.raises(Invalid, match="nested deeper than a document may be"):
        from_json(basics_pb2.ContainerID, container_id(65))
    with pytest.raises(Invalid, match="nested deeper than a document may be"):
        from_json(scheduler_pb2.Call, b'{"x":' + b"[" * 100_000)


def test_depth_counts_nesting_and_not_neighbours() -> None:
    """A thousand messages beside each other are as deep as one."""
    body = json.dumps({"offer_ids": [{"value": "O"}] * 1000}).encode()
    assert len(from_json(scheduler_pb2.Call.Accept, body).offer_ids) == 1000


def test_the_number_of_values_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A document with more values than allowed is refused before any is made, also where they would be ignored."""
    monkeypatch.setattr(wire_json, "MAX_VALUES", 6)
    assert len(from_json(scheduler_pb2.Call.Revive, b'{"roles": ["a", "b", "c", "d", "e"]}').roles) == 5
    for body in (b'{"roles": ["a", "b", "c", "d", "e", "f"]}', b'{"other": [{}, {}, {}]}', b'{"other": [[[[[[1]]]]]]}'):
        with pytest.raises(Invalid, match="more than 6 values in one document"):
            from_json(scheduler_pb2.Call.Revive, body)


def test_text_does_not_count_as_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commas and brackets within text, escaped quotes among them, are no values."""
    monkeypatch.setattr(wire_json, "MAX_VALUES", 6)
    role = 'a,b,c,d\\",{[{[{[,\\\\'
    call = from_json(scheduler_pb2.Call.Revive, json.dumps({"roles": [role, role]}).encode())
    assert list(call.roles) == [role, role]


def test_a_million_open_quotes_are_refused_in_linear_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Text that never ends is a syntax error, however often it pretends to end."""
    monkeypatch.setattr(wire_json, "MAX_VALUES", 6)
    with pytest.raises(Invalid, match="Unterminated string"):
        from_json(scheduler_pb2.Call.Revive, b'{"' + b',\\"' * 1_000_000)
