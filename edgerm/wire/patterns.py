"""Regular expressions of strangers: matched in time linear in the text, by RE2, with bounds on what one may cost.

The only file that names `re2`; the master hands `matches` to its core. Python's own engine would let one framework's
expression hold the master up for as long as it likes.
"""

from __future__ import annotations

from functools import lru_cache

import re2

from edgerm.core.constraints import TEXT_CHARACTERS_MAX
from edgerm.core.errors import Invalid

MEMORY_BYTES_MAX = 4096  # of one compiled expression: Mesos' offer_constraints_re2_max_mem
PROGRAM_SIZE_MAX = 100  # Mesos' offer_constraints_re2_max_program_size
REMEMBERED = 4096


def _options() -> re2.Options:
    options = re2.Options()
    options.max_mem = MEMORY_BYTES_MAX
    options.log_errors = False
    options.never_capture = True
    return options


_OPTIONS = _options()


@lru_cache(maxsize=REMEMBERED)
def _compiled(regex: str) -> re2._Regexp:
    if len(regex) > TEXT_CHARACTERS_MAX:
        raise Invalid(f"regex {regex[:40]!r}… has {len(regex)} characters, at most {TEXT_CHARACTERS_MAX} are allowed")
    try:
        found = re2.compile(regex, _OPTIONS)
    except re2.error as error:
        raise Invalid(f"cannot take regex {regex[:80]!r}: {_words(error)}") from None
    if found.programsize > PROGRAM_SIZE_MAX:
        raise Invalid(
            f"regex {regex[:80]!r} is too complex: program size {found.programsize}, at most {PROGRAM_SIZE_MAX}"
        )
    return found


def _words(error: Exception) -> str:
    words = error.args[0] if error.args else ""
    return words.decode("utf-8", "replace") if isinstance(words, bytes) else str(words)


def check(regex: str) -> None:
    """Raises `Invalid` for an expression that RE2 does not take, or that is bigger than Mesos' bounds."""
    _compiled(regex)


def matches(regex: str, text: str) -> bool:
    """Whether a checked expression matches the whole of `text` (`edgerm.core.constraints.Matcher`)."""
    return _compiled(regex).fullmatch(text) is not None
