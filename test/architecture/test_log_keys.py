"""Log lines have one name for one thing, so that who searches for it finds all of them."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = [file for room in ("edgerm", "master", "agent", "frameworks") for file in (ROOT / room).rglob("*.py")]
LEVELS = {"debug", "info", "warning", "error"}
OTHER_NAMES = {"agent_id", "framework_id", "task_id", "key", "request_id", "why", "err", "exception"}


def _keys(tree: ast.Module) -> set[str]:
    """The keys of all calls of a logger: a name that is `log`, or ends so."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)]
    said = [call for call in calls if call.func.attr in LEVELS and ast.unparse(call.func.value).endswith("log")]  # type: ignore[attr-defined]
    return {keyword.arg for call in said for keyword in call.keywords if keyword.arg}


def test_keys_of_logs_are_those_of_the_list() -> None:
    """`task`, `framework`, `agent`, `request`, `reason`, `error` (edgerm/logs.py), and no other names for these."""
    found = {str(file.relative_to(ROOT)): _keys(ast.parse(file.read_text())) for file in SOURCES}
    assert any("task" in keys for keys in found.values())
    assert {file: keys & OTHER_NAMES for file, keys in found.items() if keys & OTHER_NAMES} == {}
