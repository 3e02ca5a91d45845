"""One task's socket for messages: who is connected to it, what waits for it, and how fast it may talk.

What does not live here: which tasks have one, and how messages travel on (`mailbox.py`, which tells the format).
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from edgerm import logs
from edgerm.core.errors import Invalid
from edgerm.core.scheduler import MESSAGE_BYTES_MAX
from edgerm.wire.recordio import Decoder, frame

NAME = ".edgerm-messages"
WAITING_MAX = 64  # messages for one task
WAITING_BYTES_MAX = 256 * 1024
CONNECTIONS_MAX = 16  # of one task
BACKLOG = 8
READ_BYTES = 16 * 1024
TURN_MESSAGES = 64  # of one task, that are passed on within `TURN_S`: a flood must not keep the agent from its work
TURN_S = 0.02
ACCEPT_RETRY_S = 1.0  # after a failure, such as being out of descriptors

log = logs.get("agent.mailbox")


class Waiting:
    """Messages for one task that were not handed over: bounded, the oldest go first."""

    def __init__(self) -> None:
        self.messages: deque[bytes] = deque()
        self._bytes = 0

    def put(self, data: bytes) -> int:
        """Add one; how many had to go."""
        self.messages.append(data)
        self._bytes += len(data)
        dropped = 0
        while len(self.messages) > WAITING_MAX or self._bytes > WAITING_BYTES_MAX:
            self.pop()
            dropped += 1
        return dropped

    def pop(self) -> bytes:
        """The oldest."""
        data = self.messages.popleft()
        self._bytes -= len(data)
        return data


class Mailbox:
    """One task's socket, and who is connected to it."""

    def __init__(self, listener: socket.socket, waiting: Waiting, post: Callable[[bytes], None]) -> None:
        self._post = post
        self._said: deque[bytes] = deque()  # by the task, and not passed on yet
        self._turn_left = TURN_MESSAGES
        self._timer: asyncio.TimerHandle | None = None
        self._waiting = waiting
        self._listener = listener
        self._connections: list[_Connection] = []
        self._loop = asyncio.get_running_loop()
        self._accepting: set[asyncio.Task[None]] = set()
        self._listen()

    def put(self, data: bytes) -> int:
        """For the task; how many messages had to be dropped."""
        dropped = self._waiting.put(data)
        self.flush()
        return dropped

    def flush(self) -> None:
        """Hand over what waits, as far as the latest connection takes it."""
        while self._waiting.messages and self._connections and self._connections[-1].ready:
            self._connections[-1].write(frame(self._waiting.pop()))

    def hear(self, messages: list[bytes]) -> None:
        """Pass on what the task said; while there is more than a turn's share of it nobody is listened to."""
        self._said += messages
        while self._said and self._turn_left:
            self._turn_left -= 1
            self._post(self._said.popleft())
        if self._timer is None and self._turn_left < TURN_MESSAGES:
            self._timer = self._loop.call_later(TURN_S, self._next_turn)
        for connection in self._connections if self._said else ():
            connection.listen(False)

    def _next_turn(self) -> None:
        self._timer, self._turn_left = None, TURN_MESSAGES
        self.hear([])
        for connection in self._connections if not self._said else ():
            connection.listen(True)

    def opened(self, connection: _Connection) -> None:
        """From now on it gets what comes."""
        self._connections.append(connection)
        connection.listen(not self._said)
        if len(self._connections) > CONNECTIONS_MAX:
            self._connections.pop(0).abort()  # at once: more may come before it is gone
        self.flush()

    def lost(self, connection: _Connection) -> None:
        """It is gone."""
        if connection in self._connections:
            self._connections.remove(connection)
        self.flush()

    def close(self) -> None:
        """End it with all connections."""
        self._loop.remove_reader(self._listener)
        self._listener.close()
        if self._timer is not None:
            self._timer.cancel()
        for task in self._accepting:
            task.cancel()
        for connection in list(self._connections):
            connection.abort()

    def _accept(self) -> None:
        try:
            made, _ = self._listener.accept()
        except BlockingIOError:
            return
        except OSError as error:
            log.warning("a task cannot be connected now", error=error.strerror)
            self._loop.remove_reader(self._listener)  # it stays readable
            self._loop.call_later(ACCEPT_RETRY_S, self._listen)
            return
        made.setblocking(False)
        task = self._loop.create_task(self._connect(made))
        self._accepting.add(task)
        task.add_done_callback(self._accepting.discard)

    def _listen(self) -> None:
        if self._listener.fileno() >= 0:
            self._loop.add_reader(self._listener, self._accept)

    async def _connect(self, made: socket.socket) -> None:
        await self._loop.connect_accepted_socket(lambda: _Connection(self), made)


class _Connection(asyncio.BufferedProtocol):
    """One connection of a task."""

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox
        self._decoder = Decoder(MESSAGE_BYTES_MAX)
        self._buffer = bytearray(READ_BYTES)
        self._transport: asyncio.Transport | None = None
        self.ready = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.set_write_buffer_limits(high=MESSAGE_BYTES_MAX, low=0)
        self.ready = True
        self._mailbox.opened(self)

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        try:
            self._mailbox.hear(self._decoder.feed(bytes(self._buffer[:nbytes])))
        except Invalid as error:
            log.info("a task's connection for messages is closed: it does not keep to the format", error=str(error))
            self.abort()

    def listen(self, now: bool) -> None:
        """Read on, or do not for a while."""
        if self._transport is not None and not self._transport.is_closing():
            if now:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()

    def pause_writing(self) -> None:
        self.ready = False

    def resume_writing(self) -> None:
        self.ready = True
        self._mailbox.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self.ready = False
        self._mailbox.lost(self)

    def write(self, record: bytes) -> None:
        """Send it."""
        if self._transport is not None:
            self._transport.write(record)

    def abort(self) -> None:
        """End it."""
        if self._transport is not None:
            self._transport.abort()


def listen(sandbox: Path, place: Path) -> socket.socket:
    """The task's socket at `place`: whoever may enter the sandbox may use it, or we alone. Raises `OSError`."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    beside = os.open(sandbox.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        listener.setblocking(False)
        with suppress(FileNotFoundError):
            os.unlink(NAME, dir_fd=beside)
        listener.bind(f"/proc/self/fd/{beside}/{NAME}")
        listener.listen(BACKLOG)
        os.chmod(NAME, 0o600, dir_fd=beside)
        if place.parent == sandbox:
            owner = sandbox.stat(follow_symlinks=False)
            if owner.st_uid != os.geteuid():
                os.chown(NAME, owner.st_uid, owner.st_gid, dir_fd=beside, follow_symlinks=False)
            os.chmod(NAME, 0o666, dir_fd=beside)
            os.rename(NAME, f"{sandbox.name}/{NAME}", src_dir_fd=beside, dst_dir_fd=beside)
    except BaseException:
        listener.close()
        raise
    finally:
        os.close(beside)
    return listener
