"""What all HTTP faces of the master share: routes, bodies within bounds, errors as statuses, streams.

What does not live here: what any request means.
"""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable, Iterable
from typing import NamedTuple

from aiohttp import web

from edgerm import logs
from edgerm.core.errors import EdgermError, Invalid, TooLarge, Unavailable
from edgerm.requests import HEADER, current_request, serving_request
from edgerm.transport.status import answer_of
from edgerm_master.api.access import Access, Action, Principal

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

KEEP_ALIVE_S = 10 * 365 * 86_400.0  # idle connections stay open: clients do not expect a master to close them
STOP_S = 2.0  # how long requests under way may take when the server is closed
LINGER_S = 2.0  # how long the rest of a refused body is drained, so that its sender reads the answer
PRINCIPAL = web.RequestKey("principal", Principal)

log = logs.get("master.http")


class Route(NamedTuple):
    """One path, and what its requests want to do."""

    method: str
    path: str
    action: Action
    handler: Handler


def application(routes: Iterable[Route], access: Access) -> web.Application:
    """All routes behind one door, where each request is authorised and each error becomes a status."""
    actions: dict[Handler, Action] = {}

    @web.middleware
    async def door(request: web.Request, handler: Handler) -> web.StreamResponse:
        with serving_request(request.headers.get(HEADER, "")) as name:
            response = await serve(request, handler)
            if not response.prepared:
                response.headers[HEADER] = name
            return response

    async def serve(request: web.Request, handler: Handler) -> web.StreamResponse:
        principal = request[PRINCIPAL] = Principal("", request.remote or "")
        try:
            action = actions.get(request.match_info.handler)
            if action is not None:  # None: no such path or method, which aiohttp answers
                access.authorize(principal, action)
            return await handler(request)
        except EdgermError as error:
            return refusal(error)
        except web.HTTPException as error:  # no such path or method
            error.headers[HEADER] = current_request()
            raise
        except ConnectionError as error:  # nobody is there to be answered, and nothing to be seen in the log
            log.debug("a peer left", path=request.path, error=str(error))
            return web.Response(status=499)
        except Exception as error:
            log.error("a request failed by a fault of ours", path=request.path, exc_info=error)
            return web.Response(status=500, text="a fault of the master, see its log\n")

    app = web.Application(middlewares=[door])
    for route in routes:
        actions[route.handler] = route.action
        app.router.add_route(route.method, route.path, route.handler)
    return app


class Server:
    """Serves routes at an address."""

    def __init__(self, routes: Iterable[Route], access: Access) -> None:
        self._runner = web.AppRunner(
            application(routes, access),
            access_log=None,
            handler_cancellation=True,  # a stream whose reader is gone ends at once
            keepalive_timeout=KEEP_ALIVE_S,
            lingering_time=LINGER_S,
            shutdown_timeout=STOP_S,
        )

    async def listen(self, host: str, port: int) -> str:
        """Start; the URL, with the port that was picked. Raises `Unavailable` with the remedy."""
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, host, port, backlog=1024).start()
        except OSError as error:
            why = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be listened on ({error.strerror})"
            raise Unavailable(f"{host}:{port} {why}: end what uses it, or choose another with --http") from None
        host, port = self._runner.addresses[0][:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    async def close(self) -> None:
        """End every connection; idempotent."""
        await self._runner.cleanup()


def refusal(error: EdgermError) -> web.Response:
    """The error as an answer; after a body that was not read whole the connection ends."""
    response = web.Response(status=answer_of(error).http, text=f"{error}\n")
    if isinstance(error, TooLarge):
        response.force_close()
    return response


def local_address(request: web.Request) -> tuple[str, int]:
    """Where this master is reached by whoever sent the request: the address and port of the connection."""
    name = request.transport.get_extra_info("sockname") if request.transport is not None else None
    return (name[0], name[1]) if name else ("127.0.0.1", 0)


async def read_body(request: web.Request, max_bytes: int) -> bytes:
    """The whole body; raises `TooLarge` as soon as it is announced, or known, to be larger."""
    announced = request.content_length
    if announced is not None and announced > max_bytes:
        raise TooLarge(f"a body of {announced} bytes; at most {max_bytes} are taken here")
    chunks = []
    size = 0
    while chunk := await request.content.readany():
        size += len(chunk)
        if size > max_bytes:
            raise TooLarge(f"a body of more than {max_bytes} bytes; no more are taken here")
        chunks.append(chunk)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


async def open_stream(request: web.Request, content_type: str, headers: dict[str, str]) -> web.StreamResponse:
    """Send status 200 and headers now; the body follows in chunks, never compressed."""
    if request.version < (1, 1):
        raise Invalid("streams need HTTP/1.1")
    told = {"Content-Type": content_type, "Cache-Control": "no-store", HEADER: current_request(), **headers}
    response = web.StreamResponse(headers=told)
    response.enable_chunked_encoding()
    await response.prepare(request)
    return response
