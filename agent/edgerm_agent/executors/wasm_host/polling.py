"""`poll_oneoff` of WASI preview 1, decoded and encoded. Pure: who waits, and on what, is the caller's affair.

The engine's own version sleeps where no epoch reaches it, so a killed task would live on until its sleep ends; ours
waits on an event that a kill sets. Layout: WASI snapshot preview1 witx, `subscription` (48 bytes) and `event` (32).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

SUBSCRIPTION = struct.Struct("<QBxxxxxxxIxxxxQQHxxxxxx")
EVENT = struct.Struct("<QHBxxxxxQHxxxxxx")
SUBSCRIPTIONS_MAX = 1024

SUCCESS = 0
FAULT = 21
INVAL = 28
NOTSUP = 58

CLOCK, FD_READ, FD_WRITE = 0, 1, 2
REALTIME, MONOTONIC = 0, 1
ABSTIME = 1


@dataclass(frozen=True, slots=True)
class Clocks:
    """The guest's clocks at the instant of its call, in nanoseconds."""

    realtime_ns: int
    monotonic_ns: int


@dataclass(frozen=True, slots=True)
class Poll:
    """What a guest waits for: nothing (`wait_ns` is 0) or the earliest of its clocks."""

    wait_ns: int
    events: bytes  # what to answer after the wait
    count: int


def decode(data: bytes, clocks: Clocks) -> Poll:
    """What the subscriptions in `data` (whole ones) ask for.

    Files, stdin and the output streams are always ready, as poll(2) has it for regular files; then nothing waits.
    """
    ready: list[bytes] = []
    waits: list[tuple[int, int]] = []  # (ns, userdata)
    for userdata, tag, ident, timeout, _precision, flags in SUBSCRIPTION.iter_unpack(data):
        if tag in (FD_READ, FD_WRITE):
            ready.append(EVENT.pack(userdata, SUCCESS, tag, 1, 0))
        elif tag != CLOCK:
            ready.append(EVENT.pack(userdata, INVAL, 0, 0, 0))
        elif ident not in (REALTIME, MONOTONIC):
            ready.append(EVENT.pack(userdata, NOTSUP, CLOCK, 0, 0))
        else:
            waits.append((_wait_ns(ident, timeout, flags, clocks), userdata))
    wait_ns = 0 if ready else min((ns for ns, _ in waits), default=0)
    due = [EVENT.pack(userdata, SUCCESS, CLOCK, 0, 0) for ns, userdata in waits if ns <= wait_ns]
    events = ready + due
    return Poll(wait_ns, b"".join(events), len(events))


def _wait_ns(clock: int, timeout: int, flags: int, clocks: Clocks) -> int:
    if not flags & ABSTIME:
        return timeout
    return max(0, timeout - (clocks.realtime_ns if clock == REALTIME else clocks.monotonic_ns))
