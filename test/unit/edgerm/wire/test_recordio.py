"""RecordIO: records survive any chunking, and no peer can make the reader hold more than its bound."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edgerm.core.errors import Invalid, TooLarge
from edgerm.wire.recordio import Decoder, frame

RECORDS = st.lists(st.binary(min_size=1, max_size=40), max_size=8)


def test_a_record_is_its_length_a_line_feed_and_itself() -> None:
    """The frame is what Mesos clients parse: decimal length, LF, payload, nothing after it."""
    assert frame(b"hello, world") == b"12\nhello, world"


def test_an_empty_record_cannot_be_framed() -> None:
    """Length 0 does not exist in RecordIO."""
    with pytest.raises(ValueError, match="never empty"):
        frame(b"")


@given(records=RECORDS, cuts=st.lists(st.integers(0, 400), max_size=20))
@example(records=[b"12\n34", b"\n"], cuts=list(range(20)))
def test_any_chunking_gives_the_same_records(records: list[bytes], cuts: list[int]) -> None:
    """However the stream is cut on its way, the records that were framed come out, and nothing is left over."""
    stream = b"".join(map(frame, records))
    decoder = Decoder(max_record_bytes=40)
    got = []
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    for start, end in itertools.pairwise(edges):
        got += decoder.feed(stream[start:end])
    assert got == records
    assert decoder.clean


def test_a_record_comes_out_with_its_last_byte() -> None:
    """A record is not held back until the next one starts, and a cut stream can be told from a whole one."""
    decoder = Decoder(max_record_bytes=10)
    assert decoder.feed(b"3\nab") == []
    assert not decoder.clean
    assert decoder.feed(b"c") == [b"abc"]
    assert decoder.clean
    assert decoder.feed(b"3") == []
    assert not decoder.clean


@pytest.mark.parametrize(
    "stream", [b"x\n", b"\n", b"0\n", b"00\n", b"-1\n", b"+1\n", b" 1\n", b"1\r\na", b"1_0\n", b"0x1\n", b"\xd9\xa1\n"]
)
def test_a_length_that_is_none_is_refused(stream: bytes) -> None:
    """Only plain decimal lengths above zero are lengths, in one chunk or byte by byte."""
    with pytest.raises(Invalid, match="RecordIO"):
        Decoder(max_record_bytes=100).feed(stream)
    decoder = Decoder(max_record_bytes=100)
    with pytest.raises(Invalid, match="RecordIO"):
        for byte in stream:
            decoder.feed(bytes([byte]))


def test_a_length_line_is_bounded() -> None:
    """A length of more than ten digits is refused at its eleventh, before any line feed came."""
    decoder = Decoder(max_record_bytes=100)
    assert decoder.feed(b"0" * 10) == []
    with pytest.raises(Invalid, match="no record length of 1 to 10 digits"):
        decoder.feed(b"1")
    assert Decoder(max_record_bytes=100).feed(b"0000000001\na") == [b"a"]


def test_a_record_beyond_the_bound_is_refused_by_its_length() -> None:
    """A record of the size allowed is read; one byte more is refused before a byte of it came."""
    assert Decoder(max_record_bytes=3).feed(b"3\nabc") == [b"abc"]
    with pytest.raises(TooLarge, match="a record of 4 bytes; at most 3"):
        Decoder(max_record_bytes=3).feed(b"4\n")


def test_a_broken_stream_stays_broken() -> None:
    """After an error nothing that follows is taken for a record."""
    decoder = Decoder(max_record_bytes=10)
    with pytest.raises(Invalid):
        decoder.feed(b"x")
    with pytest.raises(Invalid, match="no record length"):
        decoder.feed(b"1\na")


@given(stream=st.binary(max_size=60), cut=st.integers(0, 60))
def test_any_bytes_are_records_or_refused(stream: bytes, cut: int) -> None:
    """Whatever arrives, the reader gives records within its bound or an Invalid, the same for any cut."""

    def outcome(chunks: list[bytes]) -> tuple[list[bytes], bool]:
        decoder, records = Decoder(max_record_bytes=20), []
        for chunk in chunks:
            try:
                records += decoder.feed(chunk)
            except Invalid:
                return records, True
        return records, False

    cut_records, cut_failed = outcome([stream[:cut], stream[cut:]])
    whole_records, whole_failed = outcome([stream])
    assert cut_failed == whole_failed
    if not whole_failed:
        assert cut_records == whole_records
    assert all(0 < len(record) <= 20 for record in cut_records + whole_records)
