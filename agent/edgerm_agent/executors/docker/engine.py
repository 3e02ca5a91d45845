"""The Docker engine as the executor uses it: calls with a time limit, and long answers.

The one file that names the `docker` package. What lives here: connections, errors, which call is which. Not here: what
a call means to a task.
"""

from __future__ import annotations

import asyncio
import http.client
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Literal, TypeAlias, TypeVar

from docker import APIClient
from docker.auth import get_config_header, resolve_repository_name
from docker.errors import APIError, DockerException
from docker.transport import unixconn
from docker.types import CancellableStream
from docker.utils import parse_repository_tag

from edgerm.core.errors import EdgermError, Unavailable
from edgerm_agent.executors.docker.threads import Feed, Reader, Threads

THREADS = 8
CALL_S = 120.0  # a start on a slow box takes seconds; what takes longer than this hangs
CONNECTIONS = 64
WORDS_MAX = 600

Json: TypeAlias = dict[str, Any]


class _Connection(unixconn.UnixHTTPConnection):
    """The package's own, but one that fails to connect leaves no open socket."""

    def connect(self) -> None:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.settimeout(self.timeout)
            connection.connect(self.unix_socket)
        except BaseException:
            connection.close()
            raise
        self.sock = connection


unixconn.UnixHTTPConnection = _Connection  # type: ignore[misc]  # the package has no other place for it
T = TypeVar("T")


class EngineError(EdgermError):
    """The engine answered, and refused; `str()` is its reason in one line."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(one_line(message) or f"HTTP status {status}")
        self.status = status


class NoSuchImage(EngineError):
    """The engine does not have the image."""


def one_line(text: str) -> str:
    """`text` without line breaks, cut to what a person reads."""
    line = " ".join(text.split())
    return line if len(line) <= WORDS_MAX else line[: WORDS_MAX - 1] + "…"


class Engine:
    """One engine at `url`: `unix:///PATH`, or what else DOCKER_HOST may hold.

    Calls raise `Unavailable` if the engine cannot be reached or does not answer in time, `EngineError` if it refuses.
    Those that may answer None do so for a container that does not exist.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._threads = Threads("docker", THREADS)
        self._client: APIClient | None = None
        self._making = threading.Lock()

    # --- calls ---

    async def info(self) -> Json:
        """What the engine says of itself: ID, NCPU, CgroupVersion, …; begins with fresh connections."""

        def work() -> Json:
            self._drop_client()
            return self._connected().info()

        return await self._call(work)

    async def launch(self, name: str, body: Json, is_ours: Callable[[Json], bool]) -> str:
        """The ID of the container, which is created and started once: one that has run already is left as it is.

        `is_ours` tells whether a container that has the name is this one. Raises `NoSuchImage`. After any other
        `EngineError` there is no container of this name that is ours.
        """
        return await self._call(lambda: _launch(self._connected(), name, body, is_ours))

    async def inspect(self, name: str) -> Json | None:
        """The container."""
        return await self._call(lambda: _known(lambda: self._connected().inspect_container(name)))

    async def find(self, label: str) -> list[Json]:
        """All containers with this label, running or not, in short."""
        return await self._call(lambda: self._connected().containers(all=True, filters={"label": label}))

    async def signal(self, name: str, number: str) -> None:
        """Send a signal to the main process; nothing if there is none."""

        def work() -> None:
            try:
                self._connected().kill(name, number)
            except APIError as error:
                if error.status_code not in (404, 409):  # 409: not running
                    raise

        await self._call(work)

    async def remove(self, name: str, *, force: bool = False) -> None:
        """Remove the container and its anonymous volumes. A running one: `EngineError` unless `force`."""
        await self._call(lambda: _known(lambda: self._connected().remove_container(name, v=True, force=force)))

    async def has_image(self, image: str) -> bool:
        """Whether the engine has it, by this name."""

        def work() -> Json:
            found: Json = self._connected().inspect_image(image)  # type: ignore[no-untyped-call]
            return found

        return await self._call(lambda: _known(work)) is not None

    async def import_image(self, image: str, data: bytes) -> None:
        """Make an image of a tar file."""
        repository, tag = parse_repository_tag(image)
        await self._call(lambda: self._connected().import_image_from_data(data, repository, tag))

    async def images(self, repository: str) -> list[str]:
        """The names of all images of this repository, with their tags."""

        def work() -> list[Json]:
            found: list[Json] = self._connected().images(name=repository)
            return found

        return [name for image in await self._call(work) for name in image.get("RepoTags") or ()]

    async def remove_image(self, image: str) -> None:
        """Remove it by this name, unless a container uses it; one that is not there: nothing."""

        def work() -> None:
            try:
                _known(lambda: self._connected().remove_image(image))
            except APIError as error:
                if error.status_code != 409:
                    raise

        await self._call(work)

    async def attach_input(self, name: str) -> socket.socket:
        """A connection to the container's standard input, which the engine closes with it. Raises `EngineError`."""

        def work() -> socket.socket:
            raw: Any = self._connected().attach_socket(name, params={"stdin": 1, "stream": 1})
            return socket.socket(fileno=raw._sock.detach())  # the package would keep it, and close it when it likes

        return await self._call(work)

    async def stats(self, name: str) -> Json | None:
        """One measure of what the container uses."""

        def work() -> Json:
            measured: Json = self._connected().stats(name, stream=False, one_shot=True)
            return measured

        return await self._call(lambda: _known(work))

    async def tail(self, name: str, stream: str, keep_bytes: int, lines: int | Literal["all"]) -> tuple[int, bytes]:
        """The end of one stream: how many bytes its last `lines` have, and the last `keep_bytes` of them."""

        reader = _Last(keep_bytes)
        feed = Feed("docker-tail", lambda: self._log(name, stream, follow=False, tail=lines), reader, self._translate)
        try:
            async with asyncio.timeout(CALL_S):
                await reader.over
        except TimeoutError as error:
            raise self._away(f"no answer within {CALL_S:.0f} s") from error
        except EngineError as error:
            if error.status != 404:
                raise
        finally:
            feed.close()
        return reader.total, bytes(reader.kept)

    # --- long answers ---

    def follow_events(self, label: str, reader: Reader[Json]) -> Feed:
        """What happens to the containers with this label, from now on."""
        filters = {"type": "container", "label": label, "event": ["die", "oom", "destroy"]}

        def open_() -> CancellableStream[Json]:
            return self._connected().events(decode=True, filters=filters)

        return Feed("docker-events", open_, reader, self._translate)

    def follow_log(self, name: str, stream: str, follow: bool, reader: Reader[bytes]) -> Feed:
        """One stream from its oldest byte on; `follow`: until the container ends."""

        return Feed("docker-log", lambda: self._log(name, stream, follow=follow, tail="all"), reader, self._translate)

    def pull(self, image: str, reader: Reader[bytes]) -> Feed:
        """Get an image; each item is one line of JSON about it."""
        return Feed("docker-pull", lambda: _pull(self._connected(), image), reader, self._translate)

    def close(self) -> None:
        """Close the connections; calls that hang are left behind."""
        self._threads.close()
        self._drop_client()

    async def _call(self, work: Callable[[], T]) -> T:
        try:
            async with asyncio.timeout(CALL_S + 5):
                return await self._threads.run(work)
        except EdgermError:
            raise
        except TimeoutError as error:
            raise self._away(f"no answer within {CALL_S:.0f} s") from error
        except (DockerException, OSError, ValueError, http.client.HTTPException) as error:
            raise self._translate(error) from error

    def _away(self, why: str) -> Unavailable:
        return Unavailable(one_line(f"waits for the Docker engine at {self.url}: {why}"))

    def _translate(self, error: Exception) -> EdgermError:
        if isinstance(error, EdgermError):
            return error
        if not isinstance(error, APIError):
            return self._away(_reason(error))
        words = str(error.explanation or error)
        if _is_passing(error):
            return self._away(words)
        missing = error.status_code == 404 and "no such image" in words.lower()
        return (NoSuchImage if missing else EngineError)(error.status_code or 500, words)

    def _log(self, name: str, stream: str, *, follow: bool, tail: int | Literal["all"]) -> CancellableStream[bytes]:
        wanted = {"stdout": stream == "stdout", "stderr": stream == "stderr"}
        return self._connected().logs(name, **wanted, stream=True, follow=follow, tail=tail)

    def _connected(self) -> APIClient:
        """The client; made once, which asks the engine for its version."""
        with self._making:
            if self._client is None:
                client = APIClient(self.url, version="auto", timeout=int(CALL_S), max_pool_size=CONNECTIONS)
                client.trust_env = False  # no proxies and no .netrc on the way to a socket
                self._client = client
            return self._client

    def _drop_client(self) -> None:
        client, self._client = self._client, None  # no lock: one that is being made may take minutes
        if client is not None:
            client.close()


class _Last:
    """Counts what it reads, and keeps the end; a `threads.Reader`."""

    def __init__(self, keep_bytes: int) -> None:
        self.total = 0
        self.kept = bytearray()
        self._keep_bytes = keep_bytes
        self._loop = asyncio.get_running_loop()
        self.over: asyncio.Future[None] = self._loop.create_future()

    def opened(self) -> None:
        """Nothing yet."""

    def take(self, item: bytes, /) -> None:
        self.total += len(item)
        self.kept += item
        if len(self.kept) > 2 * self._keep_bytes:
            del self.kept[: -self._keep_bytes]

    def ended(self, error: EdgermError | None) -> None:
        del self.kept[: -self._keep_bytes]
        with suppress(RuntimeError):  # the loop has ended: nobody reads
            self._loop.call_soon_threadsafe(self._settle, error)

    def _settle(self, error: EdgermError | None) -> None:
        if self.over.done():
            return
        if error is None:
            self.over.set_result(None)
        else:
            self.over.set_exception(error)


def _launch(client: APIClient, name: str, body: Json, is_ours: Callable[[Json], bool]) -> str:
    try:
        made: str = client.create_container_from_config(body, name)["Id"]  # type: ignore[no-untyped-call]
    except APIError as error:
        if error.status_code != 409:
            raise
        found = _known(lambda: client.inspect_container(name))
        if found is None:  # an earlier request of ours, given up, is still at work on it
            raise Unavailable(f"the container {name} is being made or removed") from error
        if not is_ours(found):
            raise
        made = found["Id"]
        if found["State"]["Status"] != "created":
            return made
    try:
        client.start(made)
    except APIError as error:
        if not _is_passing(error):
            client.remove_container(made, v=True, force=True)
        raise
    return made


def _pull(client: APIClient, image: str) -> CancellableStream[bytes]:
    """As `APIClient.pull`, whose answer cannot be ended by another thread."""
    repository, tag = parse_repository_tag(image)
    header = get_config_header(client, resolve_repository_name(repository)[0])
    response = client.post(
        f"{client.base_url}/v{client.api_version}/images/create",
        params={"fromImage": repository, "tag": tag or "latest"},
        headers={"X-Registry-Auth": header} if header else {},
        stream=True,
        timeout=(CALL_S, None),
    )
    if response.status_code != 200:
        raise EngineError(response.status_code, _message(response.text, response.json))
    return CancellableStream(_lines(response.iter_lines(chunk_size=1024)), response)


def _lines(lines: Iterator[bytes]) -> Iterator[bytes]:
    return (line for line in lines if line)


def _message(text: str, parse: Callable[[], Any]) -> str:
    try:
        return str(parse()["message"])
    except (ValueError, LookupError, TypeError):
        return text


def _known(work: Callable[[], T]) -> T | None:
    try:
        return work()
    except APIError as error:
        if error.status_code == 404:
            return None
        raise


PASSING = ("shutting down", "connection refused", "transport is closing", "ttrpc: closed", "containerd.sock")


def _is_passing(error: APIError) -> bool:
    """Whether it is the engine's state that refuses, not the request: it is ending, or its containerd is away."""
    words = str(error.explanation or "")
    return (error.status_code or 500) >= 500 and any(sign in words for sign in PASSING)


def _reason(error: BaseException) -> str:
    """The system's own words, which the package wraps several times: `Permission denied`, not half a page."""
    seen: BaseException | None = error
    for _ in range(8):
        if seen is None:
            break
        if isinstance(seen, OSError) and seen.strerror:
            return seen.strerror
        inner = [part for part in seen.args if isinstance(part, BaseException)]
        seen = inner[0] if inner else seen.__cause__ or seen.__context__
    return str(error) or type(error).__name__
