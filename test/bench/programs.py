"""Programs that a bench starts: master, agents, floors, peers. Each ends with the block that started it.

What does not live here: what is measured with them.
"""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import select
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from edgerm_agent.cgroups import open_cgroups
from edgerm_agent.roster import SCOPE_CHARACTERS

HERE = Path(__file__).parent
STOP_S = 10.0
RESOURCES = "cpus:8;mem:4096;disk:4096;ports:[31000-31099]"
HOLDERS = ("keeper", "wasm-host")
AGENT = "from edgerm.cli.agent import command; command()"
SERVE = "from edgerm.cli.master import command; command()"
PROFILED = "import cProfile, sys; from edgerm.cli.master import command; cProfile.run('command()', {path!r})"


@dataclass
class Program:
    """A process of its own, whose output we read line by line."""

    process: asyncio.subprocess.Process

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    async def line(self) -> str:
        """The next line of its output; raises RuntimeError when it has ended."""
        assert self.process.stdout is not None
        line = await self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"a program of the bench ended with status {await self.process.wait()}")
        return line.decode().strip()

    async def sample(self, count: int, pause_s: float = 0.0) -> list[float]:
        """Ask for `count` measurements with a pause before each; seconds."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{count} {pause_s}\n".encode())
        await self.process.stdin.drain()
        values: list[float] = json.loads(await self.line())
        return values


@asynccontextmanager
async def program(
    *argv: str,
    cores: set[int] | None = None,
    log: Path | None = None,
    inherit: Sequence[int] = (),
    env: Mapping[str, str] = MappingProxyType({}),
) -> AsyncIterator[Program]:
    """Run a program, on these cores only if any are named."""
    before = os.sched_getaffinity(0)
    async with AsyncExitStack() as stack:
        errors = None if log is None else stack.enter_context(log.open("ab"))
        if cores is not None:
            os.sched_setaffinity(0, cores)  # the child inherits it with all its later threads
        try:
            process = await asyncio.create_subprocess_exec(
                *argv,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                limit=1 << 24,
                pass_fds=inherit,
                env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0", **env},
            )
        finally:
            os.sched_setaffinity(0, before)
        try:
            yield Program(process)
        finally:
            await _end(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    assert process.stdin is not None
    process.stdin.close()
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(STOP_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


def ours(name: str, *arguments: str, python: str = sys.executable) -> Sequence[str]:
    """The command line of a program in this folder."""
    return (python, str(HERE / f"{name}.py"), *arguments)


@dataclass(frozen=True, slots=True)
class MasterProgram:
    """A master that serves."""

    url: str
    coap_url: str
    pid: int
    data_dir: Path


@asynccontextmanager
async def master(
    folder: Path,
    *,
    cores: set[int] | None = None,
    profile: Path | None = None,
    env: Mapping[str, str] = MappingProxyType({}),
) -> AsyncIterator[MasterProgram]:
    """A real master with a durable store in `folder`."""
    data_dir = folder / "master"
    code = SERVE if profile is None else PROFILED.format(path=str(profile))
    where = ("--http=127.0.0.1:0", "--coap=127.0.0.1:0", f"--data-dir={data_dir}")
    argv = (sys.executable, "-c", code, *where, "--log-level=warning")
    async with program(*argv, cores=cores, log=folder / "master.log", env=env) as started:
        told = dict(word.split("=", 1) for word in (await started.line()).split()[1:])
        yield MasterProgram(told["http"], told["coap"], started.pid, data_dir)


@dataclass(frozen=True, slots=True)
class AgentProgram:
    """An agent that its master has taken in."""

    pid: int
    data_dir: Path

    def holder_pid(self, name: str) -> int | None:
        """The process id of the keeper or the WASM host, if it runs."""
        lock = self.data_dir / f"{name}.lock"
        pid = int(lock.read_text()) if lock.exists() else None
        return pid if pid is not None and Path(f"/proc/{pid}").exists() else None


@asynccontextmanager
async def agent(folder: Path, url: str, env: Mapping[str, str] = MappingProxyType({})) -> AsyncIterator[AgentProgram]:
    """A real agent with a durable journal in `folder`; a pipe ends it, its tasks and what holds them."""
    data_dir = folder / "agent"
    flags = [f"--master={url}", f"--data-dir={data_dir}", f"--resources={RESOURCES}", "--log-level=warning"]
    if url.startswith("http"):  # over CoAP alone the HTTP face is off unless its port is named
        flags.append("--port=0")
    user = f"--process-user={pwd.getpwuid(os.geteuid()).pw_name}"
    reader, writer = os.pipe()
    argv = (sys.executable, "-c", AGENT, *flags, user, f"--lifeline={reader}")
    async with program(*argv, log=folder / "agent.log", inherit=(reader,), env=env) as started:
        os.close(reader)
        running, agent_id = AgentProgram(started.pid, data_dir), ""
        try:
            agent_id = (await started.line()).partition("agent_id=")[2]
            yield running
        finally:
            holders = [pid for name in HOLDERS if (pid := running.holder_pid(name)) is not None]
            os.close(writer)
            await started.process.wait()
            await asyncio.gather(*map(_gone, holders))
            open_cgroups(agent_id[:SCOPE_CHARACTERS] or "none").discard()


async def _gone(pid: int) -> None:
    with suppress(ProcessLookupError):
        descriptor = os.pidfd_open(pid)
        try:
            await asyncio.to_thread(select.select, [descriptor], [], [], STOP_S)
        finally:
            os.close(descriptor)
