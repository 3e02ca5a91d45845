"""The message ids that came lately and what they were answered, so that a repeated datagram has one effect.

Pure and bounded: a flood of ids, whatever addresses it comes from, pushes out the oldest entries and nothing else. What
is pushed out early may be processed twice; requests that are remembered here must bear that (the link's numbers do).
"""

from __future__ import annotations

from collections import deque
from typing import Final

LIFETIME_S: Final = 247.0
"""EXCHANGE_LIFETIME of RFC 7252, 4.8.2."""
ENTRIES_MAX: Final = 32_768
"""About 17 MiB. With 10,000 agents that is the last 49 s, longer than a sender repeats a message (45 s)."""
BYTES_MAX: Final = 16 << 20
"""Of all answers kept."""

Key = tuple[str, int, int]
"""Address, port, message id."""


class Entry:
    """A message that came. `answer` is the datagram that was sent back; empty: none yet."""

    __slots__ = ("answer", "token", "until_s")

    def __init__(self, token: bytes, until_s: float) -> None:
        self.token = token
        self.until_s = until_s
        self.answer = b""


class Recent:
    """The table. Times are the steady clock's."""

    def __init__(self, entries_max: int = ENTRIES_MAX, bytes_max: int = BYTES_MAX) -> None:
        self._entries_max = entries_max
        self._bytes_max = bytes_max
        self._entries: dict[Key, Entry] = {}
        self._order: deque[tuple[Key, Entry]] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._order)

    @property
    def answer_bytes(self) -> int:
        """What all answers take that are kept."""
        return self._bytes

    def seen(self, key: Key, token: bytes, now_s: float) -> Entry | None:
        """What is known of a message that came; None if it is new, and from now on it is known.

        The same id with another token is a new request: its sender has started anew, or is another one.
        """
        known = self._entries.get(key)
        if known is not None and known.token == token and now_s < known.until_s:
            return known
        entry = self._entries[key] = Entry(token, now_s + LIFETIME_S)
        self._order.append((key, entry))
        self._trim(now_s)
        return None

    def answered(self, key: Key, token: bytes, answer: bytes) -> None:
        """Keep the answer, if the message is still known."""
        entry = self._entries.get(key)
        if entry is not None and entry.token == token:
            self._bytes += len(answer) - len(entry.answer)
            entry.answer = answer

    def _trim(self, now_s: float) -> None:
        order = self._order
        while len(order) > self._entries_max or self._bytes > self._bytes_max or order[0][1].until_s <= now_s:
            key, entry = order.popleft()
            self._bytes -= len(entry.answer)
            if self._entries.get(key) is entry:
                del self._entries[key]
