"""Properties of messages of any shape: both encodings keep them, and strict Mesos clients can read them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgerm.core.errors import Invalid
from edgerm.wire.content import from_protobuf, to_protobuf
from edgerm.wire.json import from_json, to_json
from edgerm.wire.v1 import executor_pb2, infos_pb2, master_pb2, operator_pb2, scheduler_pb2

Messages = Callable[[type[Message]], st.SearchStrategy[Message]]

REPLIES = (
    scheduler_pb2.Event,
    scheduler_pb2.Response,
    executor_pb2.Event,
    master_pb2.Response,
    master_pb2.Event,
    infos_pb2.VersionInfo,
)
CALLS = (scheduler_pb2.Call, executor_pb2.Call, master_pb2.Call, operator_pb2.Call)
OURS = (operator_pb2.Response,)
EXAMPLES = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


def read_varint(body: bytes, position: int) -> tuple[int, int]:
    """A varint and the position after it."""
    value, shift = 0, 0
    while True:
        byte = body[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7


def write_varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out) + bytes([value])


def fields(body: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Number, wire type and value of each field; for wire type 2 the value is without its length."""
    position = 0
    while position < len(body):
        tag, start = read_varint(body, position)
        if tag & 7 == 0:
            _, position = read_varint(body, start)
        elif tag & 7 == 2:
            length, start = read_varint(body, start)
            position = start + length
        else:
            position = start + {1: 8, 5: 4}[tag & 7]
        yield tag >> 3, tag & 7, body[start:position]


def without_our_fields(descriptor: Descriptor, body: bytes) -> bytes:
    """What a strict Mesos client sees: the bytes without any field from 1000 on, at any depth."""
    out = bytearray()
    for number, wire_type, value in fields(body):
        if number >= 1000:
            continue
        child = descriptor.fields_by_number[number].message_type
        kept = without_our_fields(child, value) if child is not None else value
        out += write_varint(number << 3 | wire_type)
        out += write_varint(len(kept)) if wire_type == 2 else b""
        out += kept
    return bytes(out)


def only_mesos(message: Message) -> None:
    """Clears every field from 1000 on, at any depth, through the message's own interface."""
    for f, value in message.ListFields():
        if f.number >= 1000:
            message.ClearField(f.name)
        elif f.message_type is not None and f.message_type.GetOptions().map_entry:
            if f.message_type.fields_by_name["value"].message_type is not None:
                for item in value.values():
                    only_mesos(item)
        elif f.message_type is not None:
            for item in value if f.is_repeated else [value]:
                only_mesos(item)


@pytest.mark.parametrize("message_class", [*CALLS, *REPLIES, *OURS], ids=lambda c: c.DESCRIPTOR.full_name)
@EXAMPLES
@given(data=st.data())
def test_both_encodings_keep_a_message(message_class: type[Message], messages: Messages, data: st.DataObject) -> None:
    """What is written in JSON or protobuf is read back as the same message; JSON is one line of ASCII."""
    message = data.draw(messages(message_class))
    text = to_json(message)
    assert text.isascii()
    assert b"\n" not in text
    assert from_json(message_class, text) == message
    assert from_protobuf(message_class, to_protobuf(message)) == message


@pytest.mark.parametrize(
    "message_class", [*REPLIES, *OURS, scheduler_pb2.Call, executor_pb2.Call], ids=lambda c: c.DESCRIPTOR.full_name
)
@EXAMPLES
@given(data=st.data())
def test_protobufs_own_json_agrees(message_class: type[Message], messages: Messages, data: st.DataObject) -> None:
    """Protobuf's own JSON code reads what we write and writes what we read; only 64-bit numbers differ in form."""
    message = data.draw(messages(message_class))
    assert json_format.Parse(to_json(message), message_class()) == message
    theirs = json_format.MessageToJson(message, preserving_proto_field_name=True)
    assert from_json(message_class, theirs.encode()) == message


@pytest.mark.parametrize("message_class", REPLIES, ids=lambda c: c.DESCRIPTOR.full_name)
@EXAMPLES
@given(data=st.data())
def test_a_reply_without_our_fields_is_complete(
    message_class: type[Message], messages: Messages, data: st.DataObject
) -> None:
    """A strict client that drops our fields finds every required field, and the rest of the message unchanged."""
    message = data.draw(messages(message_class))
    stripped = without_our_fields(message_class.DESCRIPTOR, to_protobuf(message))  # type: ignore[arg-type]
    seen = from_protobuf(message_class, stripped)
    only_mesos(message)
    assert seen == message


FIELD_NAMES = st.sampled_from(
    [f.name for f in scheduler_pb2.Call.DESCRIPTOR.fields]
    + [f.name for f in scheduler_pb2.Call.Accept.DESCRIPTOR.fields]
    + ["framework_info", "task_infos", "limits", "value", "uuid", "task_id", "other"]
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["ACCEPT", "NaN", "1"]),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(FIELD_NAMES, children, max_size=4),
    max_leaves=20,
)


@settings(max_examples=150, deadline=None)
@given(document=st.dictionaries(FIELD_NAMES, VALUES, max_size=5))
def test_any_document_is_read_or_refused(document: dict[str, Any]) -> None:
    """Whatever JSON a client sends, it is a complete message or an Invalid, and nothing else."""
    try:
        call = from_json(scheduler_pb2.Call, json.dumps(document).encode())
    except Invalid as error:
        assert "\n" not in str(error)
    else:
        assert call.IsInitialized()


@settings(max_examples=300, deadline=None)
@given(body=st.binary(max_size=64))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    """Whatever bytes a client sends, in either encoding, they are a complete message or an Invalid."""
    for read in (from_json, from_protobuf):
        try:
            call = read(scheduler_pb2.Call, body)
        except Invalid as error:
            assert "\n" not in str(error)
        else:
            assert call.IsInitialized()
