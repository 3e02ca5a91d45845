"""The generated code in `edgerm/wire/v1` is what `proto/` says now."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.glob("*_pb2.py*")}


def test_generated_code_is_fresh(tmp_path: Path) -> None:
    """Generating again gives exactly the committed modules and stubs; if not, run `make proto`."""
    subprocess.run([sys.executable, str(ROOT / "proto/generate.py"), str(tmp_path)], check=True)
    fresh, committed = contents(tmp_path / "edgerm/wire/v1"), contents(ROOT / "edgerm/wire/v1")
    assert sorted(committed) == sorted(fresh)
    assert [name for name in fresh if committed[name] != fresh[name]] == []
