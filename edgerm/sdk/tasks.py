"""Tasks to launch, made in one line: a WASM module, a process or a container, on the resources of an offer.

What does not live here: uploading what a task needs (`edgerm.sdk.driver`).
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypedDict, Unpack

from edgerm.core.errors import Conflict, Invalid
from edgerm.core.ids import AgentId, TaskId, check_task_id
from edgerm.core.resources import Amount, ResourceKey, Resources, coalesce, milli
from edgerm.core.scheduler import BlobRef, Offer, TaskSpec
from edgerm.sdk.containers import PORT_MAX, Ports, fill_in, parse_volume, ports_of
from edgerm.wire.codec.resources import resources_to_messages
from edgerm.wire.codec.tasks import executor_of, task_spec
from edgerm.wire.codec.times import nanoseconds
from edgerm.wire.v1.basics_pb2 import Blob
from edgerm.wire.v1.tasks_pb2 import ContainerInfo, TaskInfo

CPUS_DEFAULT = 0.1
MEM_DEFAULT_MIB = 32.0
ALL_PORTS = ((1, PORT_MAX),)


@dataclass(frozen=True, slots=True)
class Needs:
    """What a task asks of an offer: scalars by name, and ports."""

    scalars: tuple[tuple[str, int], ...]  # in thousandths
    ports: int = 0  # so many, whichever they are
    these_ports: frozenset[int] = frozenset()  # and these

    @classmethod
    def of(cls, cpus: float, mem: float, disk: float = 0.0, ports: int = 0, these_ports: Iterable[int] = ()) -> Needs:
        """`mem` and `disk` in MiB. Raises `Invalid` for amounts that are none."""
        if ports < 0:
            raise Invalid(f"a task cannot need {ports} ports")
        amounts = {"cpus": milli(cpus), "mem": milli(mem), "disk": milli(disk)}
        scalars = tuple((name, amount) for name, amount in amounts.items() if amount)
        return cls(scalars, ports, frozenset(these_ports))

    def take_from(self, resources: Resources) -> Resources | None:
        """The part of `resources` that serves, reserved ones first; None if they are too few."""
        taken: dict[ResourceKey, Amount] = {}
        for name, amount in self.scalars:
            left = amount
            for key in _keys(resources, name):
                have = resources[key]
                if left and isinstance(have, int):
                    taken[key] = min(have, left)
                    left -= min(have, left)
            if left:
                return None
        ports = self._take_ports(resources)
        return None if ports is None else Resources({**taken, **ports})

    def _take_ports(self, resources: Resources) -> dict[ResourceKey, Amount] | None:
        taken: dict[ResourceKey, Amount] = {}
        left, wanted = self.ports, set(self.these_ports)
        for key in _keys(resources, "ports"):
            have = resources[key]
            if isinstance(have, tuple) and (left or wanted):
                found = {port for port in wanted if any(begin <= port <= end for begin, end in have)}
                ranges = _first(_without(have, sorted(self.these_ports)), left)
                wanted -= found
                left -= sum(end - begin + 1 for begin, end in ranges)
                taken[key] = coalesce([*ranges, *((port, port) for port in found)])
        return None if left or wanted else taken


def _keys(resources: Resources, name: str) -> list[ResourceKey]:
    """Plain ones last: what is reserved for us nobody else can use. Revocable ones are not asked for here."""
    found = [key for key in resources if key.name == name and not key.revocable and not key.disk]
    return sorted(found, key=lambda key: not key.reservations)


def _without(ranges: Iterable[tuple[int, int]], ports: Sequence[int]) -> Iterator[tuple[int, int]]:
    """The ranges without these ports, which are in order."""
    for begin, end in ranges:
        first = begin
        for port in ports:
            if first <= port <= end:
                if first < port:
                    yield first, port - 1
                first = port + 1
        if first <= end:
            yield first, end


def _first(ranges: Iterable[tuple[int, int]], count: int) -> list[tuple[int, int]]:
    taken = []
    for begin, end in ranges:
        if count <= 0:
            break
        last = min(end, begin + count - 1)
        taken.append((begin, last))
        count -= last - begin + 1
    return taken


@dataclass(frozen=True, slots=True)
class Task:
    """A task that has no place yet: `on` gives it one."""

    task_id: TaskId
    needs: Needs
    message: TaskInfo = field(compare=False)  # without agent and resources
    executor: str = field(compare=False)  # the kind that runs it: "wasm", "process", "docker"

    def on(self, offer: Offer, resources: Resources | None = None) -> TaskSpec:
        """The task on this offer, or on what is left of it; raises `Conflict` if that is too little."""
        taken = self.needs.take_from(offer.resources if resources is None else resources)
        if taken is None:
            raise Conflict(f"task {self.task_id!r} needs more than offer {offer.offer_id} has: {self.needs}")
        return self.at(offer.agent_id, taken)

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
    input: BlobRef | None  # its standard input
    grace_s: float | None  # between SIGTERM and SIGKILL
    timeout_s: float | None  # killed when it takes longer
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
    task = _task(message, options, [port.host for port in ports])
    enough = {ResourceKey(name): amount for name, amount in task.needs.scalars} | {ResourceKey("ports"): ALL_PORTS}
    task.at(AgentId("0"), task.needs.take_from(Resources(enough)) or Resources())  # what is wrong is told now
    return task


def blob_message(blob: BlobRef) -> Blob:
    """A blob's name and size as a message."""
    return Blob(sha256=bytes.fromhex(blob.digest), size_bytes=blob.size_bytes)


def _message(task_id: str, options: Options) -> TaskInfo:
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
    return message


def _task(message: TaskInfo, options: Options, publish: Sequence[int] = ()) -> Task:
    needs = Needs.of(
        options.get("cpus", CPUS_DEFAULT),
        options.get("mem", MEM_DEFAULT_MIB),
        options.get("disk", 0.0),
        options.get("ports", 0) + sum(not port for port in publish),
        filter(None, publish),
    )
    return Task(TaskId(message.task_id.value), needs, message, executor_of(message))
