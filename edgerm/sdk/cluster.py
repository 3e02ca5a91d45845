"""The short way: `async with connect(master) as cluster: result = await cluster.run(wasm="m.wasm", args=["1"])`.

What does not live here: one launched task (`handle`), placing tasks on offers (`placing`), the session with the master
(`driver`).
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import TypedDict, Unpack, cast

from edgerm.core.constraints import Constraint
from edgerm.core.errors import EdgermError, Invalid
from edgerm.core.ids import AgentId, FrameworkId, TaskId
from edgerm.core.scheduler import BlobRef, FrameworkSpec, Status
from edgerm.core.tasks import Source, TaskState
from edgerm.sdk.agents import Agent, agents_of
from edgerm.sdk.builds import KINDS, Build, spelt_out
from edgerm.sdk.claims import Claims
from edgerm.sdk.containers import Ports
from edgerm.sdk.devices import Devices
from edgerm.sdk.driver import Driver, framework
from edgerm.sdk.handle import Result, TaskHandle
from edgerm.sdk.operator import Operator
from edgerm.sdk.options import check_list, check_names
from edgerm.sdk.placing import Placer
from edgerm.sdk.tasks import CPUS_DEFAULT, MEM_DEFAULT_MIB, Options, Task, docker_task, one_of, process_task, wasm_task

Content = bytes | Path | str
OUTPUTS_AT_ONCE = 32  # an agent serves so many readers well
MASTER = "http://127.0.0.1:5050"


class TaskOptions(TypedDict, total=False):
    """What `run` and `launch` take.

    One of `wasm` (a module: its path or bytes), `process` (an argv), `docker` (an image) and `alternatives` is needed.
    """

    wasm: Content
    process: Sequence[str]
    docker: str
    alternatives: Sequence[Build]  # several builds, the best first: the first that fits an offer runs
    args: Sequence[str]  # of the module; of a container, in place of what its image would run
    input: Content | None  # standard input: bytes, or the path of a file
    stdin_open: bool  # it stays open after that, for `TaskHandle.write`
    messages: bool  # it gets a mailbox, for `TaskHandle.send` and `messages`
    env: Mapping[str, str]
    cpus: float
    mem: float  # MiB
    disk: float  # MiB
    ports: int | Ports  # how many; of a container also which: {host: container}, or ["8080:80/udp", "80"]
    devices: Devices  # ["camera"], {"camera": 2} or {"camera": ["/dev/video0"]}
    claims: Claims  # ["siemens.com/isolated_core=2"], or with filters: see `edgerm.sdk.claims.Claims`
    volumes: Sequence[str]  # of a container: "SOURCE:PATH", with ":ro" behind it if it is only read
    network: str | None  # of a container: "host" (by default, unless it has ports), "bridge", "none", or a name
    constraints: Sequence[str | Constraint]  # where it may run, all of it: "zone=a", "zone!=a", "zone", "zone~REGEX"
    name: str
    task_id: str
    grace_s: float | None
    timeout_s: float | None


class Cluster:
    """A subscribed framework that launches what it is told to."""

    def __init__(self, master: str, spec: FrameworkSpec, framework_id: FrameworkId | None = None) -> None:
        self._placer = Placer(self._told, self._said)
        self.driver = Driver(self._placer, master, spec, framework_id=framework_id, patient=False)
        self.operator = Operator(self.driver.client)
        self.reading = asyncio.Semaphore(OUTPUTS_AT_ONCE)
        self._handles: dict[TaskId, TaskHandle] = {}
        self._ended: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Cluster:
        await self.driver.__aenter__()
        try:
            await self.driver.subscribed()
        except BaseException:
            await self.driver.__aexit__(None, None, None)
            raise
        self._ended = asyncio.create_task(self.driver.ended())
        self._ended.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        return self

    async def __aexit__(self, *_: object) -> None:
        """The framework's tasks end with it."""
        self.driver.session.teardown()
        await self.close()

    async def close(self) -> None:
        """Leave without ending anything: tasks run on for the failover timeout."""
        await self.driver.__aexit__(None, None, None)
        if self._ended is not None:
            self._ended.cancel()
            await asyncio.wait({self._ended})

    @property
    def framework_id(self) -> FrameworkId:
        """The master's name for this framework."""
        assert self.driver.framework_id is not None, "after __aenter__"
        return self.driver.framework_id

    async def run(self, **options: Unpack[TaskOptions]) -> Result:
        """Launch a task and wait for its end. Cancelled, it kills the task and waits for that."""
        handle = await self.launch(**options)
        try:
            return await handle.wait()
        except asyncio.CancelledError:
            with suppress(EdgermError):  # the subscription is over: then its tasks are, or will be
                await handle.kill()
            raise

    async def launch(self, **options: Unpack[TaskOptions]) -> TaskHandle:
        """Launch a task as soon as there is room for it; uploads what it needs and the master lacks.

        Raises `Invalid` for options that fit no task, `Conflict` for the id of a task that has not ended.
        """
        task = await self._task(options)
        handle = TaskHandle(self, task.task_id)
        self._placer.launch(self.driver.session, task)
        self._handles[task.task_id] = handle
        return handle

    @property
    def tasks(self) -> Mapping[TaskId, TaskHandle]:
        """The handles of this framework's tasks that have not ended, in the order of their launch."""
        return MappingProxyType(self._handles)

    async def agents(self) -> dict[AgentId, Agent]:
        """The agents that the master knows now, by id; raises `Unavailable` if it is away."""
        return agents_of(await self.operator.agents())

    def watch(self, task_id: TaskId, agent_id: AgentId) -> TaskHandle:
        """A handle for a task that an earlier process launched and the session awaits; see `edgerm.sdk.resume`."""
        handle = TaskHandle(self, task_id)
        handle.status = Status(task_id, TaskState.STAGING, agent_id)
        return self._handles.setdefault(task_id, handle)

    async def kill_matching(self, pattern: str, grace_s: float | None = None) -> list[Status]:
        """End every task in whose id the regular expression is found ("": all); answers how they ended.

        Raises `Invalid` for what is no regular expression.
        """
        try:
            regex = re.compile(pattern)
        except re.error as error:
            raise Invalid(f"{pattern!r} is no regular expression: {error}") from None
        handles = [handle for task_id, handle in self._handles.items() if regex.search(task_id)]
        return list(await asyncio.gather(*(handle.kill(grace_s) for handle in handles)))

    def kill(self, task_id: TaskId, grace_s: float | None = None) -> None:
        """Ask for a task's end; one that has no place yet ends at once."""
        if self._placer.withdraw(task_id):
            self._told(Status(task_id, TaskState.KILLED, None, Source.MASTER, message="killed before it had a place"))
        else:
            self.driver.session.kill(task_id, grace_s=grace_s)

    def lacking(self, task_id: TaskId) -> str | None:
        """In words, what a task waits for that no agent has which made an offer so far; None: it may be room."""
        return self._placer.lacking(task_id)

    async def until(self, event: asyncio.Event) -> None:
        """Wait for `event`; raises what ends the subscription first."""
        assert self._ended is not None, "after __aenter__"
        if self._ended.done():
            await self._ended
        waiter = asyncio.ensure_future(event.wait())
        try:
            await asyncio.wait({waiter, self._ended}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiter.cancel()
        if not event.is_set():
            self._ended.result()
            raise EdgermError("the framework has left; nobody is told of its tasks any more")

    def _said(self, task_id: TaskId, data: bytes) -> None:
        handle = self._handles.get(task_id)
        if handle is not None:
            handle.inbox.put(data)

    def _told(self, status: Status) -> None:
        handle = self._handles.get(status.task_id)
        if handle is not None:
            if status.state.terminal:
                del self._handles[status.task_id]
            handle.told(status)

    async def _task(self, options: TaskOptions) -> Task:
        check_names(options, TaskOptions.__annotations__)
        task_id = options.get("task_id") or f"{options.get('name') or 'task'}-{secrets.token_hex(4)}"
        if "alternatives" not in options:
            return await self._build(task_id, options)
        builds = spelt_out(options, options["alternatives"])
        return one_of([(name, await self._build(task_id, cast("TaskOptions", whole))) for name, whole in builds])

    async def _build(self, task_id: str, options: TaskOptions) -> Task:
        stdin, ports = options.get("input"), options.get("ports", 0)
        publish = () if isinstance(ports, int) else ports
        common: Options = {
            "name": options.get("name", ""),
            "env": options.get("env", {}),
            "cpus": options.get("cpus", CPUS_DEFAULT),
            "mem": options.get("mem", MEM_DEFAULT_MIB),
            "disk": options.get("disk", 0.0),
            "ports": ports if isinstance(ports, int) else 0,
            "devices": options.get("devices", ()),
            "claims": options.get("claims", ()),
            "stdin_open": options.get("stdin_open", False),
            "messages": options.get("messages", False),
            "constraints": options.get("constraints", ()),
            "input": None if stdin is None else await self._keep(stdin),
            "grace_s": options.get("grace_s"),
            "timeout_s": options.get("timeout_s"),
        }
        if sum(kind in options for kind in KINDS) != 1:
            raise Invalid("a task needs one of wasm=MODULE, process=[PROGRAM, …] and docker=IMAGE")
        args = options.get("args", ())
        check_list("arguments", args)
        if "docker" in options:
            volumes, network = options.get("volumes", ()), options.get("network")
            image = options["docker"]
            return docker_task(task_id, image, args, publish=publish, volumes=volumes, network=network, **common)
        if publish or options.get("volumes") or options.get("network"):
            raise Invalid("only a container has volumes, a network and ports of its own; ports=NUMBER works for all")
        if "wasm" in options:
            return wasm_task(task_id, await self._keep(options["wasm"]), args, **common)
        check_list("a program and its arguments", options["process"])
        return process_task(task_id, [*options["process"], *args], **common)

    async def _keep(self, content: Content) -> BlobRef:
        return await self.driver.keep(content if isinstance(content, bytes) else Path(content))


@asynccontextmanager
async def connect(master: str = MASTER, spec: FrameworkSpec | None = None) -> AsyncIterator[Cluster]:
    """A framework on this master, for the length of the block; what still runs at its end is ended.

    Raises `Unavailable` if the master cannot be reached now. Later it is waited for: tasks run on meanwhile.
    """
    async with Cluster(master, spec or framework("edgerm-sdk")) as cluster:
        yield cluster
