"""Tasks to launch, made in one line: a WASM module, a process or a container, on the resources of an offer.

What does not live here: uploading what a task needs (`edgerm.sdk.driver`).
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypedDict, Unpack

from edgerm.core.alternatives import misfit
from edgerm.core.constraints import Constraint, check_constraint, parse_constraint
from edgerm.core.errors import Conflict, Invalid
from edgerm.core.granting import Fit, fit, unclaimable
from edgerm.core.ids import AgentId, TaskId, check_task_id
from edgerm.core.resources import Resources
from edgerm.core.scheduler import AgentSpec, BlobRef, Offer, TaskSpec
from edgerm.sdk.claims import Claims
from edgerm.sdk.containers import Ports, fill_in, parse_volume, ports_of
from edgerm.sdk.devices import Devices
from edgerm.sdk.needs import Needs
from edgerm.sdk.options import check_list, check_names
from edgerm.wire.codec.claims import claims_to_messages
from edgerm.wire.codec.resources import resources_to_messages
from edgerm.wire.codec.tasks import executor_of, task_spec
from edgerm.wire.codec.times import nanoseconds
from edgerm.wire.v1.basics_pb2 import Blob
from edgerm.wire.v1.tasks_pb2 import ContainerInfo, TaskInfo

CPUS_DEFAULT = 0.1
MEM_DEFAULT_MIB = 32.0


@dataclass(frozen=True, slots=True)
class Task:
    """A task that has no place yet: `on` gives it one."""

    task_id: TaskId
    needs: Needs
    message: TaskInfo = field(compare=False)  # without agent and resources
    executor: str = field(compare=False)  # the kind that runs it: "wasm", "process", "docker"
    constraints: tuple[Constraint, ...] = ()  # what must hold of an agent, all of it
    builds: tuple[Task, ...] = ()  # of which the first that fits is taken, in place of the task itself

    @property
    def choices(self) -> tuple[Task, ...]:
        """What may run, the best first: its builds, or the task itself if it has none."""
        return self.builds or (self,)

    def misfit(self, agent: AgentSpec, agent_id: AgentId) -> str:
        """Why it cannot run on the agent, whatever is free there; empty: it can. For a task without builds."""
        why = misfit(self.executor, self.constraints, agent, agent_id)
        missing = None if why else unclaimable(self.needs.claims, agent)
        return missing.reason if missing else why

    def on(self, offer: Offer, resources: Resources | None = None) -> TaskSpec:
        """The task on this offer, or on what is left of it; of several builds the first that fits.

        Raises `Conflict`, saying why, if the task cannot be placed there.
        """
        left, reasons = offer.resources if resources is None else resources, []
        for build in self.choices:
            taken = build.needs.take_from(left)
            why = build.misfit(offer.agent, offer.agent_id)
            lack = f"cannot run there, for {why}" if why else ""
            if taken is None:
                lack = lack or f"needs more than offer {offer.offer_id} has: {build.needs}"
            elif not lack:
                found = fit(build.needs.claims, left.less(taken), offer.agent)
                if isinstance(found, Fit):
                    return build.at(offer.agent_id, taken)
                lack = found.reason
            reasons.append(f"as {build.message.alternative!r} {lack}" if self.builds else lack)
        raise Conflict(f"task {self.task_id!r} {'; '.join(reasons)}")

    def at(self, agent_id: AgentId, resources: Resources) -> TaskSpec:
        """The task at this agent with exactly these resources."""
        message = TaskInfo()
        message.CopyFrom(self.message)
        message.agent_id.value = agent_id
        message.resources.extend(resources_to_messages(resources))
        free = _ports(resources, self.needs.these_ports)
        for mapping in message.container.docker.port_mappings:
            if not mapping.host_port:
                mapping.host_port = next(free, 0)
        spec = task_spec(message)
        if spec.fault:
            raise Invalid(f"task {self.task_id!r}: {spec.fault}")
        return spec


def _ports(resources: Resources, but: Container[int]) -> Iterator[int]:
    for key, amount in resources.items():
        if key.name == "ports" and isinstance(amount, tuple):
            for begin, end in amount:
                yield from (port for port in range(begin, end + 1) if port not in but)


class Options(TypedDict, total=False):
    """What every task may be given; `mem` and `disk` are in MiB."""

    name: str
    env: Mapping[str, str]
    cpus: float
    mem: float
    disk: float
    ports: int
    devices: Devices
    claims: Claims  # devices by class, count and what they are; for the forms see there
    input: BlobRef | None  # its standard input
    stdin_open: bool  # which stays open after that
    messages: bool  # it gets a mailbox
    grace_s: float | None  # between SIGTERM and SIGKILL
    timeout_s: float | None  # killed when it takes longer
    constraints: Sequence[str | Constraint]  # what must hold of an agent: zone=a, zone!=a, zone, !zone, zone~REGEX …
    user: str  # of a process or a container, if the operator allows it


def wasm_task(
    task_id: str, module: BlobRef, args: Sequence[str] = (), *, entry_point: str = "_start", **options: Unpack[Options]
) -> Task:
    """A WebAssembly module (WASI preview 1) with these arguments after its name. Raises `Invalid`."""
    message = _message(task_id, options)
    message.command.value = message.name
    message.command.arguments.extend([message.name, *args])
    message.container.type = ContainerInfo.MESOS
    message.container.wasm.module.CopyFrom(blob_message(module))
    message.container.wasm.entry_point = entry_point
    return _task(message, options)


def process_task(task_id: str, argv: Sequence[str], **options: Unpack[Options]) -> Task:
    """A program that is on the agent's box, run without a shell. Raises `Invalid`."""
    check_list("a program and its arguments", argv)
    if not argv or not argv[0]:
        raise Invalid("a process task needs a program to run")
    message = _message(task_id, options)
    message.command.value = argv[0]
    message.command.arguments.extend(argv)
    return _task(message, options)


def docker_task(
    task_id: str,
    image: str,
    args: Sequence[str] = (),
    *,
    publish: Ports = (),
    volumes: Iterable[str] = (),
    network: str | None = None,
    **options: Unpack[Options],
) -> Task:
    """A container of this image, with `args` in place of what the image would run. Raises `Invalid`.

    `publish`: ports of the box that lead into it. `volumes`: see `containers.parse_volume`. `network`: "host",
    "bridge", "none" or that of a network of the engine; by default the box's own, or a bridge if ports are published.
    """
    message = _message(task_id, options)
    ports = ports_of(publish)
    message.command.arguments.extend(args)
    fill_in(message.container, image, network, ports)
    message.container.volumes.extend(parse_volume(volume) for volume in volumes)
    return _task(message, options, [port.host for port in ports])


def blob_message(blob: BlobRef) -> Blob:
    """A blob's name and size as a message."""
    return Blob(sha256=bytes.fromhex(blob.digest), size_bytes=blob.size_bytes)


def _message(task_id: str, options: Options) -> TaskInfo:
    check_names(options, Options.__annotations__)
    message = TaskInfo(name=options.get("name") or task_id)
    message.task_id.value = check_task_id(task_id)
    message.command.shell = False
    if user := options.get("user"):
        message.command.user = user
    for name, value in options.get("env", {}).items():
        message.command.environment.variables.add(name=name, value=value)
    if (grace_s := options.get("grace_s")) is not None:
        message.kill_policy.grace_period.nanoseconds = nanoseconds("grace_s", grace_s)
    if (timeout_s := options.get("timeout_s")) is not None:
        message.max_completion_time.nanoseconds = nanoseconds("timeout_s", timeout_s)
    if (stdin := options.get("input")) is not None:
        message.input.CopyFrom(blob_message(stdin))
    if options.get("stdin_open"):
        message.stdin_open = True
    if options.get("messages"):
        message.messages = True
    return message


def _task(message: TaskInfo, options: Options, publish: Sequence[int] = ()) -> Task:
    needs = Needs.of(
        options.get("cpus", CPUS_DEFAULT),
        options.get("mem", MEM_DEFAULT_MIB),
        options.get("disk", 0.0),
        options.get("ports", 0) + sum(not port for port in publish),
        filter(None, publish),
        options.get("devices", ()),
        options.get("claims", ()),
    )
    message.claims.extend(claims_to_messages(needs.claims))
    check_list("constraints", options.get("constraints", ()))
    constraints = tuple(map(_constraint, options.get("constraints", ())))
    task = Task(TaskId(message.task_id.value), needs, message, executor_of(message), constraints)
    task.at(AgentId("0"), needs.take_from(needs.enough()) or Resources())  # what is wrong is told now
    return task


def _constraint(part: str | Constraint) -> Constraint:
    if isinstance(part, str):
        return parse_constraint(part)
    check_constraint(part)
    return part


def one_of(builds: Sequence[tuple[str, Task]]) -> Task:
    """A task of which there are several builds, each with a name, the best first. Raises `Invalid`.

    The builds are tasks with one id. The first that fits an offer is taken, and says so (`TaskInfo.alternative`).
    """
    names = [name for name, _ in builds]
    tasks = [_named(name, build) for name, build in builds]
    if not tasks or len(set(names)) < len(names) or not all(names):
        raise Invalid(f"a task of several builds needs at least one, each with a name of its own, not {names}")
    first = tasks[0]
    if any(task.task_id != first.task_id or task.builds for task in tasks):
        raise Invalid(f"the builds of task {first.task_id!r} must all have its id, and no builds of their own")
    return replace(first, builds=tuple(tasks))


def _named(name: str, build: Task) -> Task:
    message = TaskInfo()
    message.CopyFrom(build.message)
    message.alternative = name
    return replace(build, message=message)
