"""`edgerm master` as a process: its one line, its refusals, its ends, and what survives them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.fake_agent import FakeAgent, finishes
from support.master import Framework, task

COMMAND = [sys.executable, "-c", "from edgerm.cli.master import command; command(prog_name='edgerm master')"]
ENVIRONMENT = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "EDGERM_AGENTS_BEAT_INTERVAL_S": "0.2"}


class Program:
    """A master in a process of its own."""

    def __init__(self, data_dir: Path, *flags: str, pass_fds: tuple[int, ...] = ()) -> None:
        command = [*COMMAND, "--http", "127.0.0.1:0", "--coap", "127.0.0.1:0", "--data-dir", str(data_dir), *flags]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT, pass_fds=pass_fds
        )
        assert self.process.stdout is not None
        self.line = self.process.stdout.readline()
        told = dict(word.split("=", 1) for word in self.line.split()[1:])
        self.url, self.coap_url = told.get("http", ""), told.get("coap", "")

    def end(self, number: int) -> tuple[int, str]:
        """Send a signal; exit status and standard error."""
        self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=20)
        return self.process.returncode, errors


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    started = Program(tmp_path / "data")
    yield started
    started.process.kill()
    started.process.communicate()


def refused(*flags: str, **environment: str) -> tuple[int, str]:
    """Exit status and the one line of a master that does not start."""
    done = subprocess.run(
        [*COMMAND, *flags], capture_output=True, text=True, timeout=20, env={**ENVIRONMENT, **environment}, check=False
    )
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1, done.stderr
    return done.returncode, done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_says_that_it_is_ready_and_stops_when_told(program: Program, number: int) -> None:
    """One line on standard output once it serves; a polite signal ends it with status 0."""
    assert re.fullmatch(r"ready http=http://127\.0\.0\.1:\d+ coap=coap://127\.0\.0\.1:\d+\n", program.line)
    status, errors = program.end(number)
    assert status == 0
    assert "Traceback" not in errors


def test_it_stops_when_its_lifeline_ends(tmp_path: Path) -> None:
    """`edgerm up` holds the other end of a pipe: when that is gone, so is the master."""
    reader, writer = os.pipe()
    program = Program(tmp_path / "data", "--lifeline", str(reader), pass_fds=(reader,))
    os.close(reader)
    os.close(writer)
    _, errors = program.process.communicate(timeout=20)
    assert (program.process.returncode, "Traceback" in errors) == (0, False)


def test_a_busy_port_is_told_with_the_remedy(program: Program, tmp_path: Path) -> None:
    """Exit 1, one line that names the address and the flag."""
    address = program.url.removeprefix("http://")
    status, line = refused("--http", address, "--data-dir", str(tmp_path / "other"), "--log-level", "error")
    assert status == 1 and address in line and "--http" in line


def test_a_busy_port_for_coap_is_told_with_the_remedy(program: Program, tmp_path: Path) -> None:
    """UDP too: two masters never share a port."""
    address = program.coap_url.removeprefix("coap://")
    where = ("--http", "127.0.0.1:0", "--coap", address)
    status, line = refused(*where, "--data-dir", str(tmp_path / "other"), "--log-level", "error")
    assert status == 1 and address in line and "--coap" in line


def test_without_coap_its_library_is_not_imported(tmp_path: Path) -> None:
    """An empty address is no CoAP: the line does not name it, and aiocoap costs nothing."""
    check = (
        "import atexit, sys\nfrom edgerm.cli.master import command\n"
        "atexit.register(lambda: print('aiocoap' in sys.modules, flush=True))\ncommand()"
    )
    where = ["--http", "127.0.0.1:0", "--data-dir", str(tmp_path / "data"), "--coap"]
    for address, imported in (("", "False\n"), ("127.0.0.1:0", "True\n")):
        argv = [sys.executable, "-c", check, *where, address]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT) as process:
            assert process.stdout is not None
            assert ("coap=" in process.stdout.readline()) is bool(address)
            process.send_signal(signal.SIGTERM)
            assert process.stdout.read() == imported


def test_two_masters_on_one_data_directory_are_refused(program: Program, tmp_path: Path) -> None:
    """The second one says who has the directory."""
    status, line = refused("--http", "127.0.0.1:0", "--data-dir", str(tmp_path / "data"))
    assert status == 1 and str(program.process.pid) in line and "--data-dir" in line


def test_a_directory_that_is_a_file_is_refused(tmp_path: Path) -> None:
    """What is no directory is named, with the remedy."""
    (tmp_path / "file").write_text("x")
    status, line = refused("--http", "127.0.0.1:0", "--data-dir", str(tmp_path / "file"))
    assert status == 1 and str(tmp_path / "file") in line


@pytest.mark.parametrize(
    ("flags", "environment", "told"),
    [
        (("--http", "0.0.0.0:0"), {}, "--insecure"),
        (("--http", "nonsense"), {}, "HOST:PORT"),
        (("--coap", "0.0.0.0:0"), {}, "--insecure"),
        (("--coap", "nonsense"), {}, "HOST:PORT"),
        (("--config", "/nonexistent.toml"), {}, "--config"),
        ((), {"EDGERM_HTTPP": "x"}, "EDGERM_HTTP?"),
        ((), {"EDGERM_OFFER_TIMEOUT_S": "soon"}, "offer_timeout_s"),
    ],
)
def test_bad_settings_are_exit_2_and_one_line(flags: tuple[str, ...], environment: dict[str, str], told: str) -> None:
    """Each names what is wrong and what to do."""
    status, line = refused(*flags, **environment)
    assert status == 2 and told in line


async def test_nothing_accepted_is_lost_by_kill_9(tmp_path: Path) -> None:
    """Tasks, owed updates and removed frameworks are there again after a kill -9, and the agent keeps its tasks."""
    program = Program(tmp_path / "data")
    port = program.url.rsplit(":", 1)[1]
    try:
        async with FakeAgent(program.url) as agent:
            framework = Framework(program.url, {"failover_timeout": 1000.0})
            async with framework, Framework(program.url) as gone:
                offer = await framework.offer()
                await framework.launch(offer, task(offer, "a"), task(offer, "b"))
                owed = await framework.status()
                await gone.call("TEARDOWN")
                program.end(signal.SIGKILL)
            program = Program(tmp_path / "data", "--http", f"127.0.0.1:{port}")
            again = Framework(program.url, {"failover_timeout": 1000.0}, framework.framework_id)
            async with again:
                told = [await again.status() for _ in range(2)]
                assert {status["task_id"]["value"] for status in told} == {"a", "b"}
                assert owed["uuid"] in {status["uuid"] for status in told}
                await again.call("KILL", task_id={"value": "a"})
                for status in told:
                    await again.acknowledge(status)
                assert (await again.status())["state"] == "TASK_KILLED"
            assert len(agent.launches) == 2 and len(agent.kills) == 1
            returned = Framework(program.url, {}, gone.framework_id)
            with pytest.raises(AssertionError, match="has been removed"):
                await returned.__aenter__()
            await returned.__aexit__()
    finally:
        program.process.kill()
        program.process.communicate()


async def test_a_clean_stop_ends_no_framework(tmp_path: Path) -> None:
    """A master that is stopped politely does not take its frameworks' broken streams for their end."""
    program = Program(tmp_path / "data")
    port = program.url.rsplit(":", 1)[1]
    try:
        async with FakeAgent(program.url) as agent, Framework(program.url) as framework:
            offer = await framework.offer()
            await framework.launch(offer, task(offer, "t"))
            await framework.acknowledge(await framework.status())
            assert program.end(signal.SIGTERM)[0] == 0
            program = Program(tmp_path / "data", "--http", f"127.0.0.1:{port}")
            async with Framework(program.url, {}, framework.framework_id) as again:
                await again.call("KILL", task_id={"value": "t"})
                assert (await again.status())["state"] == "TASK_KILLED"
            assert len(agent.launches) == 1
    finally:
        program.process.kill()
        program.process.communicate()


def test_help_imports_neither_the_server_nor_the_engine() -> None:
    """Help is answered without aiohttp, protobuf, wasmtime or the master itself."""
    check = (
        "import sys\nfrom edgerm.cli.master import command\n"
        "try: command(['--help'], prog_name='edgerm master')\n"
        "except SystemExit: pass\n"
        "heavy = {'aiohttp', 'google.protobuf', 'wasmtime', 'edgerm_master', 'msgspec'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 0, done.stderr
    assert "--data-dir" in done.stdout


async def test_a_disk_that_refuses_ends_the_master_with_one_line(tmp_path: Path) -> None:
    """A write that fails is the end: exit 1, the reason, and nobody was told what is not on disk."""
    program = Program(tmp_path / "data")
    try:
        async with FakeAgent(program.url, on_launch=finishes), Framework(program.url) as framework:
            offer = await framework.offer()
            import sqlite3

            with sqlite3.connect(tmp_path / "data" / "registry.db") as other:
                other.execute("UPDATE fence SET value = value + 1")
            other.close()
            with pytest.raises(Exception):  # noqa: B017 - the connection breaks, one way or another
                assert await framework.launch(offer, task(offer, "t")) != 202
                raise ConnectionError
        _, errors = program.process.communicate(timeout=20)
        assert program.process.returncode == 1
        assert "was taken over" in errors.splitlines()[-1]
    finally:
        program.process.kill()
        program.process.communicate()
