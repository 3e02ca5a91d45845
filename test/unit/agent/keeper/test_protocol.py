"""Frames and fields of the protocol between an agent and the processes that hold its tasks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgerm_agent.keeper import protocol
from edgerm_agent.keeper.protocol import Body, FrameReader, Malformed, Refused

values = st.none() | st.booleans() | st.integers(-(1 << 63), 1 << 63) | st.text(max_size=20)
bodies = st.dictionaries(st.text(max_size=10), values | st.lists(values, max_size=3), max_size=5)


@given(st.lists(st.tuples(bodies, st.binary(max_size=200)), max_size=5), st.data())
def test_frames_survive_any_cut(frames: list[tuple[Body, bytes]], data: st.DataObject) -> None:
    """Whatever was framed comes out again, in order, however the stream was cut into reads."""
    stream = b"".join(protocol.encode(body, payload) for body, payload in frames)
    reader, got = FrameReader(), []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        got += reader.feed(stream[:size])
        stream = stream[size:]
    assert got == frames


@given(st.binary(max_size=300))
def test_any_bytes_are_frames_or_malformed(data: bytes) -> None:
    """Arbitrary bytes give frames, wait for more, or raise `Malformed`; nothing else happens."""
    try:
        for body, payload in FrameReader().feed(data):
            assert isinstance(body, dict)
            assert len(payload) <= protocol.PAYLOAD_BYTES_MAX
    except Malformed as error:
        assert str(error)


@given(st.binary(max_size=100))
def test_a_frame_of_any_text_is_a_frame_or_malformed(text: bytes) -> None:
    """A well-formed head before arbitrary text gives a JSON object or `Malformed`."""
    try:
        frames = FrameReader().feed(protocol.HEAD.pack(len(text), 0) + text)
        assert len(frames) == 1
    except Malformed as error:
        assert "JSON" in str(error)


@pytest.mark.parametrize("head", [(protocol.JSON_BYTES_MAX + 1, 0), (2, protocol.PAYLOAD_BYTES_MAX + 1)])
def test_an_oversized_frame_is_refused_at_its_head(head: tuple[int, int]) -> None:
    """A frame that announces too much is malformed before any of it is read."""
    with pytest.raises(Malformed, match="1 MiB"):
        FrameReader().feed(protocol.HEAD.pack(*head))


def test_deep_json_is_malformed() -> None:
    """Nesting without end is malformed and does not exhaust the stack."""
    text = b"[" * 500_000
    with pytest.raises(Malformed):
        FrameReader().feed(protocol.HEAD.pack(len(text), 0) + text)


def test_nothing_larger_than_the_bound_is_sent() -> None:
    """A frame that the peer would refuse is refused at its sender."""
    with pytest.raises(Refused):
        protocol.encode({"text": "x" * protocol.JSON_BYTES_MAX})
    with pytest.raises(Refused):
        protocol.encode({}, b"x" * (protocol.PAYLOAD_BYTES_MAX + 1))


@given(st.dictionaries(st.sampled_from(["key", "n", "s", "l", "t", "note"]), values | st.lists(values, max_size=4)))
def test_fields_are_right_or_refused(body: Body) -> None:
    """Each reader of a field answers a value of its type within its bounds, or refuses naming the field."""
    checks: list[tuple[str, Callable[[], Any], Callable[[Any], bool]]] = [
        ("key", lambda: protocol.key_of(body), lambda v: len(v) == 3 and all(isinstance(p, str) for p in v)),
        ("n", lambda: protocol.integer_of(body, "n", -5, 5), lambda v: type(v) is int and -5 <= v <= 5),
        ("s", lambda: protocol.seconds_of(body, "s", 10), lambda v: type(v) is float and 0 <= v <= 10),
        ("l", lambda: protocol.texts_of(body, "l"), lambda v: all(isinstance(p, str) for p in v)),
        ("t", lambda: protocol.optional_text_of(body, "t"), lambda v: v is None or isinstance(v, str)),
        ("note", lambda: protocol.note_of(body), lambda v: isinstance(v, dict)),
    ]
    for name, read, holds in checks:
        try:
            value = read()
        except Refused as refused:
            assert refused.code == protocol.INVALID
            assert str(refused).startswith(name)
        else:
            assert holds(value)


@given(st.binary(max_size=9000))
def test_a_tail_is_short_and_valid(data: bytes) -> None:
    """A tail is at most 4 KiB of UTF-8 that encodes again."""
    assert len(protocol.tail_text(data).encode()) <= protocol.TAIL_BYTES_MAX


@given(st.text(max_size=3000))
def test_a_tail_of_valid_text_is_its_end(text: str) -> None:
    """Of valid text the tail is the longest end that fits, with no character cut."""
    tail = protocol.tail_text(text.encode())
    assert text.endswith(tail)
    assert tail == text or len(tail.encode()) > protocol.TAIL_BYTES_MAX - 4
