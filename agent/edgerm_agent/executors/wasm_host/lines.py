"""A guest's GPIO lines, for the two host calls of the import module `edgerm`. Names no engine.

`gpio_read(chip, offset) -> i32` and `gpio_write(chip, offset, level) -> i32`; chips count from 0 in the order of the
task's IEDGE_GPIO_* variables, below 0 is an errno of WASI preview 1, negated. A chip behind a slow bus may keep who
asks it in the kernel, where no kill reaches: so a thread of the guest's own asks, and the guest waits for it no longer
than `CALL_S`, or until `wake`.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable

from edgerm_agent.lines import CharacterDevices, Chips, Lines

READ, WRITE = "gpio_read", "gpio_write"
CALLS = frozenset({READ, WRITE})
CALL_S = 2.0
USER = "edgerm-wasm"

ACCES, AGAIN, BADF, BUSY, INTR, INVAL, IO, NODEV, NOTSUP, TIMEDOUT = -2, -6, -8, -10, -27, -28, -29, -43, -58, -73
_ERRORS = {
    **dict.fromkeys((errno.EACCES, errno.EPERM), ACCES),
    **dict.fromkeys((errno.ENOENT, errno.ENODEV, errno.ENXIO), NODEV),
    errno.EBUSY: BUSY,
    errno.EINVAL: INVAL,
}


class Bank:
    """One guest's chips. `read` and `write` are for the guest's thread, all else is for any.

    `paths`: of the chips' character devices; none: the task has no chips. `chips` makes the door to them; `call_s`: how
    long a call takes at most.
    """

    def __init__(
        self, paths: tuple[str, ...], chips: Callable[[], Chips] = CharacterDevices, call_s: float = CALL_S
    ) -> None:
        self._paths = paths
        self._chips = chips
        self._call_s = call_s
        self._turn = threading.Condition()  # guards all that follows
        self._job: tuple[int, int, int | None] | None = None  # chip, offset, level to write
        self._answer = IO
        self._woken = False
        self._closed = False
        self._thread: threading.Thread | None = None

    def read(self, chip: int, offset: int) -> int:
        """The level, or why not; a line that was not used before becomes an input."""
        return self._call(chip, offset, None)

    def write(self, chip: int, offset: int, level: int) -> int:
        """0, or why not; the line becomes an output."""
        return self._call(chip, offset, level) if level in (0, 1) else INVAL

    def wake(self) -> None:
        """Whoever waits returns at once, now and from now on."""
        with self._turn:
            self._woken = True
            self._turn.notify_all()

    def close(self) -> None:
        """Let go of all lines; of those that a call still keeps when it returns."""
        with self._turn:
            self._closed = True
            self._turn.notify_all()
        if self._thread is not None:
            self._thread.join(self._call_s)

    def _call(self, chip: int, offset: int, level: int | None) -> int:
        if not 0 <= chip < len(self._paths):
            return BADF if self._paths else NOTSUP
        with self._turn:
            if self._job is not None:  # one that was given up still keeps the chip
                return AGAIN
            if self._thread is None and not self._start():
                return AGAIN
            self._job = (chip, offset, level)
            self._turn.notify_all()
            self._turn.wait_for(lambda: self._job is None or self._woken, self._call_s)
            if self._job is None:
                return self._answer
            return INTR if self._woken else TIMEDOUT

    def _start(self) -> bool:
        """Whether there is a thread now. It runs where the guest's thread does, which makes it."""
        thread = threading.Thread(target=self._work, daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the box has no more
            return False
        self._thread = thread
        return True

    def _work(self) -> None:
        """The bank's own thread."""
        lines: dict[int, Lines] = {}
        while True:
            with self._turn:
                self._turn.wait_for(lambda: self._job is not None or self._closed)
                job = self._job
                if self._closed or job is None:
                    break
            answer = self._do(lines, *job)
            with self._turn:
                self._answer, self._job = answer, None
                self._turn.notify_all()
        for each in lines.values():
            each.close()

    def _do(self, lines: dict[int, Lines], chip: int, offset: int, level: int | None) -> int:
        try:
            if chip not in lines:
                lines[chip] = self._chips().open(self._paths[chip], USER)
            if level is None:
                return lines[chip].read(offset)
            lines[chip].write(offset, level)
        except ModuleNotFoundError:
            return NOTSUP
        except OSError as error:
            return _ERRORS.get(error.errno or 0, IO)
        except Exception:  # none may reach the guest's thread
            return IO
        return 0
