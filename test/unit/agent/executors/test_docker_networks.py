"""The program that holds a container's network, and the requests around it."""

from __future__ import annotations

import io
import os
import platform
import signal
import struct
import subprocess
import tarfile
from pathlib import Path

import pytest

from edgerm.core.ids import AgentId, FrameworkId, LaunchId, TaskId, TaskKey
from edgerm.plugin.executor import ContainerSpec, LaunchFailed, LaunchSpec, PortMapping
from edgerm_agent import netns
from edgerm_agent.executors.docker import container, idle_program

AGENT = AgentId("a" * 32)
KEY = TaskKey(FrameworkId("f"), TaskId("t"), LaunchId("l"))


def test_it_only_waits(tmp_path: Path) -> None:
    """The program runs on this machine under the name that the agent looks for, and ends by a signal alone."""
    machine = platform.machine()
    if machine not in idle_program.MACHINES:
        pytest.skip(f"needs {' or '.join(idle_program.MACHINES)}, this is {machine}")
    file = tmp_path / idle_program.NAME
    file.write_bytes(idle_program.executable(machine))
    file.chmod(0o755)
    process = subprocess.Popen([file], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert netns.name_of_process(process.pid) == idle_program.NAME
        with pytest.raises(subprocess.TimeoutExpired):
            process.communicate(timeout=0.05)
    finally:
        os.kill(process.pid, signal.SIGTERM)
    assert process.wait() == -signal.SIGTERM
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()
    process.stdout.close()


@pytest.mark.parametrize(("machine", "number"), [("x86_64", 62), ("aarch64", 183)])
def test_its_file(machine: str, number: int) -> None:
    """It is a small static ELF file: one segment, read and executed, whose code begins at the entry."""
    data = idle_program.executable(machine)
    head = idle_program.HEAD.unpack_from(data)
    assert (head[0][:7], head[2], len(data) < 160) == (b"\x7fELF\x02\x01\x01", number, True)
    kind, flags, offset, address, _, size, memory, _ = idle_program.SEGMENT.unpack_from(data, idle_program.HEAD.size)
    assert (kind, flags, offset, size, memory) == (1, 5, 0, len(data), len(data))
    code = data[head[4] - address :]
    assert code == idle_program.MACHINES[machine][1]


def test_the_loops_close() -> None:
    """Both machines' last instruction jumps to the first one."""
    distance = struct.unpack("b", idle_program.X86_64[-1:])[0]
    assert len(idle_program.X86_64) + distance == 0
    [branch] = struct.unpack("<I", idle_program.AARCH64[-4:])
    offset = ((branch & 0x3FF_FFFF) ^ 0x200_0000) - 0x200_0000  # imm26 in words, signed
    assert len(idle_program.AARCH64) - 4 + 4 * offset == 0


def test_its_image() -> None:
    """The image is named by its content and holds the one executable file."""
    name, data = idle_program.image("x86_64")
    assert name == idle_program.image("x86_64")[0] != idle_program.image("aarch64")[0]
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        [entry] = tar.getmembers()
        assert (entry.name, entry.mode) == (idle_program.NAME, 0o555)
    with pytest.raises(KeyError):
        idle_program.image("riscv64")


def test_a_holder_is_no_task() -> None:
    """The container that holds a network has our label, no rights, and the labels of no task."""
    body = container.network_body_of(AGENT, KEY, "image:1")
    assert container.key_of(body["Labels"]) is None
    assert body["Labels"][container.AGENT] == AGENT
    assert body["HostConfig"]["NetworkMode"] == "none"
    assert body["HostConfig"]["CapDrop"] == ["ALL"]
    assert container.network_name_of(AGENT, KEY) != container.name_of(AGENT, KEY)


def spec(**fields: object) -> LaunchSpec:
    """A container task that has a network made before it."""
    made = ContainerSpec("image", **{"network": "host", **fields})  # type: ignore[arg-type]
    return LaunchSpec(KEY, "true", (), (), Path("/tmp"), container=made, network="/proc/7/ns/net")


def body(launch: LaunchSpec) -> container.Json:
    """The request for it."""
    return container.body_of(AGENT, launch, privileged=False, log_bytes=1 << 20, cpus=2)


def test_a_task_joins_its_holder() -> None:
    """A task with claimed interfaces is in its holder's network, whichever of the engine's it asked for."""
    expected = f"container:{container.network_name_of(AGENT, KEY)}"
    for network in ("host", "bridge", "none"):
        assert body(spec(network=network))["HostConfig"]["NetworkMode"] == expected


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"network": "mine"}, "cannot be in the network 'mine' too"),
        ({"network": "bridge", "ports": (PortMapping(1, 2, "tcp"),)}, "it can have no port mappings"),
        ({"hostname": "box"}, "it can set no hostname"),
    ],
)
def test_what_a_held_network_excludes(fields: dict[str, object], words: str) -> None:
    """What needs another network is refused, with the reason."""
    with pytest.raises(LaunchFailed, match=words):
        body(spec(**fields))
