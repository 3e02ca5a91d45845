"""Agents on real parts: in this process, or as a process of their own as `edgerm agent` starts them."""

from __future__ import annotations

import asyncio
import os
import pwd
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec

from edgerm.core.ids import AgentId
from edgerm_agent.config import Config, Process
from edgerm_agent.roster import Roster
from edgerm_agent.running import Running, running
from edgerm_master.main import Served

FACES = ("http", "coap")  # of the link
OURSELVES = pwd.getpwuid(os.geteuid()).pw_name
COMMAND = (sys.executable, "-c", "from edgerm.cli.agent import command; command()")
RESOURCES = "cpus:8;mem:4096;disk:4096;ports:[31000-31099]"


def url_of(master: Served, face: str) -> str:
    """Where agents find a master that serves both faces."""
    assert master.coap_url is not None
    return master.coap_url if face == "coap" else master.url


@asynccontextmanager
async def agent_here(data_dir: Path, master: str, **settings: Any) -> AsyncIterator[Running]:
    """An agent in this event loop; at the end its tasks and what held them are gone."""
    chosen = {"master": master, "data_dir": str(data_dir), "port": 0, "resources": RESOURCES, **settings}
    chosen.setdefault("executors", {"process": {"user": OURSELVES}})
    async with running(msgspec.convert(chosen, Config)) as agent:
        try:
            yield agent
        finally:
            await agent.end_tasks()
    await sweep(data_dir, agent.agent_id)


class AgentProcess:
    """One data directory, and at most one agent on it at a time."""

    def __init__(self, data_dir: Path, master: str, *flags: str, lifeline: int | None = None) -> None:
        self.data_dir = data_dir
        self.flags = [f"--master={master}", f"--data-dir={data_dir}", "--port=0", f"--resources={RESOURCES}", *flags]
        self.agent_id = AgentId("")
        self.lifeline = lifeline
        self.process: asyncio.subprocess.Process

    async def start(self) -> None:
        """Start it; return once the master has taken it in."""
        inherited = () if self.lifeline is None else (self.lifeline,)
        flags = [*self.flags, *(f"--lifeline={fd}" for fd in inherited)]
        with (self.data_dir.parent / "agent.log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *COMMAND, *flags, stdout=asyncio.subprocess.PIPE, stderr=log, pass_fds=inherited
            )
        assert self.process.stdout is not None
        line = (await self.process.stdout.readline()).decode()
        assert line.startswith("ready agent_id="), f"{line!r}: {self.log()}"
        self.agent_id = AgentId(line.strip().partition("=")[2])

    async def end(self, *, kill: bool = False) -> int:
        """End the agent and leave its tasks; its exit status."""
        with suppress(ProcessLookupError):
            (self.process.kill if kill else self.process.terminate)()
        return await self.process.wait()

    def holder_pid(self, name: str) -> int:
        """The process id of the keeper or a WASM host."""
        return int((self.data_dir / f"{name}.lock").read_text())

    def log(self) -> str:
        """What the agents of this directory said."""
        return (self.data_dir.parent / "agent.log").read_text()


@asynccontextmanager
async def agent_process(data_dir: Path, master: str, *flags: str) -> AsyncIterator[AgentProcess]:
    """An agent that is ready; at the end it, its tasks and what held them are gone."""
    agent = AgentProcess(data_dir, master, f"--process-user={OURSELVES}", *flags)
    try:
        await agent.start()
        yield agent
    finally:
        await agent.end()
        await sweep(data_dir, agent.agent_id)


async def sweep(data_dir: Path, agent_id: AgentId) -> None:
    """End the tasks of a directory without an agent, and remove their groups."""
    roster = Roster(data_dir, agent_id, Process(user=OURSELVES))
    await roster.end_tasks()
    await asyncio.to_thread(roster.clear_groups)
    await roster.close()


async def gone(pid: int) -> None:
    """Return when this process has ended."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(pidfd, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(pidfd)
        os.close(pidfd)
