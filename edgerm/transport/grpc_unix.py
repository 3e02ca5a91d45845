"""gRPC over UNIX sockets, for device plugins in processes of their own: calls by name, messages by type.

Importing this takes 29 MiB: import it only where such plugins are configured. What does not live here: which calls
there are (`edgerm.plugin_rpc`, `edgerm_agent.devices.kubelet`).
"""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message

from edgerm.core.errors import Conflict, EdgermError, Invalid, NotFound, NotImplementedCall, Unavailable

M = TypeVar("M", bound=Message)
SOCKET_BYTES_MAX = 107  # of a socket's path (unix(7)), without the NUL
STOP_S = 1.0
_OPTIONS = [
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.use_local_subchannel_pool", 1),  # else a new channel waits as long as an old one that nobody answered
]
_CODES = {
    Invalid: grpc.StatusCode.INVALID_ARGUMENT,
    NotFound: grpc.StatusCode.NOT_FOUND,
    Conflict: grpc.StatusCode.FAILED_PRECONDITION,
    NotImplementedCall: grpc.StatusCode.UNIMPLEMENTED,
    Unavailable: grpc.StatusCode.UNAVAILABLE,
}
_ERRORS = {code: error for error, code in _CODES.items()}


class GrpcClient:
    """One service behind one socket. Errors of the other side come as ours: Invalid, Conflict, …, else Unavailable.

    Each call has a channel of its own: they are few, and so none waits or ends because of what became of another.
    """

    def __init__(self, path: str, service: str) -> None:
        self._path = path
        self._service = service

    def _open(self) -> grpc.aio.Channel:
        return grpc.aio.insecure_channel(f"unix:{self._path}", options=_OPTIONS)

    async def call(self, method: str, request: Message, answer: type[M], within_s: float) -> M:
        """Ask once."""
        async with self._open() as channel:
            asked = channel.unary_unary(
                f"/{self._service}/{method}",
                request_serializer=_encode,
                response_deserializer=answer.FromString,
            )
            try:
                found: M = await asked(request, timeout=within_s)
            except grpc.aio.AioRpcError as error:
                raise self._ours(method, error) from None
            except asyncio.CancelledError:
                raise self._cut_off(method) from None
            return found

    async def stream(self, method: str, request: Message, answer: type[M]) -> AsyncGenerator[M, None]:
        """Ask once, and hear for as long as the other side speaks."""
        async with self._open() as channel:
            asked = channel.unary_stream(
                f"/{self._service}/{method}",
                request_serializer=_encode,
                response_deserializer=answer.FromString,
            )(request)
            try:
                async for message in asked:
                    yield message
            except grpc.aio.AioRpcError as error:
                raise self._ours(method, error) from None
            except asyncio.CancelledError:
                raise self._cut_off(method) from None
            finally:
                asked.cancel()

    def _cut_off(self, method: str) -> BaseException:
        """gRPC says alike that we are cancelled, and that the other side says CANCELLED."""
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            return asyncio.CancelledError()
        return Unavailable(f"the plugin at {self._path} does not answer {method}: the call was cut off")

    def _ours(self, method: str, error: grpc.aio.AioRpcError) -> EdgermError:
        known = _ERRORS.get(error.code(), Unavailable)
        if known is not Unavailable:
            return known(error.details() or f"{method} was refused")
        why = (
            "nobody serves it" if error.code() is grpc.StatusCode.UNAVAILABLE else error.details() or error.code().name
        )
        return Unavailable(f"the plugin at {self._path} does not answer {method}: {why}")


@dataclass(frozen=True, slots=True)
class Unary:
    """A call with one answer."""

    request: type[Message]
    answer: Callable[[Any], Awaitable[Message]]


@dataclass(frozen=True, slots=True)
class Stream:
    """A call that is answered again and again."""

    request: type[Message]
    answers: Callable[[Any], AsyncIterator[Message]]


class GrpcServer:
    """Serves calls at a socket until it is closed."""

    def __init__(self, server: grpc.aio.Server) -> None:
        self._server = server

    @classmethod
    async def listen(cls, path: str, service: str, calls: dict[str, Unary | Stream]) -> GrpcServer:
        """Serve at `path`, in place of a socket that nobody serves any more.

        Raises `Conflict` if somebody does, or if something else lies there, `Invalid` for a path that is too long,
        `Unavailable` for a directory where no socket can be made.
        """
        if len(path.encode()) > SOCKET_BYTES_MAX:
            raise Invalid(f"{path}: the path of a socket has at most {SOCKET_BYTES_MAX} bytes")
        await check_free(path)
        server = grpc.aio.server(options=_OPTIONS)
        handlers = {name: _handler(call) for name, call in calls.items()}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
        try:
            server.add_insecure_port(f"unix:{path}")
            await server.start()
        except RuntimeError as error:
            raise Unavailable(f"cannot listen at {path}: {error}") from None
        return cls(server)

    async def close(self) -> None:
        """Serve no more; calls under way have a moment to end. The socket goes."""
        await self._server.stop(STOP_S)

    async def wait(self) -> None:
        """Until it serves no more."""
        await self._server.wait_for_termination()


def _check_folder(folder: Path) -> None:
    """gRPC itself would write on standard error, and not say what is wrong."""
    if not folder.exists():
        raise Unavailable(f"{folder} is not there: make the directory, or choose another")
    if not folder.is_dir():
        raise Unavailable(f"{folder} is no directory: choose another")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise Unavailable(f"{folder} is not ours to write to: choose another, or let this user write there")


async def check_free(path: str) -> None:
    """Raises `Conflict` unless `path` is free, or a socket that nobody serves; `Unavailable` if none can be there."""
    _check_folder(Path(path).parent)
    try:
        mode = Path(path).lstat().st_mode  # noqa: ASYNC240 - of a directory in memory, once
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise Conflict(f"{path} is no socket: something else lies there, remove it")
    try:
        _, writer = await asyncio.open_unix_connection(path)
    except (ConnectionRefusedError, FileNotFoundError):
        return
    writer.close()
    raise Conflict(f"{path} is served by another process: stop that first, or choose another place")


def _handler(call: Unary | Stream) -> grpc.RpcMethodHandler:
    """Errors of ours go out with their code; a fault is told as one, and its socket goes on."""
    if isinstance(call, Stream):

        async def answers(request: Message, context: grpc.aio.ServicerContext) -> AsyncIterator[Message]:
            try:
                async for message in call.answers(request):
                    yield message
            except Exception as error:
                await context.abort(*_told(error))

        return grpc.unary_stream_rpc_method_handler(answers, call.request.FromString, _encode)

    async def answer(request: Message, context: grpc.aio.ServicerContext) -> Message:
        try:
            return await call.answer(request)
        except Exception as error:
            await context.abort(*_told(error))
            raise  # abort does

    return grpc.unary_unary_rpc_method_handler(answer, call.request.FromString, _encode)


def _encode(message: Message) -> bytes:
    return message.SerializeToString()


def _told(error: Exception) -> tuple[grpc.StatusCode, str]:
    code = next((code for kind, code in _CODES.items() if isinstance(error, kind)), grpc.StatusCode.INTERNAL)
    return code, str(error) or type(error).__name__
