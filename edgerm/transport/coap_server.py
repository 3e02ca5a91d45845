"""A CoAP server: routes behind one door, where each request is checked, authorised and answered.

What is decided before anything of a request's body is looked at, in this order: path (4.04), method (4.05), rights,
options (4.02, 5.05), Block1 (4.13), size (4.13), Content-Format (4.15), Accept (4.06). What does not live here: the
socket and repetitions (`coap_socket`), what any request means.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Generic, TypeVar

from aiocoap.pipe import Pipe, run_driving_pipe

from edgerm import logs
from edgerm.core.errors import EdgermError, NotAcceptable, TooLarge, Unavailable, UnsupportedMediaType
from edgerm.transport import coap_options
from edgerm.transport.coap_links import link_format
from edgerm.transport.coap_observation import Observation, message_of
from edgerm.transport.coap_socket import Endpoint, Received, Remote
from edgerm.transport.coap_values import (
    BAD_OPTION,
    CONTENT,
    DIAGNOSTIC_BYTES_MAX,
    LINK_FORMAT,
    METHOD_NOT_ALLOWED,
    NO_PROXY,
    NOT_FOUND,
    OCTETS,
    PAYLOAD_BYTES_MAX,
    CoapReply,
    CoapRequest,
    block_of,
    sliced,
)
from edgerm.transport.status import answer_of

UNDER_WAY_MAX = 4096
CORE = (".well-known", "core")

A = TypeVar("A", bound=Hashable)
Handler = Callable[[CoapRequest], Awaitable[CoapReply]]
Observer = Callable[[CoapRequest, Observation], CoapReply]

log = logs.get("transport.coap")


@dataclass(frozen=True, slots=True)
class Route(Generic[A]):
    """One path, and what its requests want to do; a segment `{}` stands for any one segment.

    `formats`: the Content-Formats of a payload that it takes, beside none. `answers`: that of its answers.
    `observer`: answers a registration at once, and keeps the observation or not. `attributes`: RFC 6690's.
    """

    method: str
    path: str
    action: A
    handler: Handler
    formats: frozenset[int] = frozenset({OCTETS})
    answers: int = OCTETS
    observer: Observer | None = None
    attributes: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


class Refused(Exception):
    """A refusal of CoAP's own that no error of ours stands for."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class CoapServer(Generic[A]):
    """Serves routes at one UDP address. `authorize(peer, action)` returns or raises `Forbidden`."""

    def __init__(self, routes: Iterable[Route[A]], authorize: Callable[[str, A], None], discovery: A) -> None:
        self._authorize = authorize
        self._routes: dict[tuple[str, ...], dict[str, Route[A]]] = {}
        core = Route("GET", "/" + "/".join(CORE), discovery, self._discover, answers=LINK_FORMAT)
        for route in (*routes, core):
            self._routes.setdefault(tuple(route.path[1:].split("/")), {})[route.method] = route
        self._links = [route for methods in self._routes.values() for route in methods.values() if route.attributes]
        self._endpoint: Endpoint | None = None
        self._observations: dict[Remote, set[Observation]] = {}
        self._under_way = 0

    async def listen(self, host: str, port: int) -> str:
        """Start; the URL, with the port that was picked. Raises `Unavailable` with the remedy."""
        endpoint = Endpoint(self._take)
        endpoint.messages.on_quiet = self._quiet
        endpoint.messages.on_lost = self._lost
        address, port = await endpoint.listen(host, port)
        self._endpoint = endpoint
        return f"coap://[{address}]:{port}" if ":" in address else f"coap://{address}:{port}"

    async def close(self) -> None:
        """Take no more requests; observers are not told. Idempotent."""
        endpoint, self._endpoint = self._endpoint, None
        if endpoint is not None:
            await endpoint.close()

    # --- the door ---

    def _take(self, pipe: Pipe) -> None:
        message: Received = pipe.request
        try:
            route, request = self._admit(message)
            if route.observer is not None and message.options.numbers.get(coap_options.OBSERVE) == 0:
                self._observe(pipe, route.observer, request)
            else:
                run_driving_pipe(pipe, self._serve(pipe, route, request))
        except Exception as error:
            pipe.add_response(message_of(refusal(error)), is_last=True)

    async def _serve(self, pipe: Pipe, route: Route[A], request: CoapRequest) -> None:
        self._under_way += 1
        try:
            reply = await route.handler(request)
        except Exception as error:
            reply = refusal(error)
        finally:
            self._under_way -= 1
        pipe.add_response(message_of(reply), is_last=True)

    def _observe(self, pipe: Pipe, observer: Observer, request: CoapRequest) -> None:
        assert self._endpoint is not None
        observation = Observation(self._endpoint, pipe)
        reply = observer(request, observation)
        remote, ended = observation.remote, observation.on_end
        self._observations.setdefault(remote, set()).add(observation)

        def forget() -> None:
            here = self._observations[remote]
            here.discard(observation)
            if not here:
                del self._observations[remote]
            ended()

        observation.on_end = forget
        observation.begin(reply)

    def _quiet(self, remote: Remote) -> None:
        for observation in tuple(self._observations.get(remote, ())):
            observation.flush()

    def _lost(self, remote: Remote) -> None:
        for observation in tuple(self._observations.get(remote, ())):
            observation.drop()

    # --- checks ---

    def _admit(self, message: Received) -> tuple[Route[A], CoapRequest]:
        options, path = message.options, tuple(message.options.path)
        if options.proxied:
            raise Refused(NO_PROXY, "this is no proxy")
        methods = self._find(path)
        method = _METHODS.get(message.code or 0, "")
        route = methods.get(method)
        if route is None:
            raise Refused(METHOD_NOT_ALLOWED, f"/{'/'.join(path)} takes {', '.join(methods)}")
        peer = message.remote.peer
        self._authorize(peer, route.action)
        if options.unknown is not None:
            raise Refused(BAD_OPTION, f"option {options.unknown} is critical and not understood")
        request = CoapRequest(method, path, tuple(options.query), message.payload, None, peer)
        if options.numbers or len(request.payload) > PAYLOAD_BYTES_MAX:
            request = self._check(route, request, options.numbers)
        if self._under_way >= UNDER_WAY_MAX:
            raise Unavailable(f"{UNDER_WAY_MAX} requests are under way: try again later")
        return route, request

    def _check(self, route: Route[A], request: CoapRequest, numbers: Mapping[int, int]) -> CoapRequest:
        """The request with what its numeric options say, if they and its size allow it."""
        content_format = numbers.get(coap_options.CONTENT_FORMAT)
        if coap_options.BLOCK1 in numbers:
            raise TooLarge("a body in blocks; what fits no datagram is sent as chunks")
        if len(request.payload) > PAYLOAD_BYTES_MAX:
            raise TooLarge(f"a payload of {len(request.payload)} bytes; at most {PAYLOAD_BYTES_MAX} are taken")
        if request.payload and content_format is not None and content_format not in route.formats:
            raise UnsupportedMediaType(f"Content-Format {content_format} is not read here; leave it out or send 42")
        if numbers.get(coap_options.ACCEPT, route.answers) != route.answers:
            raise NotAcceptable(f"Content-Format {numbers[coap_options.ACCEPT]} is not to be had here")
        block2 = block_of(numbers[coap_options.BLOCK2]) if coap_options.BLOCK2 in numbers else None
        return replace(request, content_format=content_format, block2=block2)

    def _find(self, path: tuple[str, ...]) -> dict[str, Route[A]]:
        methods = self._routes.get(path) or self._routes.get((*path[:-1], "{}"))
        if methods is None:
            raise Refused(NOT_FOUND, f"there is no /{'/'.join(path)} here; /.well-known/core lists what there is")
        return methods

    async def _discover(self, request: CoapRequest) -> CoapReply:
        """The links that match the query, in blocks if there are many."""
        links = ((route.path.removesuffix("/{}"), route.attributes) for route in self._links)
        return sliced(CoapReply(CONTENT, link_format(links, request.query), LINK_FORMAT), request.block2)


_METHODS = {1: "GET", 2: "POST", 3: "PUT", 4: "DELETE", 5: "FETCH", 6: "PATCH", 7: "iPATCH"}


# --- answers ---


def refusal(error: Exception) -> CoapReply:
    """The error as an answer, its text as the diagnostic payload; what is our own fault is logged."""
    code = error.code if isinstance(error, Refused) else answer_of(error).coap
    if not isinstance(error, (Refused, EdgermError)):
        log.error("a request failed by a fault of ours", exc_info=error)
        return CoapReply(code, b"a fault of the server, see its log")
    return CoapReply(code, str(error).encode()[:DIAGNOSTIC_BYTES_MAX].decode(errors="ignore").encode())
