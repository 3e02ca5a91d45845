"""Digests, and which blobs a full cache lets go."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgerm.core.blobs import Digest, Held, check_digest, choose_evictions, digest_of
from edgerm.core.errors import Invalid

NOW_S = 1000.0
held = st.builds(Held, st.binary(max_size=2).map(digest_of), st.integers(0, 100), st.floats(0, 1200))
caches = st.lists(held, max_size=12, unique_by=lambda blob: blob.digest)


def choose(blobs: list[Held], referenced: set[Digest], limit_bytes: int) -> list[Digest]:
    """The choice at NOW_S for blobs that are young below 10 s and old from 500 s on."""
    return choose_evictions(blobs, referenced, limit_bytes=limit_bytes, now_s=NOW_S, young_s=10, old_s=500)


def test_a_digest_is_the_sha256_in_hex() -> None:
    """The digest of three bytes is the one that FIPS 180-2 appendix B.1 gives for "abc"."""
    assert digest_of(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@given(st.binary(max_size=50))
def test_a_digest_is_accepted(data: bytes) -> None:
    """What digest_of makes, check_digest returns."""
    assert check_digest(digest_of(data)) == digest_of(data)


@given(st.text(max_size=70) | st.text("0123456789abcdefABCDEF/.\n", min_size=60, max_size=68))
def test_other_text_is_no_digest(text: str) -> None:
    """Text that is not 64 of 0-9a-f is refused, so no digest leads out of its folder."""
    if len(text) == 64 and all(char in "0123456789abcdef" for char in text):
        assert check_digest(text) == text
    else:
        with pytest.raises(Invalid, match="SHA-256"):
            check_digest(text)


@given(caches, st.data(), st.integers(0, 600))
def test_what_is_needed_stays(blobs: list[Held], data: st.DataObject, limit_bytes: int) -> None:
    """No referenced and no young blob is chosen, and none twice."""
    referenced = data.draw(st.sets(st.sampled_from([blob.digest for blob in blobs]))) if blobs else set()
    chosen = choose(blobs, referenced, limit_bytes)
    assert len(set(chosen)) == len(chosen)
    assert not referenced.intersection(chosen)
    assert not [blob for blob in blobs if blob.digest in chosen and abs(NOW_S - blob.used_s) < 10]


@given(caches, st.data(), st.integers(0, 600))
def test_the_rest_fits_or_nothing_more_can_go(blobs: list[Held], data: st.DataObject, limit_bytes: int) -> None:
    """After the evictions the rest fits the limit, unless all that is left is needed; and nothing left is old."""
    referenced = data.draw(st.sets(st.sampled_from([blob.digest for blob in blobs]))) if blobs else set()
    chosen = choose(blobs, referenced, limit_bytes)
    rest = [blob for blob in blobs if blob.digest not in chosen]
    free = [blob for blob in rest if blob.digest not in referenced and abs(NOW_S - blob.used_s) >= 10]
    assert sum(blob.size_bytes for blob in rest) <= limit_bytes or not free
    assert not [blob for blob in free if NOW_S - blob.used_s >= 500]


@given(caches)
def test_with_room_only_old_blobs_go(blobs: list[Held]) -> None:
    """When all fits, exactly the unreferenced blobs go that nobody used for the given time."""
    assert set(choose(blobs, set(), 10_000)) == {blob.digest for blob in blobs if NOW_S - blob.used_s >= 500}


def test_the_least_recently_used_goes_first() -> None:
    """For space, one from the future goes first (the clock went back), then the least recently used."""
    used = {"now": 1000.0, "recent": 900.0, "before": 800.0, "future": 1100.0}
    blobs = [Held(digest_of(name.encode()), 10, when) for name, when in used.items()]
    order = [digest_of(name) for name in (b"future", b"before", b"recent")]
    assert [choose(blobs, set(), limit) for limit in (40, 30, 29, 0)] == [[], order[:1], order[:2], order]
