"""The server half of the protocol: connections, hello, requests and their replies. What a verb does is not here."""

from __future__ import annotations

import os
import socket
import struct
import sys
from contextlib import suppress
from typing import Protocol

from edgerm_agent.keeper import protocol
from edgerm_agent.keeper.loop import Loop
from edgerm_agent.keeper.protocol import Body, Malformed, Refused

CLIENTS_MAX = 32
UNSENT_BYTES_MAX = 16 << 20  # a client that does not read its replies is cut off
UNANSWERED_MAX = 16384

UCRED = struct.Struct("3i")


class Request:
    """One request; `reply` or `fail` answers it once, at once or later. After its client has gone both do nothing."""

    __slots__ = ("_connection", "_id", "body", "payload", "verb")

    def __init__(self, connection: Connection, number: int, body: Body, payload: bytes) -> None:
        self._connection: Connection | None = connection
        self._id = number
        self.verb = protocol.text_of(body, "verb")
        self.body = body
        self.payload = payload

    @property
    def gone(self) -> bool:
        """True: answered already, or nobody is left to answer to."""
        return self._connection is None or self._connection.closed

    def reply(self, body: Body | None = None, payload: bytes = b"") -> None:
        """Answer with success."""
        self._send({**(body or {}), "id": self._id}, payload)

    def fail(self, code: str, message: str) -> None:
        """Answer with an error."""
        self._send({"id": self._id, "error": code, "message": message}, b"")

    def _send(self, body: Body, payload: bytes) -> None:
        connection, self._connection = self._connection, None
        if connection is not None and not connection.closed:
            connection.unanswered -= 1
            connection.send(protocol.encode(body, payload))


class Holder(Protocol):
    """Who answers the requests; raises `Refused` to refuse one."""

    role: str

    def handle(self, request: Request) -> None:
        """Answer `request`, now or later."""
        ...

    def client_gone(self) -> None:
        """A connection has closed; its requests need no answer."""
        ...


class Server:
    """Accepts clients of our own uid on `listener` and hands their requests to `holder`."""

    def __init__(self, loop: Loop, listener: socket.socket, holder: Holder) -> None:
        self.loop = loop
        self.holder = holder
        self.instance = os.urandom(16).hex()
        self.connections: set[Connection] = set()
        self._listener = listener
        listener.setblocking(False)
        loop.watch(listener.fileno(), self._accept)

    def _accept(self) -> None:
        try:
            client, _ = self._listener.accept()
        except OSError:
            return  # gone again, or out of descriptors: the next round tries anew
        client.setblocking(False)
        if len(self.connections) >= CLIENTS_MAX or not is_own(client):
            client.close()
            return
        self.connections.add(Connection(self, client))

    def hello(self, body: Body) -> Body:
        """The answer to a hello. Raises `Refused` if no version is common."""
        versions = body.get("versions")
        if not isinstance(versions, list) or len(versions) != 2 or not all(isinstance(v, int) for v in versions):
            raise Refused(protocol.INVALID, "versions is not [low, high]")
        version = min(versions[1], protocol.VERSION_MAX)
        if version < max(versions[0], protocol.VERSION_MIN):
            ours = f"{protocol.VERSION_MIN} to {protocol.VERSION_MAX}"
            raise Refused(protocol.VERSION, f"versions {versions[0]} to {versions[1]} offered, {ours} spoken here")
        return {"version": version, "instance": self.instance, "role": self.holder.role, "pid": os.getpid()}


class Connection:
    """One client."""

    def __init__(self, server: Server, client: socket.socket) -> None:
        self.closed = False
        self.unanswered = 0
        self._server = server
        self._socket = client
        self._frames = protocol.FrameReader()
        self._unsent = bytearray()
        self._blocked = False
        self._greeted = False
        server.loop.watch(client.fileno(), self._read)

    def close(self) -> None:
        """Drop the client and what was not sent to it."""
        if not self.closed:
            self.closed = True
            self._server.loop.unwatch(self._socket.fileno())
            self._socket.close()
            self._server.connections.discard(self)
            self._server.holder.client_gone()

    def send(self, frame: bytes) -> None:
        """Send now what the socket takes, the rest when it can."""
        self._unsent += frame
        if not self._blocked:
            self._write()
        if len(self._unsent) > UNSENT_BYTES_MAX:
            self.close()

    def _write(self) -> None:
        try:
            sent = self._socket.send(self._unsent)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.close()
            return
        del self._unsent[:sent]
        if self._blocked != bool(self._unsent):
            self._blocked = bool(self._unsent)
            self._server.loop.watch(self._socket.fileno(), self._read, self._write if self._blocked else None)

    def _read(self) -> None:
        try:
            data = self._socket.recv(65536)
            frames = self._frames.feed(data)
        except BlockingIOError:
            return
        except (OSError, Malformed):
            self.close()
            return
        if not data:
            self.close()
        for body, payload in frames:
            if not self.closed:
                self._handle(body, payload)

    def _handle(self, body: Body, payload: bytes) -> None:
        number = body.get("id")
        if not isinstance(number, int) or not isinstance(body.get("verb"), str):
            self.close()
            return
        request = Request(self, number, body, payload)
        self.unanswered += 1
        try:
            self._dispatch(request)
        except Refused as refused:
            request.fail(refused.code, str(refused))
        except Exception as error:  # a fault of ours in one request must not end the tasks of all others
            sys.stderr.write(f"{request.verb}: {error!r}\n")
            request.fail(protocol.INTERNAL, repr(error))

    def _dispatch(self, request: Request) -> None:
        if request.verb == "hello":
            request.reply(self._server.hello(request.body))
            self._greeted = True
        elif not self._greeted:
            raise Refused(protocol.VERSION, "say hello first")
        elif self.unanswered > UNANSWERED_MAX:
            raise Refused(protocol.BUSY, f"{UNANSWERED_MAX} requests are unanswered")
        else:
            self._server.holder.handle(request)


def is_own(peer: socket.socket) -> bool:
    """Whether the process at the other end of a UNIX socket runs as us, or as root."""
    _, uid, _ = UCRED.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, UCRED.size))
    return uid in (os.geteuid(), 0)


def listen(name: str) -> socket.socket:
    """A listening socket `name` in the current directory (a path would be limited to 107 bytes), mode 0600."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    mask = os.umask(0o177)
    try:
        remove_quietly(name)
        listener.bind(name)
    finally:
        os.umask(mask)
    listener.listen(CLIENTS_MAX)
    return listener


def remove_quietly(path: str) -> None:
    """Unlink, if it is there."""
    with suppress(FileNotFoundError):
        os.unlink(path)  # noqa: PTH108 - pathlib is a large import
