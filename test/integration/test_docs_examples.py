"""What README and docs show is true: every example runs, and prints what the page says."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.examples import Cluster, Story, examples_of, running_cluster, shows

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(page for page in (ROOT / "docs").rglob("*.md") if "_build" not in page.parts),
]
RUN = ("python", "console", "toml", "yaml")
SHOWN = ("text", "mermaid", "json")  # and Sphinx' own, in braces
# Why examples are not run, and how many: may only become fewer. A new reason needs a line here, and a good one.
SKIPPED = {
    "installs packages": 4,
    "changes the machine": 5,
    "depends on the box": 3,
    "needs a Docker engine": 3,
    "needs libcoap": 1,
}
STORIES = [page for page in PAGES if any(each.language in RUN and each.mark != "skip" for each in examples_of(page))]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One for all pages that start none of their own."""
    with running_cluster(tmp_path_factory.mktemp("up")) as running:
        yield running


@pytest.mark.parametrize("page", STORIES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_examples_of_a_page_are_true(page: Path, cluster: Cluster, tmp_path: Path) -> None:
    """Whoever follows the page from its top to its end sees what it shows."""
    Story(tmp_path, cluster, [each for each in examples_of(page) if each.language in RUN]).play()


def test_few_examples_are_not_run_and_each_says_why() -> None:
    """No more examples are skipped than are counted here, for reasons that are listed here."""
    skipped = [each for page in PAGES for each in examples_of(page) if each.mark == "skip"]
    assert dict(Counter(each.argument for each in skipped)) == SKIPPED, [each.where for each in skipped]


def test_every_fence_is_run_or_only_shown() -> None:
    """No example hides behind a language that nobody runs, and no mark is misspelt."""
    found = [each for page in PAGES for each in examples_of(page)]
    assert [each.where for each in found if each.language not in RUN + SHOWN] == []
    assert [each.where for each in found if each.mark not in ("", "skip", "file", "background")] == []
    comments = sum(len(re.findall(r"^<!-- test: ", page.read_text(), re.MULTILINE)) for page in PAGES)
    assert comments == sum(bool(each.mark) for each in found), "a comment stands before no fence"


@pytest.mark.parametrize(
    ("documented", "real", "same"),
    [
        (["a  b"], "a b\n", True),
        (["a … c"], "a b b c\n", True),
        (["a"], "a\nb\n", False),
        (["a", "…"], "a\nb\nc\n", True),
        (["a", "…"], "b\n", False),
        (["1.5"], "125\n", False),
        ([], "", True),
    ],
)
def test_output_is_compared(documented: list[str], real: str, same: bool) -> None:
    """Dots stand for what changes from run to run, and for nothing else."""
    assert shows(documented, real) is same
