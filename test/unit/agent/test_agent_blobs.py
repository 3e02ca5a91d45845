"""The agent's cache of blobs, against a source that misbehaves."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from edgerm.core.blobs import digest_of
from edgerm.core.errors import Invalid, NotFound, Unavailable
from edgerm.core.scheduler import BlobRef
from edgerm.store.blobs import OLD_S, BlobStore
from edgerm_agent import blobs as module
from edgerm_agent.blobs import Blobs, Body

DATA = bytes(range(256)) * 40
REF = BlobRef(digest_of(DATA), len(DATA))
Answer = Callable[[int], Body]


class Source:
    """Answers each request as its script says; the last answer repeats."""

    def __init__(self, *answers: Answer | Exception) -> None:
        self.answers = list(answers)
        self.offsets: list[int] = []

    @asynccontextmanager
    async def get_blob(self, ref: BlobRef, offset_bytes: int) -> AsyncIterator[Body]:
        """See `blobs.Source`."""
        self.offsets.append(offset_bytes)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        yield answer(offset_bytes)


async def chunks(data: bytes, fails: bool = False) -> AsyncIterator[bytes]:
    """Bytes in pieces, and then perhaps the end of the link."""
    for at in range(0, len(data), 1000):
        yield data[at : at + 1000]
    if fails:
        raise Unavailable("cut")


def whole(offset: int) -> Body:
    """As asked for."""
    return Body(offset, chunks(DATA[offset:]))


def cut(offset: int) -> Body:
    """The link breaks after 3000 bytes."""
    return Body(offset, chunks(DATA[offset : offset + 3000], fails=True))


def no_ranges(offset: int) -> Body:
    """All of it, whatever was asked for."""
    return Body(0, chunks(DATA))


def garbage(offset: int) -> Body:
    """As many bytes, but others."""
    return Body(offset, chunks(bytes(len(DATA) - offset)))


@pytest_asyncio.fixture
async def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Blobs]:
    """An empty cache that writes every piece and never waits long."""
    monkeypatch.setattr(module, "RETRY_FIRST_S", 0.001)
    monkeypatch.setattr(module, "CHUNK_BYTES", 1)
    blobs = Blobs(BlobStore(tmp_path, 1 << 20), set)
    yield blobs
    await blobs.close()


@pytest.mark.parametrize(
    ("answers", "offsets"),
    [
        ([whole], [0]),
        ([cut, cut, whole], [0, 3000, 6000]),
        ([cut, no_ranges], [0, 3000]),
        ([NotFound("not yet"), Unavailable("down"), whole], [0, 0, 0]),
        ([cut, garbage, whole], [0, 3000, 0]),
    ],
)
async def test_a_blob_is_fetched(cache: Blobs, answers: list[Answer | Exception], offsets: list[int]) -> None:
    """A download goes on where it stopped, begins anew when what there was is bad, and ends whole."""
    source = Source(*answers)
    await cache.fetch(REF, source)
    assert cache.path(REF.digest).read_bytes() == DATA
    assert source.offsets == offsets


async def test_who_asks_for_the_same_blob_waits(cache: Blobs) -> None:
    """Many tasks that need one blob fetch it once."""
    source = Source(whole)
    await asyncio.gather(*(cache.fetch(REF, source) for _ in range(10)))
    assert source.offsets == [0]


@pytest.mark.parametrize(
    ("answer", "error"), [(NotFound(f"no blob {REF.digest}"), NotFound), (garbage, Invalid), (Unavailable("x"), None)]
)
async def test_a_blob_that_cannot_be_had(
    cache: Blobs, answer: Answer | Exception, error: type[Exception] | None
) -> None:
    """What the master lacks is given up after a few tries, wrong bytes at once, a link that is down never."""
    source = Source(answer)
    task = asyncio.create_task(cache.fetch(REF, source))
    if error is None:
        while len(source.offsets) < 3 * module.TRIES // 2:
            await asyncio.sleep(0)
        assert not task.done()
        task.cancel()
        return
    with pytest.raises(error, match=REF.digest):
        await task
    assert not cache.has(REF.digest)


async def test_what_has_come_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link that breaks again and again before much has come still brings the blob, each time some more of it."""
    monkeypatch.setattr(module, "RETRY_FIRST_S", 0.001)
    blobs = Blobs(BlobStore(tmp_path, 1 << 20), set)
    source = Source(cut, cut, cut, whole)
    await blobs.fetch(REF, source)
    assert source.offsets == [0, 3000, 6000, 9000]
    await blobs.close()


async def test_a_partial_of_other_bytes(cache: Blobs) -> None:
    """A source that refuses to go on with what is here is asked for all of it."""

    async def refuse() -> AsyncIterator[bytes]:
        raise Invalid("it has other bytes")
        yield b""

    source = Source(cut, lambda offset: Body(offset, refuse()), whole)
    await cache.fetch(REF, source)
    assert source.offsets == [0, 3000, 0]


async def test_what_is_old_goes(tmp_path: Path) -> None:
    """What no live task needs goes after a week, though nothing is fetched and there is room."""
    store = BlobStore(tmp_path, 1 << 20)
    for data in (b"needed", b"not needed"):
        with store.writer(digest_of(data)) as writer:
            writer.write(data)
            writer.commit(time.time() - OLD_S - 1)
    blobs = Blobs(store, lambda: {digest_of(b"needed")})
    blobs.sweep()
    async with asyncio.timeout(20):
        while blobs.has(digest_of(b"not needed")):
            await asyncio.sleep(0.001)
    assert blobs.has(digest_of(b"needed"))
    await blobs.close()


async def test_a_blob_without_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A blob for which there is no room even after eviction is given up with an error that says so."""
    monkeypatch.setattr(module, "RETRY_FIRST_S", 0.001)
    blobs = Blobs(BlobStore(tmp_path, 2000), set)
    with pytest.raises(Unavailable, match="no room"):
        await blobs.fetch(REF, Source(whole))
    await blobs.close()
