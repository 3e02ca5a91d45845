"""The HTTP client against a real server on loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from edgerm.core.errors import Conflict, EdgermError, Forbidden, Invalid, NotFound, TooLarge, Unavailable
from edgerm.transport.http_client import HttpClient, check_url

STATUSES = {400: Invalid, 401: Forbidden, 403: Forbidden, 404: NotFound, 409: Conflict, 413: TooLarge, 418: Invalid}


async def answer(request: web.Request) -> web.StreamResponse:
    """What the path asks for."""
    what = request.match_info["what"]
    if what.isdigit():
        return web.Response(status=int(what), text="because\nof this\n")
    if what == "cut":
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        await response.write(b"part")
        assert request.transport is not None
        request.transport.abort()
        return response
    return web.Response(body=await request.read(), headers={"Echo": request.headers.get("Authorization", "")})


@pytest.fixture
async def url() -> AsyncIterator[str]:
    """A server that echoes, refuses and cuts."""
    app = web.Application(client_max_size=1 << 30)
    app.router.add_route("*", "/{what}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


async def test_a_body_and_headers_go_and_come(url: str) -> None:
    """What every request carries, authentication above all, is there."""
    async with HttpClient(url, {"Authorization": "Bearer x"}) as client:
        reply = await client.request("POST", "/echo", b"body")
        assert (reply.status, reply.body, reply.headers["Echo"]) == (200, b"body", "Bearer x")


@pytest.mark.parametrize(("status", "kind"), STATUSES.items())
async def test_a_refusal_is_an_error_with_the_servers_words(url: str, status: int, kind: type[EdgermError]) -> None:
    """Each status is the error that it stands for, told in one line."""
    async with HttpClient(url) as client:
        with pytest.raises(kind, match=r"\Abecause of this\Z"):
            await client.request("GET", f"/{status}")


async def test_a_fault_of_the_server_leaves_open_what_happened(url: str) -> None:
    """500 is no refusal, and 503 is worth another try."""
    async with HttpClient(url) as client:
        with pytest.raises(Unavailable):
            await client.request("GET", "/503")
        with pytest.raises(EdgermError) as caught:
            await client.request("GET", "/500")
        assert type(caught.value) is EdgermError


async def test_a_stream_that_is_cut_raises(url: str) -> None:
    """What came before is delivered, and the cut is no silent end."""
    got = b""
    async with HttpClient(url) as client, client.stream("/cut", b"", {}) as stream:
        with pytest.raises(Unavailable, match=r"broke: it ended in the middle$"):
            async for chunk in stream.chunks:
                got += chunk
    assert got == b"part"


async def test_a_file_is_uploaded_in_pieces(url: str, tmp_path: Path) -> None:
    """A file larger than one piece arrives, and a refused one raises."""
    (tmp_path / "file").write_bytes(b"x" * 1_000_000)
    async with HttpClient(url) as client:
        await client.upload("/echo", tmp_path / "file")
        with pytest.raises(TooLarge):
            await client.upload("/413", tmp_path / "file")


@given(st.text(max_size=30))
def test_an_address_is_a_url_or_refused(text: str) -> None:
    """Whatever a person types either is http(s) with a host, or is `Invalid`."""
    try:
        url = check_url(text)
    except Invalid:
        return
    assert url.startswith(("http://", "https://")) and not url.endswith("/")
    assert check_url(url) == url


def test_a_bare_host_and_port_is_understood() -> None:
    """Also an IPv6 address in brackets."""
    assert check_url("box:5050") == "http://box:5050"
    assert check_url("[::1]:5050/") == "http://[::1]:5050"
