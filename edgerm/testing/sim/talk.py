"""Messages in the simulator: each says its number, and who hears them hears each once at most, in order and whole."""

from __future__ import annotations

from collections.abc import Hashable
from hashlib import shake_128

SIZES = 3000  # bytes at most: several parts over a narrow link


class Talk:
    """One side: what it said, and heard, by partner."""

    def __init__(self) -> None:
        self._said: dict[Hashable, int] = {}
        self._heard: dict[Hashable, int] = {}
        self.heard = 0

    def say(self, partner: Hashable) -> bytes:
        """The next message for this partner."""
        number = self._said[partner] = self._said.get(partner, 0) + 1
        return words(number)

    def hear(self, partner: Hashable, data: bytes) -> None:
        """A message came."""
        number, last = int.from_bytes(data[:4], "big"), self._heard.get(partner, 0)
        assert data == words(number), f"message {number} of {partner} is not what was said"
        assert number > last, f"message {number} of {partner} is heard after message {last}"
        self._heard[partner] = number
        self.heard += 1


def words(number: int) -> bytes:
    """The message with this number."""
    name = number.to_bytes(4, "big")
    return name + shake_128(name).digest(int.from_bytes(shake_128(name).digest(2), "big") % SIZES)
