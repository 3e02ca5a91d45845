"""What callers write in options, where no type checker looked: a wrong name, a text in place of a list of texts.

What does not live here: which options there are (`tasks.Options`, `cluster.TaskOptions`, `builds.Build`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from difflib import get_close_matches

from edgerm.core.errors import Invalid


def check_names(given: Iterable[str], known: Collection[str]) -> None:
    """Raises `Invalid` for an option that there is not: else it would be left out without a word."""
    for name in given:
        if name not in known:
            near = get_close_matches(name, known, 1)
            raise Invalid(f"there is no option {name[:40]!r}" + (f"; is {near[0]!r} meant?" if near else ""))


def check_list(what: str, texts: object) -> None:
    """Raises `Invalid` for one text in place of a list of texts: else it would be taken letter by letter."""
    if isinstance(texts, str | bytes):
        raise Invalid(f"{what} are a list, not the text {texts[:40]!r}")
