"""The commands that people and CI type: what `make` says, and what `.ci/run` decides to run. Installs nothing."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAMS = "/usr/local/bin:/usr/bin:/bin"
Run = Callable[[], list[str]]


def executable(path: Path, text: str) -> None:
    """Write a script that stands in for a program."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def run(*command: str, cwd: Path, first: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run in `cwd` with `first` before the usual programs, and with nothing of the surrounding make's or git's."""
    env = {"PATH": f"{first}:{PROGRAMS}" if first else PROGRAMS, "HOME": str(cwd), "LC_ALL": "C.UTF-8"}
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=60, check=False)


def test_make_alone_lists_every_target() -> None:
    """`make` prints one line for each target that a person may call, and does nothing else."""
    text = (ROOT / "Makefile").read_text()
    targets = re.findall(r"^\.PHONY: (.*)$", text, re.MULTILINE)[0].split()
    result = run("make", "--no-print-directory", cwd=ROOT)
    assert result.returncode == 0
    assert [line.split()[1] for line in result.stdout.splitlines()] == targets


@pytest.mark.parametrize("target", ["demo", "test"])
def test_make_without_venv_says_the_apt_line(tmp_path: Path, target: str) -> None:
    """Where Python cannot make environments `make` prints the one apt line, exits 2 and leaves nothing."""
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    # a python3 that cannot import ensurepip, as Debian's without python3-venv
    executable(tmp_path / "fake/python3", "#!/bin/sh\nexit 1\n")
    result = run("make", target, cwd=tmp_path, first=tmp_path / "fake")
    assert result.returncode == 2
    assert "apt install git make python3-venv" in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["Makefile", "fake", "pyproject.toml"]


@pytest.fixture
def ci(tmp_path: Path) -> Run:
    """Commits what lies in tmp_path/repo and answers which targets `.ci/run` then made."""
    repo = tmp_path / "repo"
    (repo / ".ci").mkdir(parents=True)
    shutil.copy(ROOT / ".ci/run", repo / ".ci/run")
    executable(tmp_path / "fake/make", f'#!/bin/sh\necho "$@" >> {tmp_path}/made\n')
    executable(tmp_path / "fake/python3", "#!/bin/sh\n")
    git = ("git", "-c", "user.name=t", "-c", "user.email=t@t", "-c", "init.defaultBranch=main")

    def commit_and_run() -> list[str]:
        if not (repo / ".git").exists():
            assert run(*git, "init", "--quiet", cwd=repo).returncode == 0
            history = 25  # more than the script looks back
        else:
            history = 1
        run(*git, "add", "--all", cwd=repo)
        for _ in range(history):
            assert run(*git, "commit", "--quiet", "--allow-empty", "--message", "x", cwd=repo).returncode == 0
        (tmp_path / "made").unlink(missing_ok=True)
        result = run(str(repo / ".ci/run"), cwd=repo, first=tmp_path / "fake")
        assert result.returncode == 0, result.stdout + result.stderr
        return (tmp_path / "made").read_text().split()

    return commit_and_run


@pytest.mark.skipif(os.geteuid() != 0, reason="CI starts the edgebox VM as root only")
def test_ci_runs_the_edgebox_when_what_it_tests_has_changed(ci: Run, tmp_path: Path) -> None:
    """The edgebox runs before the tests for a change of limits, keeper or executors, and for no other change."""
    assert ci() == ["test"]
    (tmp_path / "repo/README.md").write_text("words")
    assert ci() == ["test"]
    (tmp_path / "repo/agent/edgerm_agent/keeper").mkdir(parents=True)
    (tmp_path / "repo/agent/edgerm_agent/keeper/ring.py").write_text("x = 1")
    assert ci() == ["test-edgebox", "test"]
