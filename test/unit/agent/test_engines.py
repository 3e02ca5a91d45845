"""Engines that are there, silent, away or later: what the agent finds without and with the `docker` package."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from edgerm.core.errors import Unavailable
from edgerm.core.ids import AgentId, FrameworkId, LaunchId, TaskId, TaskKey
from edgerm.plugin.executor import Handle, Inspection
from edgerm_agent import engines
from edgerm_agent import roster as module
from edgerm_agent.config import Config, Docker, Process
from edgerm_agent.doctor import check
from edgerm_agent.roster import DOCKER, Findings, Roster

AGENT = AgentId("0" * 32)
KEY = TaskKey(FrameworkId("f"), TaskId("t"), LaunchId("l"))
HANDLE = Handle(KEY, DOCKER, "engine-1")


class FakeEngine:
    """A container executor whose engine is there when the test says so."""

    answers = True
    held: tuple[Handle, ...] = ()
    made: int = 0

    def __init__(self, agent_id: AgentId, url: str, **_: object) -> None:
        type(self).made += 1
        self.url = url

    async def instance(self) -> str:
        """Always the same."""
        return "engine-1"

    async def inspect(self) -> Inspection:
        """What the engine holds."""
        if not type(self).answers:
            raise Unavailable(f"waits for the Docker engine at {self.url}")
        return Inspection({"cpus": "cgroup-v2"}, held=type(self).held)

    async def end_tasks(self) -> None:
        """Nothing runs."""

    async def close(self) -> None:
        """Nothing is open."""

    async def lost(self, instance: str) -> None:
        """It stays."""
        await asyncio.Event().wait()


@pytest.fixture(autouse=True)
def _engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_docker_executor", lambda: FakeEngine)
    monkeypatch.setattr(FakeEngine, "answers", True)
    monkeypatch.setattr(FakeEngine, "held", ())
    monkeypatch.setattr(FakeEngine, "made", 0)
    monkeypatch.setattr(module, "LOOK_S", 0.01)
    monkeypatch.setattr(module, "RETRY_FIRST_S", 0.01)


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """A socket at which nobody answers."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "d.sock"))
        yield tmp_path / "d.sock"


class Bench:
    """Rosters with nothing but an engine, and what they tell later."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._rosters: list[Roster] = []
        self.told: asyncio.Queue[tuple[str, Findings]] = asyncio.Queue()

    def roster(self, socket_path: Path, *needed: str, enabled: bool = True) -> Roster:
        """One for this engine."""
        docker = Docker(socket=f"unix://{socket_path}", enabled=enabled)
        roster = Roster(self._data_dir, AGENT, Process(), docker=docker, needed=needed)
        roster.executors.clear()
        self._rosters.append(roster)
        return roster

    def watch(self, roster: Roster) -> None:
        """From now on it tells."""
        roster.watch(lambda name, instance: None, lambda name, findings: self.told.put_nowait((name, findings)))

    async def close(self) -> None:
        """Close all."""
        for roster in self._rosters:
            await roster.close()


@pytest_asyncio.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """A bench; its rosters are closed."""
    made = Bench(tmp_path)
    yield made
    await made.close()


async def test_an_engine_that_answers_takes_tasks(bench: Bench, path: Path) -> None:
    """Its instance, limits and containers are found."""
    FakeEngine.held = (HANDLE,)
    found = await bench.roster(path).find()
    assert (found.instances, found.held, found.awaited) == ({DOCKER: "engine-1"}, {KEY: HANDLE}, {})
    assert found.enforced == {DOCKER: {"cpus": "cgroup-v2"}}


async def test_a_box_without_an_engine_pays_for_none(bench: Bench, tmp_path: Path) -> None:
    """Without a socket, or where containers are off, nothing is imported and nothing is found."""
    assert await bench.roster(tmp_path / "none").find() == Findings()
    assert await bench.roster(tmp_path).find() == Findings()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "d.sock"))
        assert await bench.roster(tmp_path / "d.sock", enabled=False).find() == Findings()
    assert FakeEngine.made == 0


async def test_a_silent_engine_is_awaited(bench: Bench, path: Path) -> None:
    """It is told as awaited, with the reason; once it answers, what it holds is told, once."""
    FakeEngine.answers = False
    roster = bench.roster(path)
    found = await roster.find()
    assert found.instances == {}
    assert found.awaited == {DOCKER: f"waits for the Docker engine at unix://{path}"}
    bench.watch(roster)
    FakeEngine.held = (HANDLE,)
    FakeEngine.answers = True
    async with asyncio.timeout(20):
        name, later = await bench.told.get()
    assert (name, later.instances, later.held) == (DOCKER, {DOCKER: "engine-1"}, {KEY: HANDLE})
    assert await roster.instance(DOCKER) == "engine-1"


async def test_an_engine_that_the_journal_needs_is_awaited(bench: Bench, tmp_path: Path) -> None:
    """Even if there is no socket, and even if containers are off now: then it takes no new tasks."""
    FakeEngine.answers = False
    for enabled in (True, False):
        roster = bench.roster(tmp_path / "none", DOCKER, enabled=enabled)
        assert set((await roster.find()).awaited) == {DOCKER}
        FakeEngine.answers, FakeEngine.held = True, (HANDLE,)
        bench.watch(roster)
        async with asyncio.timeout(20):
            _, later = await bench.told.get()
        assert (set(later.instances), set(later.held)) == ({DOCKER} if enabled else set(), {KEY})
        FakeEngine.answers = False


async def test_an_engine_that_appears_is_found(bench: Bench, tmp_path: Path) -> None:
    """What was not there at the start is looked for, and told when it is there."""
    roster = bench.roster(tmp_path / "d.sock")
    assert await roster.find() == Findings()
    bench.watch(roster)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "d.sock"))
        async with asyncio.timeout(20):
            name, later = await bench.told.get()
    assert (name, later.instances) == (DOCKER, {DOCKER: "engine-1"})


async def test_a_missing_package(bench: Bench, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the package an engine is not used; where the journal has containers, the agent says what to install."""

    def missing() -> type[FakeEngine]:
        raise ImportError("docker")

    monkeypatch.setattr(module, "_docker_executor", missing)
    assert await bench.roster(path).find() == Findings()
    with pytest.raises(Unavailable, match=r"pip install 'edgerm\[docker\]'"):
        await bench.roster(path, DOCKER).find()


def test_what_is_there(path: Path, tmp_path: Path) -> None:
    """A socket is an engine's, a file is not; what is on another box is taken to be there."""
    assert engines.is_there(f"unix://{path}")
    assert not engines.is_there(f"unix://{tmp_path}")
    assert not engines.is_there("unix://\0")
    assert engines.is_there("tcp://192.0.2.1:2375")
    assert engines.problem(f"unix://{path}") is None
    assert engines.problem("unix:///none") is None


def test_a_socket_that_may_not_be_used(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent outside the engine's group is told so, and the engine is not awaited for ever."""
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert "join the group" in (engines.problem(f"unix://{path}") or "")


@pytest.mark.parametrize(
    ("reply", "well"),
    [(b"HTTP/1.0 200 OK\r\n\r\nOK", True), (b"HTTP/1.0 500 Oh\r\n\r\n", False), (b"", False), (b"\xff\0", False)],
)
def test_whether_an_engine_answers(tmp_path: Path, reply: bytes, well: bool) -> None:
    """Only a good answer to a ping counts; silence and nonsense do not."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "d.sock"))
        assert not engines.answers(f"unix://{tmp_path / 'd.sock'}")  # nobody listens
        listener.listen()

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                assert connection.recv(1000).startswith(b"GET /_ping HTTP/1.0\r\n")
                connection.sendall(reply)

        thread = threading.Thread(target=answer)
        thread.start()
        assert engines.answers(f"unix://{tmp_path / 'd.sock'}") is well
        thread.join()


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "tcp://", "unix://" + "x" * 200, "tcp://h:x"])
def test_no_address_does_harm(address: str) -> None:
    """Where nothing can be, nothing answers."""
    assert not engines.answers(address)


def test_doctor_tells_of_the_engine(tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No engine is well, an engine that does not answer is not, and the line says what to do."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none")
    lines = {what: (well, remedy) for what, well, remedy in check(Config(data_dir=str(tmp_path / "data")))}
    assert lines[f"containers (none: there is no Docker engine at unix://{tmp_path}/none)"] == (True, "")
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
    lines = {what: (well, remedy) for what, well, remedy in check(Config(data_dir=str(tmp_path / "data")))}
    well, remedy = lines[f"containers, by the Docker engine at unix://{path}"]
    assert not well
    assert "start it" in remedy
