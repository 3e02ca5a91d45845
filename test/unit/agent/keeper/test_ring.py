"""The ring keeps the end of a stream in bounded memory."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edgerm_agent.keeper.ring import Ring


@given(st.integers(1, 50), st.lists(st.binary(max_size=80), max_size=20), st.integers(-2000, 2000), st.integers(1, 90))
def test_a_ring_is_the_end_of_its_stream(capacity: int, writes: list[bytes], offset: int, size: int) -> None:
    """Reads agree with the whole stream wherever the ring still has it, and never reach behind what it keeps."""
    ring = Ring(capacity)
    for data in writes:
        ring.write(data)
    whole = b"".join(writes)
    assert (ring.end, ring.start) == (len(whole), max(0, len(whole) - capacity))
    at = ring.place(offset)
    assert ring.start <= at <= ring.end
    if ring.start <= offset <= ring.end:
        assert at == offset
    if ring.start <= ring.end + offset < ring.end:
        assert at == ring.end + offset
    assert ring.read(offset, size) == whole[at : at + size]
