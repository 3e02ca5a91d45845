"""Several builds of a task: how they are told, and which is placed where."""

from __future__ import annotations

from typing import Any

import pytest

from edgerm.core.blobs import digest_of
from edgerm.core.errors import Conflict, Invalid
from edgerm.core.ids import AgentId, FrameworkId, OfferId
from edgerm.core.resources import parse
from edgerm.core.scheduler import BlobRef, Offer
from edgerm.sdk.builds import Build, spelt_out
from edgerm.sdk.tasks import Task, docker_task, one_of, process_task, wasm_task
from edgerm.wire.codec.infos import agent_spec, attributes_info
from edgerm.wire.codec.tasks import task_info
from edgerm.wire.v1.infos_pb2 import AgentInfo

MODULE = BlobRef(digest_of(b"m"), 1)


def offer(resources: str = "cpus:4;mem:1024", executors: str = "{docker,process,wasm}", **attributes: str) -> Offer:
    info = attributes_info("host", {"edgerm.executors": executors} | attributes)
    spec = agent_spec(AgentInfo.FromString(info))
    return Offer(OfferId("o"), FrameworkId("f"), "*", AgentId("a"), parse(resources), spec)


def task() -> Task:
    return one_of(
        [
            ("arm", wasm_task("t", MODULE, constraints=["arch=arm64"])),
            ("image", docker_task("t", "busybox", cpus=2)),
            ("plain", process_task("t", ["/bin/true"])),
        ]
    )


@pytest.mark.parametrize(
    ("place", "taken"),
    [
        (offer(arch="arm64"), "arm"),
        (offer(arch="amd64"), "image"),
        (offer("cpus:1;mem:1024", arch="amd64"), "plain"),
        (offer(executors="{process}", arch="arm64"), "plain"),
    ],
)
def test_the_first_that_fits_an_offer(place: Offer, taken: str) -> None:
    """The task that is sent is that build, says so, and has no alternatives any more."""
    spec = task().on(place)
    info = task_info(spec)
    assert (spec.alternative, info.alternative, len(info.alternatives)) == (taken, taken, 0)


def test_none_that_fits() -> None:
    """The error says of each build why."""
    with pytest.raises(
        Conflict, match="as 'arm' cannot run there, for arch=arm64 does not hold; as 'image' needs more"
    ):
        task().on(offer("cpus:0.01;mem:1024", arch="amd64"))


def test_builds_of_one_task() -> None:
    """Names are unique, ids alike, and a build has no builds."""
    one, other = process_task("t", ["/bin/a"]), process_task("u", ["/bin/b"])
    for builds in ([], [("a", one), ("a", one)], [("", one)], [("a", one), ("b", other)], [("a", task())]):
        with pytest.raises(Invalid, match=r"several builds|must all have its id"):
            one_of(builds)


def test_what_a_build_does_not_say_the_task_says() -> None:
    """A build's own options win; constraints of both hold; what only containers have is for containers."""
    options = {
        "cpus": 1.0,
        "mem": 64.0,
        "volumes": ["v:/v"],
        "constraints": ["!lab"],
        "task_id": "t",
        "alternatives": [],
    }
    builds = [Build(wasm="m", constraints=["arch=arm64"]), Build(docker="i", cpus=2.0), Build(wasm="n", name="other")]
    assert list(spelt_out(options, builds)) == [
        ("wasm", {"cpus": 1.0, "mem": 64.0, "constraints": ["!lab", "arch=arm64"], "task_id": "t", "wasm": "m"}),
        (
            "docker",
            {"cpus": 2.0, "mem": 64.0, "volumes": ["v:/v"], "constraints": ["!lab"], "task_id": "t", "docker": "i"},
        ),
        ("other", {"cpus": 1.0, "mem": 64.0, "constraints": ["!lab"], "task_id": "t", "wasm": "n"}),
    ]
    assert [name for name, _ in spelt_out({}, [Build(docker="a"), Build(docker="b")])] == ["docker", "docker-2"]


@pytest.mark.parametrize(
    ("options", "builds"),
    [
        ({}, []),
        ({}, [Build(docker="i")] * 17),
        ({"wasm": "m"}, [Build(docker="i")]),
        ({}, [Build(cpus=1)]),
        ({}, [Build(docker="i", wasm="m")]),
        ({}, Build(docker="i")),
        ({}, [{"docker": "i", "constraint": ["zone=a"]}]),
        ({}, [{"docker": "i", "constraints": "zone"}]),
    ],
)
def test_what_are_no_builds(options: dict[str, Any], builds: Any) -> None:
    """Too few, too many, beside a task of its own, of no kind or two, or with what no build has: refused."""
    with pytest.raises(Invalid):
        list(spelt_out(options, builds))
