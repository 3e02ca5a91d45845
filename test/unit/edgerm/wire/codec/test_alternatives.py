"""`TaskInfo.alternatives`: each build as a task of its own."""

from __future__ import annotations

import pytest

from edgerm.core.alternatives import UndecidedTask
from edgerm.core.constraints import parse_constraint
from edgerm.core.resources import parse
from edgerm.wire.codec.resources import resources_to_messages
from edgerm.wire.codec.tasks import excerpt, task_info, task_spec
from edgerm.wire.v1.tasks_pb2 import Alternative, Claim, ContainerInfo, TaskInfo


def message(*builds: Alternative) -> TaskInfo:
    made = TaskInfo(name="t", resources=resources_to_messages(parse("mem:64")), alternatives=builds)
    made.task_id.value, made.agent_id.value = "t", "a"
    made.command.environment.variables.add(name="A", value="1")
    made.command.shell = False
    return made


def image(name: str = "", *constraints: str, resources: str = "cpus:1") -> Alternative:
    made = Alternative(name=name, constraints=constraints, resources=resources_to_messages(parse(resources)))
    made.container.type = ContainerInfo.DOCKER
    made.container.docker.image = "busybox:1"
    return made


def program(name: str, path: str) -> Alternative:
    made = Alternative(name=name)
    made.command.value = path
    made.command.shell = False
    return made


def test_builds_are_tasks() -> None:
    """What a build leaves out is the task's own, resources are added, and it says which it is."""
    spec = task_spec(message(image("image", "arch=arm64", "!lab"), program("here", "/bin/true")))
    assert isinstance(spec, UndecidedTask)
    assert (spec.fault, spec.resources) == ("", parse("mem:64"))
    first, second = spec.alternatives
    assert first.constraints == (parse_constraint("arch=arm64"), parse_constraint("!lab"))
    assert (first.name, first.task.executor, first.task.fault) == ("image", "docker", "")
    assert first.task.resources == parse("cpus:1;mem:64")
    info = task_info(first.task)
    assert (info.alternative, list(info.alternatives)) == ("image", [])
    assert info.command.environment.variables[0].name == "A"
    assert (second.task.executor, second.task.resources) == ("process", parse("mem:64"))
    assert task_info(second.task).command.value == "/bin/true"
    assert task_spec(info) == first.task


def test_a_build_has_claims_of_its_own() -> None:
    """They take the place of the task's, which hold for builds without any; a wrong one is its build's fault alone."""
    gpu, core = Claim(type="nvidia.com/gpu"), Claim(type="siemens.com/isolated_core", count=2)
    builds = program("gpu", "/bin/true"), program("cpu", "/bin/true"), program("none", "/bin/true")
    builds[0].claims.append(gpu)
    builds[2].claims.append(Claim(name="x"))
    whole = message(*builds)
    whole.claims.append(core)
    spec = task_spec(whole)
    assert isinstance(spec, UndecidedTask)
    asked = [[(claim.type, claim.count) for claim in build.task.claims] for build in spec.alternatives]
    assert asked == [[("nvidia.com/gpu", 1)], [("siemens.com/isolated_core", 2)], []]
    assert [build.task.fault for build in spec.alternatives][:2] == ["", ""]
    assert "names no class" in spec.alternatives[2].task.fault


def test_a_build_that_cannot_run_is_faulty_alone() -> None:
    """The task is well as long as its builds can be decided on."""
    spec = task_spec(message(Alternative(name="empty"), image("image")))
    assert isinstance(spec, UndecidedTask)
    assert spec.fault == ""
    assert [bool(build.task.fault) for build in spec.alternatives] == [True, False]


def test_a_big_task_says_its_build_too() -> None:
    """What stands beside a task's blob names the build."""
    spec = task_spec(message(image("image")))
    assert isinstance(spec, UndecidedTask)
    assert excerpt(spec.alternatives[0].task).alternative == "image"


@pytest.mark.parametrize(
    ("builds", "fault"),
    [
        ([image("a"), image("a")], "two alternatives have the name 'a'"),
        ([image("1"), image()], "two alternatives have the name '1'"),
        ([image("a", "x==1")], "alternative 'a': constraint 'x==1'"),
        ([image(str(number)) for number in range(17)], "17 alternatives, at most 16 are allowed"),
        ([image("a" * 300)], "a name has at most"),
        ([image("a", *["x"] * 501)], "alternative 'a' has 501 constraints"),
    ],
)
def test_what_cannot_be_decided_on(builds: list[Alternative], fault: str) -> None:
    """Names that are double, too many builds and bad constraints are faults of the task."""
    assert fault in task_spec(message(*builds)).fault
