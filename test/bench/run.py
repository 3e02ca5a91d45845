"""`make bench`: measures edgerm against floors and peers taken in the same run (docs/performance.md).

What does not live here: what is measured, which has one file for each subject beside this one. Run by its path, so
that no package has to be installed for it.
"""

from __future__ import annotations

import sys
from pathlib import Path


def main() -> int:
    """Put the folder of tests in place of this one, so that `bench` and `support` are found as in tests."""
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from bench.suite import run

    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
