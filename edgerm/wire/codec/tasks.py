"""`TaskInfo` and `TaskSpec`: what a framework asks to run, and what is wrong with it alone.

A task that is wrong by itself does not spoil its call: the fault travels in the value, and the core answers
TASK_ERROR. Whatever edgerm could not run as asked is a fault, never silently left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

from edgerm.core.alternatives import Alternative, undecided
from edgerm.core.blobs import Digest, digest_of
from edgerm.core.claims import Claim, Granted
from edgerm.core.devices import resources_granted, without_items
from edgerm.core.errors import Invalid, TooLarge
from edgerm.core.ids import AgentId, TaskId, check_task_id
from edgerm.core.link import NAME_BYTES_MAX
from edgerm.core.resources import NOTHING, Resources
from edgerm.core.scheduler import BlobRef, TaskSpec
from edgerm.core.texts import cut
from edgerm.wire.codec import containers
from edgerm.wire.codec.alternatives import builds_of
from edgerm.wire.codec.claims import claims_of, claims_to_messages
from edgerm.wire.codec.resources import resources_from_messages, resources_to_messages
from edgerm.wire.codec.times import nanoseconds, span_s
from edgerm.wire.content import from_protobuf
from edgerm.wire.v1.basics_pb2 import Blob
from edgerm.wire.v1.tasks_pb2 import ContainerInfo, Environment, TaskInfo

INLINE_BYTES = 1024
"""A TaskInfo above this travels as a blob (docs/link.md)."""
EXCERPT_BYTES_MAX = 4096
"""What goes beside the blob, and what the master keeps itself, is at most this, and the claims."""
DIGEST_BYTES = 32

_CONTAINER_BUILT = frozenset({"type", "wasm"})


def task_spec(message: TaskInfo) -> TaskSpec:
    """A task from a complete message (no required field is missing); what is wrong with it is its `fault`."""
    return _task_spec(message, message.SerializeToString(deterministic=True))


def task_spec_from_bytes(info: bytes) -> TaskSpec:
    """As `task_spec`, from canonical bytes, which are kept as they are; raises `Invalid` if they are no TaskInfo."""
    return _task_spec(from_protobuf(TaskInfo, info), info)


def _task_spec(message: TaskInfo, info: bytes) -> TaskSpec:
    found = _Found()
    fault = ""
    parts: tuple[Callable[[TaskInfo], None], ...] = (
        _check_id,
        found.take_resources,
        found.take_times,
        found.take_claims,
    )
    if message.alternatives:  # whether one can run is said of each
        parts += (found.take_alternatives,)
    else:
        parts += (found.take_blobs, _check_built, _check_runnable, found.check_container)
    for part in parts:
        try:
            part(message)
        except Invalid as error:
            fault = fault or str(error)
    spec = TaskSpec(
        task_id=TaskId(message.task_id.value),
        agent_id=AgentId(message.agent_id.value),
        resources=found.resources,
        name=message.name,
        executor=executor_of(message),
        grace_s=found.grace_s,
        completion_s=found.completion_s,
        info=info,
        blobs=found.blobs,
        fault=fault,
        alternative=message.alternative,
        claims=found.claims,
    )
    return undecided(spec, found.alternatives) if message.alternatives else spec


class _Found:
    """The parts of a task that can be wrong; what is wrong stays at its default."""

    resources: Resources = NOTHING
    grace_s: float | None = None
    completion_s: float | None = None
    claims: tuple[Claim, ...] = ()
    blobs: tuple[BlobRef, ...] = ()
    alternatives: tuple[Alternative, ...] = ()

    def take_resources(self, message: TaskInfo) -> None:
        self.resources = resources_from_messages(message.resources)

    def take_times(self, message: TaskInfo) -> None:
        if message.kill_policy.HasField("grace_period"):
            self.grace_s = span_s("kill_policy.grace_period", message.kill_policy.grace_period.nanoseconds)
        if message.HasField("max_completion_time"):
            self.completion_s = span_s("max_completion_time", message.max_completion_time.nanoseconds)

    def take_claims(self, message: TaskInfo) -> None:
        self.claims = claims_of(message)

    def take_blobs(self, message: TaskInfo) -> None:
        blobs = []
        if message.container.HasField("wasm"):
            blobs.append(blob_ref("container.wasm.module", message.container.wasm.module))
        if message.HasField("input"):
            blobs.append(blob_ref("input", message.input))
        self.blobs = tuple(blobs)

    def take_alternatives(self, message: TaskInfo) -> None:
        self.alternatives = tuple(
            Alternative(build.name, task_spec(build.whole), build.constraints) for build in builds_of(message)
        )

    def check_container(self, message: TaskInfo) -> None:
        if containers.is_docker(message):
            containers.check_container(message, self.resources)


def executor_of(message: TaskInfo) -> str:
    """The kind of executor that runs it."""
    if containers.is_docker(message):
        return "docker"
    return "wasm" if message.container.HasField("wasm") else "process"


def blob_ref(what: str, message: Blob) -> BlobRef:
    """A blob's name and size; raises `Invalid`, naming `what`, unless the name is a SHA-256."""
    if len(message.sha256) != DIGEST_BYTES:
        raise Invalid(f"{what}.sha256 has {len(message.sha256)} bytes; a SHA-256 has {DIGEST_BYTES}")
    return BlobRef(Digest(message.sha256.hex()), message.size_bytes)


def _check_id(message: TaskInfo) -> None:
    check_task_id(message.task_id.value)


def _check_built(message: TaskInfo) -> None:
    what = next(_not_built(message), None)
    if what is not None:
        raise Invalid(f"{what} is not built yet")


def _not_built(message: TaskInfo) -> Iterator[str]:
    if message.HasField("container"):
        yield from _not_built_of_container(message.container)
    if message.HasField("executor"):
        yield "a custom executor"
    if message.HasField("health_check"):
        yield "health_check"
    if message.HasField("check"):
        yield "check"
    if message.limits:
        yield "limits"
    if message.HasField("command"):
        if message.command.uris:
            yield "command.uris"
        for variable in message.command.environment.variables:
            if variable.type == Environment.Variable.SECRET:
                yield "an environment variable of type SECRET"


def _not_built_of_container(container: ContainerInfo) -> Iterator[str]:
    if container.type == ContainerInfo.DOCKER:
        yield from containers.not_built(container)
        return
    for field, value in container.ListFields():
        if field.name not in _CONTAINER_BUILT and (field.name != "mesos" or value.HasField("image")):
            yield f"container.{field.name}"


def _check_runnable(message: TaskInfo) -> None:
    image = containers.is_docker(message)
    runs = message.HasField("command") or message.container.HasField("wasm") or image
    if message.HasField("executor") == runs:
        both = message.HasField("executor")
        raise Invalid(f"a task needs a command or an executor{', not both' if both else ''}")
    if message.HasField("executor"):
        return
    if message.container.HasField("wasm"):
        if message.container.type != ContainerInfo.MESOS:
            raise Invalid("container.wasm needs container.type MESOS")
        if not message.container.wasm.entry_point:
            raise Invalid("container.wasm.entry_point is empty")
    elif not message.command.value and not image:
        raise Invalid("command.value is empty: there is nothing to run")


# --- back to messages -------------------------------------------------------------------------------------------


def task_info(spec: TaskSpec) -> TaskInfo:
    """`spec` as a message; when its TaskInfo is in a blob, the excerpt that goes beside it.

    Raises `Invalid` if `spec.info` is no TaskInfo.
    """
    return from_protobuf(TaskInfo, spec.info) if spec.info else excerpt(spec)


def excerpt(spec: TaskSpec) -> TaskInfo:
    """A TaskInfo of what is decided on: ids, resources, claims, kill policy, `max_completion_time`, begin of the name.

    The devices that its claims were given are no part of it.
    """
    message = TaskInfo(name=cut(spec.name, NAME_BYTES_MAX), resources=resources_to_messages(asked(spec)))
    message.claims.extend(claims_to_messages(spec.claims))
    message.task_id.value = spec.task_id
    message.agent_id.value = spec.agent_id
    if spec.alternative:
        message.alternative = spec.alternative
    if spec.grace_s is not None:
        message.kill_policy.grace_period.nanoseconds = nanoseconds("the grace period", spec.grace_s)
    if spec.completion_s is not None:
        message.max_completion_time.nanoseconds = nanoseconds("max_completion_time", spec.completion_s)
    return message


class Offloaded(NamedTuple):
    """A task without its TaskInfo, and the bytes to be kept as a blob under `digest`."""

    spec: TaskSpec
    digest: Digest
    content: bytes


def offload(spec: TaskSpec) -> Offloaded | None:
    """The task with its TaskInfo as a blob, or None if it is small enough to travel inline.

    Raises `TooLarge` if what must be known without the blob is too much.
    """
    if len(spec.info) <= INLINE_BYTES:
        return None
    size = excerpt(replace(spec, claims=())).ByteSize()
    if size > EXCERPT_BYTES_MAX:
        raise TooLarge(f"the task's resources take {size} bytes, at most {EXCERPT_BYTES_MAX} are allowed: name fewer")
    digest, name = digest_of(spec.info), cut(spec.name, NAME_BYTES_MAX)
    return Offloaded(replace(spec, name=name, info=b"", info_blob=BlobRef(digest, len(spec.info))), digest, spec.info)


def complete(spec: TaskSpec, info: bytes) -> TaskSpec:
    """An offloaded task with its TaskInfo from the blob; `info_blob` stays, for the blob is still needed.

    What its claims were given stays, too. Raises `Invalid` if `info` is no TaskInfo, or that of another task.
    """
    whole = task_spec_from_bytes(info)
    if whole.task_id != spec.task_id:
        raise Invalid(f"the blob holds the TaskInfo of {whole.task_id!r}, not of {spec.task_id!r}")
    return with_grants(replace(whole, info_blob=spec.info_blob), spec.granted, spec.generation, spec.app)


def with_grants(spec: TaskSpec, granted: tuple[Granted, ...], generation: int, app: str) -> TaskSpec:
    """A task as its framework asks for it with what its claims were given, which is among its resources then.

    Raises `Invalid` if a class has the name of a resource of another type.
    """
    if not granted:
        return spec
    resources = spec.resources + resources_granted(granted)
    return replace(spec, resources=resources, granted=granted, generation=generation, app=app)


def asked(spec: TaskSpec) -> Resources:
    """The task's resources without what its claims were given: those of its TaskInfo."""
    return without_items(spec.resources, resources_granted(spec.granted)) if spec.granted else spec.resources
