"""Texts within a bound."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edgerm.core.texts import cut, tail, utf8_bytes

texts = st.text(st.sampled_from("ab\N{EURO SIGN}\N{GRINNING FACE}\xe4"), max_size=30)


@given(texts, st.integers(1, 40))
def test_what_is_kept_is_valid_and_as_much_as_fits(text: str, max_bytes: int) -> None:
    """Beginning and end are parts of the text, within the bound, and one character more would not fit."""
    begin, end = cut(text, max_bytes), tail(text, max_bytes)
    assert text.startswith(begin)
    assert text.endswith(end)
    for part, more in ((begin, text[: len(begin) + 1]), (end, text[-len(end) - 1 :])):
        assert utf8_bytes(part) == len(part.encode()) <= max_bytes
        assert part == text or len(more.encode()) > max_bytes


def test_lone_surrogates_do_no_harm() -> None:
    """What no UTF-8 can hold is counted, and replaced where a text is cut."""
    assert utf8_bytes("\udcff") == 3
    assert cut("a\udcffb" * 9, 5) == "a?ba?"
    assert tail("a\udcffb" * 9, 5) == "?ba?b"
