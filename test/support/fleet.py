"""A master and real agents in this event loop, for the sample frameworks; and a sample as a program of its own."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from edgerm_agent.running import Running
from edgerm_master.main import Served
from support.agent import agent_here
from support.master import running_master

DEADLINE_S = 30.0


class Fleet:
    """One master, and agents that come and go."""

    def __init__(self, folder: Path, master: Served) -> None:
        self.master = master
        self.agents: dict[str, Running] = {}
        self._folder = folder
        self._joined = 0
        self._stacks: dict[str, AsyncExitStack] = {}

    @property
    def url(self) -> str:
        """Of the master."""
        return self.master.url

    async def join(self, name: str, attributes: str = "", **settings: Any) -> Running:
        """Another agent; returns when the master has taken it in."""
        stack = self._stacks[name] = AsyncExitStack()
        self._joined += 1
        ports = 28000 + 20 * self._joined  # they share a box, so each has ports of its own
        settings.setdefault("resources", f"cpus:8;mem:4096;disk:4096;ports:[{ports}-{ports + 19}]")
        made = agent_here(self._folder / name, self.url, name=name, attributes=attributes, **settings)
        agent = self.agents[name] = await stack.enter_async_context(made)
        return agent

    async def leave(self, name: str) -> None:
        """The agent ends, with its tasks."""
        del self.agents[name]
        await self._stacks.pop(name).aclose()

    async def close(self) -> None:
        """All agents end."""
        await asyncio.gather(*(self.leave(name) for name in list(self.agents)))


@asynccontextmanager
async def running_fleet(folder: Path, agents: dict[str, str], **settings: Any) -> AsyncIterator[Fleet]:
    """A master whose agents beat often, and agents with these attributes by name."""
    async with running_master(folder, agents={"beat_interval_s": 0.2}, **settings) as master:
        fleet = Fleet(folder, master)
        try:
            await asyncio.gather(*(fleet.join(name, attributes) for name, attributes in agents.items()))
            yield fleet
        finally:
            await fleet.close()


class Program:
    """A sample that runs as a person starts it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.lines: list[str] = []

    async def until(self, wanted: Callable[[str], bool]) -> str:
        """The next line of its output that is wanted."""
        assert self._process.stdout is not None
        with suppress(TimeoutError):
            async with asyncio.timeout(DEADLINE_S):
                while line := (await self._process.stdout.readline()).decode():
                    self.lines.append(line.rstrip("\n"))
                    if wanted(self.lines[-1]):
                        return self.lines[-1]
        raise AssertionError(f"it did not say what was wanted: {self.lines}")

    async def end(self, number: int = signal.SIGINT) -> int:
        """Ask it to end; its exit status."""
        self._process.send_signal(number)
        return (await self.ended())[0]

    async def ended(self) -> tuple[int, str]:
        """Its exit status, and what it said on stderr."""
        async with asyncio.timeout(DEADLINE_S):
            out, err = await self._process.communicate()
        self.lines += out.decode().splitlines()
        assert self._process.returncode is not None
        return self._process.returncode, err.decode()

    async def close(self) -> None:
        """It must not outlive its test."""
        if self._process.returncode is None:
            self._process.kill()
            await self._process.communicate()


@asynccontextmanager
async def sample(name: str, *args: str, folder: Path | None = None) -> AsyncIterator[Program]:
    """`python -m edgerm_frameworks.NAME ARG…`, started in `folder`."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        f"edgerm_frameworks.{name}",
        *args,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=folder,
        env={**os.environ, "PYTHONWARNINGS": "error"},
    )
    program = Program(process)
    try:
        yield program
    finally:
        await program.close()


async def run_sample(name: str, *args: str, folder: Path | None = None) -> tuple[int, list[str], str]:
    """Exit status, lines and stderr of a sample that ends by itself."""
    async with sample(name, *args, folder=folder) as program:
        status, err = await program.ended()
        return status, program.lines, err
