"""The bench's charts, and the writer that puts them into a page."""

from __future__ import annotations

from pathlib import Path

import pytest
from bench.charts import WIDTH, chart, replace_between, table
from hypothesis import given
from hypothesis import strategies as st

words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="<"), max_size=40)


@given(words, words, words, words)
def test_only_what_is_between_the_marks_changes(
    tmp_path_factory: pytest.TempPathFactory, head: str, old: str, tail: str, new: str
) -> None:
    """Every byte outside the marks stays, also line ends that are not ours; what stood between is gone."""
    page = tmp_path_factory.getbasetemp() / "page.md"
    begin, end = "<!-- scale:begin -->", "<!-- scale:end -->"
    page.write_bytes(f"{head}{begin}{old}{end}{tail}".encode())
    replace_between(page, "scale", new)
    assert page.read_bytes() == f"{head}{begin}\n{new.strip()}\n{end}{tail}".encode()


def test_writing_twice_is_writing_once(tmp_path: Path) -> None:
    """The same text again leaves the page as it is, and other marks are not touched."""
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- scale:begin -->\n<!-- scale:end -->\n<!-- live:begin -->\nmine\n<!-- live:end -->\n")
    replace_between(page, "scale", "new")
    once = page.read_bytes()
    replace_between(page, "scale", "new")
    assert page.read_bytes() == once
    assert b"<!-- live:begin -->\nmine\n<!-- live:end -->" in once


@pytest.mark.parametrize(
    "text",
    [
        "no marks",
        "<!-- scale:begin -->",
        "<!-- scale:end --><!-- scale:begin -->",
        "<!-- scale:begin --><!-- scale:begin --><!-- scale:end -->",
    ],
)
def test_a_page_without_its_marks_is_left_alone(tmp_path: Path, text: str) -> None:
    """Where it is not clear what to replace nothing is, and the error names the marks."""
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(ValueError, match=r"scale:begin.*scale:end"):
        replace_between(page, "scale", "new")
    assert page.read_text() == text


def test_the_page_of_the_project_has_the_marks() -> None:
    """`docs/performance.md` has room for what `--write` puts there."""
    text = (Path(__file__).resolve().parents[3] / "docs" / "performance.md").read_text()
    for name in ("scale", "live", "takeover"):
        assert text.count(f"<!-- {name}:begin -->") == text.count(f"<!-- {name}:end -->") == 1


def test_bars_are_as_long_as_what_they_stand_for() -> None:
    """In each group the greatest value has the whole width, a tenth of it a tenth; the same value the same length."""
    text = chart("cost", (10, 100), {"flat": (5.0, 5.0), "linear": (10.0, 100.0)}, "µs")
    bars = [line.partition("|")[2] for line in text.splitlines() if "|" in line]
    assert [len(bar) for bar in bars] == [WIDTH, WIDTH, round(WIDTH / 10), WIDTH]
    assert "linear      10 agents       10 |" in text


def test_a_table_is_markdown() -> None:
    """Head, rule, rows."""
    assert table(("a", "b"), [("1", "2")]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"
