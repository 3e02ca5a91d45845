"""A program of its own: the master, with a note of every callback that held its event loop for more than 0.5 ms.

`FILE master-options…`; when it ends, FILE holds a JSON list of what was noted: when it began (CLOCK_MONOTONIC, s), how
long it took (wall clock, s), and how much of that was a full garbage collection.
"""

from __future__ import annotations

import asyncio
import atexit
import gc
import json
import sys
from pathlib import Path
from time import monotonic
from typing import Any

NOTED_S = 0.0005


class Watch:
    """Times callbacks, and full collections within them."""

    def __init__(self) -> None:
        self.holds: list[tuple[float, float, float]] = []
        self._run: Any = asyncio.Handle._run
        self._collecting_s = self._collected_s = 0.0

    def run(self, handle: asyncio.Handle) -> None:
        """In place of `Handle._run`."""
        self._collected_s, began = 0.0, monotonic()
        self._run(handle)
        took = monotonic() - began
        if took > NOTED_S:
            self.holds.append((began, took, self._collected_s))

    def collecting(self, phase: str, info: dict[str, int]) -> None:
        """The garbage collector starts or stops."""
        if info["generation"] == 2:
            if phase == "start":
                self._collecting_s = monotonic()
            else:
                self._collected_s += monotonic() - self._collecting_s


def main() -> None:
    """Run the master."""
    from edgerm.cli.master import command

    file, watch = Path(sys.argv.pop(1)), Watch()

    def run(handle: asyncio.Handle) -> None:
        watch.run(handle)

    atexit.register(lambda: file.write_text(json.dumps(watch.holds)))
    asyncio.Handle._run = run  # type: ignore[method-assign, assignment]
    gc.callbacks.append(watch.collecting)
    command()


if __name__ == "__main__":
    main()
