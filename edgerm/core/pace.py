"""A pace: so many bytes a second in the long run, and a little at once. Knows no clock.

What does not live here: what is paced, and who waits.
"""

from __future__ import annotations


class Pace:
    """A token bucket, full at the start: within any `t` seconds it gives at most `burst_bytes + t * bytes_s`."""

    def __init__(self, bytes_s: float, burst_bytes: int, now_s: float) -> None:
        self.bytes_s = bytes_s
        self.burst_bytes = burst_bytes
        self._left = float(burst_bytes)
        self._now_s = now_s

    def take(self, wanted_bytes: int, least_bytes: int, now_s: float) -> int:
        """So many of the bytes that are wanted may go now: none, or at least `least_bytes` (at most the burst)."""
        left = self._refill(now_s)
        given = min(wanted_bytes, int(left))
        if given < min(wanted_bytes, least_bytes, self.burst_bytes):
            return 0
        self._left = left - given
        return given

    def wait_s(self, least_bytes: int, now_s: float) -> float:
        """How long until `least_bytes` (at most the burst) may go."""
        lacking = min(least_bytes, self.burst_bytes) - self._refill(now_s)
        return max(0.0, lacking / self.bytes_s)

    def _refill(self, now_s: float) -> float:
        self._left = min(self._left + max(0.0, now_s - self._now_s) * self.bytes_s, float(self.burst_bytes))
        self._now_s = max(self._now_s, now_s)
        return self._left
