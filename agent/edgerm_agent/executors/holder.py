"""The agent's end of a keeper or WASM host: find it, or start it, and call it.

The process outlives the agent; whoever comes next connects to it. Requests and replies: `keeper.protocol`.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from edgerm.core.errors import Unavailable
from edgerm_agent.keeper import protocol
from edgerm_agent.keeper.protocol import Body, Malformed, Refused
from edgerm_agent.keeper.server import is_own

SPAWN_S = 20.0
RETRY_S = 0.05

READY_FD, LIFELINE_FD = 3, 4  # in the new process
SOURCE_FD_MIN = 64  # so that dup2 to the two above closes neither's source


class ConnectionLost(Unavailable):
    """The connection ended before the reply: whether the request took effect is open."""


class Connection(asyncio.Protocol):
    """One connection to a holder."""

    def __init__(self) -> None:
        self.instance = ""
        self.version = protocol.VERSION_MIN
        self.lost = asyncio.Event()
        self._transport: asyncio.Transport | None = None
        self._frames = protocol.FrameReader()
        self._count = 0
        self._pending: dict[int, asyncio.Future[tuple[Body, bytes]]] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        try:
            frames = self._frames.feed(data)
        except Malformed:
            self.close()
            return
        for body, payload in frames:
            number = body.get("id")
            future = self._pending.pop(number, None) if isinstance(number, int) else None
            if future is not None and not future.done():
                future.set_result((body, payload))

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()
        for future in self._pending.values():
            if not future.done():
                future.set_exception(ConnectionLost("the connection to the task's holder ended"))
        self._pending.clear()

    def close(self) -> None:
        """End the connection; what is pending raises `ConnectionLost`."""
        if self._transport is not None:
            self._transport.abort()

    async def call(self, verb: str, **fields: object) -> tuple[Body, bytes]:
        """As `ask`, with fields that are known by name."""
        return await self.ask(verb, fields)

    async def ask(self, verb: str, fields: Body, payload: bytes = b"") -> tuple[Body, bytes]:
        """The reply. Raises `Refused` as the server did, `ConnectionLost`."""
        if self._transport is None or self.lost.is_set() or self._transport.is_closing():
            raise ConnectionLost("the connection to the task's holder ended")
        self._count += 1
        number = self._count
        frame = protocol.encode({**fields, "id": number, "verb": verb}, payload)
        future = self._pending[number] = asyncio.get_running_loop().create_future()
        self._transport.write(frame)
        try:
            body, payload = await future
        finally:
            self._pending.pop(number, None)
        if "error" in body:
            raise Refused(str(body["error"]), str(body.get("message", "")))
        return body, payload


class HolderProcess:
    """The process `name` of one data directory, whichever agent started it.

    `command` starts it (`keeper.program` tells its arguments); `lifeline`, if given, is the reading end of a pipe
    whose end ends the process and its tasks; `options` are further arguments.
    """

    def __init__(
        self,
        data_dir: Path,
        name: str,
        command: Sequence[str],
        lifeline: int | None = None,
        options: Sequence[str] = (),
    ) -> None:
        self.data_dir = data_dir
        self._name = name
        self._command = tuple(command)
        self._lifeline = lifeline
        self._options = tuple(options)
        self._lock = asyncio.Lock()
        self._connection: Connection | None = None
        self._children: dict[int, int] = {}  # pidfd: pid

    async def connect(self) -> Connection | None:
        """A connection to the living process, or None if there is none."""
        async with self._lock:
            return await self._connect()

    async def ensure(self) -> Connection:
        """A connection to the living process, or to a new one. Raises `Unavailable` if it does not come up."""
        async with self._lock:
            until = asyncio.get_running_loop().time() + SPAWN_S
            while (connection := await self._connect()) is None:
                if not await self._spawn():
                    if asyncio.get_running_loop().time() > until:
                        raise Unavailable(f"the {self._name} process does not start: {self._last_words()}")
                    await asyncio.sleep(RETRY_S)  # another is starting, or the last one still ends
            return connection

    async def shutdown(self, *, force: bool, grace_s: float = 0.0) -> None:
        """End the process, with `force` all its tasks first; returns when it is gone. Raises `Refused` (busy)."""
        connection = await self.connect()
        if connection is not None:
            with suppress(ConnectionLost):
                await connection.call("shutdown", force=force, grace_s=grace_s)
            await connection.lost.wait()
        await self.close()

    async def retire(self) -> str:
        """End the process if it holds nothing; the instance that is there then, empty: none.

        Whoever comes meanwhile waits, then finds what is left or starts the next.
        """
        async with self._lock:
            connection = await self._connect()
            if connection is None:
                return ""
            try:
                await connection.call("shutdown", force=False, grace_s=0)
            except Refused:
                return connection.instance
            except ConnectionLost:
                pass
            await connection.lost.wait()
            return ""

    async def close(self) -> None:
        """Disconnect, and leave the process alone."""
        if self._connection is not None:
            self._connection.close()
            await self._connection.lost.wait()
        for pidfd in list(self._children):
            self._reap(pidfd, force=True)

    async def _connect(self) -> Connection | None:
        if self._connection is not None and not self._connection.lost.is_set():
            return self._connection
        self._connection = None
        try:
            folder = os.open(self.data_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise Unavailable(f"data directory {self.data_dir}: {error.strerror}") from error
        try:  # a socket's path has at most 107 bytes, a data directory's may have more
            path = f"/proc/self/fd/{folder}/{self._name}.sock"
            transport, connection = await asyncio.get_running_loop().create_unix_connection(Connection, path)
        except (FileNotFoundError, ConnectionError):
            return None
        finally:
            os.close(folder)
        return await self._greet(transport, connection)

    async def _greet(self, transport: asyncio.Transport, connection: Connection) -> Connection | None:
        try:
            if not is_own(transport.get_extra_info("socket")):
                raise Unavailable(f"{self.data_dir / self._name}.sock belongs to another user's process")
            versions = [protocol.VERSION_MIN, protocol.VERSION_MAX]
            body, _ = await connection.call("hello", versions=versions)
        except ConnectionLost:
            return None
        except (Refused, Unavailable) as error:
            connection.close()
            raise Unavailable(f"the {self._name} process does not speak with us: {error}") from error
        connection.instance = str(body["instance"])
        version = body.get("version")
        connection.version = version if isinstance(version, int) else protocol.VERSION_MIN
        self._connection = connection
        return connection

    async def _spawn(self) -> bool:
        """Start the process; whether it says that it serves."""
        ready, theirs = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            pid = self._posix_spawn(theirs)
        except OSError as error:
            os.close(ready)
            raise Unavailable(f"cannot start {self._command[0]}: {error.strerror}") from error
        finally:
            os.close(theirs)
        pidfd = os.pidfd_open(pid)
        self._children[pidfd] = pid
        asyncio.get_running_loop().add_reader(pidfd, self._reap, pidfd)
        try:
            return await _first_byte(ready)
        finally:
            os.close(ready)

    def _posix_spawn(self, ready: int) -> int:
        sources = [(ready, READY_FD, "--ready")]
        if self._lifeline is not None:
            sources.append((self._lifeline, LIFELINE_FD, "--lifeline"))
        argv = [*self._command, str(self.data_dir), self._name, *self._options]
        log = str(self.data_dir / f"{self._name}.log")
        actions: list[tuple[int, ...] | tuple[int, int, str, int, int]] = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ]
        copies = []
        try:
            for source, target, option in sources:
                copies.append(fcntl.fcntl(source, fcntl.F_DUPFD_CLOEXEC, SOURCE_FD_MIN))
                actions.append((os.POSIX_SPAWN_DUP2, copies[-1], target))
                argv += [option, str(target)]
            path = os.environ.get("PATH", os.defpath)
            default = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}
            return os.posix_spawn(
                argv[0], argv, {"PATH": path}, file_actions=actions, setsid=True, setsigmask=(), setsigdef=default
            )
        finally:
            for copy in copies:
                os.close(copy)

    def _reap(self, pidfd: int, force: bool = False) -> None:
        """Our child has ended (it stays a zombie otherwise), or we leave it."""
        with suppress(ChildProcessError):
            if os.waitpid(self._children[pidfd], os.WNOHANG)[0] == 0 and not force:
                return
        asyncio.get_running_loop().remove_reader(pidfd)
        del self._children[pidfd]
        os.close(pidfd)

    def _last_words(self) -> str:
        try:
            lines = (self.data_dir / f"{self._name}.log").read_text(errors="replace").split("\n")
        except OSError:
            lines = []
        return next((line for line in reversed(lines) if line.strip()), "it says nothing")


async def _first_byte(fd: int) -> bool:
    """Whether a byte comes, rather than the end, within the time that a start may take."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(fd, readable.set)
    try:
        async with asyncio.timeout(SPAWN_S):
            await readable.wait()
        return bool(os.read(fd, 1))
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(fd)


def keeper_command() -> tuple[str, ...]:
    """How the keeper is started: our Python, isolated, without site-packages."""
    return (sys.executable, "-I", "-S", str(Path(protocol.__file__).parent))
