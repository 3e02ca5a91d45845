"""Media types: which encoding a request has and which one its reply gets."""

from __future__ import annotations

import pytest

from edgerm.core.errors import Invalid, NotAcceptable, TooLarge, UnsupportedMediaType
from edgerm.wire.content import JSON, PROTOBUF, decode, encode, negotiate
from edgerm.wire.json import Ignored
from edgerm.wire.v1 import basics_pb2

TASK = basics_pb2.TaskID(value="x")


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", b'{"value":"x"}'),
        ("application/json; charset=utf-8", b'{"value":"x"}'),
        ("Application/JSON", b'{"value":"x"}'),
        ("application/x-protobuf", b"\x0a\x01x"),
        (" application/x-protobuf ;v=1", b"\x0a\x01x"),
    ],
)
def test_the_content_type_names_the_encoding(content_type: str, body: bytes) -> None:
    """A body is read as its Content-Type says, whatever parameters stand behind it."""
    assert decode(basics_pb2.TaskID, content_type, body) == TASK


@pytest.mark.parametrize("content_type", [None, ""])
def test_a_missing_content_type_is_invalid(content_type: str | None) -> None:
    """Without a Content-Type nothing is guessed."""
    with pytest.raises(Invalid, match="Content-Type is missing; send application/json or application/x-protobuf"):
        decode(basics_pb2.TaskID, content_type, b"{}")


@pytest.mark.parametrize("content_type", ["text/plain", "application/jsonp", ";", "x" * 10_000])
def test_other_content_types_are_not_read(content_type: str) -> None:
    """Any other type has an error of its own, which quotes it within bounds."""
    with pytest.raises(UnsupportedMediaType, match="is not read here") as caught:
        decode(basics_pb2.TaskID, content_type, b"{}")
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize(("content_type", "body"), [(JSON, b'{"value":"x"}'), (PROTOBUF, b"\x0a\x01x")])
def test_the_bound_holds_for_both_encodings(content_type: str, body: bytes) -> None:
    """The caller's bound on the body's size is that of either encoding."""
    with pytest.raises(TooLarge):
        decode(basics_pb2.TaskID, content_type, body, max_bytes=len(body) - 1)


def test_ignored_names_reach_the_caller() -> None:
    """A face can count what its clients send in vain."""
    ignored = Ignored()
    decode(basics_pb2.TaskID, JSON, b'{"value":"x","other":1}', ignored=ignored)
    assert ignored.total == 1


def test_a_reply_is_written_in_the_chosen_encoding() -> None:
    """Both encodings are written by one call."""
    assert encode(TASK, JSON) == b'{"value":"x"}'
    assert encode(TASK, PROTOBUF) == b"\x0a\x01x"


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ([], JSON),
        ([""], JSON),
        (["*/*"], JSON),
        (["application/*"], JSON),
        (["application/json"], JSON),
        (["application/x-protobuf"], PROTOBUF),
        (["application/x-protobuf, application/json"], JSON),
        (["application/x-protobuf", "application/json"], JSON),
        (["application/x-protobuf, */*;q=0.1"], JSON),
        (["application/json;q=0, application/x-protobuf"], PROTOBUF),
        (["application/json;q=0, */*"], PROTOBUF),
        (["application/*, application/json; q=0.000"], PROTOBUF),
        (["*/*;q=0, application/*"], JSON),
        (["application/x-protobuf;q=0, */*"], JSON),
        (["text/html, application/x-protobuf; q=0.5"], PROTOBUF),
    ],
)
def test_json_wins_where_it_is_allowed(accept: list[str], media_type: str) -> None:
    """No Accept or a wildcard means JSON; protobuf is for those who allow only it; all lines count."""
    assert negotiate(accept) == media_type


@pytest.mark.parametrize(
    "accept", [["text/html"], ["application/x-protobuf;q=0.0"], ["*/*;q=0"], ["application/*;q=0, */*"]]
)
def test_neither_allowed_is_an_error(accept: list[str]) -> None:
    """Who takes neither encoding is told so."""
    with pytest.raises(NotAcceptable, match="allows neither application/json nor application/x-protobuf"):
        negotiate(accept)
