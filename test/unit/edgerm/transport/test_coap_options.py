"""Options of a request, read from whatever a datagram holds."""

from __future__ import annotations

from contextlib import suppress

import pytest
from aiocoap.message import Message
from aiocoap.numbers import Code
from hypothesis import given
from hypothesis import strategies as st
from support.coap_wire import CON, POST, Option, encode

from edgerm.transport.coap_options import OPTIONS_MAX, Malformed, Options, read_options

SHORT = st.text(max_size=40)


def read(*options: Option, payload: bytes = b"") -> tuple[Options, bytes]:
    """What is read of a request with these options."""
    return read_options(encode(CON, POST, 1, b"", options, payload), 4)


@given(st.lists(SHORT, max_size=8), st.lists(SHORT, max_size=8), st.integers(0, 65_535), st.binary(max_size=50))
def test_it_reads_what_aiocoap_writes(path: list[str], query: list[str], number: int, payload: bytes) -> None:
    """Path, query, numbers and payload are those that an independent encoder put in."""
    message = Message(code=Code.POST, _mtype=0, _mid=1, payload=payload)
    message.opt.uri_path, message.opt.uri_query = path, query
    message.opt.observe, message.opt.content_format = number, number
    message.opt.block2 = (number, True, number % 7)
    options, rest = read_options(message.encode(), 4)
    assert (options.path, options.query, rest, options.unknown) == (path, query, payload, None)
    assert options.numbers == {6: number, 12: number, 23: number << 4 | 8 | number % 7}


@given(st.binary(max_size=200))
def test_any_bytes_are_options_or_malformed(data: bytes) -> None:
    """No bytes lead to another error, and what is read is within the bytes."""
    with suppress(Malformed):
        options, payload = read_options(data, 0)
        assert data.endswith(payload)
        assert all(value < 1 << 24 for value in options.numbers.values())


@pytest.mark.parametrize(
    ("options", "unknown"),
    [
        ([(9, b"x")], 9),  # OSCORE is not spoken here
        ([(2049, b"")], 2049),
        ([(2048, b"")], None),  # elective
        ([(1, b""), (5, b"")], 1),  # the first is told
        ([(17, b"abc")], 17),  # Accept of 3 bytes
        ([(12, b"abc")], None),  # Content-Format of 3 bytes is ignored
        ([(23, b"\x01"), (23, b"\x11")], 23),  # Block2 twice
        ([(11, b"x" * 256)], 11),
        ([(3, b"name"), (7, b"\x16\x33")], None),  # Uri-Host and Uri-Port name us, whatever they say
    ],
)
def test_a_critical_option_that_is_not_understood_is_told(options: list[Option], unknown: int | None) -> None:
    """Unknown, of a wrong length or doubled: critical ones are told, elective ones are ignored (RFC 7252, 5.4)."""
    assert read(*options)[0].unknown == unknown


def test_of_an_elective_option_the_first_counts() -> None:
    """A second Content-Format is ignored."""
    assert read((12, b"\x01"), (12, b"\x02"))[0].numbers == {12: 1}


@pytest.mark.parametrize(
    "data",
    [
        b"\xff",  # a payload of no bytes
        b"\xb1",  # a path that is not there
        b"\xf0",  # delta 15
        b"\x0f",  # length 15
        b"\xd0",  # an extended delta that is not there
        b"\xe0\x01",
        b"\xb1\xff",  # a path that is no UTF-8
        b"\xe0\xff\xff" * 2,  # a number beyond 65,535
        b"\x00" * (OPTIONS_MAX + 1),
    ],
)
def test_what_is_no_option_list_is_malformed(data: bytes) -> None:
    """Each breaks RFC 7252, 3.1, or a bound of ours."""
    with pytest.raises(Malformed):
        read_options(data, 0)


def test_a_proxy_is_told_apart() -> None:
    """Proxy-Uri and Proxy-Scheme ask for a proxy."""
    assert read((35, b"coap://x/y"))[0].proxied
    assert read((39, b"coap"))[0].proxied
    assert not read((11, b"b"))[0].proxied
