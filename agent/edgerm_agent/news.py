"""News about a start that takes long: the first line at once, then at most one each `NEWS_S`, and the latest always."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from edgerm.core.texts import cut

NEWS_S = 5.0
LINE_BYTES_MAX = 256  # it travels in a beat, which may have to fit a datagram


class News:
    """A `Tell` that passes lines on to `say`, not more often than people want to read them."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._said = self._latest = ""
        self._timer: asyncio.TimerHandle | None = None

    def __call__(self, line: str) -> None:
        """`line` is the latest news."""
        self._latest = cut(" ".join(line.split()), LINE_BYTES_MAX)
        if self._timer is None:
            self._pass_on()

    def close(self) -> None:
        """Nothing is said any more: the start is over."""
        self._say = lambda line: None
        if self._timer is not None:
            self._timer.cancel()

    def _pass_on(self) -> None:
        self._timer = None
        if self._latest != self._said:
            self._said = self._latest
            self._timer = asyncio.get_running_loop().call_later(NEWS_S, self._pass_on)
            self._say(self._said)
