"""Which ids are acceptable, and how they become a path."""

from __future__ import annotations

import unicodedata
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgerm.core.errors import Invalid
from edgerm.core.ids import ID_BYTES_MAX, FrameworkId, LaunchId, TaskId, TaskKey, check_id, check_task_id, path_name

texts = st.one_of(st.text(max_size=300), st.text("./\\a\x00\x7f\x85é", max_size=5), st.text("é", max_size=200))
accepted = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc"], exclude_characters="/\\"), min_size=1
).filter(lambda text: text not in (".", "..") and len(text.encode()) <= ID_BYTES_MAX)


@given(texts)
def test_an_id_is_what_the_rule_says(text: str) -> None:
    """An id is 1 to 255 bytes of UTF-8 without `/`, `\\` and control characters, and not `.` or `..`."""
    fine = (
        text not in ("", ".", "..")
        and not any(char in "/\\" or unicodedata.category(char) in ("Cc", "Cs") for char in text)
        and len(text.encode("utf-8", "surrogatepass")) <= ID_BYTES_MAX
    )
    if fine:
        assert check_id("agent id", text) == check_task_id(text) == text
    else:
        with pytest.raises(Invalid, match=r"^agent id"):
            check_id("agent id", text)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "task id is empty"),
        ("..", "'..' is not allowed"),
        ("a/b", "contains '/'"),
        ("a\\b", "contains"),
        ("a\nb", r"contains '\\n'"),
        ("\x9b2J", r"contains '\\x9b'"),
        ("\ud800", "not valid Unicode"),
        ("é" * 128, "256 bytes, at most 255"),
    ],
)
def test_a_bad_task_id_is_named(text: str, named: str) -> None:
    """The refusal is one printable line that says what was wrong."""
    with pytest.raises(Invalid, match=named) as caught:
        check_task_id(text)
    assert str(caught.value).isprintable()


@given(st.lists(accepted, min_size=2, max_size=4, unique=True))
def test_two_ids_never_share_a_path(ids: list[str]) -> None:
    """Different ids have different names on disk, also where they differ only in what must be quoted."""
    assert len({path_name(text) for text in ids}) == len(ids)


@given(accepted)
def test_a_path_name_is_one_harmless_component(text: str) -> None:
    """The name is ASCII, at most 120 bytes, hidden from nobody, and stays below the folder it is put into."""
    name = path_name(text)
    assert name.isascii()
    assert 0 < len(name) <= 120
    assert not name.startswith(".")
    assert PurePosixPath("/base", name).parent == PurePosixPath("/base")


@pytest.mark.parametrize("text", ["task-1", "a.b", "web_0", "x" * 120])
def test_a_plain_id_stays_readable(text: str) -> None:
    """An id of ordinary characters is its own path."""
    assert path_name(text) == text


def test_a_long_id_and_its_hash_do_not_collide() -> None:
    """An id that looks like another's hash is quoted, so that it names another file."""
    hashed = path_name("x" * 200)
    assert path_name(hashed) != hashed


def test_a_key_reads_as_a_path() -> None:
    """A key as text is framework, task and launch with slashes; ids have none, so it is never ambiguous."""
    assert str(TaskKey(FrameworkId("f"), TaskId("t"), LaunchId("l"))) == "f/t/l"


def test_an_error_does_not_repeat_a_long_text() -> None:
    """Whatever a broken file or a stranger names, the error is one line that can be read."""
    with pytest.raises(Invalid) as error:
        check_id("framework id", "\0" * 1024)
    assert len(str(error.value)) < 250
