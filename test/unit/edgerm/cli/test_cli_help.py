"""Help, usage errors and shell completion: nothing of it may wait for what only the work itself needs."""

from __future__ import annotations

import subprocess
import sys

import pytest
from click.testing import CliRunner

from edgerm.cli.main import _COMMANDS, root

HEAVY = (
    "aiohttp",
    "wasmtime",
    "google.protobuf",
    "rich",
    "asyncio",
    "msgspec",
    "structlog",
    "edgerm_master",
    "edgerm_agent",
)


@pytest.mark.parametrize("words", [[], *([name] for name in _COMMANDS)], ids=lambda words: "-".join(words) or "root")
def test_help_imports_nothing_heavy(words: list[str]) -> None:
    """`--help` of every command is answered by click alone."""
    code = (
        "import sys\nfrom edgerm.cli.main import root\n"
        f"try: root({[*words, '--help']!r}, prog_name='edgerm')\nexcept SystemExit as end: assert not end.code\n"
        f"print('HEAVY', *[name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.startswith("Usage: edgerm")
    assert done.stdout.splitlines()[-1] == "HEAVY"


def test_every_command_is_listed_with_a_line() -> None:
    """`edgerm --help` names each command and says what it does."""
    lines = CliRunner().invoke(root, ["--help"]).stdout.split("Commands:")[1].splitlines()
    commands = [line.split() for line in lines if line.startswith("  ") and not line.startswith("   ")]
    assert [words[0] for words in commands] == list(_COMMANDS)
    assert all(len(words) > 2 for words in commands)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nothing"], "No such command 'nothing'"),
        (["run"], "use one of --wasm FILE, --process and --docker IMAGE"),
        (["run", "--process", "--docker", "x", "ls"], "use one of --wasm FILE, --process and --docker IMAGE"),
        (["run", "--process", "--port", "1:1", "ls"], "use them with --docker IMAGE"),
        (["run", "--docker", "x", "--port", "80:"], "'80:' is no port"),
        (["run", "--docker", "x", "--volume", "x"], "'x' is no volume"),
        (["run", "--process"], "--process needs a program"),
        (["run", "--process", "--env", "X", "ls"], "'X' is not NAME=VALUE"),
        (["run", "--process", "--cpus", "0", "ls"], "--cpus"),
        (["run", "--wasm", "/nowhere/m.wasm"], "/nowhere/m.wasm"),
        (["up", "--agents", "0"], "--agents"),
        (["logs"], "TASK"),
        (["kill", "a/"], "names no task"),
        (["ps", "--master", "no address"], "is no address of a master"),
        (["completion", "tcsh"], "tcsh"),
    ],
)
def test_wrong_usage_is_status_2(words: list[str], said: str) -> None:
    """What cannot be meant is refused before anything is done, with words that say what is wrong."""
    result = CliRunner().invoke(root, words)
    assert result.exit_code == 2
    assert said in result.output


@pytest.mark.parametrize("words", [["ps"], ["agents", "--json"], ["logs", "t"], ["kill", "t"], ["explain", "t"]])
def test_without_a_master_commands_say_the_remedy_in_one_line(words: list[str]) -> None:
    """Status 1, and one line that names the address and what to do."""
    result = CliRunner().invoke(root, [*words, "--master", "http://127.0.0.1:1"])
    assert result.exit_code == 1
    (line,) = result.output.splitlines()
    assert "cannot reach http://127.0.0.1:1" in line and "edgerm up" in line


def test_run_without_a_master_is_125() -> None:
    """A status that the task itself would hardly have."""
    result = CliRunner().invoke(root, ["run", "--master", "http://127.0.0.1:1", "--process", "ls"])
    assert result.exit_code == 125
    assert len(result.output.splitlines()) == 1


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(shell: str) -> None:
    """Each shell gets a script that asks this command."""
    result = CliRunner().invoke(root, ["completion", shell])
    assert result.exit_code == 0
    assert "_EDGERM_COMPLETE" in result.output


def test_the_version_is_the_installed_one() -> None:
    """`edgerm --version` says who it is."""
    assert CliRunner().invoke(root, ["--version"]).output.startswith("edgerm 0.")
