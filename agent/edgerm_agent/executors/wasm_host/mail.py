"""A guest's end of its socket for messages, for the two host calls of the import module `edgerm`. Names no engine.

`message_send(ptr, len) -> i32` and `message_receive(ptr, cap, timeout_ms) -> i32`; below 0 is an errno of WASI preview
1, negated. The guest's thread may block here; `wake`, of any thread, ends that. The other end is the agent's
(`mailbox.py` there tells the format), which may be away for a while: then nothing comes, and what is sent is refused.
"""

from __future__ import annotations

import os
import select
import socket
import threading
import time

MODULE = "edgerm"
SEND, RECEIVE = "message_send", "message_receive"
CALLS = frozenset({SEND, RECEIVE})
MESSAGE_BYTES_MAX = 64 * 1024
LENGTH_DIGITS = 5  # of MESSAGE_BYTES_MAX
READ_BYTES = 65536
SEND_S = 5.0
TIMEOUT_MS_MAX = 60_000  # of one call: a guest that waits longer calls again
RETRY_S = 0.25  # while the agent is away

AGAIN, FAULT, INTR, INVAL, IO, MSGSIZE, NOTCONN, NOTSUP, OVERFLOW = -6, -21, -27, -28, -29, -35, -53, -58, -61


class Mail:
    """One guest's. All methods but `wake` are for the guest's thread. `path`: the socket; None: the task has none."""

    def __init__(self, path: str | None) -> None:
        self._path = path
        self._socket: socket.socket | None = None
        self._buffer = bytearray()
        self._woken = threading.Event()
        self._wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK) if path is not None else -1
        self._closing = threading.Lock()

    def wake(self) -> None:
        """Whoever blocks returns at once, now and from now on."""
        self._woken.set()
        with self._closing:
            if self._wake_fd >= 0:
                os.eventfd_write(self._wake_fd, 1)

    def close(self) -> None:
        """Free it."""
        self._drop()
        with self._closing:
            if self._wake_fd >= 0:
                os.close(self._wake_fd)
                self._wake_fd = -1

    def send(self, data: bytes) -> int:
        """0, or why not."""
        if not 0 < len(data) <= MESSAGE_BYTES_MAX:
            return MSGSIZE if data else INVAL
        if self._path is None:
            return NOTSUP
        return self._send(memoryview(b"%d\n" % len(data) + data)) if self._connect() else NOTCONN

    def _send(self, left: memoryview) -> int:
        until_s = time.monotonic() + SEND_S
        while left and not self._woken.is_set():
            try:
                assert self._socket is not None
                left = left[self._socket.send(left) :]
            except BlockingIOError:
                if not self._wait(select.POLLOUT, until_s):
                    break
            except OSError:
                self._drop()
                return NOTCONN
        if left:  # a message that is cut spoils what follows it
            self._drop()
            return INTR if self._woken.is_set() else AGAIN
        return 0

    def receive(self, cap_bytes: int, timeout_ms: int) -> bytes | int:
        """The next message, or why there is none; one that is larger than `cap_bytes` stays."""
        if self._path is None:
            return NOTSUP
        until_s = time.monotonic() + min(max(timeout_ms, 0), TIMEOUT_MS_MAX) / 1000
        while (begin_end := self._whole()) is None:
            if self._woken.is_set():
                return INTR
            if not self._connect():
                self._pause(until_s)
            elif self._wait(select.POLLIN, until_s):
                self._read()
            if time.monotonic() >= until_s and self._whole() is None:
                return AGAIN
        begin, end = begin_end
        if end - begin > cap_bytes:
            return OVERFLOW
        data = bytes(self._buffer[begin:end])
        del self._buffer[:end]
        return data

    def _whole(self, begin: int = 0) -> tuple[int, int] | None:
        """Where the message is in the buffer whose record begins there, if it is there whole."""
        feed = self._buffer.find(b"\n", begin, begin + LENGTH_DIGITS + 1)
        if feed < 0:
            return None
        end = feed + 1 + int(self._buffer[begin:feed])
        return (feed + 1, end) if end <= len(self._buffer) else None

    def _read(self) -> None:
        assert self._socket is not None
        try:
            data = self._socket.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._buffer += data
        else:  # the agent went: the half of a message goes with it
            self._drop()

    def _connect(self) -> bool:
        if self._socket is not None:
            return True
        assert self._path is not None
        folder, _, name = self._path.rpartition("/")
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:  # by a short name: a socket's path has at most 107 bytes
            place = os.open(folder or "/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                made.setblocking(False)
                made.connect(f"/proc/self/fd/{place}/{name}")
            finally:
                os.close(place)
        except OSError:
            made.close()
            return False
        self._socket = made
        return True

    def _drop(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        whole = self._whole_bytes()
        del self._buffer[whole:]

    def _whole_bytes(self) -> int:
        """How much of the buffer is whole messages."""
        end = 0
        while (found := self._whole(end)) is not None:
            _, end = found
        return end

    def _wait(self, event: int, until_s: float) -> bool:
        """Whether the socket is ready; False: the time is over, or somebody woke us."""
        assert self._socket is not None
        poll = select.poll()
        poll.register(self._socket, event)
        poll.register(self._wake_fd, select.POLLIN)
        left_ms = max(0.0, until_s - time.monotonic()) * 1000
        ready = dict(poll.poll(left_ms))
        return self._socket.fileno() in ready and not self._woken.is_set()

    def _pause(self, until_s: float) -> None:
        self._woken.wait(min(RETRY_S, max(0.0, until_s - time.monotonic())))
