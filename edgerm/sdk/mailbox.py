"""The task's end of messages: runs inside the task, with nothing but Python's standard library.

    from edgerm.sdk.mailbox import Mailbox

    with Mailbox.open() as mailbox:
        while (message := mailbox.receive(timeout_s=60)) is not None:
            mailbox.send(message.upper())

This file works alone: put a copy of it into a container that has no edgerm. The task must have been launched with
`messages=True` (`TaskInfo.messages`); its environment then names a UNIX stream socket in EDGERM_MESSAGES. For other
languages, the whole format: connect, and then both ways each message is its length in decimal digits, a line feed, and
so many bytes, 1 to 65,536. When the connection ends (the agent is started anew), connect again. A UNIX socket's path
has at most 107 bytes; a longer one is told relative to the sandbox, the directory that a task begins in.

Messages are best effort: each arrives at most once and in order, or not at all if somebody on the way is away or slow.
"""

from __future__ import annotations

import os
import select
import socket
import time
from types import TracebackType

VARIABLE = "EDGERM_MESSAGES"
MESSAGE_BYTES_MAX = 64 * 1024
RETRY_S = 0.2
_LENGTH_DIGITS = 10
_READ_BYTES = 65536


class MailboxError(Exception):
    """There is no mailbox, or it does not speak as it should."""


class Mailbox:
    """A task's connection to its agent, for one thread. It is made anew by itself when it breaks."""

    def __init__(self, path: str) -> None:
        self._path = os.path.abspath(path)  # noqa: PTH100 - the task may go to another directory
        self._socket: socket.socket | None = None
        self._buffer = bytearray()

    @classmethod
    def open(cls) -> Mailbox:
        """The mailbox of this task. Raises `MailboxError` if it has none."""
        path = os.environ.get(VARIABLE)
        if not path:
            raise MailboxError(f"{VARIABLE} is not set: launch the task with messages=True")
        mailbox = cls(path)
        mailbox._connect()  # now, so that what comes next is for this process
        return mailbox

    def __enter__(self) -> Mailbox:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection; what comes later waits for the next one."""
        self._drop()
        self._buffer.clear()

    def send(self, data: bytes, timeout_s: float = 5.0) -> bool:
        """Give the agent a message for the framework; False if the agent did not take it in time.

        Raises `ValueError` unless it has 1 to 65,536 bytes.
        """
        if not 0 < len(data) <= MESSAGE_BYTES_MAX:
            raise ValueError(f"a message has 1 to {MESSAGE_BYTES_MAX} bytes, not {len(data)}")
        until = time.monotonic() + timeout_s
        while True:
            if self._connect() and self._write(b"%d\n" % len(data) + data, until):
                return True
            if time.monotonic() >= until:
                return False
            time.sleep(min(RETRY_S, max(0.0, until - time.monotonic())))

    def receive(self, timeout_s: float | None = None) -> bytes | None:
        """The next message; None if none came in time. Without a timeout it waits for ever."""
        until = None if timeout_s is None else time.monotonic() + timeout_s
        while (message := self._next()) is None:
            left_s = None if until is None else max(0.0, until - time.monotonic())
            if not self._connect():
                time.sleep(RETRY_S if left_s is None else min(RETRY_S, left_s))
            elif self._ready(select.POLLIN, left_s):
                self._read()
            if until is not None and time.monotonic() >= until:
                return self._next()
        return message

    def _next(self) -> bytes | None:
        feed = self._buffer.find(b"\n")
        if feed < 0:
            if len(self._buffer) > _LENGTH_DIGITS:
                raise MailboxError(f"no length of a message: {bytes(self._buffer[:20])!r}")
            return None
        digits = bytes(self._buffer[:feed])
        if not digits.isdigit() or len(digits) > _LENGTH_DIGITS or not 0 < int(digits) <= MESSAGE_BYTES_MAX:
            raise MailboxError(f"no length of a message: {digits[:20]!r}")
        end = feed + 1 + int(digits)
        if len(self._buffer) < end:
            return None
        message = bytes(self._buffer[feed + 1 : end])
        del self._buffer[:end]
        return message

    def _read(self) -> None:
        assert self._socket is not None
        try:
            data = self._socket.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._buffer += data
        else:
            self._drop()
            time.sleep(RETRY_S)  # whoever accepts and closes at once must not keep us busy

    def _write(self, record: bytes, until: float) -> bool:
        left = memoryview(record)
        while left and self._socket is not None:
            try:
                left = left[self._socket.send(left) :]
            except BlockingIOError:
                if not self._ready(select.POLLOUT, max(0.0, until - time.monotonic())):
                    self._drop()  # half a message would spoil what follows it
            except OSError:
                self._drop()
        return not left

    def _ready(self, event: int, timeout_s: float | None) -> bool:
        poll = select.poll()
        assert self._socket is not None
        poll.register(self._socket, event)
        return bool(poll.poll(None if timeout_s is None else timeout_s * 1000))

    def _connect(self) -> bool:
        if self._socket is not None:
            return True
        folder, name = os.path.split(self._path)
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            place = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:  # by a short name, whatever the folder's is
                made.connect(f"/proc/self/fd/{place}/{name}")
            finally:
                os.close(place)
        except OSError:
            made.close()
            return False
        made.setblocking(False)
        self._socket = made
        return True

    def _drop(self) -> None:
        """The connection is over, and with it the half of a message that may have come."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        whole = 0
        while (feed := self._buffer.find(b"\n", whole)) >= 0:
            end = feed + 1 + int(self._buffer[whole:feed] or b"0")
            if end > len(self._buffer):
                break
            whole = end
        del self._buffer[whole:]
