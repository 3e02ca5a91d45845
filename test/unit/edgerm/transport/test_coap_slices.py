"""Blocks of an answer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgerm.core.errors import Invalid
from edgerm.transport.coap_values import CONTENT, Block, CoapReply, block_of, sliced


@given(st.binary(max_size=5000), st.integers(0, 6))
def test_slices_make_the_whole(data: bytes, size_exponent: int) -> None:
    """One after another until there are no more; only the first says how long the whole is."""
    whole, number, more = b"", 0, True
    while more:
        asked = Block(number, 16 << size_exponent)
        part = sliced(CoapReply(CONTENT, data, 40, etag=b"tag"), asked)
        assert part.block2 is not None and part.block2[:2] == asked[:2]
        assert (part.content_format, part.etag, part.size2_bytes) == (40, b"tag", None if number else len(data))
        assert len(part.payload) == asked.size_bytes or not part.block2.more
        whole, number, more = whole + part.payload, number + 1, part.block2.more
    assert whole == data
    with pytest.raises(Invalid, match="past the end"):
        sliced(CoapReply(CONTENT, data), Block(number, 16 << size_exponent))


@given(st.binary(max_size=3000))
def test_what_fits_is_not_sliced(data: bytes) -> None:
    """Who does not ask for blocks is given one if he must."""
    reply = CoapReply(CONTENT, data)
    part = sliced(reply, None)
    assert part is reply if len(data) <= 1024 else part.block2 == Block(0, 1024, more=True)


@given(st.integers(0, (1 << 24) - 1))
def test_any_value_is_a_block_or_invalid(value: int) -> None:
    """As RFC 7959, 2.2 has it; the size exponent 7 is reserved."""
    if value & 7 == 7:
        with pytest.raises(Invalid, match="reserved"):
            block_of(value)
    else:
        assert block_of(value) == Block(value >> 4, 2 ** (4 + (value & 7)))
