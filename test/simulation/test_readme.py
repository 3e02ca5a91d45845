"""The README's simulator example is true: it runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

README = Path(__file__).parents[2] / "README.md"


def test_the_example_runs() -> None:
    """What the README shows launches its task and comes to rest, faults and all."""
    [code] = [block for block in re.findall(r"```python\n(.*?)```", README.read_text(), re.S) if "Simulation" in block]
    names: dict[str, Any] = {}
    exec(code, names)
    assert names["scheduler"].todo == []
    assert set(names["simulation"].started().values()) == {1}


def test_it_is_about_ten_lines() -> None:
    """A framework author needs no more than that to test a scheduler (imports not counted)."""
    [code] = [block for block in re.findall(r"```python\n(.*?)```", README.read_text(), re.S) if "Simulation" in block]
    lines = [line for line in code.splitlines() if line.strip() and not line.startswith(("from", "import"))]
    assert len(lines) <= 11
