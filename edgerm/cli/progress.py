"""One line on stderr that tells how far something is: rewritten on a terminal, elsewhere a line for each news."""

from __future__ import annotations

import shutil
import sys

ERASE = "\r\x1b[K"


class StatusLine:
    """Shows the latest news. `prefix` stands before them."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._shown = ""

    def show(self, news: str) -> None:
        """`news` in place of what was shown; the same again is not repeated."""
        line = self._prefix + "".join(letter if letter.isprintable() else " " for letter in news)
        if line == self._shown:
            return
        self._shown = line
        if sys.stderr.isatty():
            sys.stderr.write(ERASE + line[: shutil.get_terminal_size().columns - 1])
        else:
            sys.stderr.write(line + "\n")
        sys.stderr.flush()

    def clear(self) -> None:
        """Take it away from a terminal."""
        if self._shown and sys.stderr.isatty():
            sys.stderr.write(ERASE)
            sys.stderr.flush()
        self._shown = ""
