"""The work of `edgerm up`: a master and agents as children of this process, and their lifeline.

Every child inherits one end of the lifeline, and so do the keepers and WASM hosts that hold tasks. When `up` ends, in
whatever way, the lifeline ends, and they end themselves and their tasks. What does not live here: what they do.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import sys
from pathlib import Path

READY_S = 30.0
STOP_S = 20.0
MIB = 1 << 20
PORTS = (31000, 32000)


class Failed(Exception):
    """One line on why it cannot go on."""


class Box:
    """The children and their lifeline."""

    def __init__(self, directory: Path, count: int, http: str, process_user: str | None) -> None:
        self._directory = directory
        self._count = count
        self._http = http
        self._process_user = process_user
        self._ours, self._theirs = socket.socketpair()
        self._children: dict[str, asyncio.subprocess.Process] = {}
        self._readers: set[asyncio.Task[None]] = set()
        self._stop = asyncio.Event()

    async def run(self, lifeline: int | None) -> None:
        """Start, wait for the end of anything, stop."""
        loop = asyncio.get_running_loop()
        if lifeline is not None:
            os.set_inheritable(lifeline, False)
            loop.add_reader(lifeline, self._watch, lifeline)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._stop.set)
        try:
            await self._work()
        finally:
            await self._end()

    def _watch(self, lifeline: int) -> None:
        if not os.read(lifeline, 4096):
            asyncio.get_running_loop().remove_reader(lifeline)
            self._stop.set()

    async def _work(self) -> None:
        starting = asyncio.create_task(self._start())
        stopping = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not starting.done():
                return
            runs_processes = os.geteuid() != 0 or self._process_user is not None
            _welcome(starting.result(), self._count, self._directory, runs_processes)
            ends = {asyncio.create_task(child.wait(), name=name) for name, child in self._children.items()}
            done, _ = await asyncio.wait({stopping, *ends}, return_when=asyncio.FIRST_COMPLETED)
            for end in (done & ends) if not self._stop.is_set() else ():
                raise Failed(f"{end.get_name()} ended with status {end.result()}{self._last_words(end.get_name())}")
        finally:
            for task in asyncio.all_tasks() - {asyncio.current_task()} - self._readers:
                task.cancel()

    async def _start(self) -> str:
        ready = await self._spawn("master", "--http", self._http, "--coap", "127.0.0.1:0")
        told = dict(word.split("=", 1) for word in ready.split()[1:])
        links = (told["http"], told["coap"])  # every second agent over CoAP: both links are at hand to be tried
        await asyncio.gather(*(self._start_agent(links[number % 2], number) for number in range(self._count)))
        return told["http"]

    async def _start_agent(self, url: str, number: int) -> None:
        name = f"agent{number + 1}"
        options = ["--master", url, "--name", name, "--port", "0"]
        options += ["--resources", _share(self._directory, number, self._count)]
        if self._process_user is not None:
            options += ["--process-user", self._process_user]
        await self._spawn(name, *options)

    async def _spawn(self, name: str, *options: str) -> str:
        """Start a child; its `ready` line, when it came."""
        kind = "master" if name == "master" else "agent"
        lifeline = self._theirs.fileno()
        command = [sys.executable, "-m", "edgerm.cli.main", kind, "--data-dir", str(self._directory / name)]
        log = (self._directory / f"{name}.log").open("ab")
        with log:
            child = await asyncio.create_subprocess_exec(
                *command,
                *options,
                "--lifeline",
                str(lifeline),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                pass_fds=(lifeline,),
                start_new_session=True,  # Ctrl-C is for us alone
            )
        self._children[name] = child
        assert child.stdout is not None
        try:
            async with asyncio.timeout(READY_S):
                async for line in child.stdout:
                    if line.startswith(b"ready "):
                        reader = asyncio.create_task(_drain(child.stdout))
                        self._readers.add(reader)
                        return line.decode()
        except TimeoutError:
            raise Failed(f"{name} was not ready within {READY_S:.0f} s{self._last_words(name)}") from None
        raise Failed(f"{name} could not start{self._last_words(name)}")

    def _last_words(self, name: str) -> str:
        try:
            lines = (self._directory / f"{name}.log").read_text("utf-8", "replace").strip().splitlines()
        except OSError:
            return ""
        return f": {lines[-1]}" if lines else ""

    async def _end(self) -> None:
        """End the lifeline, and wait until all who hold it are gone."""
        self._theirs.close()
        self._ours.shutdown(socket.SHUT_WR)
        self._ours.setblocking(False)
        try:
            async with asyncio.timeout(STOP_S):
                for child in self._children.values():
                    await child.wait()
                while await asyncio.get_running_loop().sock_recv(self._ours, 4096):
                    pass
        except (TimeoutError, ConnectionError):
            for name, child in self._children.items():
                if child.returncode is None:
                    sys.stderr.write(f"edgerm up: {name} did not stop, killing it\n")
                    child.kill()
                    await child.wait()
        for reader in self._readers:
            reader.cancel()
        self._ours.close()


async def _drain(stream: asyncio.StreamReader) -> None:
    while await stream.read(4096):
        pass


def _share(directory: Path, number: int, count: int) -> str:
    """What agent `number` of `count` may give away: an equal part of this machine."""
    cpus = max(0.1, round(len(os.sched_getaffinity(0)) / count, 1))
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    mem, disk = memory_bytes * 8 // 10 // count // MIB, shutil.disk_usage(directory).free // 2 // count // MIB
    width = (PORTS[1] - PORTS[0]) // count
    begin = PORTS[0] + number * width
    return f"cpus:{cpus:g};mem:{max(mem, 32)};disk:{disk};ports:[{begin}-{begin + width - 1}]"


def _welcome(url: str, count: int, directory: Path, runs_processes: bool) -> None:
    sys.stdout.write(f"ready http={url} agents={count}\n")
    sys.stdout.write(f"\n  export EDGERM_MASTER={url}\n  edgerm agents\n")
    if runs_processes:
        sys.stdout.write("  edgerm run --process -- echo hello\n")
    else:
        sys.stdout.write("  edgerm run --wasm MODULE.wasm\n")
        sys.stdout.write("\nNo processes run, because this is root; to have them: edgerm up --process-user root\n")
    sys.stdout.write(f"\nLogs are in {directory}. Ctrl-C ends everything.\n")
    sys.stdout.flush()
