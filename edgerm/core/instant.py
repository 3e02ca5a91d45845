"""Time as a value: the shell reads the clocks and hands it down."""

from __future__ import annotations

from typing import NamedTuple


class Instant(NamedTuple):
    """One moment. Deadlines use `steady_s` only; no clock is ever compared between machines."""

    steady_s: float  # never steps; meaningless after a restart
    wall_s: float  # seconds since 1970 as this machine believes; for people, may be wrong


BEGINNING = Instant(0.0, 0.0)
