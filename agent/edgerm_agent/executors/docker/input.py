"""A container's open standard input: the engine's connection to it, which closes the input when it ends.

The engine closes an input when the first who was attached to it leaves (StdinOnce), so it does not outlive the agent.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress

from edgerm.core.errors import NotFound, Unavailable
from edgerm.plugin.executor import Intake

CLOSED = "the container's standard input is closed"


class Input:
    """One container's; `connection` leads to its standard input."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._connection.setblocking(False)
        self._taken = 0
        self._closed = False
        self._lock = asyncio.Lock()

    async def put(self, offset: int, data: bytes, end: bool, wait_s: float) -> Intake:
        """As `Executor.put_input`."""
        async with self._lock:
            if offset > self._taken:
                raise Unavailable(f"byte {offset} of the input, which has come to byte {self._taken}")
            fresh = data[self._taken - offset :]
            if fresh and self._closed:
                raise NotFound(f"{CLOSED}, after {self._taken} bytes")
            sent = await self._send(fresh, wait_s) if fresh else 0
            self._taken += sent
            if end and sent == len(fresh):
                self._end()
            return Intake(self._taken, self._closed)

    def close(self) -> None:
        """The container is gone, or we are."""
        self._closed = True
        self._connection.close()

    async def _send(self, data: bytes, wait_s: float) -> int:
        sent = self._send_now(data)
        if not sent and await self._room(wait_s):
            sent = self._send_now(data)
        return sent

    def _send_now(self, data: bytes) -> int:
        """As many bytes as there is room for. Raises `NotFound`."""
        try:
            return self._connection.send(data)
        except BlockingIOError:
            return 0
        except OSError as error:
            self._closed = True
            raise NotFound(f"{CLOSED}: {error.strerror}") from error

    async def _room(self, wait_s: float) -> bool:
        loop = asyncio.get_running_loop()
        writable = asyncio.Event()
        loop.add_writer(self._connection, writable.set)
        try:
            async with asyncio.timeout(wait_s):
                await writable.wait()
        except TimeoutError:
            return False
        finally:
            if self._connection.fileno() >= 0:
                loop.remove_writer(self._connection)
        return True

    def _end(self) -> None:
        """The engine closes the container's input when we say that no more will come."""
        if not self._closed:
            self._closed = True
            with suppress(OSError):
                self._connection.shutdown(socket.SHUT_WR)
