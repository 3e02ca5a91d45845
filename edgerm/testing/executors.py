"""A fake executor: tasks end at once, or when the test says so. It passes the conformance suite of executors."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from edgerm.core.errors import NotFound
from edgerm.core.ids import TaskKey
from edgerm.plugin.executor import (
    Chunk,
    Exit,
    Handle,
    Inspection,
    Intake,
    LaunchFailed,
    LaunchSpec,
    Stream,
    Tell,
    Usage,
    unheard,
)

TERMINATED = 15
SUCCESS = Exit(code=0, message="exited with code 0")


@dataclass(slots=True)
class FakeTask:
    """A task of a fake executor, as tests may look at it."""

    spec: LaunchSpec
    exit: asyncio.Future[Exit]
    output: dict[Stream, bytearray] = field(default_factory=lambda: {"stdout": bytearray(), "stderr": bytearray()})
    news: asyncio.Event = field(default_factory=asyncio.Event)
    graces_s: list[float] = field(default_factory=list)
    input: bytearray = field(default_factory=bytearray)
    input_closed: bool = False


@dataclass(frozen=True, slots=True)
class Script:
    """What a task does: writes `stdout`, then ends with `exit`; with None it runs until it is stopped or ended."""

    exit: Exit | None = SUCCESS
    stdout: bytes = b""
    stderr: bytes = b""
    preparing: tuple[str, ...] = ()  # told first; then the start waits until `prepared` or `abandon`


class FakeExecutor:
    """Runs nothing. `script` says what each task does; `tasks` shows what is held.

    A second one made with the same `tasks` and `instance` adopts what the first one held, as after a restart.
    """

    def __init__(
        self,
        script: Callable[[LaunchSpec], Script] = lambda spec: Script(),
        *,
        name: str = "fake",
        instance: str = "1",
        tasks: dict[TaskKey, FakeTask] | None = None,
    ) -> None:
        self.name = name
        self.instance = instance
        self.tasks: dict[TaskKey, FakeTask] = {} if tasks is None else tasks
        self.script = script
        self._preparing: dict[TaskKey, asyncio.Future[bool]] = {}  # whether it goes on

    async def start(self, spec: LaunchSpec, tell: Tell = unheard) -> Handle:
        """As the script says, which may raise `LaunchFailed`."""
        if not spec.argv:
            raise LaunchFailed("the command is empty")
        script = self.script(spec)
        if script.preparing and spec.key not in self.tasks:
            await self._prepare(spec.key, script, tell)
        if spec.key not in self.tasks:
            self.tasks[spec.key] = FakeTask(spec, asyncio.get_running_loop().create_future())
            self.write(spec.key, "stdout", script.stdout)
            self.write(spec.key, "stderr", script.stderr)
            if script.exit is not None:
                self.end(spec.key, script.exit)
        return Handle(spec.key, self.name, self.instance)

    async def _prepare(self, key: TaskKey, script: Script, tell: Tell) -> None:
        goes_on = self._preparing.setdefault(key, asyncio.get_running_loop().create_future())
        for line in script.preparing:
            tell(line)
        try:
            if not await asyncio.shield(goes_on):
                raise LaunchFailed("it was abandoned while it was prepared")
        finally:
            self._preparing.pop(key, None)

    def prepared(self, key: TaskKey) -> None:
        """The task that prepares goes on."""
        if not (goes_on := self._preparing[key]).done():
            goes_on.set_result(True)

    async def abandon(self, key: TaskKey) -> None:
        goes_on = self._preparing.get(key)
        if goes_on is not None and not goes_on.done():
            goes_on.set_result(False)

    def end(self, key: TaskKey, exit_: Exit) -> None:
        """The task ends so, unless it has ended."""
        task = self.tasks[key]
        if not task.exit.done():
            task.exit.set_result(exit_)
            task.news.set()

    def write(self, key: TaskKey, stream: Stream, data: bytes) -> None:
        """The task writes."""
        task = self.tasks[key]
        task.output[stream] += data
        task.news.set()

    async def wait(self, handle: Handle) -> Exit:
        return await asyncio.shield(self._find(handle).exit)

    async def stop(self, handle: Handle, grace_s: float) -> None:
        """Ends the task at once, by SIGTERM."""
        if await self.adopt(handle):
            self.tasks[handle.key].graces_s.append(grace_s)
            self.end(handle.key, Exit(signal=TERMINATED, message="killed by SIGTERM"))

    async def adopt(self, handle: Handle) -> bool:
        return handle.instance == self.instance and handle.key in self.tasks

    async def inspect(self) -> Inspection:
        held = tuple(Handle(key, self.name, self.instance) for key in sorted(self.tasks))
        return Inspection({"cpus": "none", "mem": "none"}, held=held)

    async def release(self, handle: Handle) -> None:
        if await self.adopt(handle):
            del self.tasks[handle.key]

    async def output(self, handle: Handle, stream: Stream, offset: int, max_bytes: int, wait_s: float) -> Chunk:
        task = self._find(handle)
        kept = task.output[stream]
        at = min(max(offset + len(kept) if offset < 0 else offset, 0), len(kept))
        if at == len(kept) and not task.exit.done():
            task.news.clear()
            try:
                async with asyncio.timeout(wait_s):
                    await task.news.wait()
            except TimeoutError:
                pass
        data = bytes(kept[at : at + max_bytes])
        return Chunk(at, data, ended=task.exit.done() and at + len(data) == len(kept))

    async def put_input(self, handle: Handle, offset: int, data: bytes, end: bool, wait_s: float) -> Intake:
        """Takes all of it at once."""
        task = self._find(handle)
        if not task.spec.stdin_open:
            raise NotFound("the task was not started with an open standard input")
        fresh = data[len(task.input) - offset :]
        if fresh and (task.input_closed or task.exit.done()):
            raise NotFound("the task's standard input is closed")
        task.input += fresh
        task.input_closed = task.input_closed or end
        return Intake(len(task.input), task.input_closed)

    async def usage(self, handle: Handle) -> Usage | None:
        return Usage(0.0, 0) if await self.adopt(handle) else None

    def _find(self, handle: Handle) -> FakeTask:
        if handle.instance != self.instance or handle.key not in self.tasks:
            raise NotFound(f"{self.name} holds no task {handle.key}")
        return self.tasks[handle.key]
