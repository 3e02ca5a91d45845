"""The keeper as a process: one per directory, outlives its clients, stays small, and ends with its lifeline."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

import edgerm_agent
from edgerm_agent.executors.holder import Connection, HolderProcess, keeper_command
from edgerm_agent.keeper import members, protocol
from edgerm_agent.keeper.protocol import Body, Refused
from edgerm_agent.keeper.ring import RING_BYTES

DEADLINE_S = 60
AGENT_FOLDER = Path(edgerm_agent.__file__).parent.parent


def key(name: str) -> list[str]:
    """A task's key."""
    return ["framework", name, "launch"]


def command(path: Path, name: str, script: str) -> Body:
    """The fields of a start."""
    env = [["PATH", "/usr/bin:/bin"]]
    tag = (members.place_of(str(path)) << members.TASK_BITS) + len(name) * 1000 + sum(name.encode())
    return {"key": key(name), "argv": ["sh", "-c", script], "env": env, "sandbox": str(path), "tag": tag}


@pytest_asyncio.fixture
async def holder(tmp_path: Path) -> AsyncIterator[HolderProcess]:
    """The keeper of a directory."""
    made = HolderProcess(tmp_path, "keeper", keeper_command())
    yield made
    await made.shutdown(force=True)


async def call(connection: Connection, verb: str, **fields: object) -> Body:
    """The reply's fields."""
    async with asyncio.timeout(DEADLINE_S):
        return (await connection.call(verb, **fields))[0]


def keeper_pid(path: Path) -> int:
    """As the lock file says."""
    return int((path / "keeper.lock").read_text())


def resident_kib(pid: int) -> int:
    """The most memory that a process has had resident."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


async def test_all_agents_find_one_keeper(tmp_path: Path, holder: HolderProcess) -> None:
    """Several who need the keeper at the same time all reach the same one, and only one runs."""
    others = [HolderProcess(tmp_path, "keeper", keeper_command()) for _ in range(4)]
    connections = await asyncio.gather(*(each.ensure() for each in (holder, *others)))
    assert len({connection.instance for connection in connections}) == 1
    for other in others:
        await other.close()


async def test_whoever_started_it_may_die_meanwhile(tmp_path: Path, holder: HolderProcess) -> None:
    """A keeper that nobody waits for any more serves the next agent all the same."""
    reading, writing = os.pipe()
    os.close(reading)
    argv = [*keeper_command(), str(tmp_path), "keeper", "--ready", str(writing)]
    with subprocess.Popen(argv, pass_fds=(writing,)) as started:
        os.close(writing)
        lock = tmp_path / "keeper.lock"
        while not (lock.exists() and lock.read_text()):
            assert started.poll() is None
            await asyncio.sleep(0.01)
        connection = await holder.ensure()
        assert keeper_pid(tmp_path) == started.pid
        assert (await call(connection, "list"))["tasks"] == []
        await holder.shutdown(force=True)
        assert started.wait(DEADLINE_S) == 0


async def test_a_second_keeper_leaves(tmp_path: Path, holder: HolderProcess) -> None:
    """A keeper started on a directory that has one exits with a code of its own and disturbs nothing."""
    connection = await holder.ensure()
    process = await asyncio.create_subprocess_exec(*keeper_command(), str(tmp_path), "keeper")
    assert await process.wait() == 3
    assert (await call(connection, "list"))["tasks"] == []


async def test_a_long_path_is_no_obstacle(tmp_path: Path) -> None:
    """A data directory whose path exceeds what a socket address holds works like any other."""
    path = tmp_path / ("d" * 100) / ("e" * 100)
    path.mkdir(parents=True)
    holder = HolderProcess(path, "keeper", keeper_command())
    assert (await holder.ensure()).instance
    await holder.shutdown(force=True)


async def test_the_socket_is_private(tmp_path: Path, holder: HolderProcess) -> None:
    """Only our own user can reach the keeper."""
    await holder.ensure()
    assert (tmp_path / "keeper.sock").stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it becomes another user")
async def test_another_user_is_not_served(tmp_path: Path, holder: HolderProcess) -> None:
    """A client of another user is cut off, even where the socket's mode would let it in."""
    await holder.ensure()
    (tmp_path / "keeper.sock").chmod(0o777)
    for folder in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        folder.chmod(0o755)
    script = (
        "import os, socket, sys; os.chdir(sys.argv[1]); os.setuid(65534);"
        "s = socket.socket(socket.AF_UNIX); s.connect('keeper.sock'); print(s.recv(1))"
    )
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-I", "-S", "-c", script, str(tmp_path)], capture_output=True, check=True
    )
    assert done.stdout == b"b''\n"


async def test_it_names_what_it_does_not_know(holder: HolderProcess) -> None:
    """An unknown verb, a bad field and an unknown task are each refused with their code; unknown fields are ignored."""
    connection = await holder.ensure()
    cases: list[tuple[str, Body, str]] = [
        ("dance", {}, protocol.UNKNOWN_VERB),
        ("wait", {"key": [1, 2, 3]}, protocol.INVALID),
        ("start", {"key": key("a"), "argv": "sh"}, protocol.INVALID),
        ("wait", {"key": key("a")}, protocol.NOT_FOUND),
    ]
    for verb, fields, code in cases:
        with pytest.raises(Refused) as caught:
            await call(connection, verb, **fields)
        assert caught.value.code == code
    assert (await call(connection, "list", color="blue"))["tasks"] == []


def talk(path: Path, data: bytes) -> list[Body]:
    """What a keeper answers to raw bytes until it closes, or a second hello's answer has come."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(DEADLINE_S)
        client.connect(str(path / "keeper.sock"))
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        frames, reader = [], protocol.FrameReader()
        while received := client.recv(65536):
            frames += [body for body, _ in reader.feed(received)]
        return frames


async def test_hello_comes_first_and_versions_must_meet(tmp_path: Path, holder: HolderProcess) -> None:
    """Without a hello nothing is done; a client with only newer versions is told which ones are spoken."""
    await holder.ensure()
    frames = await asyncio.to_thread(
        talk,
        tmp_path,
        protocol.encode({"id": 1, "verb": "list"})
        + protocol.encode({"id": 2, "verb": "hello", "versions": [7, 9]})
        + protocol.encode({"id": 3, "verb": "hello", "versions": [0, 9]}),
    )
    assert [frame.get("error") for frame in frames] == [protocol.VERSION, protocol.VERSION, None]
    assert f"1 to {protocol.VERSION_MAX} spoken here" in str(frames[1]["message"])
    assert frames[2]["version"] == protocol.VERSION_MAX


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1\r\n\r\n", protocol.HEAD.pack(2, 0) + b"[]", protocol.HEAD.pack(1 << 31, 0), b"\0" * 8]
)
async def test_a_malformed_client_is_cut_off(tmp_path: Path, holder: HolderProcess, data: bytes) -> None:
    """A client that sends no frames loses its connection, and others are served on."""
    connection = await holder.ensure()
    assert await asyncio.to_thread(talk, tmp_path, data) == []
    assert (await call(connection, "list"))["tasks"] == []


async def test_a_flood_is_read_in_bounded_memory(tmp_path: Path, holder: HolderProcess) -> None:
    """A task writes 200 MB and is never held up; the keeper grows by its rings at most, a neighbour is served."""
    connection = await holder.ensure()
    await call(connection, "start", **command(tmp_path, "warm", "yes | head -c 1000000; yes | head -c 1000000 >&2"))
    await call(connection, "wait", key=key("warm"))
    before = resident_kib(keeper_pid(tmp_path))
    await call(connection, "start", **command(tmp_path, "flood", "yes | head -c 200000000; printf end"))
    await call(connection, "start", **command(tmp_path, "neighbour", "echo fine"))
    exit_ = (await call(connection, "wait", key=key("neighbour")))["exit"]
    assert isinstance(exit_, dict)
    assert (exit_["code"], exit_["tail"]) == (0, "fine\n")
    await call(connection, "wait", key=key("flood"))
    reply, data = await connection.call("output", key=key("flood"), stream="stdout", offset=0, max=1 << 20, wait_s=0)
    assert (reply["offset"], len(data), reply["ended"]) == (200_000_003 - RING_BYTES, RING_BYTES, True)
    assert data.endswith(b"y\nend")
    assert resident_kib(keeper_pid(tmp_path)) - before < 1024


async def test_terminal_signals_end_nothing(tmp_path: Path, holder: HolderProcess) -> None:
    """SIGHUP, SIGINT and SIGPIPE leave the keeper and its tasks alone."""
    connection = await holder.ensure()
    await call(connection, "start", **command(tmp_path, "task", "sleep 1000"))
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGPIPE):
        os.kill(keeper_pid(tmp_path), number)
    tasks = (await call(connection, "list"))["tasks"]
    assert isinstance(tasks, list)
    assert [task["state"] for task in tasks] == ["running"]


async def test_sigterm_ends_it_and_its_tasks(tmp_path: Path, holder: HolderProcess) -> None:
    """SIGTERM ends all tasks, by SIGTERM first, and then the keeper."""
    connection = await holder.ensure()
    await call(connection, "start", **command(tmp_path, "task", "trap 'echo bye > said; exit' TERM; echo up; read x"))
    started = await call(connection, "start", **command(tmp_path, "other", "sleep 1000"))
    await connection.call("output", key=key("task"), stream="stdout", offset=0, max=10, wait_s=DEADLINE_S)
    os.kill(keeper_pid(tmp_path), signal.SIGTERM)
    async with asyncio.timeout(DEADLINE_S):
        await connection.lost.wait()
    assert isinstance(started["pid"], int)
    assert not members.is_alive(started["pid"])
    assert not (tmp_path / "keeper.sock").exists()


async def test_a_busy_keeper_is_not_shut_down(tmp_path: Path, holder: HolderProcess) -> None:
    """Without force the keeper ends only when it holds nothing."""
    connection = await holder.ensure()
    await call(connection, "start", **command(tmp_path, "task", "exit 0"))
    await call(connection, "wait", key=key("task"))
    with pytest.raises(Refused, match="holds 1 task"):
        await holder.shutdown(force=False)
    await call(connection, "release", key=key("task"))
    await holder.shutdown(force=False)
    assert await holder.connect() is None


async def test_a_long_list_comes_in_pages(tmp_path: Path, holder: HolderProcess) -> None:
    """More tasks than fit a page are listed page by page, each once."""
    connection = await holder.ensure()
    names = [f"task-{number:03}" for number in range(120)]
    starts = [call(connection, "start", **command(tmp_path, name, "exit 0")) for name in names]
    await asyncio.gather(*starts)
    seen: list[str] = []
    more, after = True, None
    while more:
        reply = await call(connection, "list", after=after)
        tasks, more = reply["tasks"], bool(reply["more"])
        assert isinstance(tasks, list)
        seen += [task["key"][1] for task in tasks]
        after = tasks[-1]["key"]
    assert seen == names


CLIENT = """
import asyncio, json, sys
from pathlib import Path
from edgerm_agent.executors.holder import HolderProcess, keeper_command

async def main():
    path = Path(sys.argv[1])
    connection = await HolderProcess(path, "keeper", keeper_command()).ensure()
    for fields in json.loads(sys.argv[2]):
        await connection.call("start", **fields)
    print(connection.instance, flush=True)
    await asyncio.sleep(1000)

asyncio.run(main())
"""


async def test_tasks_outlive_a_killed_agent(tmp_path: Path, holder: HolderProcess) -> None:
    """After kill -9 of the agent that started them, tasks run on, can write, and tell the next agent their exits."""
    os.mkfifo(tmp_path / "gate")
    fields = [command(tmp_path, "runs", "read x < gate; echo still here; exit 5"), command(tmp_path, "ends", "exit 6")]
    agent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CLIENT, str(tmp_path), json.dumps(fields), stdout=subprocess.PIPE
    )
    assert agent.stdout is not None
    async with asyncio.timeout(DEADLINE_S):
        instance = (await agent.stdout.readline()).decode().strip()
        agent.kill()
        await agent.wait()
    connection = await holder.ensure()
    assert connection.instance == instance
    await asyncio.to_thread((tmp_path / "gate").write_text, "go\n")
    exits = [(await call(connection, "wait", key=key(name)))["exit"] for name in ("runs", "ends")]
    assert [exit_["code"] for exit_ in exits if isinstance(exit_, dict)] == [5, 6]
    _, data = await connection.call("output", key=key("runs"), stream="stdout", offset=0, max=100, wait_s=0)
    assert data == b"still here\n"


async def test_the_lifeline_ends_all(tmp_path: Path) -> None:
    """When the last writer of the lifeline is gone, all tasks and the keeper end, tasks that ignore SIGTERM too."""
    read, write = os.pipe()
    holder = HolderProcess(tmp_path, "keeper", keeper_command(), lifeline=read)
    connection = await holder.ensure()
    os.close(read)
    script = "trap '' TERM; echo up; while :; do sleep 0.1; done"
    pids = [(await call(connection, "start", **command(tmp_path, name, script)))["pid"] for name in ("one", "three")]
    await connection.call("output", key=key("one"), stream="stdout", offset=0, max=10, wait_s=DEADLINE_S)
    os.close(write)
    async with asyncio.timeout(DEADLINE_S):
        await connection.lost.wait()
    await holder.close()
    for pid in pids:
        assert isinstance(pid, int)
        assert not members.is_alive(pid)


async def test_a_new_keeper_sweeps(tmp_path: Path, holder: HolderProcess) -> None:
    """A keeper that starts where an earlier one was killed first ends what that one left, before it serves."""
    connection = await holder.ensure()
    pid = (await call(connection, "start", **command(tmp_path, "left", "setsid sleep 1000 & sleep 1000")))["pid"]
    os.kill(keeper_pid(tmp_path), signal.SIGKILL)
    async with asyncio.timeout(DEADLINE_S):
        await connection.lost.wait()
    again = await holder.ensure()
    assert again.instance != connection.instance
    assert isinstance(pid, int)
    assert not members.is_alive(pid)
    place = members.place_of(str(tmp_path))
    assert not [tag for tag in members.tagged() if tag >> members.TASK_BITS == place]


def test_it_needs_the_standard_library_only() -> None:
    """The keeper imports nothing but the standard library and its own package."""
    script = (
        "import sys; sys.path.append(sys.argv[1]); before = set(sys.modules)\n"
        "import edgerm_agent.keeper.program, edgerm_agent.keeper.processes\n"
        "print(*{name.split('.')[0] for name in set(sys.modules) - before} - sys.stdlib_module_names)\n"
        "print(*(name for name in sys.modules if name.startswith('edgerm_agent.')))\n"
    )
    arguments = [sys.executable, "-I", "-S", "-c", script, str(AGENT_FOLDER)]
    foreign, own = subprocess.run(arguments, capture_output=True, check=True, text=True).stdout.splitlines()
    assert foreign.split() == ["edgerm_agent"]
    assert all(name.startswith("edgerm_agent.keeper") for name in own.split())
