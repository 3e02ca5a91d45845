"""What a launch takes over of a task's devices, by executor."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgerm.core.errors import Invalid
from edgerm.core.ids import AgentId, FrameworkId, LaunchId, TaskId, TaskKey
from edgerm.core.resources import parse
from edgerm.plugin.device import DeviceNode, GpioChip, Mount, Setup
from edgerm.plugin.executor import LaunchSpec
from edgerm.wire.codec.resources import resources_to_messages
from edgerm.wire.codec.tasks import task_spec_from_bytes
from edgerm.wire.v1.resources_pb2 import Volume
from edgerm.wire.v1.tasks_pb2 import CommandInfo, ContainerInfo, TaskInfo
from edgerm_agent.containers import Allowed
from edgerm_agent.launch import Users, launch_spec

KEY = TaskKey(FrameworkId("f"), TaskId("t"), LaunchId("l"))
ELSEWHERE = Mount("/opt/lib", "/usr/share/camera", True, False)
IN_PLACE = Mount("/usr/share/camera", "/usr/share/camera", True, False)
NODE = DeviceNode("/dev/video0", "/dev/camera", "rw")
IMAGE = ContainerInfo(type=ContainerInfo.DOCKER, docker=ContainerInfo.DockerInfo(image="i"))


def made(
    message: TaskInfo, setup: Setup, resources: str = "cpus:1;camera:{front}", plain: tuple[int, ...] = ()
) -> LaunchSpec:
    message.name = "t"
    message.task_id.value, message.agent_id.value = "t", "a"
    message.resources.extend(resources_to_messages(parse(resources)))
    info = message.SerializeToString()
    return launch_spec(
        KEY,
        task_spec_from_bytes(info),
        info,
        agent_id=AgentId("a"),
        sandbox=Path("/box"),
        blob_path=Path,
        users=Users(),
        allowed=Allowed(),
        setup=setup,
        plain_cpus=plain,
    )


def test_a_container_gets_everything() -> None:
    """Nodes, mounts and variables, though the operator allows no volumes to tasks."""
    spec = made(TaskInfo(container=IMAGE), Setup((("LIB", "/opt/lib"),), (ELSEWHERE,), (NODE,)))
    assert spec.container is not None
    assert spec.container.nodes == (NODE,)
    assert ELSEWHERE in spec.container.mounts
    assert dict(spec.env)["LIB"] == "/opt/lib"
    assert spec.mounts == ()


def test_a_container_that_mounts_there_itself() -> None:
    """A task that mounts something of its own where a device does is refused."""
    container = ContainerInfo()
    container.CopyFrom(IMAGE)
    container.volumes.add(container_path="/opt/lib", host_path="./mine", mode=Volume.RW)
    with pytest.raises(Invalid, match="mounts '/opt/lib' itself"):
        made(TaskInfo(container=container), Setup((), (ELSEWHERE,)))


def test_a_process_gets_variables() -> None:
    """A process finds nodes and volumes where they lie; it cannot have one at another place."""
    command = CommandInfo(value="true")
    spec = made(TaskInfo(command=command), Setup((("LIB", "1"),), (IN_PLACE,), (NODE,)))
    assert (dict(spec.env)["LIB"], spec.mounts) == ("1", ())
    with pytest.raises(Invalid, match="shows '/usr/share/camera' at '/opt/lib', which a process cannot have"):
        made(TaskInfo(command=command), Setup((), (ELSEWHERE,)))


def test_a_module_gets_directories() -> None:
    """Variables, and volumes as directories beside its sandbox."""
    container = ContainerInfo(type=ContainerInfo.MESOS)
    container.wasm.module.sha256, container.wasm.module.size_bytes = bytes(32), 1
    spec = made(TaskInfo(container=container), Setup((("LIB", "1"),), (ELSEWHERE,), (NODE,)))
    assert (dict(spec.env)["LIB"], spec.mounts) == ("1", (ELSEWHERE,))


def test_whose_variable_wins() -> None:
    """The task's own variable wins over its device's; which devices it has is told in any case."""
    command = CommandInfo(value="true")
    command.environment.variables.add(name="LIB", value="mine")
    command.environment.variables.add(name="EDGERM_DEVICES", value="mine")
    env = dict(made(TaskInfo(command=command), Setup((("LIB", "its"),)), "camera:{b,a};led<SHARED>:{x}").env)
    assert (env["LIB"], env["EDGERM_DEVICES"]) == ("mine", "camera=a camera=b led=x")
    assert "EDGERM_DEVICES" not in dict(made(TaskInfo(command=CommandInfo(value="true")), Setup(), "cpus:1").env)


WHOLE = Setup(
    cpus=(2, 3),
    network="/run/netns/t",
    chips=(GpioChip("0", "/dev/gpiochip0"),),
    annotations=(("a", "b"),),
    cdi_names=("vendor.com/gpu=0",),
    runtime="nvidia",
)


def test_cpus_and_network_of_every_kind() -> None:
    """CPUs and network namespace are any task's, chips a module's, the rest a container's."""
    module = ContainerInfo(type=ContainerInfo.MESOS)
    module.wasm.module.sha256, module.wasm.module.size_bytes = bytes(32), 1
    container, process, wasm = (
        made(message, WHOLE)
        for message in (TaskInfo(container=IMAGE), TaskInfo(command=CommandInfo(value="x")), TaskInfo(container=module))
    )
    assert [(spec.cpus, spec.network) for spec in (container, process, wasm)] == [((2, 3), "/run/netns/t")] * 3
    assert (container.chips, process.chips, wasm.chips) == ((), (), WHOLE.chips)
    assert container.container is not None
    its = container.container
    assert (its.annotations, its.cdi_names, its.runtime) == ((("a", "b"),), ("vendor.com/gpu=0",), "nvidia")


def test_where_plain_tasks_run() -> None:
    """A task without CPUs of its own keeps to those for plain tasks, if there are any."""
    for message in (TaskInfo(container=IMAGE), TaskInfo(command=CommandInfo(value="x"))):
        assert made(message, Setup(), plain=(0, 1)).cpus == (0, 1)
        assert made(message, WHOLE, plain=(0, 1)).cpus == (2, 3)
        assert made(message, Setup()).cpus == ()
