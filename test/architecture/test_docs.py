"""What the pages point at exists: files, and targets of `make`."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
BUILT = ROOT / "docs/_build"
PAGES = [page for page in sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]) if BUILT not in page.parents]
LINK = re.compile(r"\]\((?!https?://|#)([^)#\s]+)")
MAKE = re.compile(r"(?:`|^ {4}|^\$ )make ([a-z-]+)", re.MULTILINE)


def test_every_local_link_leads_to_a_file() -> None:
    """No page links to a file that is not there."""
    links = [(page, target) for page in PAGES for target in LINK.findall(page.read_text())]
    assert links
    assert not [f"{page.relative_to(ROOT)}: {target}" for page, target in links if not (page.parent / target).exists()]


def test_every_named_make_target_exists() -> None:
    """No page tells a reader to `make` what the Makefile does not know."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {(page.name, target) for page in PAGES for target in MAKE.findall(page.read_text())}
    assert named
    assert not [f"{page}: make {target}" for page, target in named if target not in targets]


def test_decisions_are_numbered_and_short() -> None:
    """Each record has a number of its own, its four parts, and at most 40 lines."""
    records = sorted((ROOT / "docs/decisions").glob("*.md"))
    assert [int(record.name[:4]) for record in records] == list(range(1, len(records) + 1))
    for record in records:
        text = record.read_text()
        assert text.startswith(f"# {int(record.name[:4])}. "), record.name
        assert all(part in text for part in ("**Context.**", "**Decision.**", "**Consequences.**")), record.name
        assert len(text.splitlines()) <= 40, record.name
