"""docs/states.md is what the tables say now."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from edgerm.core.link import LinkSignal, LinkState
from edgerm.core.tasks import TaskSignal, TaskState
from edgerm_master.core.agents import AgentSignal, AgentState
from edgerm_master.core.frameworks import FrameworkSignal, FrameworkState

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/states.md").read_text()


def test_the_page_is_fresh(tmp_path: Path) -> None:
    """Printing again gives exactly the committed page; if not, run `make docs`."""
    fresh = tmp_path / "states.md"
    subprocess.run([sys.executable, str(ROOT / "docs/states.py"), str(fresh)], check=True)
    assert fresh.read_text() == PAGE


def test_every_state_and_signal_is_on_the_page() -> None:
    """Each member of each machine's enums has a row of its own that says what it means."""
    kinds = (TaskSignal, LinkState, LinkSignal, AgentState, AgentSignal, FrameworkState, FrameworkSignal)
    rows = PAGE.splitlines()
    for member in (*TaskState, *(member for kind in kinds for member in kind)):
        assert any(re.match(rf"\| {member.name} \| \w[^|]+ \|$", row) for row in rows), member
