"""`poll_oneoff`: what is waited for, and what is answered."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edgerm_agent.executors.wasm_host.polling import (
    CLOCK,
    EVENT,
    FD_READ,
    FD_WRITE,
    INVAL,
    NOTSUP,
    SUBSCRIPTION,
    SUCCESS,
    Clocks,
    decode,
)

NOW = Clocks(realtime_ns=1_000_000, monotonic_ns=500)


def clock(userdata: int, timeout_ns: int, *, ident: int = 1, absolute: bool = False) -> bytes:
    """A subscription to a clock."""
    return SUBSCRIPTION.pack(userdata, CLOCK, ident, timeout_ns, 0, int(absolute))


def events_of(data: bytes) -> list[tuple[int, int, int]]:
    """(userdata, errno, kind) of each event."""
    return [event[:3] for event in EVENT.iter_unpack(data)]


def test_sizes_are_those_of_the_witx() -> None:
    """A subscription has 48 bytes and an event 32, as the WASI preview 1 witx lays them out."""
    assert (SUBSCRIPTION.size, EVENT.size) == (48, 32)


def test_bytes_written_by_hand() -> None:
    """A subscription typed from the witx's offsets is understood: userdata 0, tag 8, clock 16, timeout 24, flags 40."""
    data = bytearray(48)
    data[0], data[8], data[16], data[24], data[40] = 7, 0, 1, 200, 1
    poll = decode(bytes(data), Clocks(0, 150))
    assert (poll.wait_ns, poll.count) == (50, 1)
    assert poll.events == b"\x07" + bytes(31)


def test_the_earliest_clock_counts() -> None:
    """Of several sleeps the shortest is waited for, and it alone is answered."""
    poll = decode(clock(1, 300) + clock(2, 100) + clock(3, 100), NOW)
    assert poll.wait_ns == 100
    assert events_of(poll.events) == [(2, SUCCESS, CLOCK), (3, SUCCESS, CLOCK)]


def test_absolute_times_are_relative_to_their_clock() -> None:
    """An absolute time is waited for from the clock that it names, and a past one not at all."""
    assert decode(clock(1, 700, absolute=True), NOW).wait_ns == 200
    assert decode(clock(1, 1_000_900, ident=0, absolute=True), NOW).wait_ns == 900
    assert decode(clock(1, 400, absolute=True), NOW).wait_ns == 0


def test_files_are_always_ready() -> None:
    """A poll on any file answers at once, whatever clock stands beside it."""
    poll = decode(clock(1, 10**12) + SUBSCRIPTION.pack(2, FD_READ, 0, 0, 0, 0), NOW)
    assert (poll.wait_ns, events_of(poll.events)) == (0, [(2, SUCCESS, FD_READ)])
    assert decode(SUBSCRIPTION.pack(9, FD_WRITE, 1, 0, 0, 0), NOW).count == 1


def test_what_is_not_known_is_an_error_of_that_event() -> None:
    """An unknown kind is answered `inval`, a CPU clock `notsup`, without a wait."""
    assert events_of(decode(SUBSCRIPTION.pack(5, 9, 0, 0, 0, 0), NOW).events) == [(5, INVAL, 0)]
    assert events_of(decode(clock(6, 100, ident=2), NOW).events) == [(6, NOTSUP, CLOCK)]


@given(st.lists(st.binary(min_size=48, max_size=48), min_size=1, max_size=20))
def test_any_bytes_are_answered(subscriptions: list[bytes]) -> None:
    """Whatever a guest passes, each poll has at least one event, at most one per subscription, and no negative wait."""
    poll = decode(b"".join(subscriptions), NOW)
    assert 1 <= poll.count <= len(subscriptions)
    assert len(poll.events) == poll.count * EVENT.size
    assert poll.wait_ns >= 0
