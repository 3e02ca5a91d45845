"""Spans and points of time: seconds in values, nanoseconds in messages."""

from __future__ import annotations

import math

from edgerm.core.errors import Invalid

GIGA = 10**9
NANOSECONDS_MAX = 2**63 - 1
SECONDS_MAX = NANOSECONDS_MAX / GIGA


def nanoseconds(what: str, value_s: float) -> int:
    """Seconds as whole nanoseconds, rounded exactly; `Invalid`, naming `what`, if they do not fit 64 bits."""
    if not math.isfinite(value_s) or abs(value_s) >= SECONDS_MAX:
        raise Invalid(f"{what} must be a number of seconds below {SECONDS_MAX:.0f}, not {value_s}")
    numerator, denominator = value_s.as_integer_ratio()
    return (2 * numerator * GIGA + denominator) // (2 * denominator)


def seconds(value_ns: int) -> float:
    """Nanoseconds as seconds; gives back what `nanoseconds` was given, if that had no finer part."""
    return value_ns / GIGA


def span_s(what: str, value_ns: int) -> float:
    """A length of time from outside as seconds; `Invalid`, naming `what`, if it is negative."""
    if value_ns < 0:
        raise Invalid(f"{what} must not be negative: {value_ns} ns")
    return value_ns / GIGA
