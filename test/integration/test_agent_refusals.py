"""What an agent refuses at its start: one line that says what to do, and an exit status."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from support.agent import COMMAND, agent_process
from support.master import running_master

from edgerm_agent.main import main

UNSHARE = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--mount"]
ON_TMPFS = 'mount -t tmpfs -o "$1" edgerm-test "$2" && shift 2 && exec "$@"'


def run(*flags: str, mount: tuple[str, Path] | None = None) -> tuple[int, str]:
    """Start an agent that ends by itself; exit status and the last line of what it said."""
    command = [*COMMAND, "--port=0", "--log-level=error", *flags]
    if mount is not None:
        options, path = mount
        command = [*UNSHARE, "sh", "-c", ON_TMPFS, "sh", options, str(path), *command]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    lines = done.stderr.splitlines()
    assert done.stdout == ""
    return done.returncode, lines[-1] if lines else ""


async def test_two_agents_on_one_directory(tmp_path: Path) -> None:
    """The second agent on a data directory is refused, naming the first, which runs on."""
    async with running_master(tmp_path) as master, agent_process(tmp_path / "agent", master.url) as first:
        status, line = run(f"--data-dir={tmp_path / 'agent'}")
        assert (status, first.process.returncode) == (1, None)
        assert f"in use by process {first.process.pid}" in line
        assert "--data-dir" in line


@pytest.mark.skipif(
    subprocess.run([*UNSHARE, "true"], capture_output=True, check=False).returncode != 0,
    reason="no mount namespace here: run as root or allow user namespaces",
)
@pytest.mark.parametrize(("options", "why"), [("ro", "read-only"), ("size=64k", "no space left")])
def test_a_medium_that_refuses(tmp_path: Path, options: str, why: str) -> None:
    """A read-only or full file system is refused with the path and the remedy."""
    status, line = run(f"--data-dir={tmp_path}", mount=(options, tmp_path))
    assert (status, str(tmp_path) in line, why in line) == (1, True, True), line


@pytest.mark.parametrize(
    ("flag", "value", "why"),
    [
        ("master", "ftp://x", "write http://HOST:PORT"),
        ("resources", "cpus:many", "cpus"),
        ("attributes", "edgerm.zone:a", "choose another"),
        ("attributes", "zone", "NAME:VALUE"),
        ("attributes", "floors:[3-1]", "3-1"),
        ("port", 70000, "port = 70000"),
    ],
)
def test_wrong_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str], flag: str, value: object, why: str) -> None:
    """Settings that cannot be meant are refused with status 2 and one line, and nothing is made."""
    assert main(None, {"data_dir": str(tmp_path / "agent"), flag: value}, None) == 2
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n"), why in said.err) == ("", 1, True), said.err
    assert list(tmp_path.iterdir()) == []


def test_a_configuration_that_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that --config names must be there."""
    assert main(tmp_path / "no.toml", {}, None) == 2
    assert "no.toml" in capsys.readouterr().err


def test_a_port_in_use(tmp_path: Path) -> None:
    """A port that is taken is refused with the remedy, before anything is started."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        status, line = run(f"--data-dir={tmp_path / 'agent'}", f"--port={taken.getsockname()[1]}")
    assert (status, "--port" in line) == (1, True), line
    assert not list((tmp_path / "agent").glob("*.sock"))


def test_help_is_fast_to_answer() -> None:
    """Help is answered without importing what the agent needs."""
    script = (
        "import sys\nfrom click.testing import CliRunner\nfrom edgerm.cli.agent import command\n"
        "result = CliRunner().invoke(command, ['--help'])\n"
        "print(result.exit_code, '--process-user' in result.output,"
        " [name for name in ('aiohttp', 'edgerm_agent', 'google', 'wasmtime') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "0 True []\n"
