"""A master and an agent as processes of their own, tied to the test by a pipe: when it dies, they and all tasks end.

What does not live here: programs within the test (`agent`, `master`).
"""

from __future__ import annotations

import asyncio
import os
import pwd
import random
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext, suppress
from pathlib import Path
from types import MappingProxyType

from edgerm.core.ids import AgentId, TaskKey
from edgerm_agent.cgroups import open_cgroups
from edgerm_agent.config import Process
from edgerm_agent.roster import Roster

OURSELVES = pwd.getpwuid(os.geteuid()).pw_name
Via = Callable[[tuple[str, int]], AbstractAsyncContextManager[str]]
LOOK_S = 0.05
END_S = 30.0


class Program:
    """`edgerm NAME` on one data directory, `FOLDER/NAME`, and at most one such process at a time."""

    def __init__(
        self, name: str, folder: Path, lifeline: int, flags: Sequence[str], settings: Mapping[str, str]
    ) -> None:
        self.data_dir = folder / name
        self.process: asyncio.subprocess.Process | None = None
        code = f"from edgerm.cli.{name} import command; command()"
        self._argv = (sys.executable, "-c", code, f"--data-dir={self.data_dir}", f"--lifeline={lifeline}", *flags)
        self._lifeline = lifeline
        self._environ = {**os.environ, **settings}
        self._log = folder / f"{name}.log"

    async def start(self) -> None:
        """Start it, and do not wait for anything."""
        with self._log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *self._argv, stdout=asyncio.subprocess.PIPE, stderr=log, env=self._environ, pass_fds=(self._lifeline,)
            )

    async def ready(self) -> str:
        """What it says first in its `ready` line: the master's HTTP address, the agent's id."""
        assert self.process is not None
        assert self.process.stdout is not None
        line = (await self.process.stdout.readline()).decode()
        assert line.startswith("ready "), f"{line!r}: {self.log()}"
        return line.split()[1].partition("=")[2]

    async def kill(self) -> None:
        """`kill -9`, of a process that lives."""
        assert self.process is not None
        assert self.process.returncode is None, f"it ended by itself: {self.log()[-2000:]}"
        self.process.kill()
        await self.process.wait()

    def stop(self) -> None:
        """Let it do nothing more, not even notice that it is killed."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    async def reap(self) -> None:
        """Return when it has ended."""
        if self.process is not None:
            await self.process.wait()

    def log(self) -> str:
        """What the processes of this directory said."""
        return self._log.read_text()


class Box:
    """A master, an agent, and the folder that has all that they keep."""

    def __init__(self, folder: Path, url: str, master: Program, agent: Program, agent_id: AgentId) -> None:
        self.folder = folder
        self.url = url
        self.master = master
        self.agent = agent
        self.agent_id = agent_id
        self._cgroups = open_cgroups(agent_id[:8])

    def holders(self) -> dict[str, int]:
        """The process ids of what holds tasks: the keeper, and the WASM host once there was a first module."""
        locks = {name: self.agent.data_dir / f"{name}.lock" for name in ("keeper", "wasm-host")}
        return {name: int(lock.read_text()) for name, lock in locks.items() if lock.exists() and lock.read_text()}

    def sandboxes(self) -> list[Path]:
        """The folders of all tasks that ever had one and are not swept yet."""
        return sorted((self.agent.data_dir / "sandboxes").iterdir())

    def groups(self) -> list[object]:
        """The cgroups of tasks that exist now."""
        return [*self._cgroups.orphans(()), *self._cgroups.orphan_threads(())]

    async def held(self) -> list[TaskKey]:
        """The tasks that keeper and WASM host hold now."""
        roster = Roster(self.agent.data_dir, self.agent_id, Process(user=OURSELVES))
        try:
            found = [await executor.inspect() for executor in roster.executors.values()]
            return [handle.key for inspection in found for handle in inspection.held]
        finally:
            await roster.close()

    def processes(self) -> dict[int, str]:
        """Every process that has to do with this box, by its command line, working directory or environment."""
        return processes_of(self.folder)

    def enforces(self, resource: str) -> str:
        """How tasks are held to their limit of this resource."""
        return self._cgroups.enforced()[resource]

    def clear_groups(self) -> None:
        """Remove the folders that hold tasks' cgroups; there must be none in them."""
        assert self.groups() == []
        self._cgroups.discard()


@asynccontextmanager
async def running_box(
    folder: Path, resources: str, via: Via | None = None, settings: Mapping[str, str] = MappingProxyType({})
) -> AsyncIterator[Box]:
    """A master and an agent that has joined it; `settings` are the master's, as its environment names them.

    `via` stands between the two: told where the master listens for HTTP and, at the same port of UDP, for CoAP, it
    gives the master's URL for the agent. Leaving it ends everything through the pipe, and asserts that nothing of it
    is left.
    """
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    lifeline, ours = os.pipe()
    listens = [f"--http=127.0.0.1:{port}", f"--coap=127.0.0.1:{port}"]
    master = Program("master", folder, lifeline, listens, settings)
    programs = [master]
    try:
        await master.start()
        assert await master.ready() == url
        async with via(("127.0.0.1", port)) if via else nullcontext(url) as seen:
            flags = [f"--master={seen}", f"--process-user={OURSELVES}", f"--resources={resources}"]
            look = ["--port=0"] if seen.startswith("http") else []
            agent = Program("agent", folder, lifeline, [*flags, *look], {})
            programs.append(agent)
            await agent.start()
            box = Box(folder, url, master, agent, AgentId(await agent.ready()))
            yield box
    finally:
        os.close(ours)
        os.close(lifeline)
        await end(folder, programs)
    box.clear_groups()


async def end(folder: Path, programs: Sequence[Program]) -> None:
    """Wait until all that hangs on the pipe has ended; what does not is killed, and is a failure."""
    try:
        async with asyncio.timeout(END_S):
            await until(lambda: not processes_of(folder))
    except TimeoutError:
        left = processes_of(folder)
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        raise AssertionError(f"these did not end: {left}") from None
    finally:
        for program in programs:
            await program.reap()


async def until(condition: Callable[[], object]) -> None:
    """Wait for what tells nobody that it has come about; the caller sets the deadline."""
    while not condition():
        await asyncio.sleep(LOOK_S)


def processes_of(folder: Path) -> dict[int, str]:
    """The living processes whose command line, working directory or environment names `folder`, but for ourselves."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with suppress(OSError):
                told = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
                if str(folder) in str((entry / "cwd").readlink()) or os.fsencode(folder) in told:
                    found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    return found


def free_port() -> int:
    """A port that is free, and outside of the range from which the kernel gives ports to clients.

    A port of that range may be given away while its master is down: even to a client that dials it, and so meets
    itself.
    """
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.randrange(1024, first)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
