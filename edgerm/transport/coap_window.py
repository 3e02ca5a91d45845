"""How many requests may be in flight at a time, and when one counts as lost. Pure: the caller tells the time.

The window is steered by delay (as LEDBAT, RFC 6817, but with a target relative to the path's own delay): it grows while
round trips stay short and shrinks when they inflate, which is when a queue fills. Chance loss says nothing about a
queue and does not shrink it; only when most of what is sent is lost, or nothing at all comes back, there is less.
Timers are those of RFC 6298, a little shorter: each try is told apart, so every round trip counts, and a repetition in
vain costs a datagram, no more.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from math import inf
from typing import Final

IN_FLIGHT_MAX: Final = 64
IN_FLIGHT_FIRST: Final = 16.0  # as TCP begins: about 15 kB (RFC 6928)
RTO_FIRST_S: Final = 3.0
RTO_MIN_S: Final = 0.2
RTO_MAX_S: Final = 15.0
QUEUE_MIN_S: Final = 0.1  # so much more than the shortest round trip is no queue on any path (RFC 6817: 100 ms)
QUEUE_SHARE: Final = 1 / 3  # nor is this share of it
BASE_S: Final = 60.0  # the shortest round trip of the last one to two such times is the path's own
RECENT: Final = 12  # the shortest of so many tells the queue: jitter adds to single ones
ANSWERED_MIN: Final = 0.2  # with a smaller share of answers the window is halved: at 30 % each way half is lost
LOSSY: Final = 0.8
ANSWERED_GAIN: Final = 1 / 64
SILENCE_FACTOR: Final = 1.5


@dataclass(slots=True)
class Window:
    """One path. Times in seconds of a steady clock."""

    size: float = IN_FLIGHT_FIRST
    _srtt_s: float = 0.0
    _deviation_s: float = 0.0
    _bases_s: tuple[float, float] = (inf, inf)  # the shortest of the last period, and of this one
    _base_since_s: float = -inf
    _recent_s: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT))
    _starting: bool = True  # growth is exponential until a queue is seen
    _answered: float = 1.0  # share of what was sent, lately
    _cut_s: float = -inf  # when the window was last made smaller
    _heard_s: float = -inf
    _silence: float = 1.0

    def room(self, in_flight: int) -> bool:
        """Whether one more may be sent."""
        return in_flight < max(1, int(self.size))

    @property
    def rto_s(self) -> float:
        """A request that has had no answer for so long is repeated."""
        if not self._srtt_s:
            return min(RTO_FIRST_S * self._silence, RTO_MAX_S)
        spread_s = max(3 * self._deviation_s, self._srtt_s / 8)
        return min(max(self._srtt_s + spread_s, RTO_MIN_S) * self._silence, RTO_MAX_S)

    @property
    def lossy(self) -> bool:
        """Whether a good part of what was sent lately had no answer."""
        return self._answered < LOSSY

    def answered(self, round_trip_s: float, now_s: float) -> None:
        """An answer came, also a late one to a request that has been repeated since."""
        self._heard_s, self._silence = now_s, 1.0
        self._answered += (1.0 - self._answered) * ANSWERED_GAIN
        self._measure(round_trip_s, now_s)
        base_s = min(self._bases_s)
        queue_s = min(self._recent_s) - base_s
        target_s = max(QUEUE_MIN_S, QUEUE_SHARE * base_s)
        if queue_s > target_s and len(self._recent_s) == RECENT:
            self._cut(max(target_s / queue_s, 0.5), now_s)
        elif self._starting:
            self._resize(self.size + 2)  # doubles in a round trip though half is lost
        else:
            self._resize(self.size + (1 - queue_s / target_s) / self.size)

    def lost(self, now_s: float) -> None:
        """A request had no answer for `rto_s`."""
        self._answered -= self._answered * ANSWERED_GAIN
        if now_s - self._heard_s > self.rto_s:
            self._heard_s = now_s  # the next step back only after as long a silence again
            self._silence = min(self._silence * SILENCE_FACTOR, RTO_MAX_S / RTO_MIN_S)
            self._resize(min(self.size, IN_FLIGHT_FIRST))
            self._starting = True
        elif self._answered < ANSWERED_MIN:
            self._cut(0.5, now_s)

    def _measure(self, round_trip_s: float, now_s: float) -> None:
        if not self._srtt_s:
            self._srtt_s, self._deviation_s = round_trip_s, round_trip_s / 4
        else:
            self._deviation_s += (abs(self._srtt_s - round_trip_s) - self._deviation_s) / 4
            self._srtt_s += (round_trip_s - self._srtt_s) / 8
        if now_s - self._base_since_s > BASE_S:
            self._bases_s, self._base_since_s = (self._bases_s[1], inf), now_s
        self._bases_s = (self._bases_s[0], min(self._bases_s[1], round_trip_s))
        self._recent_s.append(round_trip_s)

    def _cut(self, factor: float, now_s: float) -> None:
        """Smaller by this factor, at most once in a round trip: what it does is seen only then."""
        self._starting = False
        if now_s - self._cut_s > self._srtt_s:
            self._cut_s = now_s
            self._resize(self.size * factor)

    def _resize(self, size: float) -> None:
        self.size = min(max(size, 1.0), float(IN_FLIGHT_MAX))
