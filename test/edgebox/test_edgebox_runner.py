"""Promises of the runner that hold without starting the machine. That it runs is what `make test-edgebox` shows."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from edgebox.vm import boot, machine

RUNNER = Path(__file__).with_name("edgebox.py")
Qemu = Callable[[str], list[str]]


def test_a_missing_tool_is_named_in_one_line(tmp_path: Path) -> None:
    """Where apt is not there (or root) the runner says so in one line and exits 2, having made nothing."""
    env = {"PATH": str(tmp_path), "EDGEBOX_CACHE": str(tmp_path / "cache"), "HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, RUNNER, "--", "true"], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("edgebox: ")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_any_command_comes_through() -> None:
    """Words of the command stay as they are, also those that the script has places for, quotes and blanks."""
    command = ["sh", "-c", "echo 'CWD' \"$NICS\"", "SHARES ENVIRONMENT", "COMMAND"]
    guest = boot.Guest(command, Path("/a b"), ["A=it's"], [], [], [Path("/r w")], 2)
    lines = boot.job(guest).splitlines()
    (line,) = (line for line in lines if line.startswith("cd "))
    shown = subprocess.run(
        [
            "sh",
            "-c",
            line[line.index("/usr/bin/env") : line.index(" </dev/null")].replace("/usr/bin/env", "printf %s\\\\n"),
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert line.startswith("cd '/a b' ")
    assert shown.splitlines() == ["-i", "A=it's", "/usr/bin/setsid", *command]
    assert any(line.endswith("rw0 '/r w'") for line in lines)
    assert any("-lt 2 ]" in line for line in lines)


def test_modules_come_after_what_they_need(tmp_path: Path) -> None:
    """A module's needs go before it, each once, whatever dashes are in their names; what is built in is left out."""
    for name, needs in {"gpio-sim": "irq_sim,configfs,built_in", "irq_sim": "", "configfs": "", "other": ""}.items():
        (tmp_path / f"{name}.ko").write_bytes(b"\x7fELF\0depends=" + needs.encode() + b"\0")
    assert [name for name, _ in boot.in_order(["configfs", "gpio_sim"], [tmp_path])] == [
        "configfs.ko",
        "irq_sim.ko",
        "gpio_sim.ko",
    ]


@pytest.fixture
def qemu(tmp_path: Path) -> Qemu:
    """Makes a program that stands in for QEMU; `$n` is how many times it was started before."""

    def make(body: str) -> list[str]:
        script = f"cd {tmp_path}; n=$(cat lives 2>/dev/null || echo 0); echo $((n + 1)) >lives\n{body}"
        return ["sh", "-c", script]

    return make


def test_a_boot_that_fails_is_repeated(tmp_path: Path, qemu: Qemu, capsys: pytest.CaptureFixture[str]) -> None:
    """A machine that dies while it starts is started again, and says so; the command's status is told."""
    command = qemu("if [ $n = 0 ]; then echo 'Kernel panic' >console; else printf 'begun\\n7\\n' >status; fi")
    assert machine.run(command, tmp_path, tmp_path, 60, console=False) == 7
    assert capsys.readouterr().err == "edgebox: the machine died while it started, once more: Kernel panic\n"


@pytest.mark.parametrize(("body", "lives"), [("echo begun >status", "1"), ("echo no kernel >&2", str(machine.BOOTS))])
def test_a_machine_that_dies_has_failed(tmp_path: Path, qemu: Qemu, body: str, lives: str) -> None:
    """A command is begun once only, and a machine that never starts is not tried for ever."""
    with pytest.raises(machine.Failed, match="the machine ended before the command did"):
        machine.run(qemu(body), tmp_path, tmp_path, 60, console=False)
    assert (tmp_path / "lives").read_text().strip() == lives


def test_a_time_limit_ends_the_machine(tmp_path: Path, qemu: Qemu) -> None:
    """At its limit the machine is ended, and is not there any more."""
    with pytest.raises(subprocess.TimeoutExpired):
        machine.run(qemu("echo $$ >pid; exec sleep 1000"), tmp_path, tmp_path, 1, console=False)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
