"""The commands against what `edgerm up` starts: a real master and a real agent as processes of their own."""

from __future__ import annotations

import json
import os
import re
import select
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edgerm.cli.box import _welcome
from edgerm_frameworks.modules import WINDOWED_STATS

EDGERM = [sys.executable, "-m", "edgerm.cli.main"]
USER = ["--process-user", "root"] if os.geteuid() == 0 else []
NO_PROCESSES = "No processes run, because this is root; to have them: edgerm up --process-user root\n"
Edgerm = Callable[..., subprocess.CompletedProcess[str]]


@contextmanager
def started(*options: str, user: bool = True) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`edgerm up` and its master's URL; it ends with the block, if not before."""
    reading, writing = os.pipe()
    command = [*EDGERM, "up", "--lifeline", str(reading), *options, *(USER if user else [])]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, start_new_session=True, pass_fds=(reading,)
    ) as up:
        os.close(reading)
        try:
            assert up.stdout is not None
            ready = up.stdout.readline()
            match = re.fullmatch(r"ready http=(\S+) agents=\d+\n", ready)
            assert match, ready
            yield up, match[1]
        finally:
            os.close(writing)


@pytest.mark.parametrize(("runs_processes", "hint"), [(True, "run --process --"), (False, "run --wasm")])
def test_up_suggests_only_what_runs(capsys: pytest.CaptureFixture[str], runs_processes: bool, hint: str) -> None:
    """Whether processes run, or modules alone, the example is one that works; and root is told how to get both."""
    _welcome("http://m", 1, Path("/up"), runs_processes)
    told = capsys.readouterr().out
    assert re.findall(r"edgerm (run --\S+(?: --)?)", told) == [hint]
    assert ("--process-user root" in told) == (not runs_processes)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to name a user for processes: run as root")
def test_up_as_root_without_a_user_suggests_a_module() -> None:
    """As root nothing suggests a process before a user for them is named."""
    with started(user=False) as (up, _):
        assert up.stdout is not None
        told = "".join(iter(up.stdout.readline, NO_PROCESSES))
    assert "--process" not in told


@pytest.fixture(scope="module")
def master(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A master with one agent for all tests here."""
    with started("--data-dir", str(tmp_path_factory.mktemp("up"))) as (_, url):
        yield url


@pytest.fixture
def edgerm(master: str) -> Edgerm:
    """Runs a command against that master."""

    def run(*words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "EDGERM_MASTER": master}
        return subprocess.run(
            [*EDGERM, *words], input=stdin, capture_output=True, text=True, timeout=60, env=env, check=False
        )

    return run


def test_run_streams_output_and_has_the_tasks_status(edgerm: Edgerm) -> None:
    """stdout and stderr arrive where they belong, and the exit status is the task's."""
    done = edgerm("run", "--process", "--", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout) == (7, "out\n")
    assert done.stderr.startswith("err\n") and "exited with code 7" in done.stderr


def test_run_of_a_module_reads_its_input(edgerm: Edgerm) -> None:
    """A WASM module gets arguments and stdin, and its result comes back."""
    done = edgerm("run", "--input", "-", "--wasm", str(WINDOWED_STATS), "--", "2", stdin="1\n2\n3\n4\n")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "0 2 1.000 2.000 1.500 0.500\n1 2 3.000 4.000 3.500 0.500\n"


def test_run_without_an_input_of_its_own_ends_the_tasks(master: str) -> None:
    """A shell's `<&-` is an input that has ended."""
    command = shlex.join([*EDGERM, "run", "-i", "--process", "--", "sh", "-c", "cat; echo ended"]) + " <&-"
    env = {**os.environ, "EDGERM_MASTER": master}
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60, env=env, check=False)
    assert (done.returncode, done.stdout) == (0, "ended\n")


def test_run_of_a_task_that_a_signal_ends_is_128_and_its_number(edgerm: Edgerm) -> None:
    """As a shell has it."""
    assert edgerm("run", "--process", "--", "sh", "-c", "kill -9 $$").returncode == 137


def test_run_with_a_timeout_ends_the_task(edgerm: Edgerm) -> None:
    """A task that takes too long ends, with a status that says so."""
    done = edgerm("run", "--timeout", "0.2", "--process", "--", "sleep", "1000")
    assert done.returncode == 124
    assert "MAX_COMPLETION_TIME_REACHED" in done.stderr


def test_a_flood_of_output_is_bounded_and_said(edgerm: Edgerm) -> None:
    """The agent keeps the latest output only; what is missing is told in bytes."""
    done = edgerm("run", "--process", "--", "sh", "-c", "head -c 3000000 /dev/zero | tr '\\0' x; echo; echo end")
    assert done.returncode == 0
    assert done.stdout.endswith("x\nend\n")
    lost = sum(map(int, re.findall(r"edgerm: (\d+) bytes", done.stderr)))
    assert len(done.stdout) + lost == 3_000_005


def test_run_gives_the_task_its_environment(edgerm: Edgerm) -> None:
    """What --env says, what edgerm says, and nothing of ours."""
    done = edgerm("run", "--env", "A=b c", "--process", "--", "sh", "-c", 'echo "$A" "$EDGERM_TASK_ID" "$HOME"')
    words = done.stdout.split()
    assert words[:2] == ["b", "c"]
    assert words[2].startswith("sh-") and len(words) == 3


def test_a_program_that_is_not_there_is_told(edgerm: Edgerm) -> None:
    """The reason comes from the agent, in one line."""
    done = edgerm("run", "--process", "--", "/no/such/program")
    assert done.returncode != 0
    assert "/no/such/program" in done.stderr


def test_ctrl_c_ends_the_task_and_waits_for_it(master: str, edgerm: Edgerm) -> None:
    """The task has ended when the command has, and its status is that of the signal that ended it."""
    command = [
        *EDGERM,
        "run",
        "--master",
        master,
        "--name",
        "ctrlc",
        "--process",
        "--",
        "sh",
        "-c",
        "echo on; sleep 99",
    ]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert run.stdout is not None
    assert run.stdout.readline() == "on\n"
    run.send_signal(signal.SIGINT)
    _, said = run.communicate(timeout=60)
    assert run.returncode == 143
    assert "ending task ctrlc-" in said
    (row,) = [row for row in json.loads(edgerm("ps", "--all", "--json").stdout) if row["name"] == "ctrlc"]
    assert row["state"] == "KILLED"


def test_a_detached_task_is_listed_read_explained_and_killed(edgerm: Edgerm) -> None:
    """It lives on after the command, and is found by a beginning of its id."""
    done = edgerm("run", "--detach", "--name", "long", "--process", "--", "sh", "-c", "echo begun; exec sleep 1000")
    task_id = done.stdout.strip()
    assert (done.returncode, done.stderr) == (0, "")
    assert [task["task"] for task in json.loads(edgerm("ps", "--json").stdout)] == [task_id]
    assert edgerm("logs", "long").stdout == "begun\n"
    assert "running" in edgerm("explain", task_id).stdout
    killed = edgerm("kill", "--wait", "long")
    assert (killed.returncode, "KILLED" in killed.stderr) == (0, True)
    assert "ended before" in edgerm("kill", task_id).stderr
    assert edgerm("logs", "-f", task_id).stdout == "begun\n"


def test_an_ambiguous_name_is_status_2_with_the_choices(edgerm: Edgerm) -> None:
    """Two tasks whose ids begin alike cannot be named by that beginning, but by FRAMEWORK/TASK."""
    ids = [
        edgerm("run", "--detach", "--name", "twin", "--process", "--", "sleep", "1000").stdout.strip() for _ in range(2)
    ]
    refused = edgerm("kill", "twin")
    assert refused.returncode == 2
    assert all(task_id in refused.stderr for task_id in ids)
    for task in json.loads(edgerm("ps", "--json").stdout):
        assert edgerm("kill", "--wait", f"{task['framework']}/{task['task']}").returncode == 0


def test_a_kill_waits_for_the_task_that_it_ended(edgerm: Edgerm) -> None:
    """The beginning that named a live task may be an ended one's too: what is told is the end of the one killed."""
    assert edgerm("run", "--name", "same-first", "--process", "--", "false").returncode == 1
    edgerm("run", "--detach", "--name", "same", "--process", "--", "sleep", "1000")
    assert "has ended: KILLED" in edgerm("kill", "--wait", "same").stderr


def test_a_timeout_bounds_the_wait_for_room(edgerm: Edgerm) -> None:
    """A task that no agent has room for is given up after its timeout, with a hint where to look."""
    done = edgerm("run", "--cpus", "1000", "--timeout", "0.5", "--process", "--", "true")
    assert done.returncode == 124
    assert "did not start within 0.5 s" in done.stderr
    assert "edgerm explain" in done.stderr


def test_an_unknown_name_is_status_1_with_a_remedy(edgerm: Edgerm) -> None:
    """One line says where names come from."""
    for command in ("logs", "kill", "explain"):
        done = edgerm(command, "nobody")
        assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
        assert "edgerm ps --all" in done.stderr


def test_lists_are_tables_and_json(edgerm: Edgerm) -> None:
    """Every list has both forms; agents show what they have."""
    (agent,) = json.loads(edgerm("agents", "--json").stdout)
    assert (agent["name"], agent["state"]) == ("agent1", "joined")
    assert agent["cpus"] > 0 and agent["mem"] > 0
    assert edgerm("agents").stdout.startswith("NAME")
    for command in ("frameworks", "offers", "ps"):
        assert isinstance(json.loads(edgerm(command, "--json").stdout), list)


def test_every_second_agent_links_over_coap() -> None:
    """Of two agents that `up` starts one speaks HTTP with the master and one CoAP; `agents` shows which."""
    with started("--agents", "2", user=False) as (_, url):
        done = subprocess.run(
            [*EDGERM, "agents", "--master", url, "--json"], capture_output=True, text=True, timeout=60, check=False
        )
    links = {agent["name"]: agent["carrier"] for agent in json.loads(done.stdout)}
    assert links == {"agent1": "http", "agent2": "coap"}


def test_doctor_finds_the_master(edgerm: Edgerm, master: str) -> None:
    """It says that the master answers, and what this box can do."""
    said = edgerm("doctor").stdout
    assert f"ok  master {master}" in said
    assert "WASM tasks" in said


def processes_with(text: str) -> list[int]:
    """Processes that carry `text` in their command line."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                line = (folder / "cmdline").read_bytes()
            except OSError:
                continue
            if text.encode() in line:
                found.append(int(folder.name))
    return found


@pytest.mark.parametrize("way", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_up_leaves_nothing_whatever_ends_it(tmp_path: Path, way: signal.Signals) -> None:
    """After Ctrl-C, SIGTERM or kill -9 of `up` alone no process of it is left, nor any of its tasks."""
    with started("--data-dir", str(tmp_path / "data")) as (up, url):
        marker = f"sleep 98{way.value}{os.getpid()}"
        run = [*EDGERM, "run", "--master", url, "--detach", "--process", "--", *marker.split()]
        assert subprocess.run(run, capture_output=True, timeout=60, check=False).returncode == 0
        task = processes_with(marker.replace(" ", "\0"))
        assert task
        ends = [os.pidfd_open(pid) for pid in {*task, *processes_with(str(tmp_path))} - {up.pid}]
        assert len(ends) > 3
        up.send_signal(way)
        assert up.wait(60) == (0 if way is not signal.SIGKILL else -9)
        for descriptor in ends:
            assert select.select([descriptor], [], [], 60)[0]
            os.close(descriptor)
    assert not processes_with(str(tmp_path))


def test_up_says_why_it_cannot_start(tmp_path: Path) -> None:
    """A data directory that cannot be is one line and status 1, and nothing runs."""
    (tmp_path / "file").write_text("in the way")
    done = subprocess.run(
        [*EDGERM, "up", "--data-dir", str(tmp_path / "file" / "data")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "--data-dir" in done.stderr


def test_up_ends_with_the_words_of_an_agent_that_cannot_start(tmp_path: Path) -> None:
    """What the agent says last is what `up` says, after everything else was stopped."""
    agent = tmp_path / "data" / "agent1"
    agent.parent.mkdir()
    agent.write_text("no directory")
    up = [*EDGERM, "up", "--data-dir", str(tmp_path / "data")]
    done = subprocess.run(up, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("edgerm up: agent1 could not start: edgerm agent: ")
    assert not processes_with(str(tmp_path))
