"""The wheel, installed where nothing else is: no compiler on the path, no network, no sources beside it.

An environment per extra holds the wheel and links to the distributions that the wheel's own metadata asks for (taken
from the environment that runs the tests), so a dependency that is used but not declared is missing there.
"""

from __future__ import annotations

import email
import subprocess
import sys
import zipfile
from collections.abc import Callable
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PACKAGES = {
    "edgerm": ROOT / "edgerm",
    "edgerm_master": ROOT / "master/edgerm_master",
    "edgerm_agent": ROOT / "agent/edgerm_agent",
    "edgerm_frameworks": ROOT / "frameworks/edgerm_frameworks",
}
Install = Callable[[str], Path]

IMPORT_ALL = """
import importlib, pkgutil, sys
for root in sys.argv[1:]:
    for module in pkgutil.walk_packages([importlib.import_module(root).__path__[0]], root + "."):
        # conformance suites are for authors of plugins and stores, who have pytest
        if not module.name.endswith("__main__") and not module.name.startswith("edgerm.testing.conformance"):
            importlib.import_module(module.name)
            print(module.name)
"""


def run(*command: str | Path, cwd: Path) -> str:
    """The command's output; its environment is empty, so that it finds no compiler, no proxy and no settings."""
    result = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={"PATH": "/nonexistent", "HOME": str(cwd), "LC_ALL": "C.UTF-8"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, f"{command}: {result.stdout}{result.stderr}"
    return result.stdout


def closure(requirements: list[str], extras: set[str]) -> dict[str, Distribution]:
    """The distributions that these requirements need, and what those need in turn; edgerm's own extras are followed."""
    found: dict[str, Distribution] = {}
    todo = [(Requirement(text), extras) for text in requirements]
    followed: set[str] = set()
    while todo:
        requirement, wanted = todo.pop()
        if requirement.marker and not any(requirement.marker.evaluate({"extra": extra}) for extra in wanted or {""}):
            continue
        inner: list[str] = []
        name = canonicalize_name(requirement.name)
        if name == "edgerm":
            inner = requirements if requirement.extras - followed else []
            followed |= requirement.extras
        elif name not in found:
            found[name] = distribution(name)
            inner = found[name].requires or []
        todo += [(Requirement(text), set(requirement.extras)) for text in inner]
    return found


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this tree."""
    out = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", out, cwd=ROOT)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def install(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Install:
    """Makes an environment with the wheel and one of its extras ("" for none); answers its folder of programs."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        requirements = email.message_from_bytes(archive.read(name)).get_all("Requires-Dist", [])

    def make(extra: str) -> Path:
        folder = tmp_path_factory.mktemp("installed")
        run(sys.executable, "-m", "venv", "--without-pip", "venv", cwd=folder)
        python = folder / "venv/bin/python"
        pip = (sys.executable, "-I", "-m", "pip", "--disable-pip-version-check", "--python", python)
        run(*pip, "install", "--quiet", "--no-index", "--no-deps", wheel, cwd=folder)
        (site,) = folder.glob("venv/lib/python*/site-packages")
        for needed in closure(requirements, {extra}).values():
            for top in {Path(str(file)).parts[0] for file in needed.files or []} - {"..", "__pycache__"}:
                (site / top).symlink_to(Path(str(needed.locate_file(top))))
        return python.parent

    return make


def test_the_wheel_holds_every_file_of_the_four_packages(wheel: Path) -> None:
    """Sources, generated code, types and modules are in the wheel, and nothing beside them but its metadata."""
    assert wheel.name.endswith("-py3-none-any.whl")
    here = {
        f"{name}/{path.relative_to(source)}"
        for name, source in PACKAGES.items()
        for path in source.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(wheel) as archive:
        inside = {name for name in archive.namelist() if ".dist-info/" not in name}
        metadata = {name.partition(".dist-info/")[2] for name in archive.namelist()} - {""}
    assert inside == here
    assert {"METADATA", "entry_points.txt", "licenses/LICENSE"} <= metadata
    for sample in (*(f"{name}/py.typed" for name in PACKAGES), "edgerm/wire/v1/scheduler_pb2.pyi"):
        assert sample in inside
    assert any(name.startswith("edgerm_frameworks/") and name.endswith(".wasm") for name in inside)


def test_a_bare_install_is_the_sdk_over_http(install: Install, tmp_path: Path) -> None:
    """Without an extra `edgerm.sdk` and HTTP import from the wheel, where the libraries of other extras are missing."""
    code = """
import edgerm.sdk, edgerm.transport.http_client, importlib.util, sys
print(edgerm.__file__)
print(*filter(importlib.util.find_spec, sys.argv[1:]))
"""
    others = ("click", "rich", "wasmtime", "msgspec", "structlog", "prometheus_client", "re2")
    programs = install("")
    where, present = run(programs / "python", "-I", "-c", code, *others, cwd=tmp_path).split("\n")[:2]
    assert Path(where).is_relative_to(programs.parent)
    assert present == ""


def test_the_command_without_its_extra_says_what_to_install(install: Install, tmp_path: Path) -> None:
    """A bare install has the script, and one line with the remedy instead of a traceback."""
    command = [str(install("") / "edgerm"), "--help"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "edgerm: the command line is not installed; run: pip install 'edgerm[cli]'\n"


def test_the_command_runs_from_the_wheel(install: Install, tmp_path: Path) -> None:
    """`edgerm --version` and `edgerm --help` answer with no more than the extra "cli"."""
    programs = install("cli")
    assert distribution("edgerm").version in run(programs / "edgerm", "--version", cwd=tmp_path)
    assert "agent" in run(programs / "edgerm", "--help", cwd=tmp_path)


@pytest.mark.parametrize(
    ("extra", "module"), [("master", "edgerm_master.main"), ("agent", "edgerm_agent.main")], ids=("master", "agent")
)
def test_a_program_needs_its_own_extra_only(install: Install, tmp_path: Path, extra: str, module: str) -> None:
    """Each program imports with its extra alone; wasmtime (30 MB) is in neither."""
    programs = install(extra)
    code = f"import importlib.util, {module}; print(importlib.util.find_spec('wasmtime'))"
    assert run(programs / "python", "-I", "-c", code, cwd=tmp_path) == "None\n"


def test_every_module_imports_with_all_extras(install: Install, tmp_path: Path) -> None:
    """No module of the wheel needs what only developers have."""
    programs = install("all")
    imported = run(programs / "python", "-I", "-W", "error", "-c", IMPORT_ALL, *PACKAGES, cwd=tmp_path).split()
    assert "edgerm.wire.v1.scheduler_pb2" in imported
