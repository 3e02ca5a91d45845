"""The process executor on a real keeper and real processes, with the cgroups that this box allows and without."""

from __future__ import annotations

import asyncio
import os
import pwd
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from edgerm.core.ids import FrameworkId, LaunchId, TaskId, TaskKey
from edgerm.plugin.executor import Exit, ExitReason, Handle, LaunchFailed, LaunchSpec, Limits
from edgerm.testing.conformance.executor import ExecutorSuite
from edgerm_agent.cgroups import Cgroups, open_cgroups
from edgerm_agent.cgroups.groups import Files
from edgerm_agent.executors.process import ProcessExecutor
from edgerm_agent.keeper import members

DEADLINE_S = 60
ENV = (("PATH", "/usr/local/bin:/usr/bin:/bin"),)
OURSELVES = pwd.getpwuid(os.geteuid()).pw_name
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it becomes another user")


def cgroups_of(path: Path, kind: str) -> Cgroups:
    """This box's cgroups for a data directory, or none."""
    return Cgroups(Files(), {}) if kind == "none" else open_cgroups(f"test-{os.getpid()}-{path.stat().st_ino}")


async def end(path: Path, kind: str) -> None:
    """End the keeper of `path` and all that it holds; remove its cgroups."""
    executor = ProcessExecutor(path, cgroups_of(path, kind), user=OURSELVES)
    held = (await executor.inspect()).held
    await executor.holder.shutdown(force=True)
    cgroups = cgroups_of(path, kind)
    for handle in held:
        with suppress(AttributeError):
            cgroups.find(handle.key).remove()  # type: ignore[union-attr]
    for group in cgroups.orphans(()):
        group.kill()
        group.remove()
    cgroups.discard()


def command(spec: LaunchSpec, *argv: str, **fields: object) -> LaunchSpec:
    """`spec` as a program that is called by its own name."""
    return replace(spec, program=argv[0] if argv else "", argv=argv, **fields)  # type: ignore[arg-type]


def shell(spec: LaunchSpec, script: str, *args: str) -> LaunchSpec:
    """`spec` as a shell script."""
    return command(spec, "sh", "-c", script, "sh", *args, env=ENV)


class ProcessSuite(ExecutorSuite):
    """Tasks are shell scripts."""

    kind = "none"

    async def make_executor(self, path: Path) -> ProcessExecutor:
        """On the keeper of `path`."""
        return ProcessExecutor(path, cgroups_of(path, self.kind), user=OURSELVES)

    async def close_executor(self, executor: ProcessExecutor) -> None:  # type: ignore[override]
        """The keeper goes on."""
        await executor.close()

    async def discard(self, path: Path) -> None:
        """End the keeper."""
        await end(path, self.kind)

    def task_that_ends(self, spec: LaunchSpec, code: int, stdout: bytes, stderr: bytes) -> LaunchSpec:
        """A script."""
        script = 'printf %s "$1"; printf %s "$2" >&2; exit $3'
        return shell(spec, script, stdout.decode(), stderr.decode(), str(code))

    def task_that_runs(self, spec: LaunchSpec) -> LaunchSpec:
        """A script."""
        return shell(spec, "echo up; exec sleep 1000")


class TestWithoutCgroups(ProcessSuite):
    """As on a box whose user may make no cgroup."""


class TestWithCgroups(ProcessSuite):
    """With what this box allows."""

    kind = "box"


@pytest.fixture(params=["none", "box"])
def kind(request: pytest.FixtureRequest) -> str:
    """Without cgroups and with this box's."""
    return str(request.param)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory."""
    path = tmp_path / "data"
    path.mkdir()
    return path


@pytest_asyncio.fixture
async def executor(data: Path, kind: str) -> AsyncIterator[ProcessExecutor]:
    """An executor for one test."""
    made = ProcessExecutor(data, cgroups_of(data, kind), user=OURSELVES)
    yield made
    await made.close()
    await end(data, kind)


@pytest.fixture
def spec(tmp_path: Path) -> LaunchSpec:
    """A launch with a sandbox."""
    sandbox = tmp_path / "sandbox"
    sandbox.mkdir()
    key = TaskKey(FrameworkId("framework"), TaskId("task"), LaunchId("launch"))
    return LaunchSpec(key, "true", ("true",), ENV, sandbox)


async def run(executor: ProcessExecutor, spec: LaunchSpec) -> Exit:
    """Start and await."""
    async with asyncio.timeout(DEADLINE_S):
        return await executor.wait(await executor.start(spec))


async def first_line(executor: ProcessExecutor, handle: Handle) -> str:
    """The first bytes that the task writes."""
    async with asyncio.timeout(DEADLINE_S):
        return (await executor.output(handle, "stdout", 0, 1000, DEADLINE_S)).data.decode()


def is_gone(pid: int) -> bool:
    """No thread of that process runs."""
    return not members.is_alive(pid)


async def test_a_task_gets_only_what_it_was_given(executor: ProcessExecutor, spec: LaunchSpec) -> None:
    """Environment, working directory, umask, descriptors and session are as stated; nothing of the agent's is there."""
    source = (
        "import os, signal\n"
        "print(dict(os.environ), os.getcwd(), oct(os.umask(0)), sorted(map(int, os.listdir('/proc/self/fd')))[:3],"
        " len(os.listdir('/proc/self/fd')), signal.pthread_sigmask(signal.SIG_BLOCK, ()), os.getsid(0) == os.getpid(),"
        " repr(os.read(0, 10)))"
    )
    env = (*ENV, ("LC_CTYPE", "C.UTF-8"), ("NAME", "ä=\udcff b"))
    await run(executor, command(spec, sys.executable, "-I", "-S", "-c", source, env=env))
    handle = (await executor.inspect()).held[0]
    told = await first_line(executor, handle)
    assert told == (f"{dict(env)} {spec.sandbox} 0o22 [0, 1, 2] 4 set() True b''\n")


async def test_signals_are_as_in_a_login_shell(executor: ProcessExecutor, spec: LaunchSpec) -> None:
    """No signal is blocked or ignored at a task's start, though the keeper ignores some."""
    exit_ = await run(executor, command(spec, "grep", "-E", "Sig(Blk|Ign)", "/proc/self/status"))
    blocked, ignored = (int(mask, 16) for mask in exit_.tail.split()[1::2])
    internal = 0b11 << 31  # 32 and 33: glibc ignores its own two in what posix_spawn starts, and lets nobody undo it
    assert (blocked, ignored & ~internal) == (0, 0)


async def test_a_stopped_task_sees_sigterm(executor: ProcessExecutor, spec: LaunchSpec) -> None:
    """A task that is stopped by a signal, as by job control, is continued so that it can end within its grace."""
    script = "trap 'exit 7' TERM; echo up; kill -STOP $$; while :; do sleep 0.05; done"
    handle = await executor.start(shell(spec, script))
    await first_line(executor, handle)
    assert handle.pid is not None
    while members.stat_of(handle.pid)[0] != "T":
        await asyncio.sleep(0.01)
    async with asyncio.timeout(DEADLINE_S):
        await executor.stop(handle, DEADLINE_S * 2)
        assert (await executor.wait(handle)).code == 7


async def test_stdin_is_a_file(executor: ProcessExecutor, spec: LaunchSpec, tmp_path: Path) -> None:
    """A task reads its input file; an input that is missing or no regular file refuses the launch."""
    (tmp_path / "input").write_text("hello\n")
    os.mkfifo(tmp_path / "fifo")
    exit_ = await run(executor, command(spec, "cat", stdin=tmp_path / "input"))
    assert (exit_.code, exit_.tail) == (0, "hello\n")
    for name in ("fifo", "none"):
        key = spec.key._replace(launch_id=LaunchId(name))
        with pytest.raises(LaunchFailed, match="cannot open the input"):
            await executor.start(command(spec, "cat", key=key, stdin=tmp_path / name))


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        ((), "empty"),
        (("",), "empty"),
        (("no-such-program",), "no such program: no-such-program .PATH=/usr/local"),
        (("/no/such",), "cannot run /no/such: No such file"),
        (("/etc/passwd",), "cannot run /etc/passwd: Permission denied"),
        (("a\0b",), "NUL"),
        (("true", "x" * (1 << 18)), "Argument list too long"),
        (("true", "x" * (1 << 21)), "at most 1 MiB"),
    ],
)
async def test_a_program_that_cannot_run(
    executor: ProcessExecutor, spec: LaunchSpec, argv: tuple[str, ...], text: str
) -> None:
    """Each reason why a program cannot start is told in one line, and leaves neither task nor cgroup."""
    with pytest.raises(LaunchFailed, match=text):
        await executor.start(command(spec, *argv))
    assert (await executor.inspect()).held == ()
    assert (await run(executor, spec)).code == 0


@pytest.mark.parametrize("program", ["cat", "/bin/cat"])
async def test_a_task_sees_the_name_it_is_given(executor: ProcessExecutor, spec: LaunchSpec, program: str) -> None:
    """The program is found by its own name, and sees whatever argv[0] it is given: a login shell's `-sh`."""
    exit_ = await run(executor, replace(spec, program=program, argv=("-another", "/proc/self/cmdline")))
    assert (exit_.code, exit_.tail) == (0, "-another\0/proc/self/cmdline\0")


async def test_a_signal_is_told(executor: ProcessExecutor, spec: LaunchSpec) -> None:
    """A task that a signal killed is reported with the signal and its name."""
    exit_ = await run(executor, shell(spec, "kill -SEGV $$"))
    assert (exit_.code, exit_.signal, exit_.message) == (None, signal.SIGSEGV, "killed by SIGSEGV")


async def test_the_tail_is_the_end_of_stderr_and_valid(executor: ProcessExecutor, spec: LaunchSpec) -> None:
    """The tail is at most 4 KiB of valid UTF-8 from the end of stderr, whatever bytes are there."""
    source = "import os; os.write(1, b'no'); os.write(2, b'\\xff' * 9000 + '\\u20ac'.encode() * 2000)"
    exit_ = await run(executor, command(spec, sys.executable, "-c", source))
    assert exit_.tail == "€" * (4096 // 3)


async def test_sigterm_comes_first(executor: ProcessExecutor, spec: LaunchSpec) -> None:
    """A task that handles SIGTERM ends by itself within its grace."""
    handle = await executor.start(shell(spec, "trap 'echo bye; exit 7' TERM; echo up; while :; do sleep 0.05; done"))
    await first_line(executor, handle)
    async with asyncio.timeout(DEADLINE_S):
        await executor.stop(handle, DEADLINE_S * 2)
        exit_ = await executor.wait(handle)
    assert (exit_.code, exit_.signal) == (7, None)
    assert b"bye" in (await executor.output(handle, "stdout", 0, 100, 0)).data


async def test_sigkill_follows_and_a_second_stop_shortens(executor: ProcessExecutor, spec: LaunchSpec) -> None:
    """A task that ignores SIGTERM is killed after its grace; a later stop makes that earlier, never later."""
    handle = await executor.start(shell(spec, "trap '' TERM; echo up; while :; do sleep 0.05; done"))
    await first_line(executor, handle)
    async with asyncio.timeout(DEADLINE_S):
        await executor.stop(handle, 10 * DEADLINE_S)
        await executor.stop(handle, 0.05)
        await executor.stop(handle, 10 * DEADLINE_S)
        assert (await executor.wait(handle)).signal == signal.SIGKILL


DAEMONS = (
    'echo up; (setsid sh -c "echo \\$\\$ > one; exec sleep 1000" & ); (setsid setsid sh -c "trap \'\' TERM; '
    'echo \\$\\$ > two; while :; do sleep 1000; done" >/dev/null 2>&1 & ); '
    "until test -s one && test -s two; do sleep 0.01; done; "
)


@pytest.mark.parametrize("last", ["exit 0", "wait; sleep 1000"])
async def test_daemons_die_with_their_task(executor: ProcessExecutor, spec: LaunchSpec, last: str) -> None:
    """Whatever a task leaves, in sessions of its own too, is dead when its end is told."""
    handle = await executor.start(shell(spec, DAEMONS + "touch all; " + last))
    if last != "exit 0":
        await first_line(executor, handle)
        while not (spec.sandbox / "all").exists():
            await asyncio.sleep(0.01)
        await executor.stop(handle, 0.2)
    async with asyncio.timeout(DEADLINE_S):
        exit_ = await executor.wait(handle)
    assert (exit_.code == 0) == (last == "exit 0")
    assert [is_gone(int((spec.sandbox / name).read_text())) for name in ("one", "two")] == [True, True]


RABBIT = """
import os, time
until = time.monotonic() + 30
if os.fork() == 0:
    while time.monotonic() < until:
        if os.fork():
            os._exit(0)
print("up", flush=True)
time.sleep(1000)
"""


async def test_a_task_that_keeps_forking_dies(executor: ProcessExecutor, spec: LaunchSpec) -> None:
    """A process that forks and exits all the time, and so has a new id whenever looked for, dies with its task."""
    handle = await executor.start(command(spec, sys.executable, "-I", "-S", "-c", RABBIT))
    await first_line(executor, handle)
    async with asyncio.timeout(DEADLINE_S):
        await executor.stop(handle, 0)
        await executor.wait(handle)
    assert not members.tagged().get(executor._tag(spec.key))


async def test_the_memory_limit(executor: ProcessExecutor, spec: LaunchSpec, kind: str) -> None:
    """A task that takes more memory than its limit ends: with reason MEMORY by cgroup, else told in the message."""
    source = "data = bytearray(200 << 20); print(len(data))"
    limits = Limits(memory_bytes=64 << 20)
    exit_ = await run(executor, command(spec, sys.executable, "-I", "-S", "-c", source, limits=limits))
    if executor._cgroups.enforced()["mem"] == "rlimit":
        assert (exit_.reason, exit_.code) == (ExitReason.ENDED, 1)
        assert exit_.message == "exited with code 1; its address space was limited to 64 MiB"
        assert "MemoryError" in exit_.tail
    else:
        assert (exit_.reason, exit_.signal) == (ExitReason.MEMORY, signal.SIGKILL)


async def test_the_sandbox_quota(executor: ProcessExecutor, spec: LaunchSpec) -> None:
    """A task whose sandbox outgrows its quota is killed and reported with reason DISK."""
    script = "head -c 3000000 /dev/zero > big; sleep 1000"
    exit_ = await run(executor, replace(shell(spec, script), limits=Limits(disk_bytes=1_000_000)))
    assert (exit_.reason, exit_.signal) == (ExitReason.DISK, signal.SIGKILL)
    assert "1000000 are allowed" in exit_.message


async def test_the_quota_is_watched_after_adoption(data: Path, kind: str, spec: LaunchSpec) -> None:
    """An agent that adopts a task watches its sandbox too, though only the keeper remembers the limit."""
    first = ProcessExecutor(data, cgroups_of(data, kind), user=OURSELVES)
    script = "until test -e go; do sleep 0.02; done; head -c 3000000 /dev/zero > big; sleep 1000"
    handle = await first.start(replace(shell(spec, script), limits=Limits(disk_bytes=1_000_000)))
    await first.close()
    second = ProcessExecutor(data, cgroups_of(data, kind), user=OURSELVES)
    try:
        assert await second.adopt(handle)
        (spec.sandbox / "go").touch()
        async with asyncio.timeout(DEADLINE_S):
            assert (await second.wait(handle)).reason is ExitReason.DISK
    finally:
        await second.close()
        await end(data, kind)


async def test_a_dead_keeper(executor: ProcessExecutor, spec: LaunchSpec) -> None:
    """When the keeper is killed its tasks are told as EXECUTOR_DIED, nothing of them lives, and new tasks start."""
    handle = await executor.start(shell(spec, DAEMONS + "echo $$ >> one; touch all; sleep 1000"))
    while not (spec.sandbox / "all").exists():
        await asyncio.sleep(0.01)
    waiting = asyncio.create_task(executor.wait(handle))
    os.kill(int((executor.holder.data_dir / "keeper.lock").read_text()), signal.SIGKILL)
    async with asyncio.timeout(DEADLINE_S):
        exit_ = await waiting
    assert (exit_.reason, exit_.code, exit_.signal) == (ExitReason.EXECUTOR_DIED, None, None)
    pids = (spec.sandbox / "one").read_text().split() + (spec.sandbox / "two").read_text().split()
    assert len(pids) == 3
    assert all(is_gone(int(pid)) for pid in pids)
    assert not await executor.adopt(handle)
    assert (await run(executor, replace(spec, key=spec.key._replace(launch_id=LaunchId("next"))))).code == 0
    await executor.release(handle)


@as_root
async def test_another_user(data: Path, spec: LaunchSpec, kind: str) -> None:
    """A task of another user has that user's ids and groups, owns its sandbox, and writes there."""
    (spec.sandbox / "given").write_text("x")
    for parent in (data.parent, data.parent.parent, data.parent.parent.parent):
        parent.chmod(0o755)
    nobody = pwd.getpwnam("nobody")
    executor = ProcessExecutor(data, cgroups_of(data, kind), user="nobody")
    try:
        exit_ = await run(executor, shell(spec, "id -u; id -g; id -G; echo y >> given; touch made"))
        assert exit_.tail == f"{nobody.pw_uid}\n{nobody.pw_gid}\n{nobody.pw_gid}\n"
        assert {path.stat().st_uid for path in (spec.sandbox, *spec.sandbox.iterdir())} == {nobody.pw_uid}
    finally:
        await executor.close()
        await end(data, kind)


@as_root
async def test_root_needs_a_user(data: Path, spec: LaunchSpec) -> None:
    """An agent that is root starts no process unless a user was named, and says how."""
    executor = ProcessExecutor(data, Cgroups(Files(), {}))
    assert "--process-user" in (await executor.inspect()).problems[0]
    with pytest.raises(LaunchFailed, match="--process-user"):
        await executor.start(spec)
    await executor.close()


async def test_an_unknown_user(executor: ProcessExecutor, spec: LaunchSpec, data: Path) -> None:
    """A task's unknown user fails its launch; the operator's unknown user is a problem told at inspection."""
    with pytest.raises(LaunchFailed, match="no user 'nobody-here'"):
        await executor.start(replace(spec, user="nobody-here"))
    wrong = ProcessExecutor(data, Cgroups(Files(), {}), user="nobody-here")
    assert "nobody-here" in (await wrong.inspect()).problems[0]
    await wrong.close()


async def test_a_hundred_tasks_at_once(
    executor: ProcessExecutor, spec: LaunchSpec, make_spec: Callable[[int], LaunchSpec]
) -> None:
    """A hundred tasks start together, run together, and each ends with its own code."""
    specs = [shell(make_spec(number), f"read x < ../gate; exit {number}") for number in range(100)]
    gate = spec.sandbox.parent / "gate"
    os.mkfifo(gate)
    async with asyncio.timeout(DEADLINE_S):
        handles = await asyncio.gather(*map(executor.start, specs))
        assert len((await executor.inspect()).held) == 100
        writer = os.open(gate, os.O_RDWR)
        os.write(writer, b"\n" * 100)
        exits = await asyncio.gather(*map(executor.wait, handles))
        os.close(writer)
    assert [exit_.code for exit_ in exits] == list(range(100))


@pytest.fixture
def make_spec(tmp_path: Path, spec: LaunchSpec) -> Callable[[int], LaunchSpec]:
    """Launches by number."""

    def make(number: int) -> LaunchSpec:
        sandbox = tmp_path / f"sandbox-{number}"
        sandbox.mkdir()
        return replace(spec, key=spec.key._replace(task_id=TaskId(f"task-{number}")), sandbox=sandbox)

    return make
