"""From a launch to the engine's request, and from the engine's state to an exit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgerm.core.ids import AgentId, FrameworkId, LaunchId, TaskId, TaskKey
from edgerm.plugin.device import DeviceNode, Mount
from edgerm.plugin.executor import ContainerSpec, ExitReason, LaunchFailed, LaunchSpec, Limits, PortMapping
from edgerm_agent.executors.docker import container

AGENT = AgentId("agent")
KEY = TaskKey(FrameworkId("f"), TaskId("t"), LaunchId("l"))
TEXTS = st.text(min_size=1, max_size=20)
KEYS = st.builds(lambda *ids: TaskKey(FrameworkId(ids[0]), TaskId(ids[1]), LaunchId(ids[2])), TEXTS, TEXTS, TEXTS)


def body(
    limits: Limits | None = None, cpus: int = 2, program: str = "", argv: tuple[str, ...] = (), **fields: Any
) -> Any:
    """The request for a container with these fields."""
    spec = LaunchSpec(
        KEY, program, argv, (("A", "b=c"),), Path("/sandbox"), limits=limits or Limits(),
        container=ContainerSpec(**{"image": "i", "network": "host", **fields}),
    )  # fmt: skip
    return container.body_of(AGENT, spec, privileged=False, log_bytes=1000, cpus=cpus)


def test_a_container_keeps_to_the_tasks_cpus() -> None:
    """It runs on the CPUs that the task has; a parameter may choose among them, and asks for no others."""

    def cpuset(cpus: tuple[int, ...], *asked: str) -> object:
        container_spec = ContainerSpec("i", "host", parameters=tuple(("cpuset-cpus", each) for each in asked))
        spec = LaunchSpec(KEY, "", (), (), Path("/s"), cpus=cpus, container=container_spec)
        made = container.body_of(AGENT, spec, privileged=False, log_bytes=1000, cpus=8)
        return made["HostConfig"].get("CpusetCpus")

    assert (cpuset((2, 3, 6)), cpuset((2, 3), "3"), cpuset(()), cpuset((), "1")) == ("2-3,6", "3", None, "1")
    for asked in ("4", "0-3", "x"):
        with pytest.raises(LaunchFailed, match="the parameter cpuset-cpus"):
            cpuset((2, 3), asked)


@given(KEYS, KEYS)
def test_labels_and_names_tell_tasks_apart(one: TaskKey, other: TaskKey) -> None:
    """A key comes back from its labels, and two keys never share a name that the engine would refuse."""
    spec = LaunchSpec(one, "", (), (), Path("/s"))
    assert container.key_of(container.labels_of(AGENT, spec)) == one
    names = {container.name_of(AGENT, one), container.name_of(AGENT, other), container.name_of(AgentId("x"), one)}
    assert len(names) == (2 if one == other else 3)
    assert all(container.NETWORK.fullmatch(name) for name in names)


@pytest.mark.parametrize("labels", [None, {}, {container.FRAMEWORK: "f", container.TASK: "t"}])
def test_labels_of_others_name_no_task(labels: dict[str, str] | None) -> None:
    """A container without the full key is no task's."""
    assert container.key_of(labels) is None


def test_the_command_is_the_images_where_none_is_given() -> None:
    """Entrypoint and command are left to the image unless the task has its own."""
    assert not {"Entrypoint", "Cmd", "Hostname", "User"} & body().keys()
    assert (body(program="/p")["Entrypoint"], body(argv=("a", "b"))["Cmd"]) == (["/p"], ["a", "b"])


def test_what_devices_give_reaches_the_engine() -> None:
    """Nodes, annotations, CDI names and a runtime are asked for; no annotation stands for a label of ours."""
    annotations = (("vendor.example/boards", "one"), (container.TASK, "another"))
    names = ("vendor.example/board=one", "vendor.example/board=two")
    made = body(
        nodes=(DeviceNode("/dev/null", "/dev/board", "rw"),), annotations=annotations, cdi_names=names, runtime="nvidia"
    )
    assert made["Labels"]["vendor.example/boards"] == "one"
    assert made["Labels"][container.TASK] == KEY.task_id
    host = made["HostConfig"]
    assert host["DeviceRequests"] == [{"Driver": "cdi", "DeviceIDs": [*names]}]
    assert host["Devices"] == [
        {"PathOnHost": "/dev/null", "PathInContainer": "/dev/board", "CgroupPermissions": "rw"},
    ]
    assert host["Runtime"] == "nvidia"
    assert not {"DeviceRequests", "Runtime"} & body()["HostConfig"].keys()


def test_everything_has_its_place() -> None:
    """Environment, mounts, ports, log and network are asked for as given, and nothing restarts by itself."""
    made = body(
        network="bridge",
        ports=(PortMapping(1, 80, "tcp"), PortMapping(2, 80, "tcp"), PortMapping(3, 53, "udp")),
        mounts=(Mount("/a", "/b:c", True, False), Mount("/d", "name", False, True)),
        hostname="h",
    )
    host = made["HostConfig"]
    assert (made["Env"], made["Hostname"], host["NetworkMode"]) == (["A=b=c"], "h", "bridge")
    assert host["PortBindings"] == {"80/tcp": [{"HostPort": "1"}, {"HostPort": "2"}], "53/udp": [{"HostPort": "3"}]}
    assert host["Mounts"] == [
        {"Type": "bind", "Source": "/b:c", "Target": "/a", "ReadOnly": True},
        {"Type": "volume", "Source": "name", "Target": "/d", "ReadOnly": False},
    ]
    assert host["LogConfig"]["Config"]["max-size"] == "500"
    assert host["RestartPolicy"] == {"Name": "no"}


@pytest.mark.parametrize(
    ("milli", "nano"), [(500, 500_000_000), (1, 10_000_000), (2000, 2_000_000_000), (9000, 2_000_000_000)]
)
def test_cpus_are_within_what_the_engine_takes(milli: int, nano: int) -> None:
    """At least a hundredth of a CPU, at most all there are: neither bound is a refusal."""
    assert body(Limits(cpus_milli=milli))["HostConfig"]["NanoCpus"] == nano


def test_no_limit_is_none() -> None:
    """What the task did not ask for is not limited; memory is limited without swap beside it."""
    assert not {"NanoCpus", "Memory", "MemorySwap"} & body()["HostConfig"].keys()
    host = body(Limits(memory_bytes=7))["HostConfig"]
    assert (host["Memory"], host["MemorySwap"]) == (7, 7)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"image": ""}, "no image"),
        ({"network": "container:x"}, "no name of a network"),
        ({"network": ""}, "no name of a network"),
        ({"network": "none", "ports": (PortMapping(1, 2, "tcp"),)}, "port mappings"),
    ],
)
def test_what_cannot_be_asked_for(fields: dict[str, Any], words: str) -> None:
    """A launch without an image, with another's network or with ports that lead nowhere fails with the reason."""
    with pytest.raises(LaunchFailed, match=words):
        body(**fields)


@given(st.integers(0, 255), st.booleans(), st.booleans(), st.booleans())
def test_an_exit_has_a_code_or_a_signal(code: int, told: bool, seen: bool, limited: bool) -> None:
    """One of code and signal is set; memory is the reason only where it was limited and the end was no success."""
    state = {"ExitCode": code, "OOMKilled": told}
    exit_ = container.exit_of(state, memory_limited=limited, oom_seen=seen)
    assert (exit_.code is None) != (exit_.signal is None)
    assert exit_.code == code or exit_.signal == code - 128
    memory = (told or seen) and limited and code != 0
    assert exit_.reason is (ExitReason.MEMORY if memory else ExitReason.ENDED)


def test_an_exit_says_what_the_engine_says() -> None:
    """The engine's own error is part of the message, in one line."""
    exit_ = container.exit_of({"ExitCode": 137, "Error": "no\nspace"}, memory_limited=False, oom_seen=False)
    assert exit_.message == "killed by SIGKILL: no space"


@pytest.mark.parametrize(
    ("memory", "used"),
    [
        ({"usage": 100, "stats": {"total_inactive_file": 30}}, 70),
        ({"usage": 100, "stats": {"inactive_file": 40}}, 60),
        ({"usage": 100}, 100),
        ({"usage": 100, "stats": {"inactive_file": 400}}, 0),
    ],
)
def test_usage_leaves_the_page_cache_out(memory: dict[str, Any], used: int) -> None:
    """Memory is counted as `docker stats` does, with either kind of cgroup."""
    usage = container.usage_of({"cpu_stats": {"cpu_usage": {"total_usage": 2_500_000_000}}, "memory_stats": memory})
    assert usage is not None
    assert (usage.cpu_s, usage.memory_bytes) == (2.5, used)
    assert container.usage_of({"memory_stats": {}}) is None
