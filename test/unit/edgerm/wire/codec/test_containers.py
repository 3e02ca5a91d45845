"""Containers as a TaskInfo asks for them: how their parts read, and what is wrong with one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgerm.core.errors import Invalid
from edgerm.core.resources import parse
from edgerm.wire.codec.containers import ITEMS_MAX, SANDBOX, Place, container_path, network_of, place_of, protocol_of
from edgerm.wire.codec.resources import resources_to_messages
from edgerm.wire.codec.tasks import task_spec
from edgerm.wire.v1.resources_pb2 import Volume
from edgerm.wire.v1.tasks_pb2 import ContainerInfo, TaskInfo

Docker = ContainerInfo.DockerInfo
Change = Callable[[TaskInfo], object]


def docker(image: str = "busybox") -> TaskInfo:
    """A container on the bridge with two ports of its own."""
    message = TaskInfo(name="n", resources=resources_to_messages(parse("cpus:1;ports:[31000-31001]")))
    message.task_id.value, message.agent_id.value = "t", "a"
    message.container.type = ContainerInfo.DOCKER
    message.container.docker.image = image
    message.container.docker.network = Docker.BRIDGE
    return message


def changed(change: Change) -> TaskInfo:
    """A container with this changed."""
    message = docker()
    change(message)
    return message


def volume(message: TaskInfo, at: str = "/data", **parts: Any) -> TaskInfo:
    """Add a volume."""
    message.container.volumes.add(mode=Volume.RW, container_path=at, **parts)
    return message


def port(message: TaskInfo, host: int = 31000, inside: int = 80, protocol: str = "tcp") -> TaskInfo:
    """Add a port."""
    message.container.docker.port_mappings.add(host_port=host, container_port=inside, protocol=protocol)
    return message


def network(message: TaskInfo, kind: int, *names: str) -> TaskInfo:
    """Choose the network."""
    message.container.docker.network = kind  # type: ignore[assignment]
    for name in names:
        message.container.network_infos.add(name=name)
    return message


def hostname(message: TaskInfo, name: str) -> TaskInfo:
    """Name the box that the container sees."""
    message.container.hostname = name
    return message


def test_an_image_needs_no_command() -> None:
    """An image alone is a task, and one with only variables, too."""
    message = docker()
    assert (task_spec(message).fault, task_spec(message).executor) == ("", "docker")
    message.command.environment.variables.add(name="A", value="b")
    assert task_spec(message).fault == ""


def _source(kind: int, **parts: Any) -> dict[str, Any]:
    return {"source": {"type": kind, **parts}}


SOURCE = Volume.Source


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda m: m.container.ClearField("docker"), "container.docker is missing"),
        (lambda m: setattr(m.container.docker, "image", ""), "container.docker.image '' is no image's name"),
        (lambda m: setattr(m.container.docker, "image", "a b"), "container.docker.image"),
        (lambda m: setattr(m.container.docker, "image", "a\nb"), "container.docker.image"),
        (lambda m: setattr(m.container.docker, "image", "-v"), "container.docker.image"),
        (lambda m: setattr(m.container.docker, "image", "a" * 513), "container.docker.image has 513 bytes"),
        (lambda m: setattr(m.container.docker, "volume_driver", "x"), "container.docker.volume_driver is not built"),
        (lambda m: m.container.linux_info.SetInParent(), "container.linux_info with container.type DOCKER is not"),
        (lambda m: m.container.rlimit_info.SetInParent(), "container.rlimit_info"),
        (lambda m: m.container.tty_info.SetInParent(), "container.tty_info"),
        (lambda m: m.container.mesos.SetInParent(), "container.mesos"),
        (
            lambda m: m.input.MergeFromString(b"\n\x20" + b"x" * 32 + b"\x10\x01"),
            "input is not built yet for containers",
        ),
        (lambda m: setattr(m.command, "shell", True), "command.value is empty"),
        (lambda m: m.command.arguments.append("x"), "command.value is empty"),
        (lambda m: network(m, Docker.USER), "USER needs one container.network_infos with a name, not 0"),
        (lambda m: network(m, Docker.USER, "a", "b"), "with a name, not 2"),
        (lambda m: network(m, Docker.USER, ""), "with a name"),
        (lambda m: network(m, Docker.USER, "host"), "container.network_infos.name 'host'"),
        (lambda m: network(m, Docker.USER, "container:x"), "container.network_infos.name"),
        (lambda m: network(m, Docker.HOST, "a"), "container.network_infos needs container.docker.network USER"),
        (lambda m: m.container.network_infos.add(groups=["x"]), "container.network_infos.groups is not built"),
        (lambda m: network(hostname(m, "h"), Docker.HOST), "container.hostname is not"),
        (lambda m: hostname(m, "a b"), "container.hostname 'a b'"),
        (lambda m: network(port(m), Docker.HOST), "port_mappings needs container.docker.network BRIDGE or USER"),
        (lambda m: network(port(m), Docker.NONE), "port_mappings needs"),
        (lambda m: port(m, 80), "host_port 80 is not among the task's resources"),
        (lambda m: port(m, 0), "host_port 0 is not among"),
        (lambda m: port(m, inside=0), "container_port 0 is no port"),
        (lambda m: port(m, inside=65536), "container_port 65536"),
        (lambda m: port(m, protocol="sctp"), "protocol 'sctp' is not built"),
        (lambda m: port(port(m), inside=81), "host_port 31000 stands twice"),
        (lambda m: [port(m) for _ in range(ITEMS_MAX + 1)], "129 container.docker.port_mappings, at most 128"),
        (lambda m: m.container.docker.parameters.add(key="", value="x"), "container.docker.parameters.key"),
        (lambda m: m.container.docker.parameters.add(key="a", value="\0"), "container.docker.parameters.value"),
        (lambda m: m.container.docker.parameters.add(key="a", value="x" * 4097), "parameters.value has 4097 bytes"),
        (lambda m: [m.container.docker.parameters.add(key="a", value="") for _ in range(129)], "129 container.docker"),
        (volume, "needs one of host_path and source"),
        (lambda m: volume(m, host_path="/a", **_source(SOURCE.DOCKER_VOLUME)), "needs one of host_path and source"),
        (lambda m: volume(m, host_path=""), "container.volumes.host_path '' is empty"),
        (lambda m: volume(m, host_path="../a"), "has a part '..'"),
        (lambda m: volume(m, at="", host_path="/a"), "container.volumes.container_path"),
        (lambda m: volume(m, at="/a/../b", host_path="/a"), "container_path '/a/../b' has a part '..'"),
        (lambda m: volume(m, at="/a\tb", host_path="/a"), "control characters"),
        (lambda m: volume(m, at="a", host_path="b"), "'a' is relative"),
        (lambda m: volume(m, at="//", host_path="/a"), "'/' is taken"),
        (lambda m: volume(m, at=SANDBOX, host_path="/a"), "is taken"),
        (lambda m: [volume(m, host_path="/a") for _ in range(2)], "'/data' is taken already"),
        (lambda m: [volume(m, host_path="/a") for _ in range(129)], "129 container.volumes"),
        (lambda m: volume(m, at="/" + "x" * 4095, host_path="/a"), "4096 bytes"),
        (lambda m: volume(m, image={"type": 2}), "container.volumes.image is not built"),
        (lambda m: volume(m, **_source(SOURCE.UNKNOWN)), "source.type is unknown"),
        (lambda m: volume(m, **_source(SOURCE.SECRET)), "container.volumes.source.type SECRET is not built"),
        (lambda m: volume(m, **_source(SOURCE.CSI_VOLUME)), "source.type CSI_VOLUME is not built"),
        (lambda m: volume(m, **_source(SOURCE.DOCKER_VOLUME)), "docker_volume.name '' is no name"),
        (
            lambda m: volume(m, **_source(SOURCE.DOCKER_VOLUME, docker_volume={"name": "a", "driver": "nfs"})),
            "docker_volume.driver is not built",
        ),
        (
            lambda m: volume(m, **_source(SOURCE.DOCKER_VOLUME, docker_volume={"name": "a/b"})),
            "docker_volume.name 'a/b' is no name",
        ),
        (
            lambda m: volume(m, **_source(SOURCE.HOST_PATH, host_path={"path": "a"})),
            "host_path.path 'a' is not absolute",
        ),
        (
            lambda m: volume(
                m, **_source(SOURCE.HOST_PATH, host_path={"path": "/a", "mount_propagation": {"mode": 1}})
            ),
            "mount_propagation is not built",
        ),
        (
            lambda m: volume(m, **_source(SOURCE.SANDBOX_PATH, sandbox_path={"type": 1, "path": "/a"})),
            "sandbox_path.path '/a' is not relative",
        ),
        (
            lambda m: volume(m, **_source(SOURCE.SANDBOX_PATH, sandbox_path={"type": 2, "path": "a"})),
            "sandbox_path.type PARENT is not built",
        ),
    ],
)
def test_a_container_that_cannot_be_had_as_asked(change: Change, why: str) -> None:
    """The fault names the field."""
    assert why in task_spec(changed(change)).fault


@pytest.mark.parametrize(
    ("parts", "place"),
    [
        ({"host_path": "/a/./b/"}, Place("host", "/a/b")),
        ({"host_path": "//a"}, Place("host", "/a")),
        ({"host_path": "a/./b/"}, Place("sandbox", "a/b")),
        ({"host_path": "."}, Place("sandbox", ".")),
        (_source(SOURCE.HOST_PATH, host_path={"path": "/a/../b"}), Place("host", "/b")),
        (_source(SOURCE.SANDBOX_PATH, sandbox_path={"type": 1, "path": "a"}), Place("sandbox", "a")),
        (_source(SOURCE.DOCKER_VOLUME, docker_volume={"name": "a"}), Place("volume", "a")),
    ],
)
def test_what_a_volume_shows(parts: dict[str, Any], place: Place) -> None:
    """A path of the box, one in the sandbox, or a volume of the engine."""
    message = changed(lambda m: volume(m, **parts))
    assert task_spec(message).fault == ""
    assert place_of(message.container.volumes[0]) == place


def test_where_a_container_sees_a_volume() -> None:
    """A relative path lies in the sandbox."""
    assert container_path(Volume(mode=Volume.RO, container_path="a/b")) == f"{SANDBOX}/a/b"
    assert container_path(Volume(mode=Volume.RO, container_path="/a//b/")) == "/a/b"


def test_networks() -> None:
    """The host's network unless something else is asked for, as in Mesos."""
    assert network_of(ContainerInfo()) == "host"
    assert [network_of(changed(lambda m, kind=kind: network(m, kind)).container) for kind in (1, 2, 3)] == [  # type: ignore[misc]
        "host",
        "bridge",
        "none",
    ]
    assert network_of(changed(lambda m: network(m, Docker.USER, "mine")).container) == "mine"


def test_protocols() -> None:
    """tcp unless it says udp."""
    assert [protocol_of(Docker.PortMapping(protocol=text)) for text in ("", "TCP", "udp")] == ["tcp", "tcp", "udp"]
    assert protocol_of(Docker.PortMapping()) == "tcp"


@given(st.text(max_size=20), st.booleans())
def test_any_path_stays_where_it_is_told_to(path: str, absolute: bool) -> None:
    """Whatever a path holds, a relative one leads into the sandbox or is refused."""
    asked = Volume(mode=Volume.RW, container_path=("/" if absolute else "") + path.encode("utf-8", "replace").decode())
    asked.host_path = asked.container_path
    try:
        seen, place = container_path(asked), place_of(asked)
    except Invalid as error:
        assert "\n" not in str(error)
        return
    assert ".." not in seen.split("/")
    if not asked.container_path.startswith("/"):
        assert seen == SANDBOX or seen.startswith(SANDBOX + "/")
        assert place.kind == "sandbox"
        assert ".." not in place.at.split("/")
        assert not place.at.startswith("/")


TEXTS = st.text(st.characters(codec="utf-8"), max_size=10)
NUMBERS = st.integers(0, 2**32 - 1)


@given(TEXTS, TEXTS, TEXTS, NUMBERS, NUMBERS, st.sampled_from(Docker.Network.values()), st.booleans())
def test_any_container_is_one_or_has_a_fault(
    image: str, name: str, path: str, port_: int, inside: int, kind: int, named: bool
) -> None:
    """Whatever stands in the fields, the task is read; only what is well has no fault."""
    message = docker(image)
    network(message, kind, *([name] if named else []))
    port(message, port_, inside, name)
    volume(message, path, host_path=path)
    hostname(message, name)
    spec = task_spec(message)
    assert spec.executor == "docker"
    assert "\n" not in spec.fault
    assert spec.fault or (image.isprintable() and 31000 <= port_ <= 31001 and 0 < inside < 65536)
