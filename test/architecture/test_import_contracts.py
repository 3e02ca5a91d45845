"""The import contracts of pyproject.toml hold, and each can fail: a breach of every one is planted in a copy."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = {
    "edgerm": ROOT / "edgerm",
    "edgerm_master": ROOT / "master/edgerm_master",
    "edgerm_agent": ROOT / "agent/edgerm_agent",
    "edgerm_frameworks": ROOT / "frameworks/edgerm_frameworks",
}

# Contract id -> breaches: the module that is planted, and the line that it must not say.
BREACHES: dict[str, list[tuple[str, str]]] = {
    "pure-cores": [
        ("edgerm.core.planted_clock", "import time"),
        ("edgerm.core.planted_http", "import aiohttp"),
        ("edgerm_master.core.planted_loop", "import asyncio"),
        ("edgerm_master.core.planted_lazy", "def f():\n    from random import random"),
        ("edgerm_agent.core.planted_disk", "import os.path"),
        ("edgerm_agent.core.planted_wire", "from google.protobuf import message"),
        ("edgerm.sdk.core.planted_log", "import logging"),
        ("edgerm.plugin.planted_loop", "import asyncio"),
    ],
    "cores-know-cores": [
        ("edgerm_master.core.planted_store", "import edgerm.store"),
        ("edgerm_agent.core.planted_face", "import edgerm_agent.api"),
        ("edgerm.sdk.core.planted_transport", "import edgerm.transport"),
    ],
    "strangers": [
        ("edgerm_master.planted_agent", "import edgerm_agent"),
        ("edgerm_agent.planted_master", "import edgerm_master"),
        ("edgerm_frameworks.planted_master", "import edgerm_master"),
    ],
    "library-knows-no-program": [
        ("edgerm.transport.planted_master", "import edgerm_master.core"),
        ("edgerm.cli.planted_edge", "import edgerm_agent.api"),
        ("edgerm.testing.sim.planted_edge", "import edgerm_master.api"),
    ],
    "library-layers": [
        ("edgerm.wire.planted_sibling", "import edgerm.store"),
        ("edgerm.transport.planted_upward", "import edgerm.sdk"),
        ("edgerm.sdk.planted_upward", "import edgerm.testing"),
    ],
    "sdk-layers": [("edgerm.sdk.scheduler.planted", "import edgerm.sdk.driver")],
    "master-layers": [
        ("edgerm_master.api.planted_sibling", "import edgerm_master.election"),
        ("edgerm_master.election.planted_upward", "import edgerm_master.main"),
    ],
    "agent-layers": [
        ("edgerm_agent.executors.planted_sibling", "import edgerm_agent.api"),
        ("edgerm_agent.executors.planted_upward", "import edgerm_agent.main"),
    ],
    "executors-layers": [("edgerm_agent.executors.wasm.planted", "import edgerm_agent.executors.process")],
    "wasm-host-light": [
        ("edgerm_agent.executors.wasm_host.planted_library", "import edgerm.core"),
        ("edgerm_agent.executors.wasm_host.planted_loop", "import asyncio"),
        ("edgerm_agent.executors.wasm_host.planted_agent", "import edgerm_agent.api"),
    ],
    "keeper-stdlib": [
        ("edgerm_agent.keeper.planted_library", "import edgerm.core"),
        ("edgerm_agent.keeper.planted_agent", "import edgerm_agent.api"),
        ("edgerm_agent.keeper.planted_foreign", "import click"),
    ],
    "foreign-libraries": [
        ("edgerm.sdk.planted_http", "import aiohttp"),
        ("edgerm_master.planted_sqlite", "import sqlite3"),
        ("edgerm_agent.planted_wasm", "import wasmtime"),
        ("edgerm_frameworks.planted_wire", "from google.protobuf import message"),
    ],
}
# Rooms that the lines above import: they are planted too where they are not built yet.
NEEDED = (
    "edgerm.sdk.driver",
    "edgerm_master.api",
    "edgerm_master.main",
    "edgerm_master.election",
    "edgerm_agent.main",
    "edgerm_agent.api",
)


def contracts() -> dict[str, str]:
    """Id to name of each contract of pyproject.toml."""
    options = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return {contract["id"]: contract["name"] for contract in options["tool"]["importlinter"]["contracts"]}


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    """What lint-imports says of the packages in `folder`, in wide lines."""
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-logo", "--no-cache"]
    env = {**os.environ, "PYTHONPATH": str(folder), "COLUMNS": "400", "NO_COLOR": "1"}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=60, check=False)


def reports(output: str) -> dict[str, str]:
    """What lint-imports says of each broken contract, by its name: a heading is a line above a line of dashes."""
    found: dict[str, str] = {}
    heading = ""
    lines = output.splitlines()
    for line, below in zip(lines, [*lines[1:], ""], strict=True):
        if line and below and not below.strip("-"):
            heading = line
        found[heading] = found.get(heading, "") + line + "\n"
    return found


def plant(folder: Path, module: str, line: str) -> None:
    """Write `module` below `folder`; a module on the way to it that is a plain file becomes a package."""
    *packages, name = module.split(".")
    at = folder
    for package in packages:
        plain, at = at / f"{package}.py", at / package
        at.mkdir(exist_ok=True)
        if plain.exists():
            plain.rename(at / "__init__.py")
        (at / "__init__.py").touch()
    (at / f"{name}.py").write_text(line + "\n")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The four packages and pyproject.toml, side by side in a folder of their own."""
    for name, source in PACKAGES.items():
        shutil.copytree(source, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_every_contract_is_kept(copy: Path) -> None:
    """The sources as they are break no contract."""
    result = lint(copy)
    assert result.returncode == 0, result.stdout + result.stderr
    assert all(f"{name} KEPT" in result.stdout for name in contracts().values()), result.stdout


def test_every_contract_has_a_planted_breach() -> None:
    """A contract cannot be added without showing that it can fail."""
    assert BREACHES.keys() == contracts().keys()


def test_every_planted_breach_is_reported(copy: Path) -> None:
    """Each contract reports its breaches, each with the importing module."""
    for module in NEEDED:
        plant(copy, f"{module}.planted", "")
    for breaches in BREACHES.values():
        for module, line in breaches:
            plant(copy, module, line)
    result = lint(copy)
    assert result.returncode == 1, result.stdout + result.stderr
    names, said = contracts(), reports(result.stdout)
    missed = [
        f"{id_}: {module}: {line}"
        for id_, breaches in BREACHES.items()
        for module, line in breaches
        if module not in said.get(names[id_], "")
    ]
    assert not missed, "\n".join(missed) + "\n\n" + result.stdout
