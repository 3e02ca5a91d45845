"""From a ContainerInfo to a `ContainerSpec`: what the operator allows, and where on this box a mount's source lies.

What does not live here: how a ContainerInfo reads (`edgerm.wire.codec.containers`), what the engine is asked for.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from edgerm.core.errors import Forbidden, Invalid
from edgerm.core.resources import Resources
from edgerm.plugin.device import NO_SETUP, Mount, Setup
from edgerm.plugin.executor import ContainerSpec, PortMapping
from edgerm.wire.codec.containers import (
    SANDBOX,
    Place,
    check_container,
    container_path,
    network_of,
    place_of,
    protocol_of,
)
from edgerm.wire.v1.resources_pb2 import Volume
from edgerm.wire.v1.tasks_pb2 import CommandInfo, TaskInfo


@dataclass(frozen=True, slots=True)
class Allowed:
    """What the operator lets containers have (`[executors.docker]`)."""

    privileged: bool = False
    volumes: Collection[str] = ()  # directories of this box
    users: Collection[str] = ()  # whom a task may ask to run as, in the image's words; else it is the image's choice

    def user(self, command: CommandInfo) -> str | None:
        """The user that the task asks for, None: the image's. Raises `Forbidden` for one that is not allowed."""
        if not command.user or command.user in self.users:
            return command.user or None
        raise Forbidden(
            f"the task asks for user {command.user[:40]!r}, whom executors.docker.users of this agent does not name"
        )

    def source(self, path: str) -> Path:
        """What `path` on this box leads to, links followed; raises `Forbidden` if that is outside what is allowed.

        Whoever may write into an allowed directory can still put a link there between this look and the engine's, so
        nobody but the operator should be able to write beside what tasks mount.
        """
        found = _resolved(path)
        if not any(found.is_relative_to(_resolved(directory)) for directory in self.volumes):
            raise Forbidden(
                f"the task mounts {path[:200]!r}, which is not below a directory that executors.docker.volumes of this "
                "agent names"
            )
        return found


def container_spec(
    message: TaskInfo, resources: Resources, sandbox: Path, allowed: Allowed, setup: Setup = NO_SETUP
) -> ContainerSpec:
    """What is special about the container of `message`; makes directories in the sandbox that it mounts.

    `setup`: what its devices give; the operator has declared that, so it is allowed. Raises `Invalid` if the task asks
    for what cannot be had, `Forbidden` for what the operator does not allow.
    """
    check_container(message, resources)  # whoever sent it: this is the box that would be spoilt
    container = message.container
    docker = container.docker
    if docker.privileged and not allowed.privileged:
        raise Forbidden("the task asks to be privileged, and executors.docker.privileged of this agent is false")
    return ContainerSpec(
        image=docker.image,
        network=network_of(container),
        ports=tuple(
            PortMapping(mapping.host_port, mapping.container_port, protocol_of(mapping))
            for mapping in docker.port_mappings
        ),
        mounts=(
            Mount(SANDBOX, str(sandbox), read_only=False, named=False),
            *(_mount(volume, sandbox, allowed) for volume in container.volumes),
            *_free_mounts(setup, container.volumes),
        ),
        hostname=container.hostname,
        privileged=docker.privileged,
        force_pull=docker.force_pull_image,
        parameters=tuple((parameter.key, parameter.value) for parameter in docker.parameters),
        nodes=setup.nodes,
        annotations=setup.annotations,
        cdi_names=setup.cdi_names,
        runtime=setup.runtime,
    )


def _free_mounts(setup: Setup, volumes: Iterable[Volume]) -> tuple[Mount, ...]:
    """What the devices mount; raises `Invalid` where the task mounts something itself."""
    taken = {container_path(volume) for volume in volumes}
    for mount in setup.mounts:
        if mount.container_path in taken:
            raise Invalid(f"the task mounts {mount.container_path[:200]!r} itself, where a device of it has its own")
    return setup.mounts


def _mount(volume: Volume, sandbox: Path, allowed: Allowed) -> Mount:
    place = place_of(volume)
    named = place.kind == "volume"
    source = place.at if named else str(_on_this_box(place, sandbox, allowed))
    return Mount(container_path(volume), source, read_only=volume.mode == Volume.RO, named=named)


def _on_this_box(place: Place, sandbox: Path, allowed: Allowed) -> Path:
    if place.kind == "host":
        found = allowed.source(place.at)
        if not _exists(found):
            raise Invalid(f"the task mounts {place.at[:200]!r}, and there is no such file or directory on this box")
        return found
    found = _resolved(str(sandbox / place.at))
    if not found.is_relative_to(_resolved(str(sandbox))):
        raise Forbidden(f"the task mounts {place.at[:200]!r} of its sandbox, which leads out of it")
    try:
        _make(found)
    except OSError as error:
        raise Invalid(f"the task mounts {place.at[:200]!r} of its sandbox: {error.strerror}") from error
    return found


def _make(folder: Path) -> None:
    """With what is missing above it, and as the sandbox, for whatever user the image has."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    if missing:
        folder.mkdir(parents=True)
    for path in missing:
        path.chmod(0o777)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # such as a name that is too long
        return False


def _resolved(path: str) -> Path:
    """Raises `Invalid` for a path that no system could follow."""
    try:
        return Path(path).resolve()
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links, a name too long
        raise Invalid(f"the path {path[:200]!r} cannot be followed: {error}") from error


def command_of(command: CommandInfo) -> tuple[str, tuple[str, ...]]:
    """The entrypoint (empty: the image's) and what follows it: a shell for `shell` true, else value and arguments.

    Source: Mesos' Docker containerizer, `Docker::RunOptions::create`.
    """
    if command.shell and command.value:
        return "/bin/sh", ("-c", command.value)
    return "", ((command.value,) if command.value else ()) + tuple(command.arguments)
