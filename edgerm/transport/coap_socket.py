"""The server's UDP socket and what lies between it and requests: aiocoap 0.4.17, with what a public port needs.

What aiocoap leaves open and this file closes: two servers share a port without a word (SO_REUSEPORT); it answers
tokens longer than 8 bytes; it remembers message ids without bound, and a notification may take the place of an answer
there; each acknowledgement costs in proportion to the notifications under way, each loss to all observers; a
datagram's exception ends in the event loop. Names of aiocoap with a leading underscore are used here and nowhere else.
What does not live here: what a request means (`coap_server`).
"""

# mypy: allow-untyped-calls
# (what is inherited from aiocoap has no types)

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

from aiocoap.message import Direction, Message
from aiocoap.messagemanager import MessageManager
from aiocoap.numbers import ACK, CON, GET, NON
from aiocoap.pipe import Pipe
from aiocoap.protocol import Context
from aiocoap.tokenmanager import TokenManager
from aiocoap.transports.udp6 import MessageInterfaceUDP6, UDP6EndpointAddress

from edgerm import logs
from edgerm.transport.coap_bind import bind
from edgerm.transport.coap_log import quiet_logger
from edgerm.transport.coap_options import Malformed, Options, read_options
from edgerm.transport.coap_recent import Recent

TOKEN_BYTES_MAX = 8
_MAPPED = bytes(10) + b"\xff\xff"

log = logs.get("transport.coap")


class Received(Message):
    """A request, with its options as we read them; those of aiocoap stay empty."""

    options: Options
    remote: Remote


class Remote(UDP6EndpointAddress):
    """Where a datagram came from. Only unicast is taken in, so the question whether it was is answered once."""

    is_multicast_locally = False
    is_multicast = False

    def __init__(self, sockaddr: Any, interface: Any, *, pktinfo: bytes | None = None) -> None:
        super().__init__(sockaddr, interface, pktinfo=pktinfo)

    @property
    def peer(self) -> str:
        """The address, IPv4 in its own notation."""
        host: str = self.sockaddr[0]
        return host[7:] if host.startswith("::ffff:") and "." in host else host


def key_of(message: Message) -> tuple[str, int, int]:
    """What tells repeated messages: address, port, message id."""
    remote: Any = message.remote
    return (remote.sockaddr[0], remote.sockaddr[1], message.mid)


class Socket(MessageInterfaceUDP6):
    """Takes datagrams in, and lets nothing that one contains get further than it should."""

    def datagram_msg_received(self, data: bytes, ancdata: Any, flags: int, address: Any) -> None:
        """Requests and acknowledgements go on; the rest is rejected as RFC 7252, 4.2 and 4.3 say."""
        del flags
        try:
            pktinfo = next((cmsg[2] for cmsg in ancdata if cmsg[:2] == _PKTINFO), None)
            if pktinfo is None or len(data) < 4 or data[0] >> 6 != 1 or _is_multicast(pktinfo):
                return
            message = _read(data)
            if message is not None:
                message.remote = Remote(address, self, pktinfo=pktinfo)
                self._ctx.dispatch_message(message)
            elif data[0] >> 4 & 3 == CON:
                self.put(b"\x70\x00" + data[2:4], Remote(address, self, pktinfo=pktinfo))
        except Exception as error:
            log.error("a datagram met a fault of ours", peer=address[0], exc_info=error)

    def datagram_errqueue_received(self, *told: Any) -> None:
        """The network's word that a datagram of ours could not be delivered."""
        try:
            super().datagram_errqueue_received(*told)
        except Exception as error:
            log.debug("an error that the network told was not understood", error=repr(error))

    def put(self, data: bytes, remote: Any) -> None:
        """Send a datagram, from the address that the peer sent to."""
        ancdata = [] if remote.pktinfo is None else [(*_PKTINFO, remote.pktinfo)]
        self.transport.sendmsg(data, ancdata, 0, remote.sockaddr)


_PKTINFO = (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO)


def _is_multicast(pktinfo: bytes) -> bool:
    """Whether a datagram was sent to many: answering such a one is how others are flooded."""
    return pktinfo[0] == 0xFF or (pktinfo[:12] == _MAPPED and pktinfo[12] >= 224)


def _read(data: bytes) -> Message | None:
    """The message in a datagram of at least 4 bytes, if it is one that a server takes."""
    kind, token_bytes, code = data[0] >> 4 & 3, data[0] & 15, data[1]
    mid = data[2] << 8 | data[3]
    if code == 0:  # an acknowledgement or a reset of ours; a ping is told by its reset
        if len(data) != 4 or kind in (CON, NON):
            return None
        return Message(_mtype=kind, _mid=mid, code=0)
    if code >= 32 or kind not in (CON, NON) or token_bytes > TOKEN_BYTES_MAX or len(data) < 4 + token_bytes:
        return None
    try:
        options, payload = read_options(data, 4 + token_bytes)
    except Malformed:
        return None
    message = Received(_mtype=kind, _mid=mid, _token=data[4 : 4 + token_bytes], code=code, payload=payload)
    message.direction = Direction.INCOMING
    message.options = options
    return message


class Messages(MessageManager):
    """Message ids, acknowledgements and repetitions, within bounds."""

    message_interface: Socket

    def __init__(self, token_manager: TokenManager) -> None:
        super().__init__(token_manager)
        self.recent = Recent()
        self.on_quiet: Callable[[Remote], None] = lambda remote: None
        self.on_lost: Callable[[Remote], None] = lambda remote: None
        self._under_way: dict[Remote, int] = {}  # message ids of what waits for its acknowledgement

    def busy(self, remote: Remote) -> bool:
        """Whether a confirmable message to the peer waits for its acknowledgement (NSTART is 1: RFC 7252, 4.7)."""
        return remote in self._backlogs

    def dispatch_error(self, error: Exception, remote: Remote) -> None:
        """The network says that nobody is there: nothing is repeated."""
        del error
        key = (remote, self._under_way.get(remote))
        if key in self._active_exchanges:
            self._active_exchanges.pop(key)[1].cancel()
            del self._backlogs[remote]
        self.lost(remote)

    def lost(self, remote: Remote) -> None:
        """Nobody is there, or nobody answers any more."""
        self._under_way.pop(remote, None)
        self.on_lost(remote)

    def _deduplicate_message(self, message: Received) -> bool:
        if message.code == GET:  # idempotent, so not remembered (RFC 7252, 4.5): a blob is many
            return False
        known = self.recent.seen(key_of(message), message.token, self.loop.time())
        if known is None:
            return False
        if known.answer and message.mtype == CON:
            self.message_interface.put(known.answer, message.remote)
        return True

    def _send_initially(self, message: Any, messageerror_monitor: Any = None) -> None:
        if message.mtype is CON:
            self._add_exchange(message, messageerror_monitor)
            self._under_way[message.remote] = message.mid
        data = message.encode()
        if message.mtype is ACK and message.code:
            self.recent.answered(key_of(message), message.token, data)
        self.message_interface.put(data, message.remote)

    def _continue_backlog(self, remote: Remote) -> None:
        backlog = self._backlogs[remote]
        if backlog:
            self._send_initially(*backlog.pop(0))
        else:
            del self._backlogs[remote]
            self._under_way.pop(remote, None)
            self.on_quiet(remote)

    async def shutdown(self) -> None:
        """Let nothing be sent any more."""
        for _, acknowledging in self._piggyback_opportunities.values():
            acknowledging.cancel()
        await super().shutdown()


class Tokens(TokenManager):
    """Requests by their tokens."""

    token_interface: Messages

    def dispatch_error(self, exception: Exception, remote: Remote) -> None:
        """A message was repeated as often as it may be: without a search through all requests."""
        del exception
        self.token_interface.lost(remote)


class Endpoint(Context):
    """A socket that listens, and hands each request to `take`."""

    def __init__(self, take: Callable[[Pipe], None]) -> None:
        super().__init__(loop=asyncio.get_running_loop(), loggername=quiet_logger())
        self._take = take
        self.tokens = Tokens(self)
        self.messages = Messages(self.tokens)
        self.tokens.token_interface = self.messages

    async def listen(self, host: str, port: int) -> tuple[str, int]:
        """Begin; address and port. Raises `Unavailable` with the remedy."""
        bound = await bind(host, port)
        self.messages.message_interface = await Socket._create_transport_endpoint(
            bound, self.messages, self.log, self.loop
        )
        self.request_interfaces.append(self.tokens)
        address, port = bound.getsockname()[:2]
        return (address[7:] if address.startswith("::ffff:") else address), port

    async def close(self) -> None:
        """Listen no more."""
        await self.shutdown()

    def render_to_pipe(self, pipe: Pipe) -> None:
        """Answer a request: aiocoap's way to its site, without the tasks and pipes between."""
        self._take(pipe)

    def forget(self, request: Received) -> None:
        """Let go of a request that is not answered any more, without a word."""
        known = self.tokens.incoming_requests.get((request.token, request.remote))
        if known is not None and known[0].request is request:
            known[1]()
