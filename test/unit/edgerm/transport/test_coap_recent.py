"""The table of message ids."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edgerm.transport.coap_recent import LIFETIME_S, Recent

PEER = ("::1", 5683)


def test_a_repeated_message_is_known_with_its_answer() -> None:
    """New, then under way, then answered."""
    recent = Recent()
    assert recent.seen((*PEER, 1), b"t", 0.0) is None
    known = recent.seen((*PEER, 1), b"t", 1.0)
    assert known is not None and known.answer == b""
    recent.answered((*PEER, 1), b"t", b"answer")
    known = recent.seen((*PEER, 1), b"t", 2.0)
    assert known is not None and known.answer == b"answer"


def test_another_token_is_another_request() -> None:
    """A sender that started anew with the same id is not given the old answer."""
    recent = Recent()
    recent.seen((*PEER, 1), b"old", 0.0)
    recent.answered((*PEER, 1), b"old", b"answer")
    assert recent.seen((*PEER, 1), b"new", 1.0) is None
    recent.answered((*PEER, 1), b"old", b"late")
    known = recent.seen((*PEER, 1), b"new", 2.0)
    assert known is not None and known.answer == b""


def test_an_id_may_be_used_again_after_its_lifetime() -> None:
    """247 s, and nothing of it is kept."""
    recent = Recent()
    recent.seen((*PEER, 1), b"", 0.0)
    recent.answered((*PEER, 1), b"", b"answer")
    assert recent.seen((*PEER, 1), b"", LIFETIME_S) is None
    assert (len(recent), recent.answer_bytes) == (1, 0)


MESSAGES = st.tuples(
    st.integers(0, 5), st.integers(0, 9), st.binary(max_size=1), st.integers(0, 60), st.binary(max_size=9)
)


@given(st.lists(MESSAGES, max_size=300))
def test_it_is_bounded_and_never_wrong(messages: list[tuple[int, int, bytes, int, bytes]]) -> None:
    """Whatever comes, entries and bytes stay within their bounds, and a known message is one that came."""
    recent, now_s, answers = Recent(entries_max=8, bytes_max=20), 0.0, {}
    for port, mid, token, later_s, answer in messages:
        now_s += later_s
        key = ("::1", port, mid)
        known = recent.seen(key, token, now_s)
        if known is None:
            recent.answered(key, token, answer)
            answers[key] = (token, answer)
        else:
            assert (known.token, known.answer) == answers[key]
        assert len(recent) <= 8
        assert recent.answer_bytes <= 20 + 9
