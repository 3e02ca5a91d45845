"""The link over HTTP (docs/link.md, "Over HTTP")."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from urllib.parse import urljoin, urlsplit

import aiohttp

from edgerm.core.errors import Unavailable
from edgerm.core.ids import AgentId
from edgerm.core.link import Beat, BeatAnswer, Join, JoinAnswer, Stale
from edgerm.core.scheduler import BlobRef
from edgerm.wire.codec import link as codec
from edgerm.wire.content import PROTOBUF
from edgerm_agent.blobs import Body
from edgerm_agent.link.face import ANSWER_BYTES_MAX, Moved, no_blob

REQUEST_S = 10.0
CONNECT_S = 5.0
BLOB_SILENCE_S = 30.0


class HttpFace:
    """See `Face`. Connections are kept for each master."""

    def __init__(self, agent_id: AgentId) -> None:
        self._agent_id = agent_id
        self._http: aiohttp.ClientSession | None = None

    async def join(self, master: str, join: Join) -> JoinAnswer:
        """See `Face`."""
        async with self._post(f"{master}/link/v1/join", codec.encode_join(join)) as answer:
            if answer.status == 307:
                raise Moved(_place(master, answer.headers.get("Location", "")))
            if answer.status == 409:
                return Stale()
            return codec.decode_join_answer(await _read(answer))

    async def beat(self, master: str, beat: Beat) -> BeatAnswer:
        """See `Face`."""
        async with self._post(f"{master}/link/v1/beat", codec.encode_beat(beat, self._agent_id)) as answer:
            return codec.decode_beat_answer(await _read(answer), self._agent_id)

    async def listen(self, master: str, session: int, silence_s: float, rang: Callable[[], None]) -> None:
        """See `Face`."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=silence_s)
        url = f"{master}/link/v1/doorbell?session={session}"
        with _link_down():
            async with self._session().get(url, timeout=timeout, allow_redirects=False) as answer:
                if answer.status == 409:
                    rang()  # a beat is told of it
                    return
                if answer.status != 200:
                    raise Unavailable(f"the master answers {answer.status} to a request for the doorbell")
                rang()
                await _hear(answer.content, rang)
        raise Unavailable("the master has closed the doorbell's stream")

    @asynccontextmanager
    async def get_blob(self, master: str, ref: BlobRef, offset_bytes: int) -> AsyncIterator[Body]:
        """See `blobs.Source`."""
        headers = {"Range": f"bytes={offset_bytes}-"} if offset_bytes else {}
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=BLOB_SILENCE_S)
        url = f"{master}/artifacts/{ref.digest}"
        with _link_down():
            async with self._session().get(url, headers=headers, timeout=timeout) as answer:
                if answer.status == 416:  # what is here is as long as the blob, or longer: anew
                    async with self._session().get(url, timeout=timeout) as whole:
                        yield _body(ref, whole, 0)
                    return
                yield _body(ref, answer, offset_bytes)

    async def close(self) -> None:
        """End all connections."""
        if self._http is not None:
            await self._http.close()

    def _session(self) -> aiohttp.ClientSession:
        if self._http is None:
            connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=300.0, enable_cleanup_closed=False)
            self._http = aiohttp.ClientSession(
                connector=connector, auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar()
            )
        return self._http

    @asynccontextmanager
    async def _post(self, url: str, data: bytes) -> AsyncIterator[aiohttp.ClientResponse]:
        headers = {"Content-Type": PROTOBUF}
        with _link_down():
            async with (
                asyncio.timeout(REQUEST_S),
                self._session().post(url, data=data, headers=headers, allow_redirects=False) as answer,
            ):
                yield answer


async def _hear(lines: aiohttp.StreamReader, rang: Callable[[], None]) -> None:
    try:
        while line := await lines.readline():
            if line.strip() == b"ring":
                rang()
    except ValueError as error:  # a line without end
        raise Unavailable(f"this is no doorbell: {error}") from None


def _place(master: str, location: str) -> str:
    parts = urlsplit(urljoin(master, location))
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise Unavailable(f"{master} sends us to {location[:200]!r}, which is no master's address")
    return f"{parts.scheme}://{parts.netloc}"


def _body(ref: BlobRef, answer: aiohttp.ClientResponse, offset_bytes: int) -> Body:
    if answer.status == 404:
        raise no_blob(ref)
    if answer.status not in (200, 206):
        raise Unavailable(f"the master answers {answer.status} to a request for blob {ref.digest}")
    return Body(offset_bytes if answer.status == 206 else 0, _chunks(answer))


async def _chunks(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    with _link_down():
        async for chunk in answer.content.iter_any():
            yield chunk


@contextmanager
def _link_down() -> Iterator[None]:
    """Turn what the client raises into `Unavailable`."""
    try:
        yield
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise Unavailable(f"the link is down: {str(error) or type(error).__name__}") from error


async def _read(answer: aiohttp.ClientResponse) -> bytes:
    """The whole body of a good answer, within bounds; raises `Unavailable` for any other."""
    data = b""
    while chunk := await answer.content.readany():
        data += chunk
        if len(data) > ANSWER_BYTES_MAX:
            raise Unavailable(f"the master's answer has more than {ANSWER_BYTES_MAX} bytes")
    if answer.status != 200:
        raise Unavailable(f"the master answers {answer.status}: {data[:200].decode(errors='replace').strip()}")
    return data
