"""Containers in a few words, and what they take of an offer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgerm.core.errors import Invalid
from edgerm.core.ids import AgentId, FrameworkId, OfferId
from edgerm.core.resources import parse
from edgerm.core.scheduler import AgentSpec, Offer, TaskSpec
from edgerm.sdk.containers import Port, parse_port, parse_volume, ports_of
from edgerm.sdk.needs import Needs
from edgerm.sdk.tasks import Task, docker_task
from edgerm.wire.v1.resources_pb2 import Volume
from edgerm.wire.v1.tasks_pb2 import ContainerInfo, TaskInfo

OFFER = "cpus:1;mem:64;ports:[31000-31009]"
Network = ContainerInfo.DockerInfo


def placed(task: Task, offer: str = OFFER) -> tuple[TaskSpec, TaskInfo]:
    """The task on an offer, and its message."""
    made = Offer(OfferId("o"), FrameworkId("f"), "*", AgentId("a"), parse(offer), AgentSpec("box"))
    spec = task.on(made)
    return spec, TaskInfo.FromString(spec.info)


def test_a_container_says_what_to_run() -> None:
    """Image, arguments, variables, user and volumes stand in the TaskInfo; the box's network is the default."""
    task = docker_task(
        "t", "debian:12", ["ls", "-l"], volumes=["data:/d", "./x:/x:ro", "/srv:/s:rw"], env={"A": "b"}, user="me"
    )
    spec, info = placed(task)
    assert (spec.executor, spec.fault, spec.resources) == ("docker", "", parse("cpus:0.1;mem:32"))
    assert (info.container.docker.image, info.container.docker.network) == ("debian:12", Network.HOST)
    assert (info.command.shell, info.command.value, info.command.user) == (False, "", "me")
    assert list(info.command.arguments) == ["ls", "-l"]
    data, sandbox, host = info.container.volumes
    assert (data.source.docker_volume.name, data.container_path, data.mode) == ("data", "/d", Volume.RW)
    assert (sandbox.host_path, sandbox.container_path, sandbox.mode) == ("./x", "/x", Volume.RO)
    assert (host.host_path, host.mode) == ("/srv", Volume.RW)


def test_published_ports_are_asked_for() -> None:
    """Exactly those that are named, any for those that are not, and so many besides; a bridge is implied."""
    ports: list[str | int | Port] = ["31003:53/udp", "31003:53", Port(0, 80), 81]
    spec, info = placed(docker_task("t", "x", publish=ports, ports=1))
    assert spec.resources == parse("cpus:0.1;mem:32;ports:[31000-31003]")
    assert info.container.docker.network == Network.BRIDGE
    mappings = [(m.host_port, m.container_port, m.protocol) for m in info.container.docker.port_mappings]
    assert mappings == [(31003, 53, "udp"), (31003, 53, "tcp"), (31000, 80, "tcp"), (31001, 81, "tcp")]
    spec, info = placed(docker_task("t", "x", publish={31005: 80}, network="mine"))
    assert spec.resources == parse("cpus:0.1;mem:32;ports:[31005-31005]")
    assert info.container.network_infos[0].name == "mine"


@pytest.mark.parametrize(
    ("network", "kind"), [("host", Network.HOST), ("bridge", Network.BRIDGE), ("none", Network.NONE)]
)
def test_networks(network: str, kind: int) -> None:
    """The three that every engine has go by their names."""
    _, info = placed(docker_task("t", "x", network=network))
    assert (info.container.docker.network, len(info.container.network_infos)) == (kind, 0)


def test_what_is_wrong_is_told_at_once() -> None:
    """An image, a network, a volume or a port that cannot be is refused before anything is launched."""
    with pytest.raises(Invalid, match="image"):
        docker_task("t", "a b")
    with pytest.raises(Invalid, match="BRIDGE or USER"):
        docker_task("t", "x", publish=[80], network="host")
    with pytest.raises(Invalid, match="not the name of a user's network"):
        docker_task("t", "x", network="container:other")
    with pytest.raises(Invalid, match="is taken"):
        docker_task("t", "x", volumes=["a:/a", "b:/a"])
    with pytest.raises(Invalid, match="stands twice"):
        docker_task("t", "x", publish=["31000:1", "31000:2"])
    with pytest.raises(Invalid, match="not the text"):
        docker_task("t", "x", publish="80")
    with pytest.raises(Invalid, match="ports go to"):
        docker_task("t", "x", publish={70000: 80})


@pytest.mark.parametrize(
    ("text", "port"),
    [
        ("8080:80", Port(8080, 80)),
        ("8080:80/tcp", Port(8080, 80)),
        ("8080:53/udp", Port(8080, 53, "udp")),
        ("80", Port(0, 80)),
        (":80", Port(0, 80)),
        ("0:80/udp", Port(0, 80, "udp")),
    ],
)
def test_ports(text: str, port: Port) -> None:
    """Host, container, protocol."""
    assert parse_port(text) == port
    assert ports_of([text]) == ports_of([port]) == (port,)


@pytest.mark.parametrize("text", ["", "80:", "a:80", "80/sctp", "80/", "1:2:3", "65536:1", "1:0", "-1:80", "1" * 30])
def test_no_ports(text: str) -> None:
    """What is no port is refused with the form that is."""
    with pytest.raises(Invalid, match="is no port"):
        parse_port(text)


@pytest.mark.parametrize("text", ["", "a", "a:", ":/a", "a:/b:rx", "a:/b:ro:ro"])
def test_no_volumes(text: str) -> None:
    """What is no volume is refused with the form that is."""
    with pytest.raises(Invalid, match="is no volume"):
        parse_volume(text)


@given(st.text(max_size=30))
def test_any_text_is_read_or_refused(text: str) -> None:
    """No text does anything but give a port or a volume, or raise `Invalid` in one line."""
    for parse_ in (parse_port, parse_volume):
        try:
            parse_(text.encode("utf-8", "replace").decode())
        except Invalid as error:
            assert "\n" not in str(error)


RANGES = st.lists(st.tuples(st.integers(1, 40), st.integers(0, 5)), max_size=4)


@given(RANGES, st.integers(0, 6), st.frozensets(st.integers(1, 40), max_size=4))
def test_the_ports_that_are_taken(ranges: list[tuple[int, int]], count: int, these: frozenset[int]) -> None:
    """All that are named and so many others, all of the offer; None only if it has not enough."""
    have = {port for begin, length in ranges for port in range(begin, begin + length + 1)}
    text = ",".join(f"{port}-{port}" for port in sorted(have))
    offered = parse(f"ports:[{text}]") if have else parse("")
    taken = Needs((), count, these).take_from(offered)
    if taken is None:
        assert not these <= have or len(have - these) < count
        return
    assert offered.covers(taken)
    ports = {
        port for amount in taken.values() if isinstance(amount, tuple) for b, e in amount for port in range(b, e + 1)
    }
    assert these <= ports
    assert len(ports) == count + len(these)
