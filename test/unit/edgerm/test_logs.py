"""Logs: what they cost."""

from __future__ import annotations

import subprocess
import sys


def test_logs_do_not_load_what_only_people_need() -> None:
    """A program that logs does not hold rich in memory, and whoever prints a table still gets it."""
    code = "import sys, edgerm.logs; print('rich' in sys.modules); import rich.table"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "False", "")
