"""Calls to an agent on this box: JSON objects, a line each, over a UNIX socket in the agent's data directory.

A request is `{"call": NAME, …}`, its answer `{"ok": {…}}` or `{"error": {"code", "message"}}`; several may follow each
other on one connection, one at a time. Only the agent's own user and root can connect. What does not live here: which
calls there are (`edgerm_agent.api.local`).
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, TypeAlias

from edgerm import logs
from edgerm.core import errors
from edgerm.core.errors import Code, EdgermError, Invalid, TooLarge, Unavailable

SOCKET: Final = "agent.sock"
LINE_BYTES_MAX = 1 << 20  # of a request
ANSWER_BYTES_MAX = 64 << 20
CONNECTIONS_MAX = 64
Object: TypeAlias = Mapping[str, Any]
Handler: TypeAlias = Callable[[Object], Awaitable[Object]]

log = logs.get("transport.local")


async def ask(data_dir: Path, call: str, **arguments: object) -> Object:
    """What the agent with this data directory answers.

    Raises the agent's error, and `Unavailable` if no agent of this directory runs here, or one that is too old.
    """
    with _at(data_dir) as path:
        try:
            reader, writer = await asyncio.open_unix_connection(path, limit=ANSWER_BYTES_MAX)
        except PermissionError:
            raise Unavailable(f"{data_dir / SOCKET} is another user's: ask as that user or as root") from None
        except OSError:
            raise Unavailable(
                f"no agent runs on {data_dir}: start one with edgerm agent --data-dir {data_dir}"
            ) from None
    try:
        writer.write(json.dumps({"call": call, **arguments}).encode() + b"\n")
        await writer.drain()
        answer = await reader.readline()
    except (ConnectionError, ValueError) as error:
        raise Unavailable(f"the agent on {data_dir} did not answer: {error}") from None
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
    return _answer(answer, data_dir)


def _answer(line: bytes, data_dir: Path) -> Object:
    try:
        found = json.loads(line)
        if "ok" in found:
            return dict(found["ok"])
        code, message = Code(found["error"]["code"]), str(found["error"]["message"])
    except (ValueError, TypeError, KeyError):
        raise Unavailable(f"the agent on {data_dir} hung up before it answered") from None
    kinds = (kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, EdgermError))
    raise next((kind for kind in kinds if kind.code is code and kind is not EdgermError), EdgermError)(message)


@contextmanager
def _at(data_dir: Path) -> Iterator[str]:
    """A path of the socket that is short enough: a socket's has at most 107 bytes, a data directory's may have more."""
    try:
        folder = os.open(data_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise Unavailable(f"data directory {data_dir}: {error.strerror}") from None
    try:
        yield f"/proc/self/fd/{folder}/{SOCKET}"
    finally:
        os.close(folder)


class LocalServer:
    """Serves calls in a data directory that nobody else serves (its lock sees to that)."""

    def __init__(self, data_dir: Path, handlers: Mapping[str, Handler]) -> None:
        self._data_dir = data_dir
        self._handlers = handlers
        self._server: asyncio.Server | None = None
        self._connected: set[asyncio.Task[None]] = set()

    async def begin(self) -> None:
        """Serve from now on, in place of a socket that a killed agent left."""
        (self._data_dir / SOCKET).unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        with _at(self._data_dir) as path:
            os.fchmod(listener.fileno(), 0o600)  # before there is a name to connect to
            listener.bind(path)
        self._server = await asyncio.start_unix_server(self._connection, sock=listener, limit=LINE_BYTES_MAX)

    async def close(self) -> None:
        """Serve no more; what is under way is cut off."""
        if self._server is not None:
            self._server.close()
            (self._data_dir / SOCKET).unlink(missing_ok=True)
        for task in tuple(self._connected):
            task.cancel()
        await asyncio.gather(*self._connected, return_exceptions=True)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connected.add(task)
        try:
            if len(self._connected) <= CONNECTIONS_MAX:
                await self._serve(reader, writer)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._connected.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                line = await reader.readline()
            except ValueError:
                writer.write(_told(TooLarge(f"a request has at most {LINE_BYTES_MAX} bytes")))
                await writer.drain()
                return
            if not line:
                return
            writer.write(await self._handle(line))
            await writer.drain()

    async def _handle(self, line: bytes) -> bytes:
        try:
            request = _request(line)
            handler = self._handlers.get(str(request.get("call")))
            if handler is None:
                known = ", ".join(sorted(self._handlers))
                raise Invalid(f"call {str(request.get('call'))[:40]!r} is not known here; there are {known}")
            return json.dumps({"ok": await handler(request)}).encode() + b"\n"
        except EdgermError as error:
            return _told(error)
        except Exception as error:
            log.error("a local call failed by a fault of ours", exc_info=error)
            return _told(EdgermError(f"a fault of the agent: {type(error).__name__}: {error}"))


def _request(line: bytes) -> Object:
    """Raises `Invalid` for what is no JSON object."""
    try:
        request = json.loads(line)
    except (ValueError, RecursionError) as error:  # also for a number of more digits than Python reads
        raise Invalid(f"the request is no JSON: {error}") from None
    if not isinstance(request, dict):
        raise Invalid("a request is a JSON object")
    return request


def _told(error: EdgermError) -> bytes:
    return json.dumps({"error": {"code": error.code.value, "message": str(error)}}).encode() + b"\n"
