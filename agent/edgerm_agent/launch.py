"""From a TaskInfo to what an executor needs to start the task. Pure but for the paths, which are values here.

What does not live here: making the sandbox, fetching blobs, starting.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

from edgerm.core.blobs import Digest
from edgerm.core.errors import Invalid
from edgerm.core.ids import AgentId, TaskKey
from edgerm.core.resources import MILLI, ResourceKey, Resources
from edgerm.core.scheduler import TaskSpec
from edgerm.plugin.executor import LaunchSpec, Limits
from edgerm.wire.content import from_protobuf
from edgerm.wire.v1.tasks_pb2 import CommandInfo, TaskInfo

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
OURS = "EDGERM_"
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
    users: Collection[str],
) -> LaunchSpec:
    """What to start for `info`, the TaskInfo of `task`.

    `users`: whom a task may ask to run as; another wish has no effect. Raises `Invalid` if `info` is no TaskInfo or
    asks for what can never be started, `NotFound` for a blob that is not here.
    """
    message = from_protobuf(TaskInfo, info)
    wasm = message.container.wasm if message.container.HasField("wasm") else None
    command = message.command
    return LaunchSpec(
        key=key,
        argv=_module_argv(command, message.name) if wasm else argv_of(command),
        env=environment(key, agent_id, task.resources, command),
        sandbox=sandbox,
        stdin=blob_path(Digest(message.input.sha256.hex())) if message.HasField("input") else None,
        limits=limits_of(task.resources),
        user=command.user if command.user in users else None,
        module=blob_path(Digest(wasm.module.sha256.hex())) if wasm else None,
        entry_point=wasm.entry_point if wasm else "_start",
    )


def argv_of(command: CommandInfo) -> tuple[str, ...]:
    """A shell's for `shell` true, else the program `value` with `arguments`, whose first is argv[0] (mesos-v1 3.4)."""
    if command.shell:
        if not command.value:
            raise Invalid("command.value is empty: there is nothing to run")
        return (SHELL, "-c", command.value)
    argv = (command.value, *command.arguments[1:]) if command.value else tuple(command.arguments)
    if not argv or not argv[0]:
        raise Invalid("command.value is empty: there is nothing to run")
    return argv


def _module_argv(command: CommandInfo, name: str) -> tuple[str, ...]:
    """A module is its own program, so `shell` has no meaning; argv[0] is the first argument, else value, else name."""
    if command.arguments:
        return tuple(command.arguments)
    return (command.value or name,)


def environment(
    key: TaskKey, agent_id: AgentId, resources: Resources, command: CommandInfo
) -> tuple[tuple[str, str], ...]:
    """The task's whole environment: PATH, what the command sets, and EDGERM_*, which no command overrides."""
    variables = {"PATH": PATH}
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
    return tuple(variables.items())


def ports_text(resources: Resources) -> str:
    """The task's ports: `31000-31001,31005`; empty if it has none."""
    ranges = sorted(
        part
        for key, amount in resources.items()
        if key.name == "ports" and isinstance(amount, tuple)
        for part in amount
    )
    return ",".join(str(begin) if begin == end else f"{begin}-{end}" for begin, end in ranges)


def limits_of(resources: Resources) -> Limits:
    """What the task asked for is what it may use; a resource that it did not ask for is not limited."""
    names = {key.name for key in resources}
    return Limits(
        cpus_milli=resources.scalar_milli("cpus") if "cpus" in names else None,
        memory_bytes=_bytes(resources, "mem") if "mem" in names else None,
        disk_bytes=_bytes(_sandbox_disk(resources), "disk") if ResourceKey("disk") in resources else None,
    )


def _sandbox_disk(resources: Resources) -> Resources:
    """Plain disk; volumes are disk too, but no part of the sandbox."""
    return Resources({key: amount for key, amount in resources.items() if key.name == "disk" and not key.disk})


def _bytes(resources: Resources, name: str) -> int:
    return resources.scalar_milli(name) * MIB // MILLI
