"""Blobs: written whole or not at all, resumed, read in parts, evicted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgerm.core.blobs import Digest, digest_of
from edgerm.core.errors import Conflict, Invalid, NotFound, TooLarge, Unavailable
from edgerm.store.blobs import OLD_S, YOUNG_S, BlobStore

DATA = b"0123456789" * 10
DIGEST = digest_of(DATA)
T0_S = 1_000_000.0


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    """A store for 1,000 bytes in blobs of up to 400."""
    return BlobStore(tmp_path / "blobs", limit_bytes=1000, blob_bytes_max=400)


def put(store: BlobStore, data: bytes, now_s: float = T0_S) -> Digest:
    """Write a blob whole."""
    with store.writer(digest_of(data), len(data)) as writer:
        writer.write(data)
        writer.commit(now_s)
    return digest_of(data)


def files(store: BlobStore) -> list[str]:
    """The names of all files that the store left on the disk."""
    return sorted(name for _, _, names in os.walk(store._path) for name in names)


def test_a_blob_comes_back(store: BlobStore, tmp_path: Path) -> None:
    """A committed blob is there, whole and in parts, for this store and for one that is opened later."""
    put(store, DATA)
    for one in (store, BlobStore(tmp_path / "blobs", 1000)):
        assert (one.has(DIGEST), one.size(DIGEST), one.total_bytes) == (True, 100, 100)
        assert one.path(DIGEST).read_bytes() == DATA
        assert (one.read(DIGEST, 5, 10), one.read(DIGEST, 95, 10), one.read(DIGEST, 100, 1)) == (
            DATA[5:15],
            b"56789",
            b"",
        )
    assert store.path(DIGEST).parent.name == DIGEST[:2]
    with pytest.raises(Invalid):
        store.read(DIGEST, -1, 5)


def test_an_unknown_blob_is_not_found(store: BlobStore) -> None:
    """Asking for what is not here names the digest."""
    assert not store.has(DIGEST)
    for ask in (store.size, store.path, lambda digest: store.read(digest, 0, 1), lambda digest: store.touch(digest, 0)):
        with pytest.raises(NotFound, match=DIGEST):
            ask(DIGEST)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(st.lists(st.binary(max_size=40), max_size=9), st.booleans())
def test_any_chunks_make_the_blob(tmp_path: Path, chunks: list[bytes], announced: bool) -> None:
    """However the bytes are cut, and with or without an announced size, the blob is their concatenation."""
    store, data = BlobStore(tmp_path / "any", 1000), b"".join(chunks)
    store.evict((), OLD_S * 2)
    with store.writer(digest_of(data), len(data) if announced else None) as writer:
        for chunk in chunks:
            writer.write(chunk)
        assert not store.has(digest_of(data))
        writer.commit(0.0)
    assert store.read(digest_of(data), 0, 1000) == data


def test_a_blob_whose_file_is_gone_is_not_here(store: BlobStore) -> None:
    """A file that somebody removed is noticed at the next use, and the blob can be written anew."""
    for _ in range(2):
        with store.writer(DIGEST) as writer:
            writer.write(DATA)
            writer.commit(T0_S)
        store.path(DIGEST).unlink()
        with pytest.raises(NotFound, match="not here any more"):
            store.touch(DIGEST, T0_S)
        assert (store.has(DIGEST), store.total_bytes) == (False, 0)


def test_wrong_bytes_are_not_kept(store: BlobStore) -> None:
    """Bytes with another hash are refused at commit, naming it, and nothing of them stays."""
    with store.writer(DIGEST) as writer:
        writer.write(b"other")
        with pytest.raises(Invalid, match=digest_of(b"other")):
            writer.commit(T0_S)
    assert (store.has(DIGEST), store.partial_size(DIGEST), store.total_bytes, files(store)) == (False, 0, 0, [])


def test_a_short_blob_is_not_kept(store: BlobStore) -> None:
    """Fewer bytes than announced are refused at commit, and nothing of them stays."""
    with store.writer(DIGEST, 101) as writer:
        writer.write(DATA)
        with pytest.raises(Invalid, match="100 bytes, 101 were announced"):
            writer.commit(T0_S)
    assert files(store) == []


def test_an_announced_size_over_the_bound_is_refused_at_once(store: BlobStore) -> None:
    """A blob that says it is too large is refused before a byte of it is taken."""
    with pytest.raises(TooLarge, match="401 bytes or more, at most 400"):
        store.writer(DIGEST, 401)
    assert files(store) == []


@pytest.mark.parametrize(("announced", "first"), [(None, 400), (50, 50)])
def test_bytes_over_the_bound_are_refused_before_they_are_written(
    store: BlobStore, announced: int | None, first: int
) -> None:
    """A blob that turns out larger than the bound or than announced is refused, and nothing of it stays."""
    with store.writer(DIGEST, announced) as writer:
        writer.write(bytes(first))
        assert store.partial_size(DIGEST) == first
        with pytest.raises(TooLarge):
            writer.write(b"x")
    assert (store.total_bytes, files(store)) == (0, [])


def test_a_left_partial_is_continued(store: BlobStore, tmp_path: Path) -> None:
    """What a broken download left is continued where it ended, also after a restart."""
    with store.writer(DIGEST, 100) as writer:
        writer.write(DATA[:30])
    again = BlobStore(tmp_path / "blobs", 1000)
    assert (again.has(DIGEST), again.partial_size(DIGEST), again.total_bytes) == (False, 30, 30)
    with pytest.raises(Conflict, match="continues at 30, not at 20"):
        again.writer(DIGEST, 100, 20)
    with again.writer(DIGEST, 100, 30) as writer:
        writer.write(DATA[30:])
        writer.commit(T0_S)
    assert (again.read(DIGEST, 0, 100), again.partial_size(DIGEST), again.total_bytes) == (DATA, 0, 100)
    assert files(again) == [DIGEST]


def test_a_partial_is_begun_again(store: BlobStore) -> None:
    """A writer at offset 0 forgets what an earlier one left."""
    with store.writer(DIGEST) as writer:
        writer.write(b"wrong")
    put(store, DATA)
    assert (store.read(DIGEST, 0, 100), store.total_bytes) == (DATA, 100)


def test_a_damaged_partial_is_found_out(store: BlobStore, tmp_path: Path) -> None:
    """A partial whose bytes a power cut spoiled fails its hash in the end and goes, so the next try starts anew."""
    with store.writer(DIGEST, 100) as writer:
        writer.write(DATA[:30])
    (tmp_path / "blobs" / "partial" / DIGEST).write_bytes(bytes(30))
    again = BlobStore(tmp_path / "blobs", 1000)
    with again.writer(DIGEST, 100, 30) as writer:
        writer.write(DATA[30:])
        with pytest.raises(Invalid):
            writer.commit(T0_S)
    assert (again.partial_size(DIGEST), files(again)) == (0, [])


def test_one_writer_at_a_time(store: BlobStore) -> None:
    """A second writer of a blob, or one of a blob that is here, is a Conflict."""
    with store.writer(DIGEST) as writer:
        with pytest.raises(Conflict, match="being written"):
            store.writer(DIGEST)
        writer.write(DATA)
        writer.commit(T0_S)
    with pytest.raises(Conflict, match="already here"):
        store.writer(DIGEST)


def test_a_full_store_refuses(store: BlobStore) -> None:
    """Beyond the limit of all blobs a writer is refused, at once if the size is known, else when it is reached."""
    for number in (1, 2):
        put(store, bytes([number]) * 400)
    with pytest.raises(Unavailable, match="no room for 201 bytes: 800 of 1000 are taken"):
        store.writer(DIGEST, 201)
    with store.writer(DIGEST) as writer:
        writer.write(bytes(200))
        with pytest.raises(Unavailable):
            writer.write(b"x")
    assert store.total_bytes == 800


def test_eviction_makes_room(store: BlobStore) -> None:
    """Evict deletes the least recently used blobs that nothing refers to, as many as the room asked for needs."""
    blobs = [put(store, bytes([number]) * 300, T0_S + number) for number in range(3)]
    now_s = T0_S + 2 + YOUNG_S
    store.touch(blobs[0], T0_S + 3)
    assert store.evict((), now_s) == []
    assert store.evict({blobs[1]}, now_s, room_bytes=400) == [blobs[2]]
    assert [store.has(blob) for blob in blobs] == [True, True, False]
    assert (store.total_bytes, files(store)) == (600, sorted(blobs[:2]))


def test_time_of_use_outlives_the_store(store: BlobStore, tmp_path: Path) -> None:
    """A restart does not make a blob younger or older."""
    old, new = put(store, b"old", T0_S), put(store, b"new", T0_S)
    store.touch(new, T0_S + 1)
    again = BlobStore(tmp_path / "blobs", 1000)
    assert again.evict((), T0_S + OLD_S) == [old]
    assert again.has(new)


def test_an_idle_partial_grows_old_and_one_in_use_does_not(store: BlobStore) -> None:
    """A partial that nobody continues is evicted like a blob; one that is being written is left alone."""
    with store.writer(DIGEST) as writer:
        writer.write(DATA)
        written_s = (store._path / "partial" / DIGEST).stat().st_mtime
        assert store.evict((), written_s + OLD_S, room_bytes=1000) == []
    assert store.evict({DIGEST}, written_s + OLD_S, room_bytes=1000) == []
    assert store.evict((), written_s + OLD_S) == [DIGEST]
    assert (store.total_bytes, files(store)) == (0, [])


def test_strange_files_stay(tmp_path: Path) -> None:
    """Files whose names are no digests are neither counted nor touched."""
    (tmp_path / "ab").mkdir()
    (tmp_path / "ab" / "README").write_text("mine")
    store = BlobStore(tmp_path, 1000)
    store.evict((), OLD_S, room_bytes=1000)
    assert (store.total_bytes, files(store)) == (0, ["README"])
