"""A task's open standard input: a file first, then what the agent brings, until it is closed or the task ends.

Nothing is held back here: what the pipe has no room for is not taken, and the request for it waits.
"""

from __future__ import annotations

import os
from contextlib import suppress

from edgerm_agent.keeper import protocol
from edgerm_agent.keeper.loop import Loop, Timer
from edgerm_agent.keeper.protocol import Refused
from edgerm_agent.keeper.server import Request

FILE_BYTES = 65536  # of the file, in memory at once
WAIT_S_MAX = 60.0
OFFSET_MAX = 1 << 62


class Put:
    """An `input` request that waits for room."""

    __slots__ = ("data", "end", "offset", "request", "timer")

    def __init__(self, request: Request) -> None:
        self.request = request
        self.offset = protocol.integer_of(request.body, "offset", 0, OFFSET_MAX)
        self.data = request.payload
        self.end = bool(request.body.get("end"))
        self.timer: Timer | None = None


class Feed:
    """The write end of one task's standard input. `source`: a file that comes first; it is closed here."""

    def __init__(self, loop: Loop, fd: int, source: int | None = None) -> None:
        self.taken = 0
        """Live bytes that are in the pipe, or were read from it."""
        self.closed = False
        self._loop = loop
        self._fd = fd
        self._source = source
        self._left = memoryview(b"")  # of the file: read and not written
        self._waiting: list[Put] = []
        self._watched = False
        os.set_blocking(fd, False)
        if source is not None:
            self._room()

    def put(self, request: Request) -> None:
        """Answer now, when there is room, or when `wait_s` is over. Raises `Refused`."""
        put = Put(request)
        if put.offset > self.taken:
            raise Refused(protocol.INVALID, f"byte {put.offset} of the input, which has come to byte {self.taken}")
        wait_s = min(protocol.seconds_of(request.body, "wait_s"), WAIT_S_MAX)
        if self._waiting or not self._try(put):
            put.timer = self._loop.later(wait_s, lambda: self._give_up(put))
            self._waiting.append(put)
            self._watch()

    def forget_gone(self) -> None:
        """Nobody waits for some of the answers any more, and so nothing is written for them."""
        self._waiting = [put for put in self._waiting if not put.request.gone]
        self._watch()

    def close(self) -> None:
        """End of file, once the pipe is read empty; idempotent."""
        if self.closed:
            return
        self.closed = True
        self._watch()
        os.close(self._fd)
        if self._source is not None:
            os.close(self._source)
            self._source = None
        waiting, self._waiting = self._waiting, []
        for put in waiting:
            self._settle(put)

    def _watch(self) -> None:
        """Be told of room while something waits for it."""
        wanted = not self.closed and (self._source is not None or bool(self._waiting))
        if wanted and not self._watched:
            self._loop.watch(self._fd, self._room, self._room)
        elif self._watched and not wanted:
            self._loop.unwatch(self._fd)
        self._watched = wanted

    def _room(self) -> None:
        if self.closed:
            return
        if self._source is not None and not self._pour():
            self._watch()
            return
        while self._waiting and self._try(self._waiting[0]):
            if self._waiting:  # else the end of the input has answered them all
                self._waiting.pop(0)
        self._watch()

    def _pour(self) -> bool:
        """Whether the file has been written whole; one piece a turn."""
        assert self._source is not None
        if not self._left:
            try:
                self._left = memoryview(os.read(self._source, FILE_BYTES))
            except OSError:  # a bad disk: what follows would not be what the task was promised
                self.close()
                return False
            if not self._left:
                os.close(self._source)
                self._source = None
                return True
        sent = self._write(self._left)
        self._left = self._left[sent or 0 :]
        return False

    def _try(self, put: Put) -> bool:
        """Whether it is answered by now."""
        if self._source is None and not self.closed:
            fresh = memoryview(put.data)[self.taken - put.offset :]
            sent = self._write(fresh) if fresh else 0
            self.taken += sent or 0
            if sent is not None and sent == len(fresh) and put.end:
                self.close()
            if not self.closed and fresh and not sent:
                return False
        elif not self.closed:
            return False
        self._settle(put)
        return True

    def _write(self, data: memoryview) -> int | None:
        """How much there was room for; None: nobody will read it, and it is closed."""
        try:
            return os.write(self._fd, data)
        except BlockingIOError:
            return 0
        except OSError:  # EPIPE: the task has closed its end
            self.close()
            return None

    def _give_up(self, put: Put) -> None:
        if put in self._waiting:
            self._waiting.remove(put)
            self._watch()
            self._settle(put)

    def _settle(self, put: Put) -> None:
        if put.timer is not None:
            put.timer.cancel()
        with suppress(Refused):
            if self.closed and put.offset + len(put.data) > self.taken:
                put.request.fail(protocol.NOT_FOUND, f"the task's standard input is closed, after {self.taken} bytes")
            else:
                put.request.reply({"offset": self.taken, "closed": self.closed})
