"""Requests over HTTP: one reply, a stream of chunks, or an upload. The one place of a client that knows aiohttp.

What does not live here: what is said in a body.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import NamedTuple
from urllib.parse import urlsplit

import aiohttp

from edgerm.core.errors import (
    Conflict,
    EdgermError,
    Forbidden,
    Invalid,
    NotAcceptable,
    NotFound,
    NotImplementedCall,
    TooLarge,
    Unavailable,
    UnsupportedMediaType,
)
from edgerm.requests import HEADER, current_request, make_request_id
from edgerm.transport.status import ANSWERS

CONNECT_S = 10.0
REPLY_S = 60.0  # for a whole reply that is no stream
UPLOAD_S = 600.0
CHUNK_BYTES = 1 << 18
ERROR_BYTES_MAX = 4096
REPLY_BYTES_MAX = 256 << 20
CONNECTIONS_MAX = 64


_ERRORS: dict[int, type[EdgermError]] = {
    ANSWERS[kind.code].http: kind
    for kind in (
        Invalid,
        Forbidden,
        NotFound,
        NotAcceptable,
        UnsupportedMediaType,
        TooLarge,
        Conflict,
        NotImplementedCall,
        Unavailable,
    )
}


_BLANK = re.compile(r"\s")
_log = logging.getLogger("edgerm.http")  # at debug: every exchange with its request id; a library sets no log up


class Reply(NamedTuple):
    """What a server answered, if it was a success."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Stream(NamedTuple):
    """A reply whose body comes in pieces; iterating raises `Unavailable` if it is cut."""

    headers: Mapping[str, str]
    chunks: AsyncIterator[bytes]


class HttpClient:
    """Talks to one server; keeps its connections. `headers` go with every request (authentication).

    Every method raises `Unavailable` if the server cannot be reached or does not answer in time, and otherwise the
    error that the server's status stands for, with the server's words.
    """

    def __init__(self, url: str, headers: Mapping[str, str] | None = None) -> None:
        self.url = check_url(url)
        self._headers = dict(headers or {})
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> HttpClient:
        connector = aiohttp.TCPConnector(limit=CONNECTIONS_MAX, keepalive_timeout=60)
        self._session = aiohttp.ClientSession(connector=connector, headers=self._headers, auto_decompress=False)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def request(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Reply:
        """One exchange."""
        timeout = aiohttp.ClientTimeout(total=REPLY_S, connect=CONNECT_S)
        async with self._sent(method, path, body, headers or {}, timeout) as response:
            data = await _read(response, REPLY_BYTES_MAX)
            return Reply(response.status, response.headers, data)

    @asynccontextmanager
    async def stream(self, path: str, body: bytes, headers: Mapping[str, str]) -> AsyncIterator[Stream]:
        """POST, and read the answer as it comes; there is no time limit on its pieces."""
        timeout = aiohttp.ClientTimeout(total=None, connect=CONNECT_S)
        async with self._sent("POST", path, body, headers, timeout) as response:
            yield Stream(response.headers, self._chunks(response))

    async def _chunks(self, response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        try:
            async for chunk in response.content.iter_any():
                yield chunk
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unavailable(f"the connection to {self.url} broke: {_words(error)}") from None

    async def upload(self, path: str, source: bytes | Path) -> None:
        """PUT bytes, or a file without holding it in memory."""
        timeout = aiohttp.ClientTimeout(total=UPLOAD_S, connect=CONNECT_S)
        body = source if isinstance(source, bytes) else _file_chunks(source)
        async with self._sent("PUT", path, body, {"Content-Type": "application/octet-stream"}, timeout):
            return

    @asynccontextmanager
    async def _sent(
        self,
        method: str,
        path: str,
        body: bytes | AsyncIterator[bytes],
        headers: Mapping[str, str],
        limits: aiohttp.ClientTimeout,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        if self._session is None:
            raise RuntimeError("an HttpClient is used inside of `async with`")
        name = current_request() or make_request_id()
        try:
            response = await self._session.request(
                method, self.url + path, data=body or None, headers={HEADER: name, **headers}, timeout=limits
            )
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unavailable(f"cannot reach {self.url}: {_words(error)}") from None
        _log.debug("%s %s: %d, request %s", method, path, response.status, name)
        try:
            if response.status >= 300:
                refusal = await _error_of(response)
                refusal.request = name
                raise refusal
            yield response
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Unavailable(f"the connection to {self.url} broke: {_words(error)}") from None
        finally:
            response.release()


def check_url(text: str) -> str:
    """`http://HOST:PORT` without a slash at the end; `HOST:PORT` is understood. Raises `Invalid`."""
    url = text if "://" in text else f"http://{text}"
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and not _BLANK.search(url)
    except ValueError:
        good = False
    if not good:
        raise Invalid(f"{text!r} is no address of a master: write http://HOST:PORT, such as http://127.0.0.1:5050")
    return url.rstrip("/")


async def _error_of(response: aiohttp.ClientResponse) -> EdgermError:
    body = await _read(response, ERROR_BYTES_MAX, cut=True)
    words = " ".join(body.decode("utf-8", "replace").split())
    unknown = EdgermError if response.status >= 500 else Forbidden if response.status == 401 else Invalid
    return _ERRORS.get(response.status, unknown)(words or f"{response.status} {response.reason}")


async def _read(response: aiohttp.ClientResponse, max_bytes: int, *, cut: bool = False) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > max_bytes:
            if cut:
                break
            raise Unavailable(f"the answer of {response.url} has more than {max_bytes} bytes")
    return bytes(body[:max_bytes])


async def _file_chunks(path: Path) -> AsyncIterator[bytes]:
    run: Callable[..., asyncio.Future[bytes]] = asyncio.get_running_loop().run_in_executor
    with path.open("rb") as file:
        while chunk := await run(None, file.read, CHUNK_BYTES):
            yield chunk


def _words(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, aiohttp.ClientPayloadError):
        return "it ended in the middle"
    number = getattr(error, "errno", None)
    if isinstance(number, int) and number > 0:
        return os.strerror(number)
    words = getattr(error, "strerror", None)
    return words if isinstance(words, str) else str(error) or type(error).__name__
