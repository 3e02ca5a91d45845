"""Parts of an output in memory."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edgerm.core.link import Data
from edgerm_master.api.window import PART_BYTES, Parts, Window, beyond

SOURCE = bytes(index % 251 for index in range(4000))
PIECES = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 60), st.integers(0, 50)), max_size=60)


def arrivals(pieces: list[tuple[int, int, int]]) -> list[Data]:
    """Frames in order: some overlap what was before, some leave a gap."""
    at, made = 100, []
    for gap, back, size in pieces:
        begin = max(0, at + gap - back)
        made.append(Data(begin, SOURCE[begin : begin + size]))
        at = max(at, begin + size)
    return made


def test_the_rest_of_a_part() -> None:
    """What lies beyond an offset, and nothing when all of it is known."""
    assert beyond(Data(10, b"abcd"), 12) == Data(12, b"cd")
    assert beyond(Data(10, b"abcd"), 5) == Data(10, b"abcd")
    assert beyond(Data(10, b"abcd"), None) == Data(10, b"abcd")
    assert beyond(Data(10, b"abcd"), 14) is None
    assert beyond(Data(10, b"", end=True), None) is None


@given(PIECES, st.integers(1, 2000), st.integers(0, 3000))
def test_a_window_keeps_the_latest(pieces: list[tuple[int, int, int]], max_bytes: int, since: int) -> None:
    """Each byte once, in order and as it was; from `start` on nothing is missing that came."""
    window = Window(0)
    came: set[int] = set()
    edge = -1
    for data in arrivals(pieces):
        window.add(data, max_bytes)
        came |= {at for at in range(data.offset, data.offset + len(data.data)) if at > edge}
        edge = max([edge, *came])
    got = [(part.offset + index, byte) for part in window.since(since) for index, byte in enumerate(part.data)]
    offsets = [offset for offset, _ in got]
    assert offsets == sorted(set(offsets))
    assert all(SOURCE[offset] == byte for offset, byte in got)
    assert set(offsets) == {at for at in came if at >= since and at >= window.start}
    assert window.end == (edge + 1 if came else None)


@given(st.lists(st.integers(1, 3000), max_size=100), st.integers(1, 10_000))
def test_parts_are_bounded(sizes: list[int], max_bytes: int) -> None:
    """With what each part costs they take no more than the bound, or are one; small parts cost as little."""
    parts, at = Parts(), 0
    for size in sizes:
        parts.push(Data(at, bytes(size)), max_bytes)
        at += size
    kept = list(parts)
    assert len(kept) <= 1 or sum(PART_BYTES + len(part.data) for part in kept) <= max_bytes
    assert not kept or kept[-1].offset + len(kept[-1].data) == at


def test_small_parts_are_merged_and_gaps_are_kept() -> None:
    """Bytes that follow each other become one part; the end of an output and a gap stay what they are."""
    parts = Parts()
    for data in (Data(0, b"a"), Data(1, b"b"), Data(5, b"c"), Data(6, b"", end=True)):
        parts.push(data, 10_000)
    assert list(parts) == [Data(0, b"ab"), Data(5, b"c"), Data(6, b"", end=True)]
