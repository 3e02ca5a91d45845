"""Containers in a few words: ports as `8080:80/udp`, volumes as `data:/var/lib/data:ro`, networks by name.

What does not live here: what is wrong with a container as a whole (`edgerm.wire.codec.containers`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple, TypeAlias

from edgerm.core.errors import Invalid
from edgerm.wire.v1.resources_pb2 import Volume
from edgerm.wire.v1.tasks_pb2 import ContainerInfo

PORT_MAX = 65535
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]*")
_NETWORKS: Mapping[str, ContainerInfo.DockerInfo.Network.ValueType] = {
    "host": ContainerInfo.DockerInfo.HOST,
    "bridge": ContainerInfo.DockerInfo.BRIDGE,
    "none": ContainerInfo.DockerInfo.NONE,
}


class Port(NamedTuple):
    """A port of the box (0: any that is offered) that leads to one of the container."""

    host: int
    container: int
    protocol: Literal["tcp", "udp"] = "tcp"


Ports: TypeAlias = Mapping[int, int] | Iterable["str | int | Port"]
"""`{host: container}`, or a list of texts as `parse_port` reads them, of container ports, of `Port`."""


def ports_of(ports: Ports) -> tuple[Port, ...]:
    """All of them; raises `Invalid` for what is no port."""
    if isinstance(ports, Mapping):
        return tuple(_checked(Port(host, container)) for host, container in ports.items())
    if isinstance(ports, str):
        raise Invalid(f"ports are a list or {{host: container}}, not the text {ports[:40]!r}")
    return tuple(_port(port) for port in ports)


def _port(port: str | int | Port) -> Port:
    if isinstance(port, str):
        return parse_port(port)
    return _checked(Port(0, port) if isinstance(port, int) else Port(*port))


def parse_port(text: str) -> Port:
    """`HOST:CONTAINER`, or `CONTAINER` for any port of the box, with /tcp or /udp behind it. Raises `Invalid`."""
    numbers, slash, protocol = text.partition("/")
    host, _, container = numbers.rpartition(":")
    digits = container.isascii() and container.isdecimal() and (not host or (host.isascii() and host.isdecimal()))
    if not digits or len(numbers) > 11 or protocol not in (("tcp", "udp") if slash else ("",)):
        raise Invalid(f"{text[:40]!r} is no port: write HOST:CONTAINER or CONTAINER, such as 8080:80 or 8080:53/udp")
    return _checked(Port(int(host) if host else 0, int(container), "udp" if protocol == "udp" else "tcp"))


def _checked(port: Port) -> Port:
    if 0 <= port.host <= PORT_MAX and 0 < port.container <= PORT_MAX:
        return port
    raise Invalid(f"{port.host}:{port.container} is no port: ports go to {PORT_MAX}, and 0 is any port of the box")


def parse_volume(text: str) -> Volume:
    """`SOURCE:PATH`, with `:ro` behind it for one that the task only reads. Raises `Invalid`.

    SOURCE is an absolute path of the box, if its operator allows it; the name of a volume that the engine keeps; or a
    path in the task's sandbox, such as ./data.
    """
    source, _, rest = text.partition(":")
    path, colon, mode = rest.partition(":")
    if not source or not path or mode not in (("ro", "rw") if colon else ("",)):
        raise Invalid(f"{text[:80]!r} is no volume: write SOURCE:PATH or SOURCE:PATH:ro, such as data:/var/lib/data")
    volume = Volume(container_path=path, mode=Volume.RO if mode == "ro" else Volume.RW)
    if _NAME.fullmatch(source):
        volume.source.type = Volume.Source.DOCKER_VOLUME
        volume.source.docker_volume.name = source
    else:
        volume.host_path = source
    return volume


def fill_in(container: ContainerInfo, image: str, network: str | None, ports: tuple[Port, ...]) -> None:
    """Make a container of `container`; without a network it is the box's own, or a bridge if there are ports."""
    docker = container.docker
    container.type = ContainerInfo.DOCKER
    docker.image = image
    network = network or ("bridge" if ports else "host")
    docker.network = _NETWORKS.get(network, ContainerInfo.DockerInfo.USER)
    if network not in _NETWORKS:
        container.network_infos.add(name=network)
    for port in ports:
        docker.port_mappings.add(host_port=port.host, container_port=port.container, protocol=port.protocol)
