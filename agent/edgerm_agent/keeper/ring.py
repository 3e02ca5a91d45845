"""The last bytes of a stream, in bounded memory."""

from __future__ import annotations

RING_BYTES = 64 * 1024


class Ring:
    """Keeps the last `capacity` bytes written; offsets count from the stream's first byte.

    Memory grows with what was written up to the capacity (a little more in the allocator), never beyond.
    """

    __slots__ = ("_buffer", "capacity", "closed", "end")

    def __init__(self, capacity: int = RING_BYTES) -> None:
        self.capacity = capacity
        self.end = 0
        self.closed = False
        """True: nothing more will be written."""
        self._buffer = bytearray()

    @property
    def start(self) -> int:
        """The offset of the oldest byte kept."""
        return self.end - len(self._buffer)

    def write(self, data: bytes) -> None:
        """Append; the oldest bytes beyond the capacity are dropped."""
        self.end += len(data)
        if len(data) >= self.capacity:
            self._buffer[:] = data[-self.capacity :]
            return
        surplus = len(self._buffer) + len(data) - self.capacity
        if surplus > 0:
            del self._buffer[:surplus]
        self._buffer += data

    def place(self, offset: int) -> int:
        """Where a read at `offset` begins: negative counts from the end, dropped bytes are skipped."""
        if offset < 0:
            offset += self.end
        return min(max(offset, self.start), self.end)

    def read(self, offset: int, max_bytes: int) -> bytes:
        """At most `max_bytes` from `place(offset)` on."""
        at = self.place(offset) - self.start
        return bytes(self._buffer[at : at + max_bytes])
