"""The console script's first step: a bare install has no click, and says so in one line."""

from __future__ import annotations

import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line; exit status 1 with the remedy where the extra `cli` is missing."""
    try:
        from edgerm.cli.main import main as run  # noqa: PLC0415
    except ModuleNotFoundError as missing:
        if missing.name != "click":
            raise
        sys.exit("edgerm: the command line is not installed; run: pip install 'edgerm[cli]'")
    run()
