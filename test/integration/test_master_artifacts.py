"""Blobs over HTTP: PUT, GET with ranges, HEAD, bounds, and what a bad upload leaves behind."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from hashlib import sha256
from io import BytesIO
from pathlib import Path

import aiohttp
import pytest
from support.master import running_master

from edgerm_master.main import Served

BLOB_BYTES = 1 << 20
DATA = os.urandom(300_000)
NAME = sha256(DATA).hexdigest()


@pytest.fixture
async def master(tmp_path: Path) -> AsyncIterator[Served]:
    async with running_master(tmp_path, artifacts={"blob_bytes": BLOB_BYTES}) as served:
        yield served


@pytest.fixture
async def http(master: Served) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(master.url, timeout=aiohttp.ClientTimeout(20)) as session:
        yield session


async def put(http: aiohttp.ClientSession, name: str, data: bytes) -> int:
    async with http.put(f"/artifacts/{name}", data=BytesIO(data)) as answer:
        return answer.status


async def test_a_blob_goes_in_and_comes_out(http: aiohttp.ClientSession) -> None:
    """201 for a new blob, 200 for one that is here; GET gives its bytes, HEAD its length."""
    assert await put(http, NAME, DATA) == 201
    assert await put(http, NAME, DATA) == 200
    async with http.get(f"/artifacts/{NAME}") as answer:
        assert (answer.status, await answer.read()) == (200, DATA)
    async with http.head(f"/artifacts/{NAME}") as answer:
        assert (answer.status, answer.content_length) == (200, len(DATA))


async def test_a_blob_whose_file_is_gone(http: aiohttp.ClientSession, tmp_path: Path) -> None:
    """A file that somebody removed from the master's disk is a blob that is not there, and may be put again."""
    for first_asked in ("GET", "HEAD", "PUT"):
        assert await put(http, NAME, DATA) == 201
        [file] = (path for path in (tmp_path / "master").rglob(NAME) if path.is_file())
        file.unlink()
        if first_asked != "PUT":
            async with http.request(first_asked, f"/artifacts/{NAME}") as answer:
                assert answer.status == 404


@pytest.mark.parametrize(
    ("asked", "status", "part"),
    [
        ("bytes=0-9", 206, DATA[:10]),
        ("bytes=299990-", 206, DATA[299_990:]),
        ("bytes=-5", 206, DATA[-5:]),
        ("bytes=300000-", 416, None),
        ("bytes=9-1", 416, None),
    ],
)
async def test_ranges(http: aiohttp.ClientSession, asked: str, status: int, part: bytes | None) -> None:
    """A broken download goes on where it stopped; a range that is not there is 416."""
    await put(http, NAME, DATA)
    async with http.get(f"/artifacts/{NAME}", headers={"Range": asked}) as answer:
        assert answer.status == status
        if part is not None:
            assert await answer.read() == part


async def test_a_mismatch_is_refused_and_leaves_nothing(http: aiohttp.ClientSession) -> None:
    """Bytes that are not what their name says are 400, and the name stays free."""
    assert await put(http, NAME, DATA + b"x") == 400
    async with http.get(f"/artifacts/{NAME}") as answer:
        assert answer.status == 404
    assert await put(http, NAME, DATA) == 201


@pytest.mark.parametrize("name", ["x", "A" * 64, "0" * 63, "%2e%2e%2fpasswd"])
async def test_a_name_that_is_no_digest_is_refused(http: aiohttp.ClientSession, name: str) -> None:
    """Only 64 hexadecimal digits name a blob, so no name leads out of the folder."""
    assert await put(http, name, b"x") in (400, 404)
    async with http.get(f"/artifacts/{name}") as answer:
        assert answer.status in (400, 404)


async def test_too_large_is_413_announced_or_not(http: aiohttp.ClientSession) -> None:
    """A blob beyond the bound is refused, by its announced length or when the bound is passed."""
    data = bytes(BLOB_BYTES + 1)
    assert await put(http, sha256(data).hexdigest(), data) == 413

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(data), 65_536):
            yield data[start : start + 65_536]

    async with http.put(f"/artifacts/{sha256(data).hexdigest()}", data=pieces()) as answer:
        assert answer.status == 413


async def test_two_uploads_of_one_blob_both_succeed(http: aiohttp.ClientSession) -> None:
    """Frameworks that send the same module at once do not get into each other's way."""
    statuses = await asyncio.gather(*(put(http, NAME, DATA) for _ in range(4)))
    assert sorted(statuses) == [200, 200, 200, 201]


async def test_an_upload_that_breaks_off_can_be_repeated(master: Served, http: aiohttp.ClientSession) -> None:
    """Half an upload is no blob, and is in nobody's way."""
    port = int(master.url.rsplit(":", 1)[1])
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"PUT /artifacts/{NAME} HTTP/1.1\r\nHost: m\r\nContent-Length: {len(DATA)}\r\n\r\n".encode())
    writer.write(DATA[:1000])
    await writer.drain()
    writer.close()
    assert await put(http, NAME, DATA) == 201
