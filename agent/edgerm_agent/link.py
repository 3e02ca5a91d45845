"""The connection to the master over HTTP: joins, beats, the doorbell, blobs (docs/link.md, "Over HTTP").

What does not live here: what is said and when (`edgerm.core.link`), the bytes of it (the codec).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from urllib.parse import urljoin, urlsplit

import aiohttp

from edgerm import logs
from edgerm.core.blobs import Digest
from edgerm.core.errors import EdgermError, NotFound, Unavailable
from edgerm.core.link import BEAT_INTERVAL_S, Beat, Join, Launch, Stale, Welcome
from edgerm.wire.codec import link as codec
from edgerm.wire.content import PROTOBUF
from edgerm_agent.blobs import Blobs, Body
from edgerm_agent.core.effects import Send
from edgerm_agent.core.events import BeatAnswered, Event, JoinAnswered, Rang, RequestFailed

REQUEST_S = 10.0
CONNECT_S = 5.0
BLOB_SILENCE_S = 30.0
ANSWER_BYTES_MAX = 4 << 20
REDIRECTS_MAX = 3
DOORBELL_RETRY_FIRST_S = 1.0
DOORBELL_RETRY_MAX_S = 60.0
SILENT_BEATS = 3  # a doorbell says something at every beat interval; so many without a word: it is dead

log = logs.get("agent.link")


class Link:
    """Speaks with one master at a time, of those that were named. All methods are for the event loop."""

    def __init__(self, masters: Sequence[str], blobs: Blobs) -> None:
        self._masters = tuple(masters)
        self._master = masters[0]
        self._blobs = blobs
        self._post: Callable[[Event], None] = lambda event: None
        self._answered: Callable[[], None] = lambda: None
        self._http: aiohttp.ClientSession | None = None
        self._requests: set[asyncio.Task[None]] = set()
        self._doorbell: asyncio.Task[None] | None = None
        self._up: bool | None = None
        self._beat_interval_s = BEAT_INTERVAL_S

    def begin(self, post: Callable[[Event], None], answered: Callable[[], None]) -> None:
        """Whom to tell what happened, and whom that a beat was answered."""
        self._post, self._answered = post, answered

    def send(self, effect: Send) -> None:
        """Send a request; what comes of it is posted."""
        task = asyncio.create_task(self._exchange(effect.request, effect.body), name="link request")
        self._requests.add(task)
        task.add_done_callback(self._requests.discard)

    def listen(self, session: int) -> None:
        """Listen to the doorbell of this session, and to no other."""
        if self._doorbell is not None:
            self._doorbell.cancel()
        work = self._listen(session, SILENT_BEATS * self._beat_interval_s)
        self._doorbell = asyncio.create_task(work, name="doorbell")

    @asynccontextmanager
    async def get_blob(self, digest: Digest, offset_bytes: int) -> AsyncIterator[Body]:
        """See `blobs.Source`."""
        headers = {"Range": f"bytes={offset_bytes}-"} if offset_bytes else {}
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=BLOB_SILENCE_S)
        url = f"{self._master}/artifacts/{digest}"
        with _link_down():
            async with self._session().get(url, headers=headers, timeout=timeout) as answer:
                if answer.status == 416:  # what is here is as long as the blob, or longer: anew
                    async with self._session().get(url, timeout=timeout) as whole:
                        yield self._body(digest, whole, 0)
                    return
                yield self._body(digest, answer, offset_bytes)

    async def close(self) -> None:
        """End all connections."""
        tasks = [*self._requests, *([self._doorbell] if self._doorbell else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._http is not None:
            await self._http.close()

    def _session(self) -> aiohttp.ClientSession:
        if self._http is None:
            connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=300.0, enable_cleanup_closed=False)
            self._http = aiohttp.ClientSession(
                connector=connector, auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar()
            )
        return self._http

    # --- requests ---

    async def _exchange(self, request: int, body: Join | Beat) -> None:
        try:
            async with asyncio.timeout(REQUEST_S):
                event = await (self._join(request, body) if isinstance(body, Join) else self._beat(request, body))
        except (EdgermError, aiohttp.ClientError, OSError, TimeoutError) as error:
            self._lost(error)
            event = RequestFailed(request)
        except Exception as error:
            log.error("a request failed by a fault of ours", exc_info=error)
            event = RequestFailed(request)
        else:
            self._found()
        self._post(event)
        if isinstance(event, BeatAnswered):
            self._answered()

    async def _join(self, request: int, join: Join) -> Event:
        data = codec.encode_join(join)
        for _ in range(REDIRECTS_MAX):
            async with self._post_to("/link/v1/join", data) as answer:
                if answer.status == 307:
                    self._follow(answer.headers.get("Location", ""))
                    continue
                if answer.status == 409:
                    return JoinAnswered(request, Stale())
                told = codec.decode_join_answer(await _read(answer))
                if isinstance(told, Welcome):
                    self._beat_interval_s = told.beat_interval_s
                return JoinAnswered(request, told)
        raise Unavailable(f"{self._master} and others sent us {REDIRECTS_MAX} times to another master")

    async def _beat(self, request: int, beat: Beat) -> Event:
        async with self._post_to("/link/v1/beat", codec.encode_beat(beat)) as response:
            answer = codec.decode_beat_answer(await _read(response))
        needs = {
            ref.digest for order in answer.orders if isinstance(order.body, Launch) for ref in order.body.task.needs
        }
        present = frozenset([digest for digest in needs if await self._blobs.touch(digest)])
        return BeatAnswered(request, answer, present)

    def _post_to(self, path: str, data: bytes) -> aiohttp.client._RequestContextManager:
        return self._session().post(
            self._master + path, data=data, headers={"Content-Type": PROTOBUF}, allow_redirects=False
        )

    def _follow(self, location: str) -> None:
        parts = urlsplit(urljoin(self._master, location))
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise Unavailable(f"{self._master} sends us to {location[:200]!r}, which is no master's address")
        self._master = f"{parts.scheme}://{parts.netloc}"
        log.info("the master sends us to another one", master=self._master)

    def _found(self) -> None:
        if self._up is not True:
            log.info("the master answers", master=self._master)
        self._up = True

    def _lost(self, error: BaseException) -> None:
        """Say it once; the next request goes to the next master of the list."""
        if self._up is not False:
            log.warning("the master does not answer", master=self._master, error=str(error) or type(error).__name__)
        self._up = False
        here = self._masters.index(self._master) if self._master in self._masters else -1
        self._master = self._masters[(here + 1) % len(self._masters)]

    # --- the doorbell ---

    async def _listen(self, session: int, silence_s: float) -> None:
        wait_s = DOORBELL_RETRY_FIRST_S
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=silence_s)
        while True:
            try:
                url = f"{self._master}/link/v1/doorbell?session={session}"
                async with self._session().get(url, timeout=timeout, allow_redirects=False) as answer:
                    self._post(Rang())  # what rang before is not heard again; and an unknown session is told by a beat
                    if answer.status == 409:
                        return
                    if answer.status == 200:
                        wait_s = DOORBELL_RETRY_FIRST_S
                        await self._hear(answer.content)
            except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
                log.debug("the doorbell is silent", error=str(error) or type(error).__name__)
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, DOORBELL_RETRY_MAX_S)

    async def _hear(self, lines: aiohttp.StreamReader) -> None:
        while line := await lines.readline():
            if line.strip() == b"ring":
                self._post(Rang())

    # --- blobs ---

    def _body(self, digest: Digest, answer: aiohttp.ClientResponse, offset_bytes: int) -> Body:
        if answer.status == 404:
            raise NotFound(
                f"the master has no blob {digest}: put it there (PUT /artifacts/{digest}), then launch again"
            )
        if answer.status not in (200, 206):
            raise Unavailable(f"the master answers {answer.status} to a request for blob {digest}")
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
