"""What may be skipped where."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TEST = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("reason", "ci", "status"),
    [
        ("needs a Docker engine: apt install docker.io", "true", 1),
        ("needs libcoap: apt install libcoap3-bin", "true", 1),
        ("needs root", "true", 0),
        ("needs a Docker engine: apt install docker.io", "", 0),
    ],
)
@pytest.mark.parametrize("place", ["fixture", "test"])
def test_ci_skips_nothing_that_make_test_installs(
    tmp_path: Path, reason: str, ci: str, status: int, place: str
) -> None:
    """In CI a test that wants a Docker engine or libcoap's client fails where they lack; elsewhere it is skipped."""
    shutil.copy(TEST / "conftest.py", tmp_path)
    (tmp_path / "test_it.py").write_text(
        "import pytest\n\n@pytest.fixture\ndef engine():\n"
        f"    if {place == 'fixture'}:\n        pytest.skip({reason!r})\n\n"
        f"def test_it(engine):\n    pytest.skip({reason!r})\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        capture_output=True,
        text=True,
        env={**os.environ, "CI": ci},
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == status, done.stdout + done.stderr
