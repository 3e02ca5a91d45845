"""What an executor is: its verbs, and the values that cross its border.

An executor runs tasks of one kind (WASM modules, processes, containers) and decides nothing about who may run
them. The agent journals a `Handle` before it relies on it; after a restart it gives the handle back to `adopt`.
All values are frozen and plain, so that an executor may live in another process.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Literal, Protocol, TypeAlias, runtime_checkable

from edgerm.core.ids import TaskKey
from edgerm.plugin.device import DeviceNode, GpioChip, Mount

Stream = Literal["stdout", "stderr"]
Protocols = Literal["tcp", "udp"]
Tell: TypeAlias = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a task may use at most. None: not limited."""

    cpus_milli: int | None = None
    memory_bytes: int | None = None
    disk_bytes: int | None = None  # of its sandbox


@dataclass(frozen=True, slots=True)
class PortMapping:
    """A port of the box that leads to one of the container."""

    host_port: int
    container_port: int
    protocol: Protocols


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """What is special about a task in a container; all of it is allowed here (`edgerm_agent.launch` has seen to it)."""

    image: str
    network: str  # "host", "bridge", "none", or the name of a network that the engine knows
    ports: tuple[PortMapping, ...] = ()
    mounts: tuple[Mount, ...] = ()  # the sandbox is one of them
    hostname: str = ""  # empty: the engine's choice
    privileged: bool = False
    force_pull: bool = False  # ask the registry even if the image is here
    parameters: tuple[tuple[str, str], ...] = ()  # options of `docker run` without their dashes, as Mesos has them
    nodes: tuple[DeviceNode, ...] = ()  # of the task's devices
    annotations: tuple[tuple[str, str], ...] = ()  # labels, beside our own
    cdi_names: tuple[str, ...] = ()  # devices of the Container Device Interface
    runtime: str = ""  # OCI runtime; empty: the engine's default


@dataclass(frozen=True, slots=True)
class LaunchSpec:
    """All that an executor needs to start one task; made by the agent from a TaskInfo.

    Of a container `program` is the entrypoint (empty: the image's own), `argv` what follows it, and `env` goes beside
    the image's own variables.
    """

    key: TaskKey
    program: str  # what is executed: a path, or a name to be found in the PATH of `env`; of a WASM task its name
    argv: tuple[str, ...]  # whole, as the task sees it: argv[0] may be another name than the program's
    env: tuple[tuple[str, str], ...]  # the whole environment, nothing is inherited
    sandbox: Path  # exists, belongs to the task's user; the working directory
    stdin: Path | None = None  # a file; None: empty
    stdin_open: bool = False  # after the file it stays open, for `Executor.put_input`
    messages: Path | None = None  # the task's socket for messages, for an executor that must bring it there
    limits: Limits = Limits()
    user: str | None = None  # None: the agent's own
    module: Path | None = None  # the WASM module; only for the wasm executor
    entry_point: str = "_start"  # exported function of the module
    container: ContainerSpec | None = None  # only for the docker executor
    mounts: tuple[Mount, ...] = ()  # directories that a module sees beside its sandbox; only for the wasm executor
    cpus: tuple[int, ...] = ()  # it runs on these CPUs alone; none: wherever
    network: str = ""  # path of the network namespace that it runs in; empty: the box's, or as `container` says
    chips: tuple[GpioChip, ...] = ()  # whose lines a module reads and writes; only for the wasm executor


@dataclass(frozen=True, slots=True)
class Handle:
    """A started task as its executor knows it; journaled as it is."""

    key: TaskKey
    executor: str  # the executor's name
    instance: str  # the keeper, host or engine that holds the task; another instance has never heard of it
    pid: int | None = None


class ExitReason(Enum):
    """Why a task ended, as far as the executor alone can know."""

    ENDED = "ended"  # by itself, or by `stop`; see code, signal, trap
    MEMORY = "memory"  # at its memory limit
    DISK = "disk"  # at its sandbox quota
    LAUNCH_FAILED = "launch_failed"  # never ran: no such program, bad module, no such user
    EXECUTOR_DIED = "executor_died"  # the process that held it is gone; its cgroup was verified empty


@dataclass(frozen=True, slots=True)
class Exit:
    """How a task ended. Exactly one of `code`, `signal`, `trap` is set unless it never ran or its holder died."""

    reason: ExitReason = ExitReason.ENDED
    code: int | None = None
    signal: int | None = None
    trap: str | None = None  # WASM: what the engine said
    message: str = ""  # one line for a person
    tail: str = ""  # end of stderr, else of stdout; at most 4 KiB of valid UTF-8


@dataclass(frozen=True, slots=True)
class Usage:
    """What a task has used so far."""

    cpu_s: float
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class Inspection:
    """What an executor can do on this box, and what it holds."""

    enforced: dict[str, str] = field(default_factory=dict)  # "cpus": "cgroup-v2" | "none" …, told in attributes
    problems: tuple[str, ...] = ()  # one line each, with the remedy; empty: ready
    held: tuple[Handle, ...] = ()  # running, or ended with an exit not yet released


@dataclass(frozen=True, slots=True)
class Chunk:
    """Part of a task's output. `offset` counts bytes since its start; a gap means that the ring dropped some."""

    offset: int
    data: bytes
    ended: bool = False  # no more will come after this


@dataclass(frozen=True, slots=True)
class Intake:
    """How far a task's open standard input has come: so many live bytes are in its pipe."""

    offset: int
    closed: bool = False


class LaunchFailed(Exception):
    """The task did not start and never will; `str()` says why in one line."""


def unheard(line: str) -> None:
    """A `Tell` for callers who do not listen."""


class Executor(Protocol):
    """Runs tasks of one kind."""

    name: str

    async def start(self, spec: LaunchSpec, tell: Tell = unheard) -> Handle:
        """Start the task, once: a second call with the same key answers the first one's handle.

        `tell` gets one line about each step that takes long (an image is pulled), as often as there is news; callable
        only from the event loop's thread. Raises `LaunchFailed` when the task can never start; any other error leaves
        open whether it did.
        """
        ...

    async def abandon(self, key: TaskKey) -> None:
        """The start of this task is not wanted any more: one that still prepares raises `LaunchFailed` soon.

        Returns at once. A start that is about to answer a handle may do so. Without effect on a task that is not being
        started.
        """
        ...

    async def wait(self, handle: Handle) -> Exit:
        """How the task ended, whenever that is. May be asked again until `release`."""
        ...

    async def stop(self, handle: Handle, grace_s: float) -> None:
        """Ask the task to end, make it end `grace_s` later. Returns at once; a second call may shorten the grace."""
        ...

    async def adopt(self, handle: Handle) -> bool:
        """Whether this executor (still) holds the task, running or ended; after True `wait` and `stop` work."""
        ...

    async def inspect(self) -> Inspection:
        """What can be done here and what is held; cheap enough to ask at each start."""
        ...

    async def release(self, handle: Handle) -> None:
        """Forget the exit of an ended task; its output goes with it. An unknown handle is already released."""
        ...

    async def output(self, handle: Handle, stream: Stream, offset: int, max_bytes: int, wait_s: float) -> Chunk:
        """Output from `offset` on (negative: that many bytes before the end), at most `max_bytes`.

        Waits up to `wait_s` while there is none yet. Reads of dropped bytes begin at the oldest kept one.
        """
        ...

    async def put_input(self, handle: Handle, offset: int, data: bytes, end: bool, wait_s: float) -> Intake:
        """Write `data`, which is at `offset` of the task's live input; what it has of that already is skipped.

        Takes what there is room for, waits up to `wait_s` for the first byte; `end` closes the input after all of
        `data`. `offset` is never beyond what the last `Intake` told. Raises `NotFound` if the task is gone or its input
        was never open, or is closed with bytes left to write.
        """
        ...

    async def usage(self, handle: Handle) -> Usage | None:
        """What the task has used, or None if that is not known here."""
        ...


@runtime_checkable
class Networks(Protocol):
    """What an executor has beside `Executor` if it can make a task's network namespace before the task."""

    async def network(self, key: TaskKey) -> str:
        """Path of the namespace that `start` puts the task into: empty of interfaces but `lo`. Idempotent.

        It outlives the agent. Raises `Unavailable` while the engine is away.
        """
        ...

    async def drop_network(self, key: TaskKey) -> None:
        """The task has ended, and its interfaces are home: nothing of the namespace stays. Idempotent."""
        ...
