"""Messages in chunks, and messages that wait to be fetched."""

from __future__ import annotations

import random
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgerm.core.blobs import digest_of
from edgerm.core.errors import Invalid, TooLarge, Unavailable
from edgerm.core.link import Chunk
from edgerm_master.api.link import REQUEST_BYTES_MAX
from edgerm_master.api.uploads import CHUNK_BYTES_MIN, IDLE_S, KEPT_S, Uploads


def chunks(data: bytes, chunk_bytes: int) -> list[Chunk]:
    """A message cut."""
    parts = [data[at : at + chunk_bytes] for at in range(0, len(data), chunk_bytes)]
    return [Chunk(digest_of(data), len(data), chunk_bytes, number, part) for number, part in enumerate(parts)]


@given(st.binary(min_size=1, max_size=600), st.integers(CHUNK_BYTES_MIN, 200), st.randoms(use_true_random=False))
def test_chunks_make_the_message_in_any_order(data: bytes, chunk_bytes: int, chance: random.Random) -> None:
    """Shuffled and some twice: it is whole with the last that was missing, and not before."""
    cut = chunks(data, chunk_bytes)
    sent = cut + chance.sample(cut, len(cut) // 2)
    chance.shuffle(sent)
    uploads, here = Uploads(), set()
    for chunk in sent:
        here.add(chunk.number)
        assert uploads.add(chunk, 0.0) is (len(here) == len(cut))
        assert uploads.get(digest_of(data), 0.0) == (data if len(here) == len(cut) else None)


@given(st.binary(min_size=40, max_size=200), st.integers(0, 1000))
def test_bytes_with_another_name_are_refused_and_forgotten(data: bytes, seed: int) -> None:
    """A chunk that was altered spoils the whole; sent again, all is well."""
    cut = chunks(data, CHUNK_BYTES_MIN)
    bad = cut[seed % len(cut)]
    broken = replace(bad, content=bytes(255 - byte for byte in bad.content))
    uploads = Uploads()
    with pytest.raises(Invalid, match="send the right ones"):
        for chunk in cut:
            uploads.add(broken if chunk is bad else chunk, 0.0)
    assert uploads.total_bytes == 0
    assert [uploads.add(chunk, 0.0) for chunk in cut][-1]


def test_chunks_of_another_shape_begin_anew() -> None:
    """An agent that cuts otherwise after a restart is not confused with itself."""
    data = bytes(100)
    uploads = Uploads()
    uploads.add(chunks(data, 32)[3], 0.0)
    assert [uploads.add(chunk, 0.0) for chunk in chunks(data, 50)] == [False, True]
    assert uploads.total_bytes == 100


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"size_bytes": REQUEST_BYTES_MAX + 1}, TooLarge),
        ({"chunk_bytes": CHUNK_BYTES_MIN - 1}, Invalid),
    ],
)
def test_what_is_beyond_a_bound_is_refused(change: dict[str, int], error: type[Exception]) -> None:
    """Before anything is kept."""
    uploads = Uploads()
    with pytest.raises(error):
        uploads.add(replace(chunks(bytes(100), 32)[0], **change), 0.0)  # type: ignore[arg-type]
    assert uploads.total_bytes == 0


def test_a_message_is_kept_for_two_minutes_after_its_last_use() -> None:
    """Each fetch counts as one."""
    uploads = Uploads()
    digest = uploads.put(b"answer", 0.0)
    assert uploads.get(digest, KEPT_S - 1) == b"answer"
    assert uploads.get(digest, 2 * KEPT_S - 2) == b"answer"
    assert uploads.get(digest, 3 * KEPT_S - 2) is None
    assert uploads.total_bytes == 0


def test_what_is_idle_gives_way_and_what_is_in_use_does_not() -> None:
    """With no room the oldest that nobody used of late goes; if all are in use, the new one waits."""
    uploads = Uploads(total_bytes_max=100)
    first, second = uploads.put(bytes(60), 0.0), uploads.put(bytes(40), 5.0)
    with pytest.raises(Unavailable, match="try again"):
        uploads.put(b"x" * 50, IDLE_S - 1)
    assert uploads.get(first, IDLE_S - 1) is not None
    third = uploads.put(b"x" * 40, 5.0 + IDLE_S)  # the second is idle by now, the first is not
    assert [uploads.get(digest, 16.0) is None for digest in (first, second, third)] == [False, True, False]


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 6), st.integers(1, 9), st.floats(0, 40)), max_size=80))
def test_it_is_bounded_whatever_comes(steps: list[tuple[int, int, int, float]]) -> None:
    """The bytes of all messages, whole or not, stay below the bound, and none is ever given with other bytes."""
    uploads, now_s = Uploads(total_bytes_max=1000), 0.0
    wholes = [bytes([seed]) * (seed + 1) * 90 for seed in range(5)]
    for seed, number, times, later_s in steps:
        now_s += later_s
        cut = chunks(wholes[seed], 16 * times)
        with suppress(Unavailable):
            uploads.add(cut[number % len(cut)], now_s)
            uploads.put(wholes[times % 5], now_s)
        assert uploads.total_bytes <= 1000
        assert uploads.get(digest_of(wholes[seed]), now_s) in (None, wholes[seed])
