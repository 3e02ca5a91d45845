"""Programs that samples run on agents as they are: Python's standard library only, fed to `python3 -` as its input."""

from __future__ import annotations

from pathlib import Path

ECHO = Path(__file__).parent / "echo.py"
PROBE = Path(__file__).parent / "probe.py"
