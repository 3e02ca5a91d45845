"""TaskInfo: what becomes a task, and what is wrong with one alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import inline_tasks, offloaded_tasks, task_infos

from edgerm.core.blobs import digest_of
from edgerm.core.errors import Invalid
from edgerm.core.resources import parse
from edgerm.core.scheduler import BlobRef, TaskSpec
from edgerm.wire.codec.resources import resources_to_messages
from edgerm.wire.codec.tasks import (
    INLINE_BYTES,
    complete,
    offload,
    task_info,
    task_spec,
    task_spec_from_bytes,
)
from edgerm.wire.v1.basics_pb2 import Blob
from edgerm.wire.v1.tasks_pb2 import ContainerInfo, TaskInfo


def process() -> TaskInfo:
    message = TaskInfo(name="n", resources=resources_to_messages(parse("cpus:1")))
    message.task_id.value = "t"
    message.agent_id.value = "a"
    message.command.value = "true"
    return message


def wasm() -> TaskInfo:
    message = process()
    message.ClearField("command")
    message.container.type = ContainerInfo.MESOS
    message.container.wasm.module.CopyFrom(Blob(sha256=b"m" * 32, size_bytes=9))
    return message


def docker() -> TaskInfo:
    message = process()
    message.container.type = ContainerInfo.DOCKER
    return message


@given(task_infos(containers=True))
def test_a_runnable_task_has_no_fault(message: TaskInfo) -> None:
    """Modules, processes and containers with what edgerm builds are taken, and carried byte for byte."""
    spec = task_spec(message)
    assert spec.fault == ""
    assert spec.info == message.SerializeToString(deterministic=True)
    kinds = {0: "process", ContainerInfo.DOCKER: "docker", ContainerInfo.MESOS: "wasm"}
    assert spec.executor == kinds[message.container.type if message.HasField("container") else 0]


@given(inline_tasks)
def test_a_task_survives_the_wire(spec: TaskSpec) -> None:
    """A task written and read is the same task."""
    assert task_spec(task_info(spec)) == spec
    assert task_spec_from_bytes(spec.info) == spec


@given(offloaded_tasks)
def test_an_excerpt_tells_what_is_decided_on(spec: TaskSpec) -> None:
    """Name, ids, resources, grace and time limit of a task can be read without its blob."""
    told = task_spec(task_info(spec))
    assert (told.name, told.task_id, told.agent_id) == (spec.name, spec.task_id, spec.agent_id)
    assert (told.resources, told.grace_s, told.completion_s) == (spec.resources, spec.grace_s, spec.completion_s)


@given(st.binary(max_size=80))
def test_no_bytes_lead_to_another_error(data: bytes) -> None:
    """Arbitrary bytes are a task, perhaps with a fault, or Invalid."""
    try:
        assert task_spec_from_bytes(data).info == data
    except Invalid as error:
        assert str(error)


def test_a_module_stands_in_for_a_command() -> None:
    """A WASM task needs no command, and its module and input are blobs that it needs."""
    message = wasm()
    message.input.CopyFrom(Blob(sha256=b"i" * 32, size_bytes=1))
    spec = task_spec(message)
    assert (spec.fault, spec.executor) == ("", "wasm")
    assert spec.needs == (BlobRef((b"m" * 32).hex(), 9), BlobRef((b"i" * 32).hex(), 1))  # type: ignore[arg-type]


def test_unknown_fields_of_a_task_are_carried() -> None:
    """A field that nobody here knows reaches the agent."""
    spec = task_spec(TaskInfo.FromString(process().SerializeToString() + b"\xc2\xbb\x01\x03new"))
    assert spec.info.endswith(b"\x03new")


def _spoil(change: Callable[[TaskInfo], object], message: Callable[[], TaskInfo] = process) -> TaskInfo:
    spoilt = message()
    change(spoilt)
    return spoilt


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (_spoil(lambda m: setattr(m.task_id, "value", "a/b")), "task id"),
        (_spoil(lambda m: setattr(m.task_id, "value", "")), "task id is empty"),
        (_spoil(lambda m: setattr(m.resources[0].scalar, "value", -1.0)), "negative"),
        (_spoil(lambda m: setattr(m.kill_policy.grace_period, "nanoseconds", -1)), "kill_policy.grace_period"),
        (_spoil(lambda m: setattr(m.max_completion_time, "nanoseconds", -1)), "max_completion_time"),
        (_spoil(lambda m: m.ClearField("command")), "needs a command or an executor"),
        (_spoil(lambda m: m.command.ClearField("value")), "command.value"),
        (_spoil(lambda m: m.command.uris.add(value="x")), "command.uris is not built"),
        (_spoil(lambda m: m.command.environment.variables.add(name="x", type=2)), "SECRET is not built"),
        (_spoil(lambda m: setattr(m.executor.executor_id, "value", "e")), "custom executor is not built"),
        (_spoil(lambda m: m.health_check.SetInParent()), "health_check is not built"),
        (_spoil(lambda m: m.check.SetInParent()), "check is not built"),
        (_spoil(lambda m: setattr(m.limits["mem"], "value", 1.0)), "limits is not built"),
        (docker(), "container.docker is missing"),
        (_spoil(lambda m: m.container.volumes.add(mode=1, container_path="x"), wasm), "container.volumes is not built"),
        (_spoil(lambda m: setattr(m.container.mesos.image, "type", 2), wasm), "container.mesos is not built"),
        (_spoil(lambda m: m.container.wasm.CopyFrom(wasm().container.wasm), docker), "wasm with container.type DOCKER"),
        (_spoil(lambda m: setattr(m.container.wasm, "entry_point", ""), wasm), "entry_point is empty"),
        (_spoil(lambda m: setattr(m.container.wasm.module, "sha256", b"x"), wasm), "module.sha256 has 1 bytes"),
        (_spoil(lambda m: m.input.CopyFrom(Blob(sha256=b"x" * 33, size_bytes=1))), "input.sha256 has 33 bytes"),
    ],
)
def test_a_task_that_cannot_run_as_asked_has_a_fault(message: TaskInfo, why: str) -> None:
    """The fault names what is wrong; the rest of the task is still told."""
    spec = task_spec(message)
    assert why in spec.fault
    assert spec.name == "n"


def test_a_big_task_is_offloaded_and_completed() -> None:
    """Above the inline bound the TaskInfo is a blob; with its bytes the task is whole again."""
    message = process()
    message.data = b"x" * INLINE_BYTES
    spec = task_spec(message)
    offloaded = offload(spec)
    assert offloaded is not None
    assert offloaded.digest == digest_of(spec.info)
    assert offloaded.spec.info == b""
    assert offloaded.spec.needs == (BlobRef(offloaded.digest, len(spec.info)),)
    assert complete(offloaded.spec, offloaded.content) == replace(spec, info_blob=offloaded.spec.info_blob)


def test_a_small_task_stays_inline() -> None:
    """What fits the bound is not offloaded."""
    message = process()
    message.data = b"x" * (INLINE_BYTES - len(task_spec(message).info) - 3)
    assert len(task_spec(message).info) == INLINE_BYTES
    assert offload(task_spec(message)) is None


def test_a_blob_of_another_task_is_refused() -> None:
    """The wrong blob does not run under this task's name."""
    spec = replace(task_spec(process()), task_id="other", info=b"")  # type: ignore[arg-type]
    with pytest.raises(Invalid, match="TaskInfo of 't'"):
        complete(spec, process().SerializeToString())
