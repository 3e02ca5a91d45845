"""The examples of README and docs as a test runs them: found by their fences, played in order, compared.

A page is a story: its examples share a folder, in which `module.wasm` lies, and the programs that they start. A comment
on the line before a fence says what is not plain (docs/checklists/new-page.md has the list):

    <!-- test: skip WHY -->     not run; WHY is one of those that test_docs_examples.py counts
    <!-- test: file NAME -->    not run, but written to NAME in the page's folder
    <!-- test: background -->   a command that goes on to the end of the page; what is shown are its first lines

What a command says on stderr may be shown below its output or left out: how much depends on how long it waits.

What does not live here: which pages there are, and which reasons to skip.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import edgerm_agent.config
import edgerm_master.config
from edgerm.core.errors import Invalid
from edgerm.sdk.claimfile import read_claims
from edgerm_frameworks.modules import WINDOWED_STATS
from support.processes import free_port

FENCE = re.compile(r"^(?:<!-- test: (\w+)(?: ([^\n]*?))? -->\n)?```(\w+)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
STUCK_S = 240.0  # whatever takes so long is stuck, also on a loaded machine
MASTER, COAP = 5050, 5683  # the ports that pages name
ROOT_USER = {"EDGERM_EXECUTORS_PROCESS_USER": "root"} if os.geteuid() == 0 else {}


@dataclass(frozen=True, slots=True)
class Example:
    """A fenced block. `mark` is what the comment before it says: "", "skip", "file" or "background"."""

    page: Path
    line: int
    language: str
    text: str
    mark: str
    argument: str

    @property
    def where(self) -> str:
        return f"{self.page.name}:{self.line}"


def examples_of(page: Path) -> list[Example]:
    """Every fenced block of a page that names a language, in order."""
    text = page.read_text()
    return [
        Example(page, text.count("\n", 0, found.start(3)) + 1, found[3], found[4], found[1] or "", found[2] or "")
        for found in FENCE.finditer(text)
    ]


def commands_of(text: str) -> list[tuple[str, list[str]]]:
    """The commands of a console block, each with the lines shown below it."""
    commands: list[tuple[str, list[str]]] = []
    for line in text.splitlines():
        if commands and commands[-1][0].endswith("\\"):
            commands[-1] = (f"{commands[-1][0][:-1]}{line.lstrip('> ')}", [])
        elif line.startswith("$ "):
            commands.append((line[2:], []))
        else:
            assert commands, f"{line!r} stands before any command: begin commands with '$ '"
            commands[-1][1].append(line)
    return commands


def shows(documented: list[str], real: str) -> bool:
    """Whether the output is what a page shows: "…" is anything in a line, alone any lines; several blanks are one."""
    pattern = ""
    for line in _squeezed(documented):
        pattern += r"(?:.*\n)*?" if line == "…" else ".*".join(map(re.escape, line.split("…"))) + r"\n"
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in _squeezed(real.splitlines()))) is not None


def _squeezed(lines: list[str]) -> list[str]:
    return [" ".join(line.split()) for line in lines]


class Lifeline:
    """Programs that end, with all that they started, when it does."""

    def __init__(self) -> None:
        self._ours, self._theirs = socket.socketpair()
        self._programs: list[subprocess.Popen[str]] = []

    def start(self, command: str, documented: list[str], folder: Path, env: Mapping[str, str], log: Path) -> str:
        """Start a command, which goes on; what it says first, as many lines as are shown of it."""
        held = self._theirs.fileno()
        with log.open("ab") as errors:
            program = subprocess.Popen(
                ["bash", "-c", f"exec {command} --lifeline {held}"],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=folder,
                env=env,
                pass_fds=(held,),
            )
        self._programs.append(program)
        assert program.stdout is not None
        late = threading.Timer(STUCK_S, program.kill)
        late.start()
        said = [program.stdout.readline() for _ in documented]
        late.cancel()
        assert all(said), f"{command} ended: {''.join(said)}{log.read_text()[-2000:]}"
        return "".join(said)

    def end(self) -> None:
        """End them, and wait for all who hold the other end."""
        self._theirs.close()
        self._ours.shutdown(socket.SHUT_WR)
        self._ours.settimeout(STUCK_S)
        try:
            while self._ours.recv(4096):
                pass
        finally:
            self._ours.close()
            for program in self._programs:
                program.wait(STUCK_S)
                assert program.stdout is not None
                program.stdout.close()


@dataclass(frozen=True, slots=True)
class Cluster:
    """What `edgerm up` started for all pages, and what it said."""

    port: int
    said: str


UP = f"edgerm up --http 127.0.0.1:{MASTER}"
UP_LINES = 7


@contextmanager
def running_cluster(folder: Path) -> Iterator[Cluster]:
    """`edgerm up`, as pages start it, until the block is left."""
    port, lifeline = free_port(), Lifeline()
    command = UP.replace(str(MASTER), str(port)) + (" --process-user root" if os.geteuid() == 0 else "")
    try:
        yield Cluster(port, lifeline.start(command, [""] * UP_LINES, folder, _environment(), folder / "up.log"))
    finally:
        lifeline.end()


def _environment() -> dict[str, str]:
    """Ours, with the programs of this Python first and nothing that a person may have set for edgerm."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("EDGERM_")}
    return {**kept, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', os.defpath)}"}


class Story:
    """One page, played."""

    def __init__(self, folder: Path, cluster: Cluster, examples: list[Example]) -> None:
        own_master = any(each.mark == "background" and "edgerm master" in each.text for each in examples)
        self._folder = folder
        self._cluster = cluster
        self._examples = examples
        self._ports = {MASTER: free_port() if own_master else cluster.port, COAP: free_port()}
        self._lifeline = Lifeline()
        self._env = {**_environment(), "EDGERM_MASTER": f"http://127.0.0.1:{self._ports[MASTER]}"}
        shutil.copy(WINDOWED_STATS, folder / "module.wasm")

    def play(self) -> None:
        """All examples in order; AssertionError says which is not true."""
        with ExitStack() as stack:
            stack.callback(self._lifeline.end)
            for example in self._examples:
                text = self._here(example.text)
                if example.mark == "file":
                    (self._folder / example.argument).write_text(text)
                elif example.mark == "background":
                    self._background(example, text)
                elif example.mark != "skip":
                    self._player(example.language)(example, text)

    def _player(self, language: str) -> Callable[[Example, str], None]:
        players = {"python": self._python, "console": self._console, "toml": self._toml, "yaml": self._yaml}
        return players[language]

    def _here(self, text: str) -> str:
        """The addresses of this test in place of those that a page names."""
        for named, real in self._ports.items():
            text = re.sub(rf"(127\.0\.0\.1|10\.0\.0\.1):{named}\b", f"127.0.0.1:{real}", text)
        return text.replace("10.0.0.1", "127.0.0.1")

    def _python(self, example: Example, text: str) -> None:
        script = self._folder / f"line{example.line}.py"
        script.write_text(text)
        done = self._run(f"python3 {script.name}")
        assert done.returncode == 0, f"{example.where}: {done.stdout}{done.stderr}"

    def _console(self, example: Example, text: str) -> None:
        for command, documented in commands_of(text):
            if command == self._here(UP):
                assert shows(documented, self._cluster.said), f"{example.where}: {command}\n{self._cluster.said}"
            elif setting := re.fullmatch(r"export (\w+)=(\S+)", command):
                self._env[setting[1]] = setting[2]
            else:
                done = self._run(command)
                told = f"{example.where}: {command}\n{done.stdout}{done.stderr}"
                assert done.returncode == 0, told
                said = (done.stdout, done.stdout + done.stderr)
                assert not documented or any(shows(documented, each) for each in said), told

    def _run(self, command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-o", "pipefail", "-c", command],
            cwd=self._folder,
            env=self._env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=STUCK_S,
            check=False,
        )

    def _background(self, example: Example, text: str) -> None:
        [(command, documented)] = commands_of(text)
        name = command.split()[1]
        listens = {"EDGERM_HTTP": f"127.0.0.1:{self._ports[MASTER]}", "EDGERM_COAP": "127.0.0.1:0"}
        own = {"master": listens, "agent": {"EDGERM_PORT": "0", **ROOT_USER}}[name]
        env = {**self._env, **own, "EDGERM_DATA_DIR": str(self._folder / name)}
        said = self._lifeline.start(command, documented, self._folder, env, self._folder / f"{name}.log")
        assert shows(documented, said), f"{example.where}: {command}\n{said}"

    def _yaml(self, example: Example, text: str) -> None:
        """A claim file is read as the command reads it."""
        assert read_claims(text), f"{example.where}: it claims nothing"

    def _toml(self, example: Example, text: str) -> None:
        """The settings of a master or of an agent, as their programs read them."""
        file = self._folder / f"line{example.line}.toml"
        file.write_text(text)
        refusals = []
        for settings in (edgerm_agent.config, edgerm_master.config):
            try:
                settings.load(file)
            except Invalid as error:
                refusals.append(str(error))
        assert len(refusals) < 2, f"{example.where}: {refusals}"
