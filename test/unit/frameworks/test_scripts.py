"""The programs that samples run on agents, as agents run them: read from standard input, with their ports told."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from edgerm.core.ids import AgentId
from edgerm.core.resources import Resources
from edgerm.core.scheduler import AgentSpec
from edgerm.sdk import Agent
from edgerm_frameworks.profiler import Profile, show
from edgerm_frameworks.scripts import ECHO, PROBE


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def echo(ports: str) -> Iterator[int]:
    """An echo server that listens; its port."""
    with (
        ECHO.open("rb") as script,
        subprocess.Popen(
            [sys.executable, "-"], stdin=script, stdout=subprocess.PIPE, env={"EDGERM_PORTS": ports}
        ) as server,
    ):
        assert server.stdout is not None
        try:
            yield int(server.stdout.readline())
        finally:
            server.kill()


def probe(*targets: str) -> list[str]:
    """What the probe prints."""
    with PROBE.open("rb") as script:
        done = subprocess.run([sys.executable, "-", *targets], stdin=script, capture_output=True, check=True, text=True)
    return done.stdout.splitlines()


@pytest.mark.parametrize("form", ["{}", "{}-65535", "{},65535"])
def test_the_echo_server_takes_the_first_of_its_ports(form: str) -> None:
    """However the ports are written."""
    port = free_port()
    with echo(form.format(port)) as told:
        assert told == port


def test_a_probe_measures_what_answers_and_says_why_what_does_not() -> None:
    """A line for each target, in order; one that cannot be reached does not keep the others from being measured."""
    nobody = f"127.0.0.1:{free_port()}"
    with echo(str(free_port())) as port:
        first, second = probe(nobody, f"127.0.0.1:{port}")
    assert first.startswith(f"{nobody} - ")
    assert "refused" in first
    assert re.fullmatch(rf"127\.0\.0\.1:{port} \d+\.\d{{3}}", second)


def test_the_matrix_says_who_cannot_be_reached(capsys: pytest.CaptureFixture[str]) -> None:
    """A row and a column for each agent, in the same order; no number where there is none."""
    a, b = (Agent(AgentId(name), AgentSpec(f"box-{name}"), Resources(), reachable=True) for name in "ab")
    show([Profile(a, 8e8, {a.agent_id: 0.05, b.agent_id: None}), Profile(b, 1e8, {a.agent_id: 12.5, b.agent_id: 0.1})])
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["AGENT", "MSTEPS/S", "→", "box-a", "→", "box-b"],
        ["box-a", "800", "0.050", "ms", "unreachable"],
        ["box-b", "100", "12.500", "ms", "0.100", "ms"],
    ]
