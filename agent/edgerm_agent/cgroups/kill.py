"""Killing all of a group: freeze it, SIGKILL each process, thaw it, await the ends on pidfds, look again.

Frozen first, so that no code of the task runs once a part of it is dead: in `work; rm -r old` the shell must not go on
because its child was killed a moment before it. For v1, and for v2 before Linux 5.14 (without cgroup.kill).
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress

_BATCH = 256  # pidfds open at a time, well below the usual limit of 1024 files


def kill_all(
    list_pids: Callable[[], set[int]], frozen: Callable[[], AbstractContextManager[None]], deadline: float
) -> bool:
    """SIGKILL what `list_pids` gives until it gives nothing (True) or time.monotonic() is past `deadline` (False).

    Nobody tells when a v1 group is empty, so it is listed again after those that were signalled have ended.
    """
    while list_pids():
        if time.monotonic() >= deadline:
            return False
        with ExitStack() as awaited:
            with frozen():
                pids = sorted(list_pids())
                pidfds = _signal(pids[:_BATCH], list_pids, awaited)
                for start in range(_BATCH, len(pids), _BATCH):
                    with ExitStack() as unawaited:
                        _signal(pids[start : start + _BATCH], list_pids, unawaited)
            _await_end(pidfds, deadline)
    return True


def _signal(pids: Sequence[int], list_pids: Callable[[], set[int]], stack: ExitStack) -> list[int]:
    pidfds: dict[int, int] = {}
    for pid in pids:
        with suppress(ProcessLookupError):  # it ended meanwhile
            pidfds[pid] = os.pidfd_open(pid)
            stack.callback(os.close, pidfds[pid])
    # A pid that was used anew before its pidfd was open is not in the group.
    ours = [pidfds[pid] for pid in pidfds.keys() & list_pids()]
    for pidfd in ours:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    return ours


def _await_end(pidfds: Iterable[int], deadline: float) -> None:
    poller, waiting = select.poll(), set(pidfds)
    for pidfd in waiting:
        poller.register(pidfd, select.POLLIN)
    while waiting and (left_s := deadline - time.monotonic()) > 0:
        for pidfd, _ in poller.poll(left_s * 1000):
            poller.unregister(pidfd)
            waiting.discard(pidfd)
