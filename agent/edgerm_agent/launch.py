"""From a TaskInfo to what an executor needs to start the task. Pure but for what containers mount.

What does not live here: making the sandbox, fetching blobs, starting; what is special about containers
(`containers.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from edgerm.core.blobs import Digest
from edgerm.core.devices import items
from edgerm.core.errors import Forbidden, Invalid
from edgerm.core.ids import AgentId, TaskKey
from edgerm.core.resources import MILLI, ResourceKey, Resources
from edgerm.core.scheduler import TaskSpec
from edgerm.plugin.device import NO_SETUP, Setup
from edgerm.plugin.executor import LaunchSpec, Limits
from edgerm.wire.codec.containers import SANDBOX
from edgerm.wire.content import from_protobuf
from edgerm.wire.v1.tasks_pb2 import CommandInfo, TaskInfo
from edgerm_agent import mailbox
from edgerm_agent.containers import Allowed, command_of, container_spec

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
OURS = "EDGERM_"
CONTAINERS = "docker"
SHELL = "/bin/sh"
MIB = 1 << 20


def launch_spec(
    key: TaskKey,
    task: TaskSpec,
    info: bytes,
    *,
    agent_id: AgentId,
    sandbox: Path,
    blob_path: Callable[[Digest], Path],
    users: Users,
    allowed: Allowed,
    setup: Setup = NO_SETUP,
    plain_cpus: tuple[int, ...] = (),
) -> LaunchSpec:
    """What to start for `info`, the TaskInfo of `task`; `setup`: what its devices give.

    `plain_cpus`: where tasks run that have no CPUs of their own; none: anywhere.

    Raises `Invalid` if `info` is no TaskInfo or asks for what can never be started, `NotFound` for a blob that is not
    here, `Forbidden` for what no task may ask for.
    """
    message = from_protobuf(TaskInfo, info)
    variables = _variables(key, task, message, agent_id, sandbox, setup)
    cpus = setup.cpus or plain_cpus
    if task.executor == CONTAINERS:
        return _container(key, task, message, variables, sandbox, allowed, setup, cpus)
    wasm = message.container.wasm if message.container.HasField("wasm") else None
    program, argv = _module_command(message.command, message.name) if wasm else program_of(message.command)
    if not wasm:
        _check_in_place(setup)
    return LaunchSpec(
        key=key,
        program=program,
        argv=argv,
        env=tuple({"PATH": PATH, **variables}.items()),
        sandbox=sandbox,
        stdin=blob_path(Digest(message.input.sha256.hex())) if message.HasField("input") else None,
        limits=limits_of(task.resources, setup.cpus),
        user=None if wasm else users.of(message.command),
        module=blob_path(Digest(wasm.module.sha256.hex())) if wasm else None,
        entry_point=wasm.entry_point if wasm else "_start",
        stdin_open=message.stdin_open,
        messages=mailbox.place_of(sandbox, task.executor) if message.messages else None,
        mounts=setup.mounts if wasm else (),
        cpus=cpus,
        network=setup.network,
        chips=setup.chips if wasm else (),
    )


def _variables(
    key: TaskKey, task: TaskSpec, message: TaskInfo, agent_id: AgentId, sandbox: Path, setup: Setup
) -> dict[str, str]:
    """What the task finds in its environment; a module finds host calls for messages instead of a socket."""
    variables = {**dict(setup.env), **environment(key, agent_id, task.resources, message.command)}
    if message.messages and task.executor != mailbox.WASM:
        variables[mailbox.VARIABLE] = mailbox.told_path(SANDBOX if task.executor == CONTAINERS else str(sandbox))
    return variables


def _check_in_place(setup: Setup) -> None:
    """A process sees the box as it is: what its devices mount lies where it lies. Raises `Invalid`."""
    for mount in setup.mounts:
        if mount.container_path != mount.source:
            raise Invalid(
                f"a device of the task shows {mount.source[:200]!r} at {mount.container_path[:200]!r}, which a process "
                "cannot have: run the task in a container, or declare the device with one path"
            )


def _container(
    key: TaskKey,
    task: TaskSpec,
    message: TaskInfo,
    variables: dict[str, str],
    sandbox: Path,
    allowed: Allowed,
    setup: Setup,
    cpus: tuple[int, ...],
) -> LaunchSpec:
    """No PATH of ours: the image has its own."""
    container = container_spec(message, task.resources, sandbox, allowed, setup)
    program, argv = command_of(message.command)
    return LaunchSpec(
        key=key,
        program=program,
        argv=argv,
        env=tuple({**variables, "MESOS_SANDBOX": SANDBOX}.items()),
        sandbox=sandbox,
        limits=limits_of(task.resources, setup.cpus),
        user=allowed.user(message.command),
        stdin_open=message.stdin_open,
        messages=mailbox.place_of(sandbox, task.executor) if message.messages else None,
        container=container,
        cpus=cpus,
        network=setup.network,
    )


@dataclass(frozen=True, slots=True)
class Users:
    """Whom process tasks run as. Modules have no user: they reach nothing that one could own."""

    default: str = ""  # whom tasks run as that ask for nobody; empty: that is not settled
    allowed: Collection[str] = ()  # whom a task may ask for, beside that

    def of(self, command: CommandInfo) -> str | None:
        """The user that the task asks for, None: the default one.

        Raises `Forbidden` for any other: a task must not have more rights than its framework expects.
        """
        user = command.user
        if not user or user == self.default:
            return None
        if user in self.allowed:
            return user
        raise Forbidden(
            f"the task asks for user {user[:40]!r}, whom executors.process.users of this agent does not name"
        )


def program_of(command: CommandInfo) -> tuple[str, tuple[str, ...]]:
    """What is executed, and its argv: a shell for `shell` true, else `value` with `arguments`, argv[0] and all.

    Source: mesos.proto, CommandInfo. Without arguments argv[0] is `value`.
    """
    if not command.value and (command.shell or not command.arguments):
        raise Invalid("command.value is empty: there is nothing to run")
    if command.shell:
        return SHELL, (SHELL, "-c", command.value)
    argv = tuple(command.arguments) or (command.value,)
    if not argv[0]:
        raise Invalid("command.arguments begins with an empty argv[0]: put the program's name there")
    return command.value or argv[0], argv


def _module_command(command: CommandInfo, name: str) -> tuple[str, tuple[str, ...]]:
    """A module is its own program, so `shell` has no meaning; argv[0] is the first argument, else value, else name."""
    return name, tuple(command.arguments) or (command.value or name,)


def environment(key: TaskKey, agent_id: AgentId, resources: Resources, command: CommandInfo) -> dict[str, str]:
    """What every task gets: what the command sets, and EDGERM_*, which no command overrides."""
    variables = {}
    for variable in command.environment.variables:
        if not variable.name or "=" in variable.name or "\0" in variable.name + variable.value:
            raise Invalid(f"the environment's name {variable.name[:40]!r} is empty, or it or its value cannot be told")
        if not variable.name.startswith(OURS):
            variables[variable.name] = variable.value
    variables |= {
        "EDGERM_TASK_ID": key.task_id,
        "EDGERM_FRAMEWORK_ID": key.framework_id,
        "EDGERM_AGENT_ID": agent_id,
        "EDGERM_PORTS": ports_text(resources),
    }
    if sets := " ".join(f"{name}={item}" for name, item in items(resources)):
        variables["EDGERM_DEVICES"] = sets
    return variables


def ports_text(resources: Resources) -> str:
    """The task's ports: `31000-31001,31005`; empty if it has none."""
    ranges = sorted(
        part
        for key, amount in resources.items()
        if key.name == "ports" and isinstance(amount, tuple)
        for part in amount
    )
    return ",".join(str(begin) if begin == end else f"{begin}-{end}" for begin, end in ranges)


def limits_of(resources: Resources, own_cpus: Collection[int] = ()) -> Limits:
    """What the task asked for is what it may use; a resource that it did not ask for is not limited.

    CPUs of its own (`own_cpus`) it has whole, whatever share of the others it asked for beside them.
    """
    names = {key.name for key in resources}
    return Limits(
        cpus_milli=resources.scalar_milli("cpus") if "cpus" in names and not own_cpus else None,
        memory_bytes=_bytes(resources, "mem") if "mem" in names else None,
        disk_bytes=_bytes(_sandbox_disk(resources), "disk") if ResourceKey("disk") in resources else None,
    )


def _sandbox_disk(resources: Resources) -> Resources:
    """Plain disk; volumes are disk too, but no part of the sandbox."""
    return Resources({key: amount for key, amount in resources.items() if key.name == "disk" and not key.disk})


def _bytes(resources: Resources, name: str) -> int:
    return resources.scalar_milli(name) * MIB // MILLI
