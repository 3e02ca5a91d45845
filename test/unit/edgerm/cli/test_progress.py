"""The line that tells how far something is."""

from __future__ import annotations

import sys

import pytest

from edgerm.cli.progress import ERASE, StatusLine


def test_elsewhere_each_news_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    """In a file or a pipe every news is kept, each once, and nothing is erased."""
    line = StatusLine("run: ")
    for news in ("1 %", "1 %", "2\x1b[2J %"):
        line.show(news)
    line.clear()
    assert capsys.readouterr().err == "run: 1 %\nrun: 2 [2J %\n"


def test_on_a_terminal_the_line_is_rewritten(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The latest stands alone, fits the width, and is taken away at the end."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "12")
    line = StatusLine("run: ")
    line.show("pulling")
    line.show("pulling an image")
    line.clear()
    line.clear()
    assert capsys.readouterr().err == f"{ERASE}run: pullin{ERASE}run: pullin{ERASE}"
