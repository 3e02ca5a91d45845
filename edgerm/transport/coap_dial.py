"""One UDP socket to one CoAP server, as a client: the place of a client that knows aiocoap.

What lives here: a request out, its answers in. What does not: time limits and repetition (`coap_client`,
`coap_volley`).

All requests are non-confirmable: a confirmable one is repeated by aiocoap for up to 93 s even if its caller has gone,
and all others wait for it. Each repetition of ours has a message id and a token of its own.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from aiocoap.error import Error, MalformedUrlError, ResolutionError
from aiocoap.interfaces import RequestInterface
from aiocoap.message import Message
from aiocoap.numbers.codes import Code
from aiocoap.numbers.constants import Unreliable
from aiocoap.pipe import Pipe
from aiocoap.protocol import Context

from edgerm.core.errors import Unavailable
from edgerm.transport.coap_log import quiet_logger
from edgerm.transport.coap_values import Block, CoapReply

PORT = 5683
TRANSPORTS = ["udp6"]
_UNRELIABLE = Unreliable()
_METHODS = {"GET": Code.GET, "POST": Code.POST}


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked; `block2`: which block of the answer."""

    method: str  # "GET" or "POST"
    path: tuple[str, ...]
    query: tuple[str, ...] = ()
    payload: bytes = b""
    content_format: int | None = None
    block2: Block | None = None


Heard: TypeAlias = Callable[[CoapReply | Unavailable], None]
Forget: TypeAlias = Callable[[], None]


class Socket:
    """All methods are for the event loop."""

    def __init__(self, context: Context, interface: RequestInterface, remote: Any) -> None:
        self._context = context
        self._interface = interface
        self._remote = remote
        self.sent = 0
        """Requests so far."""

    @property
    def address(self) -> str:
        """Where it sends to: the host's address, and the port if it is not 5683."""
        return str(self._remote.hostinfo)

    def send(self, request: Request, heard: Heard) -> Forget:
        """Send it; `heard` is told the answer, or that there will be none. Answers how to be told nothing more."""
        response = self._context.request(self._message(request), handle_blockwise=False).response

        def done(future: asyncio.Future[Message]) -> None:
            if not future.cancelled():
                heard(_outcome(future.result() if (error := future.exception()) is None else error))

        response.add_done_callback(done)
        return response.cancel  # type: ignore[no-any-return]

    def watch(self, request: Request, heard: Heard) -> Forget:
        """Observe it: `heard` is told the answer, then each notification, and what ends them."""
        message = self._message(request)
        message.opt.observe = 0
        pipe = Pipe(message, self._context.log)

        def happened(event: Any) -> bool:
            heard(_outcome(event.exception if event.message is None else event.message))
            return not event.is_last

        forget: Forget = pipe.on_event(happened)
        self._interface.request(pipe)
        return forget

    async def close(self) -> None:
        """Give up what is under way: each `heard` is told."""
        await self._context.shutdown()

    def _message(self, request: Request) -> Message:
        self.sent += 1
        message = Message(
            code=_METHODS[request.method],
            payload=request.payload,
            transport_tuning=_UNRELIABLE,
        )
        message.remote = self._remote
        message.opt.uri_path = request.path
        message.opt.uri_query = request.query
        message.opt.content_format = request.content_format
        if request.block2 is not None:
            number, size_bytes, _ = request.block2
            message.opt.block2 = (number, False, size_bytes.bit_length() - 5)
        return message


async def addresses_of(server: str) -> list[str]:
    """Where HOST or HOST:PORT may be, as the system would try them: a name leads to IPv6 and IPv4, and the server may
    listen at one of them only. Raises `Unavailable`.
    """
    parts = urlsplit(f"//{server}")
    host = parts.hostname or ""
    if _is_address(host):
        return [server]
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, parts.port or PORT, type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError) as error:
        raise Unavailable(f"{host} has no address: {error}") from None
    return list(dict.fromkeys(_literal(family, *place) for family, _, _, _, place in found))


def _is_address(host: str) -> bool:
    try:
        return bool(ip_address(host.partition("%")[0]))
    except ValueError:
        return False


def _literal(family: int, host: str, port: int, _flow: int = 0, scope: int = 0) -> str:
    if family != socket.AF_INET6:
        return f"{host}:{port}"
    return f"[{host}%{socket.if_indextoname(scope)}]:{port}" if scope else f"[{host}]:{port}"


async def open_socket(address: str) -> Socket:
    """A socket for an address, with or without :PORT (5683 by default), of a port of its own; raises `Unavailable`."""
    try:
        context = await Context.create_client_context(loggername=quiet_logger(), transports=TRANSPORTS)
    except OSError as error:
        raise Unavailable(
            f"no socket for CoAP ({error}): the kernel must have IPv6, whatever the network has"
        ) from None
    try:
        asking = Message(code=Code.GET)
        asking.set_request_uri(f"coap://{address}", set_uri_host=False)
        interface = await context.find_remote_and_interface(asking)
    except BaseException as error:
        await context.shutdown()
        if isinstance(error, ResolutionError | MalformedUrlError | OSError):
            raise Unavailable(f"{address} has no address that can be reached: {error}") from None
        raise
    return Socket(context, interface, asking.remote)


def _outcome(found: object) -> CoapReply | Unavailable:
    if not isinstance(found, Message):  # an exception, or the class of one
        return Unavailable(_reason(found))
    options = found.opt
    block = options.block2
    return CoapReply(
        code=int(found.code or 0),
        payload=found.payload,
        content_format=None if options.content_format is None else int(options.content_format),
        block2=None if block is None else Block(block.block_number, 16 << block.size_exponent, block.more),
        etag=options.etags[0] if options.etags else None,
        size2_bytes=options.size2,
    )


def _reason(found: object) -> str:
    """Why there is no answer; of an error that the network told, aiocoap's own text says nothing."""
    told = found.__cause__ if isinstance(found, Error) else found
    if isinstance(told, OSError) and told.errno:
        return os.strerror(told.errno)
    return str(found) if isinstance(found, Error) else "the request was reset"
