"""`ContainerInfo` of type DOCKER: how its parts read, and what is wrong with one.

What does not live here: what an operator allows (`edgerm_agent.containers`), what the engine can do. Sources: the
comments in mesos.proto, and what Mesos' Docker containerizer refuses.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Sized
from typing import Literal, NamedTuple

from edgerm.core.errors import Invalid, TooLarge
from edgerm.core.resources import Resources
from edgerm.core.texts import utf8_bytes
from edgerm.wire.v1.resources_pb2 import Volume
from edgerm.wire.v1.tasks_pb2 import ContainerInfo, NetworkInfo, TaskInfo

SANDBOX = "/mnt/mesos/sandbox"
"""Where a container finds its sandbox, as in Mesos."""
IMAGE_BYTES_MAX = 512
PATH_BYTES_MAX = 4095  # PATH_MAX of Linux, less the NUL
TEXT_BYTES_MAX = 4096
ITEMS_MAX = 128  # of each of ports, volumes and parameters

_IMAGE = re.compile(r"[A-Za-z0-9][!-~]*")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,254}")  # of an engine's volume or network
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.\-]{0,61}[A-Za-z0-9])?")
_TAKEN = ("host", "bridge", "none", "default")
_PROTOCOLS: tuple[Literal["tcp", "udp"], ...] = ("tcp", "udp")

_Docker = ContainerInfo.DockerInfo
_Source = Volume.Source
_BUILT = frozenset({"type", "volumes", "hostname", "docker", "network_infos"})
_DOCKER_BUILT = frozenset({"image", "network", "port_mappings", "privileged", "parameters", "force_pull_image"})


def is_docker(message: TaskInfo) -> bool:
    """Whether the task is a container of a Docker engine."""
    return message.HasField("container") and message.container.type == ContainerInfo.DOCKER


def not_built(container: ContainerInfo) -> Iterator[str]:
    """What it asks for and edgerm has not."""
    for field, _ in container.ListFields():
        if field.name not in _BUILT:
            yield f"container.{field.name} with container.type DOCKER"
    for field, _ in container.docker.ListFields():
        if field.name not in _DOCKER_BUILT:
            yield f"container.docker.{field.name}"
    for network in container.network_infos:
        for field, _ in network.ListFields():
            if field.name not in ("name", "labels"):
                yield f"container.network_infos.{field.name}"
    for volume in container.volumes:
        yield from _not_built_of_volume(volume)


def _not_built_of_volume(volume: Volume) -> Iterator[str]:
    source = volume.source
    if volume.HasField("image"):
        yield "container.volumes.image"
    if source.type in (_Source.SECRET, _Source.CSI_VOLUME):
        yield f"container.volumes.source.type {_Source.Type.Name(source.type)}"
    if source.docker_volume.HasField("driver_options") or source.docker_volume.driver not in ("", "local"):
        yield "container.volumes.source.docker_volume.driver"
    if source.host_path.HasField("mount_propagation"):
        yield "container.volumes.source.host_path.mount_propagation"
    if source.sandbox_path.type == _Source.SandboxPath.PARENT:
        yield "container.volumes.source.sandbox_path.type PARENT"


def check_container(message: TaskInfo, resources: Resources) -> None:
    """Raises `Invalid`, naming the field, unless this container can be had by a task with these resources."""
    container = message.container
    if not container.HasField("docker"):
        raise Invalid("container.docker is missing: container.type DOCKER needs it")
    _check_image(container.docker.image)
    if message.HasField("input"):
        raise Invalid("input is not built yet for containers: mount a volume, or let the task read a file")
    _check_command(message)
    network = network_of(container)
    _check_hostname(container.hostname, network)
    _check_ports(container, network, resources)
    _check_parameters(container)
    _check_volumes(container)


def _check_image(image: str) -> None:
    if utf8_bytes(image) > IMAGE_BYTES_MAX:
        raise TooLarge(f"container.docker.image has {utf8_bytes(image)} bytes, at most {IMAGE_BYTES_MAX} are allowed")
    if not _IMAGE.fullmatch(image):
        raise Invalid(f"container.docker.image {image[:80]!r} is no image's name: write it as in debian:12")


def _check_command(message: TaskInfo) -> None:
    command = message.command
    if command.shell and not command.value and (command.HasField("shell") or command.arguments):
        raise Invalid("command.value is empty, and a shell needs it: set command.shell to false for the image's own")


def network_of(container: ContainerInfo) -> str:
    """ "host", "bridge", "none", or the name of a user's network. Raises `Invalid`."""
    names = [info.name for info in container.network_infos]
    if container.docker.network != _Docker.USER:
        if names:
            raise Invalid("container.network_infos needs container.docker.network USER")
        return _Docker.Network.Name(container.docker.network).lower()
    if len(names) != 1 or not names[0]:
        raise Invalid(f"container.docker.network USER needs one container.network_infos with a name, not {len(names)}")
    if names[0] in _TAKEN or not _NAME.fullmatch(names[0]):
        raise Invalid(f"container.network_infos.name {names[0][:80]!r} is not the name of a user's network")
    return names[0]


def _check_hostname(hostname: str, network: str) -> None:
    if hostname and network == "host":
        raise Invalid("container.hostname is not possible with container.docker.network HOST")
    if hostname and not _HOST.fullmatch(hostname):
        raise Invalid(f"container.hostname {hostname[:80]!r} is no host's name")


def protocol_of(mapping: ContainerInfo.DockerInfo.PortMapping | NetworkInfo.PortMapping) -> Literal["tcp", "udp"]:
    """tcp unless it says otherwise, in letters of any size. Raises `Invalid`."""
    for protocol in _PROTOCOLS:
        if mapping.protocol.lower() == protocol or not mapping.protocol:
            return protocol
    raise Invalid(f"container.docker.port_mappings.protocol {mapping.protocol[:80]!r} is not built: write tcp or udp")


def _check_ports(container: ContainerInfo, network: str, resources: Resources) -> None:
    mappings = container.docker.port_mappings
    _check_count("container.docker.port_mappings", mappings)
    if mappings and network in ("host", "none"):
        raise Invalid("container.docker.port_mappings needs container.docker.network BRIDGE or USER")
    taken = set()
    for mapping in mappings:
        port = (mapping.host_port, protocol_of(mapping))
        if not 0 < mapping.container_port < 1 << 16:
            raise Invalid(f"container.docker.port_mappings.container_port {mapping.container_port} is no port")
        if not _has_port(resources, mapping.host_port):
            raise Invalid(
                f"container.docker.port_mappings.host_port {mapping.host_port} is not among the task's resources: "
                f"ask for it with ports:[{mapping.host_port}-{mapping.host_port}]"
            )
        if port in taken:
            raise Invalid(f"container.docker.port_mappings.host_port {mapping.host_port} stands twice")
        taken.add(port)


def _has_port(resources: Resources, port: int) -> bool:
    """Port 0 is nobody's, whatever the resources say."""
    return port > 0 and any(
        begin <= port <= end
        for key, amount in resources.items()
        if key.name == "ports" and isinstance(amount, tuple)
        for begin, end in amount
    )


def _check_parameters(container: ContainerInfo) -> None:
    _check_count("container.docker.parameters", container.docker.parameters)
    for parameter in container.docker.parameters:
        _check_text("container.docker.parameters.key", parameter.key, TEXT_BYTES_MAX)
        if parameter.value:
            _check_text("container.docker.parameters.value", parameter.value, TEXT_BYTES_MAX)


# --- volumes ----------------------------------------------------------------------------------------------------


class Place(NamedTuple):
    """Where what a volume shows lies."""

    kind: Literal["host", "sandbox", "volume"]
    at: str  # an absolute path of the box, a path in the sandbox, or a volume's name


def container_path(volume: Volume) -> str:
    """Where a container sees the volume, absolute; a relative path is one in the sandbox. Raises `Invalid`."""
    return _within("container.volumes.container_path", volume.container_path, SANDBOX)


def place_of(volume: Volume) -> Place:
    """What the volume shows. Raises `Invalid`."""
    source = volume.source
    if volume.HasField("host_path") == volume.HasField("source"):
        raise Invalid("container.volumes needs one of host_path and source")
    if volume.HasField("host_path"):
        return _host_or_sandbox("container.volumes.host_path", volume.host_path)
    if source.type == _Source.HOST_PATH:
        place = _host_or_sandbox("container.volumes.source.host_path.path", source.host_path.path)
        if place.kind == "host":
            return place
        raise Invalid(f"container.volumes.source.host_path.path {place.at[:80]!r} is not absolute")
    if source.type == _Source.SANDBOX_PATH:
        place = _host_or_sandbox("container.volumes.source.sandbox_path.path", source.sandbox_path.path)
        if place.kind == "sandbox":
            return place
        raise Invalid(f"container.volumes.source.sandbox_path.path {place.at[:80]!r} is not relative")
    if source.type == _Source.DOCKER_VOLUME:
        if _NAME.fullmatch(source.docker_volume.name):
            return Place("volume", source.docker_volume.name)
        raise Invalid(f"container.volumes.source.docker_volume.name {source.docker_volume.name[:80]!r} is no name")
    raise Invalid("container.volumes.source.type is unknown: it may be HOST_PATH, SANDBOX_PATH or DOCKER_VOLUME")


def _host_or_sandbox(what: str, path: str) -> Place:
    if path.startswith("/"):
        _check_text(what, path, PATH_BYTES_MAX)
        return Place("host", posixpath.normpath(path).replace("//", "/"))
    return Place("sandbox", posixpath.relpath(_within(what, path, SANDBOX), SANDBOX))


def _within(what: str, path: str, base: str) -> str:
    """`path`, absolute and without detours; a relative one lies below `base`."""
    _check_text(what, path, PATH_BYTES_MAX)
    if ".." in path.split("/"):
        raise Invalid(f"{what} {path[:80]!r} has a part '..'")
    return posixpath.normpath(posixpath.join(base, path)).replace("//", "/")


def _check_volumes(container: ContainerInfo) -> None:
    _check_count("container.volumes", container.volumes)
    taken = {SANDBOX, "/"}
    for volume in container.volumes:
        at = container_path(volume)
        if at in taken:
            raise Invalid(f"container.volumes.container_path {at[:80]!r} is taken already")
        taken.add(at)
        if place_of(volume).kind == "sandbox" and not volume.container_path.startswith("/"):
            raise Invalid(
                f"container.volumes.container_path {volume.container_path[:80]!r} is relative, and what it shows lies "
                "in the sandbox too: the task finds it there"
            )


def _check_text(what: str, text: str, bytes_max: int) -> None:
    if not text or not text.isprintable():
        raise Invalid(f"{what} {text[:80]!r} is empty or has control characters")
    if utf8_bytes(text) > bytes_max:
        raise TooLarge(f"{what} has {utf8_bytes(text)} bytes, at most {bytes_max} are allowed")


def _check_count(what: str, items: Sized) -> None:
    if len(items) > ITEMS_MAX:
        raise TooLarge(f"{len(items)} {what}, at most {ITEMS_MAX} are allowed")
