"""Promises of the runner that hold without starting the machine. That it runs is what `make test-edgebox` shows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

RUNNER = Path(__file__).with_name("edgebox.py")


def test_a_missing_tool_is_named_in_one_line(tmp_path: Path) -> None:
    """Where apt is not there (or root) the runner says so in one line and exits 2, having made nothing."""
    env = {"PATH": str(tmp_path), "EDGEBOX_CACHE": str(tmp_path / "cache"), "HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, RUNNER, "--", "true"], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("edgebox: ")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
