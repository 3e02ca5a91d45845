"""`make demo` without make: real processes, real work, nothing left."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.engine import TestEngine

DEMO = [sys.executable, "-m", "edgerm_frameworks.demo"]


def family_of(pid: int) -> list[int]:
    """Descriptors of the processes whose environment says that this demo started them."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != pid:
            try:
                mine = f"DEMO_TEST={os.getpid()}".encode() in (folder / "environ").read_bytes().split(b"\0")
                if mine:
                    found.append(os.pidfd_open(int(folder.name)))
            except (OSError, ProcessLookupError):
                continue
    return found


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """Temporary files go where they can be counted, children are told apart, and there is no Docker engine."""
    nowhere = f"unix://{tmp_path}/no-engine.sock"
    return {**os.environ, "TMPDIR": str(tmp_path), "DEMO_TEST": str(os.getpid()), "DOCKER_HOST": nowhere}


def test_the_demo_shows_a_table_and_leaves_nothing(env: dict[str, str], tmp_path: Path) -> None:
    """Every result is right, the status is 0, and neither files nor processes stay."""
    done = subprocess.run(DEMO, capture_output=True, text=True, timeout=120, env=env, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(re.findall(r"^sensor\d\d .* right ", done.stdout, re.MULTILINE)) == 24
    assert "24 tasks on 2 agents" in done.stdout
    assert "no agent has a Docker engine that answers: the container is left out" in done.stdout
    assert done.stdout.endswith("everything is stopped\n")
    assert "\r" not in done.stdout
    assert list(tmp_path.iterdir()) == []
    assert family_of(os.getpid()) == []


def test_the_demo_runs_a_container(env: dict[str, str], engine: TestEngine) -> None:
    """Where an engine answers, one container of busybox says hello, and none is left."""
    engine.import_image("busybox:latest")
    env = {**env, "DOCKER_HOST": engine.url}
    with engine.client() as client:
        before = {found["Id"] for found in client.containers(all=True)}
        done = subprocess.run(DEMO, capture_output=True, text=True, timeout=120, env=env, check=False)
        after = {found["Id"] for found in client.containers(all=True)}
    assert (done.returncode, done.stderr) == (0, "")
    assert "one container of busybox: hello from a container\n" in done.stdout
    assert after == before


def test_the_demo_shows_live_progress_in_a_terminal(env: dict[str, str]) -> None:
    """A bar that moves, and the table below it."""
    ours, theirs = pty.openpty()
    demo = subprocess.Popen(DEMO, stdout=theirs, stderr=theirs, env=env)
    os.close(theirs)
    shown = b""
    try:
        while piece := os.read(ours, 65536):
            shown += piece
    except OSError:  # what a terminal says at its end
        pass
    os.close(ours)
    assert demo.wait(60) == 0
    assert b"\r  [" in shown and b"24/24 sensors" in shown


@pytest.mark.parametrize("way", [signal.SIGINT, signal.SIGKILL])
def test_the_demo_leaves_nothing_when_it_is_stopped(env: dict[str, str], way: signal.Signals) -> None:
    """Neither Ctrl-C nor kill -9 leaves a process behind."""
    demo = subprocess.Popen(
        DEMO,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=env,
        # A test run in the background of a shell inherits an ignored SIGINT; a person at a terminal does not.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - no threads here
    )
    assert demo.stdout is not None
    while "master at" not in demo.stdout.readline():
        pass
    family = family_of(demo.pid)
    demo.send_signal(way)
    _, said = demo.communicate(timeout=60)
    assert demo.returncode == (130 if way is signal.SIGINT else -9)
    assert "Traceback" not in said
    assert family
    for descriptor in family:
        assert select.select([descriptor], [], [], 60)[0]
        os.close(descriptor)
