"""Containers as tasks: what the operator allows, where mounts lie, what is run."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgerm.core.errors import Forbidden, Invalid
from edgerm.core.ids import AgentId, FrameworkId, LaunchId, TaskId, TaskKey
from edgerm.core.resources import parse
from edgerm.plugin.device import Mount
from edgerm.plugin.executor import LaunchSpec, Limits, PortMapping
from edgerm.wire.codec.containers import SANDBOX
from edgerm.wire.codec.resources import resources_to_messages
from edgerm.wire.codec.tasks import task_spec_from_bytes
from edgerm.wire.v1.resources_pb2 import Volume
from edgerm.wire.v1.tasks_pb2 import CommandInfo, ContainerInfo, TaskInfo
from edgerm_agent.containers import Allowed, command_of
from edgerm_agent.launch import Users, launch_spec

KEY = TaskKey(FrameworkId("f"), TaskId("t"), LaunchId("l"))
AGENT = AgentId("0" * 32)
NOTHING = Allowed()


def docker(**parts: object) -> TaskInfo:
    """A container."""
    message = TaskInfo(name="n", resources=resources_to_messages(parse("cpus:0.5;mem:64;ports:[31000-31000]")))
    message.task_id.value, message.agent_id.value = "t", AGENT
    message.container.type = ContainerInfo.DOCKER
    message.container.docker.MergeFrom(ContainerInfo.DockerInfo(image="busybox", **parts))  # type: ignore[arg-type]
    return message


def made(message: TaskInfo, sandbox: Path, allowed: Allowed = NOTHING) -> LaunchSpec:
    """The launch of a message."""
    info = message.SerializeToString()
    task = task_spec_from_bytes(info)
    return launch_spec(
        KEY, task, info, agent_id=AGENT, sandbox=sandbox, blob_path=Path, users=Users("root"), allowed=allowed
    )


def mounting(path: str, at: str = "/data", mode: Volume.Mode.ValueType = Volume.RW) -> TaskInfo:
    """A container that mounts a path."""
    message = docker()
    message.container.volumes.add(mode=mode, container_path=at, host_path=path)
    return message


def test_a_container_has_its_sandbox_and_the_environment_of_its_image(tmp_path: Path) -> None:
    """Sandbox, limits, variables of ours and of the command; no PATH, for the image has its own."""
    message = docker()
    message.command.environment.variables.add(name="A", value="b")
    message.command.environment.variables.add(name="MESOS_SANDBOX", value="elsewhere")
    spec = made(message, tmp_path)
    assert spec.container is not None
    assert (spec.container.image, spec.container.network, spec.container.ports) == ("busybox", "host", ())
    assert spec.container.mounts == (Mount(SANDBOX, str(tmp_path), read_only=False, named=False),)
    assert (spec.program, spec.argv, spec.user, spec.stdin, spec.module) == ("", (), None, None, None)
    assert spec.limits == Limits(500, 64 << 20)
    env = dict(spec.env)
    assert (env["A"], env["MESOS_SANDBOX"], env["EDGERM_PORTS"]) == ("b", SANDBOX, "31000")
    assert "PATH" not in env


def test_what_a_container_is_asked_to_be(tmp_path: Path) -> None:
    """Network, ports, host name, pull and parameters reach the executor as they were asked for."""
    message = docker(network=ContainerInfo.DockerInfo.USER, force_pull_image=True)
    message.container.network_infos.add(name="mine")
    message.container.hostname = "box"
    message.container.docker.port_mappings.add(host_port=31000, container_port=80, protocol="UDP")
    message.container.docker.parameters.add(key="label", value="a=b")
    container = made(message, tmp_path).container
    assert container is not None
    assert (container.network, container.hostname, container.force_pull) == ("mine", "box", True)
    assert container.ports == (PortMapping(31000, 80, "udp"),)
    assert container.parameters == (("label", "a=b"),)
    assert not container.privileged


@pytest.mark.parametrize(
    ("command", "program", "argv"),
    [
        (CommandInfo(), "", ()),
        (CommandInfo(value="a | b"), "/bin/sh", ("-c", "a | b")),
        (CommandInfo(value="a | b", arguments=["x"]), "/bin/sh", ("-c", "a | b")),
        (CommandInfo(shell=False), "", ()),
        (CommandInfo(shell=False, value="ls"), "", ("ls",)),
        (CommandInfo(shell=False, value="ls", arguments=["-l", ""]), "", ("ls", "-l", "")),
        (CommandInfo(shell=False, arguments=["-l"]), "", ("-l",)),
    ],
)
def test_what_a_container_runs(command: CommandInfo, program: str, argv: tuple[str, ...]) -> None:
    """A shell in place of the image's entrypoint, or value and arguments after it, as in Mesos."""
    assert command_of(command) == (program, argv)


def test_privileged_needs_the_operator(tmp_path: Path) -> None:
    """Refused, naming the setting, until the operator allows it."""
    with pytest.raises(Forbidden, match=r"executors\.docker\.privileged"):
        made(docker(privileged=True), tmp_path)
    container = made(docker(privileged=True), tmp_path, Allowed(privileged=True)).container
    assert container is not None
    assert container.privileged


def test_users_need_the_operator(tmp_path: Path) -> None:
    """Only whom the operator lists; the list of process users does not count."""
    message = docker()
    message.command.user = "root"
    with pytest.raises(Forbidden, match=r"'root', whom executors\.docker\.users"):
        made(message, tmp_path)
    assert made(message, tmp_path, Allowed(users=("root",))).user == "root"


def test_paths_of_the_box_need_the_operator(tmp_path: Path) -> None:
    """Only below a directory that the operator lists; files too, read-only if so asked."""
    (tmp_path / "open" / "in").mkdir(parents=True)
    (tmp_path / "open" / "file").touch()
    (tmp_path / "opener").mkdir()
    allowed = Allowed(volumes=(str(tmp_path / "open"),))
    for path in ("/", "/etc", str(tmp_path), str(tmp_path / "opener"), f"{tmp_path}/open/../opener"):
        with pytest.raises(Forbidden, match=r"executors\.docker\.volumes"):
            made(mounting(path), tmp_path, allowed)
    with pytest.raises(Forbidden):
        made(mounting(str(tmp_path / "open")), tmp_path)
    for name in ("", "/in", "/file", "/in/../file"):
        container = made(mounting(f"{tmp_path}/open{name}", mode=Volume.RO), tmp_path, allowed).container
        assert container is not None
        source = str(Path(f"{tmp_path}/open{name}").resolve())
        assert container.mounts[1:] == (Mount("/data", source, read_only=True, named=False),)
    with pytest.raises(Invalid, match="no such file"):
        made(mounting(str(tmp_path / "open" / "none")), tmp_path, allowed)


def test_links_lead_nowhere_else(tmp_path: Path) -> None:
    """A link that leads out is refused, in an allowed directory and in the sandbox; one that stays is followed."""
    sandbox, allowed = tmp_path / "box", tmp_path / "open"
    for directory in (sandbox, allowed, allowed / "real"):
        directory.mkdir()
    for directory in (sandbox, allowed):
        (directory / "out").symlink_to("/etc")
        (directory / "loop").symlink_to("loop")
    (allowed / "in").symlink_to("real")
    policy = Allowed(volumes=(str(allowed),))
    for path in (f"{allowed}/out", f"{allowed}/out/ssl", f"{allowed}/loop", "out", "out/ssl", "loop"):
        with pytest.raises(Invalid if "loop" in path else Forbidden):
            made(mounting(path), sandbox, policy)
    container = made(mounting(f"{allowed}/in"), sandbox, policy).container
    assert container is not None
    assert container.mounts[1].source == str(allowed / "real")


def test_directories_in_the_sandbox_are_made(tmp_path: Path) -> None:
    """A relative path lies in the sandbox, on either side."""
    container = made(mounting("a/b"), tmp_path).container
    assert container is not None
    assert container.mounts[1].source == str(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
    (tmp_path / "open").mkdir()
    container = made(mounting(f"{tmp_path}/open", "x"), tmp_path, Allowed(volumes=(str(tmp_path),))).container
    assert container is not None
    assert container.mounts[1].container_path == f"{SANDBOX}/x"


def test_volumes_of_the_engine_need_nobody(tmp_path: Path) -> None:
    """A named volume is the engine's, and no path of the box."""
    message = docker()
    source = {"type": Volume.Source.DOCKER_VOLUME, "docker_volume": {"name": "data"}}
    message.container.volumes.add(mode=Volume.RW, container_path="/d", source=source)
    container = made(message, tmp_path).container
    assert container is not None
    assert container.mounts[1] == Mount("/d", "data", read_only=False, named=True)


def test_the_agent_does_not_trust_the_master(tmp_path: Path) -> None:
    """What the master should have refused is refused here."""
    message = docker(network=ContainerInfo.DockerInfo.BRIDGE)
    message.container.docker.port_mappings.add(host_port=22, container_port=22)
    with pytest.raises(Invalid, match="host_port 22 is not among"):
        made(message, tmp_path)


@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=30) | st.just("x" * 300))
def test_no_path_leads_out(path: str) -> None:
    """Whatever a path holds: what is mounted lies in the sandbox or below what is allowed, or nothing is mounted."""
    with TemporaryDirectory() as directory:
        sandbox, opened = Path(directory) / "box", Path(directory) / "open"
        sandbox.mkdir()
        opened.mkdir()
        for asked in (path, f"{opened}/{path}"):
            try:
                container = made(mounting(asked), sandbox, Allowed(volumes=(str(opened),))).container
            except (Invalid, Forbidden) as error:
                assert "\n" not in str(error)
                continue
            assert container is not None
            source = Path(container.mounts[1].source)
            assert source.is_relative_to(sandbox) or source.is_relative_to(opened)
            assert source == source.resolve()
            assert source.exists()
