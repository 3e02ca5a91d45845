"""Strategies for the values of `edgerm.core`, as they may occur; shared by the tests of codecs, stores and cores."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from edgerm.core import link
from edgerm.core.blobs import Digest, digest_of
from edgerm.core.claims import Claim, Granted, Operator, expression, json_text
from edgerm.core.constraints import Constraints, any_of
from edgerm.core.devices import NO_INVENTORY, Device, DeviceClass, Inventory
from edgerm.core.ids import AgentId, ExecutorId, FrameworkId, LaunchId, OfferId, TaskId, TaskKey
from edgerm.core.metadata import to_text
from edgerm.core.resources import Amount, Reservation, ResourceKey, Resources, coalesce
from edgerm.core.scheduler import (
    REFUSE_MAX_S,
    Accept,
    Acknowledge,
    AgentSpec,
    AnswerInverse,
    BlobRef,
    Call,
    Capability,
    Decline,
    Error,
    Event,
    Failure,
    FrameworkSpec,
    Heartbeat,
    InverseOffer,
    InverseOffers,
    Kill,
    Message,
    Offer,
    Offers,
    Reconcile,
    Request,
    Rescind,
    RescindInverse,
    Revive,
    Status,
    Subscribed,
    Suppress,
    TaskSpec,
    Teardown,
    Update,
    UpdateFramework,
)
from edgerm.core.tasks import Reason, Source, TaskState
from edgerm.wire.codec.claims import claims_to_messages
from edgerm.wire.codec.infos import agent_info, agent_spec, attributes_info, framework_info, framework_spec
from edgerm.wire.codec.resources import resources_from_messages, resources_to_messages
from edgerm.wire.codec.tasks import task_spec, with_grants
from edgerm.wire.codec.times import nanoseconds
from edgerm.wire.v1.resources_pb2 import Volume
from edgerm.wire.v1.tasks_pb2 import ContainerInfo, TaskInfo

# --- small things -----------------------------------------------------------------------------------------------

texts = st.text(st.characters(codec="utf-8"), max_size=8)
names = st.text(st.characters(codec="utf-8", exclude_characters="/\\\x7f", exclude_categories=["Cc"]), max_size=12)
ids = names.filter(lambda text: text not in ("", ".", ".."))
task_ids = ids.map(TaskId)
framework_ids = ids.map(FrameworkId)
offer_ids = ids.map(OfferId)
agent_ids = st.binary(min_size=16, max_size=16).map(lambda data: AgentId(data.hex()))
task_keys = st.builds(TaskKey, framework_ids, task_ids, ids.map(LaunchId))
roles = st.one_of(st.just("*"), st.from_regex(r"[a-z][a-z0-9_.-]{0,5}(/[a-z][a-z0-9]{0,3}){0,2}", fullmatch=True))
owners = roles.filter(lambda role: role != "*")
spans_s = st.integers(0, 10**9).map(lambda ms: ms / 1000)
walls_s = st.integers(0, 2**32 * 1000).map(lambda ms: ms / 1000)
digests = st.binary(min_size=32, max_size=32).map(lambda data: Digest(data.hex()))
blob_refs = st.builds(BlobRef, digests, st.integers(0, 2**40))

# --- resources --------------------------------------------------------------------------------------------------

MILLI_MAX = 2**50
range_lists = st.lists(st.tuples(st.integers(0, 70000), st.integers(0, 99)), min_size=1, max_size=4).map(
    lambda pairs: coalesce((begin, begin + length) for begin, length in pairs)
)
reservations = st.one_of(
    owners.map(Reservation),
    st.builds(Reservation, owners, st.just(True), texts, st.sampled_from([b"", b"\n\x03\n\x01k"])),
)


def _amount(kind: str) -> st.SearchStrategy[Amount]:
    if kind == "ports":
        return range_lists
    if kind == "gpus":
        return st.frozensets(texts, min_size=1, max_size=3)
    return st.integers(1, MILLI_MAX)


@st.composite
def entries(draw: st.DrawFn, *, refined: bool = True) -> tuple[ResourceKey, Amount]:
    """One amount under its key; `refined`: with reservations below reservations."""
    name = draw(st.sampled_from(["cpus", "mem", "ports", "gpus", "Ünï"]))
    chain = draw(st.lists(reservations, max_size=2 if refined else 1).map(tuple))
    disk = draw(st.sampled_from([b"", b"\n\x03\n\x01v"]))
    return ResourceKey(name, chain, disk, draw(st.booleans()), draw(st.booleans())), draw(_amount(name))


bags = st.lists(entries(), max_size=4).map(lambda pairs: Resources(dict(pairs)))
old_bags = st.lists(entries(refined=False), max_size=4).map(lambda pairs: Resources(dict(pairs)))

# --- devices and claims -----------------------------------------------------------------------------------------

CLASSES = ("siemens.com/gpio", "nvidia.com/gpu", "edgerm.io/serial")
printable = st.text(
    st.characters(codec="utf-8", max_codepoint=0x2FF, exclude_categories=["Cc", "Cf", "Zs"]), max_size=8
)
metadata = st.sampled_from(
    [
        "",
        to_text({"labels": ["a", "Ü"]}),
        to_text({"lscpu": {"CPU max MHz": 4.5, "x": {}}}),
    ]
)
devices = st.builds(
    Device,
    name=st.sampled_from(CLASSES),
    id=st.sampled_from([f"{kind}{n}" for kind in ("chip", "Ü", "line7-") for n in range(4)]),
    shared=st.booleans(),
    problem=texts,
    gives=st.lists(texts, max_size=2).map(tuple),
    metadata=metadata,
    fake=st.booleans(),
    quarantine=texts,
    held_by=texts,
    numa_nodes=st.lists(st.integers(0, 9), max_size=2).map(tuple),
)
device_classes = st.builds(
    DeviceClass,
    name=st.sampled_from(CLASSES),
    shared=st.booleans(),
    config_keys=st.lists(texts, max_size=2).map(tuple),
    unambiguous=st.booleans(),
    chooses=st.booleans(),
    schema=st.sampled_from(["", "{}"]),
    problem=texts,
)
inventories = st.just(NO_INVENTORY) | st.builds(
    Inventory,
    st.lists(device_classes, max_size=3, unique_by=lambda each: each.name).map(tuple),
    st.lists(devices, max_size=5, unique_by=lambda each: (each.name, each.id)).map(tuple),
    st.integers(1, 2**63),
)
scalars = st.one_of(printable, st.integers(-(2**70), 2**70), st.floats(allow_nan=False, allow_infinity=False))
expressions = st.builds(
    expression, printable.filter(bool), st.sampled_from([one.value for one in Operator]), st.lists(scalars, max_size=3)
)
some_config = st.dictionaries(
    printable, scalars | st.booleans() | st.lists(scalars, max_size=1), min_size=1, max_size=2
)
configs = st.just("") | some_config.map(lambda config: json_text("config", config))
claims = st.builds(
    Claim,
    name=printable.filter(bool),
    type=st.sampled_from(CLASSES),
    count=st.integers(0, 9),
    expressions=st.lists(expressions, max_size=2).map(tuple),
    shared=st.none() | st.booleans(),
    optional=st.booleans(),
    config=configs,
)
claim_tuples = st.lists(claims, max_size=3, unique_by=lambda claim: claim.name).map(tuple)


# Messages hold one of these few: what may be in one is drawn only where devices are what a test is about.
CHIP = Device("siemens.com/gpio", "chip0", metadata=to_text({"labels": ["a", "Ü"]}), gives=("/dev/gpiochip0",))
GPIO = Inventory((DeviceClass("siemens.com/gpio", config_keys=("id",)),), (CHIP, replace(CHIP, id="chip1")), 7)
CLAIM = Claim("chips", "siemens.com/gpio", 2, (expression("labels", "Contains", ["a"]),), config='{"id":"in"}')
OTHER = Claim("nvidia.com/gpu", "nvidia.com/gpu", optional=True, shared=False)
some_inventories = st.sampled_from([NO_INVENTORY, GPIO, Inventory(GPIO.classes, generation=8)])
some_claims = st.sampled_from([(), (), (CLAIM,), (OTHER, CLAIM)])
some_ids = st.sampled_from([(), ("chip0",), ("Ü", "chip1")])


def granted(some: tuple[Claim, ...], given_ids: tuple[str, ...], shared: bool) -> tuple[Granted, ...]:
    """What was given to these claims: to each the same."""
    return tuple(Granted(one.name, one.type, given_ids, shared, one.config) for one in some)


# --- frameworks, agents, tasks ----------------------------------------------------------------------------------


@st.composite
def frameworks(draw: st.DrawFn) -> FrameworkSpec:
    """A framework as it is after its SUBSCRIBE was read."""
    capabilities = draw(st.frozensets(st.sampled_from(Capability)))
    many = Capability.MULTI_ROLE in capabilities
    spec = FrameworkSpec(
        name=draw(texts),
        user=draw(texts),
        roles=tuple(draw(st.lists(roles, unique=True, min_size=0 if many else 1, max_size=3 if many else 1))),
        failover_timeout_s=draw(spans_s),
        capabilities=capabilities,
        principal=draw(texts),
        checkpoint=draw(st.booleans()),
    )
    message = framework_info(spec)
    for role in draw(st.lists(roles, max_size=2)):
        amounts = message.offer_filters[role].min_allocatable_resources.quantities.add()
        amounts.quantities["cpus"].value = draw(st.sampled_from([0.0, 0.5, 8.0]))
    return framework_spec(message)


@st.composite
def agents(draw: st.DrawFn) -> AgentSpec:
    """An agent as it is after its join was read."""
    attributes = draw(
        st.dictionaries(ids, st.one_of(texts, st.sampled_from(["7", "0.5", "[1-3,9-9]", "{a,b}"])), max_size=3)
    )
    hostname = draw(texts)
    spec = AgentSpec(
        hostname, draw(texts), draw(st.integers(0, 65535)), draw(bags), attributes_info(hostname, attributes)
    )
    spec = replace(spec, inventory=draw(some_inventories))
    return agent_spec(agent_info(spec))


_SOURCE = Volume.Source
volumes: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [
        {"host_path": "/srv/../srv/x"},
        {"host_path": "be/low"},
        {"source": {"type": _SOURCE.HOST_PATH, "host_path": {"path": "/"}}},
        {"source": {"type": _SOURCE.SANDBOX_PATH, "sandbox_path": {"type": 1, "path": "below"}}},
        {"source": {"type": _SOURCE.DOCKER_VOLUME, "docker_volume": {"name": "data", "driver": "local"}}},
    ]
)


@st.composite
def docker_parts(draw: st.DrawFn, message: TaskInfo, ports: list[int]) -> None:
    """Make a container of `message`, which may use these ports of the box."""
    container, docker = message.container, message.container.docker
    container.type = ContainerInfo.DOCKER
    docker.image = draw(st.sampled_from(["busybox", "debian:12", "here.example:5000/a/b@sha256:" + "0" * 64]))
    docker.network = draw(st.sampled_from(ContainerInfo.DockerInfo.Network.values()))
    docker.privileged, docker.force_pull_image = draw(st.booleans()), draw(st.booleans())
    if docker.network == ContainerInfo.DockerInfo.USER:
        container.network_infos.add(name=draw(st.sampled_from(["net", "my.net_1-x"])))
    if docker.network in (ContainerInfo.DockerInfo.USER, ContainerInfo.DockerInfo.BRIDGE):
        for port in ports[: draw(st.integers(0, 2))]:
            protocol = draw(st.sampled_from(["", "tcp", "udp", "UDP"]))
            docker.port_mappings.add(host_port=port, container_port=draw(st.integers(1, 65535)), protocol=protocol)
    if docker.network != ContainerInfo.DockerInfo.HOST:
        container.hostname = draw(st.sampled_from(["", "box", "box.example"]))
    for number, volume in enumerate(draw(st.lists(volumes, max_size=2))):
        container.volumes.add(mode=draw(st.sampled_from(Volume.Mode.values())), container_path=f"/v{number}", **volume)
    if draw(st.booleans()):
        docker.parameters.add(key="label", value=draw(st.sampled_from(["", "a=b"])))
    if draw(st.booleans()):
        message.command.shell = False
        message.command.value = draw(st.sampled_from(["", "ls"]))
        message.command.arguments.extend(draw(st.lists(texts, max_size=2)))


@st.composite
def task_infos(draw: st.DrawFn, *, containers: bool = False) -> TaskInfo:
    """TaskInfos that edgerm runs: WASM modules and processes, and `containers` where they are what a test is about."""
    message = TaskInfo(name=draw(texts), resources=resources_to_messages(draw(bags)), data=draw(st.binary(max_size=8)))
    message.task_id.value = draw(task_ids)
    message.agent_id.value = draw(agent_ids)
    kind = draw(st.sampled_from(["wasm", "process", *(["docker"] if containers else [])]))
    if kind == "docker":
        amounts = [amount for key, amount in resources_from_messages(message.resources).items() if key.name == "ports"]
        begins = {begin for amount in amounts if isinstance(amount, tuple) for begin, _ in amount if begin}
        draw(docker_parts(message, sorted(begins)))
    elif kind == "wasm":
        message.container.type = ContainerInfo.MESOS
        message.container.wasm.module.sha256 = draw(st.binary(min_size=32, max_size=32))
        message.container.wasm.module.size_bytes = draw(st.integers(0, 2**40))
        message.command.arguments.extend(draw(st.lists(texts, max_size=2)))
    else:
        message.command.value = draw(st.text(min_size=1, max_size=5))
    if kind != "docker" and draw(st.booleans()):
        message.input.sha256 = draw(st.binary(min_size=32, max_size=32))
        message.input.size_bytes = draw(st.integers(0, 2**40))
    if draw(st.booleans()):
        message.kill_policy.grace_period.nanoseconds = nanoseconds("", draw(spans_s))
    if draw(st.booleans()):
        message.max_completion_time.nanoseconds = nanoseconds("", draw(spans_s))
    message.claims.extend(claims_to_messages(draw(some_claims)))
    return message


inline_tasks = task_infos().map(task_spec)
offloaded_tasks = st.builds(lambda spec, blob: replace(spec, info=b"", info_blob=blob), inline_tasks, blob_refs)
tasks: st.SearchStrategy[TaskSpec] = st.one_of(inline_tasks, offloaded_tasks)

launched_tasks = st.builds(
    lambda task, given_ids, shared, app: with_grants(task, granted(task.claims, given_ids, shared), 7, app),
    tasks,
    some_ids,
    st.booleans(),
    texts,
)
"""As a master orders them: with what their claims were given."""

statuses = st.builds(
    Status,
    task_id=task_ids,
    state=st.sampled_from(TaskState),
    agent_id=st.none() | agent_ids,
    source=st.sampled_from(Source),
    reason=st.none() | st.sampled_from(Reason),
    message=texts,
    uuid=st.just(b"") | st.binary(min_size=16, max_size=16),
    wall_s=walls_s,
    launch_id=st.none() | ids.map(LaunchId),
    exit_code=st.none() | st.integers(-(2**31), 2**31 - 1),
    signal=st.none() | st.integers(1, 64),
    trap=texts,
    output_tail=texts,
    detail=texts,
    granted=st.sampled_from([(), (), (Granted("chips", "siemens.com/gpio", ("Ü", "chip1"), shared=True),)]),
    unreachable_wall_s=st.none() | walls_s,
    # data; healthy; a field that nobody knows
    extra=st.sampled_from([b"", b"\x1a\x02hi", b"@\x01", b"\xc2\xbb\x01\x03new"]),
)

# --- calls and events -------------------------------------------------------------------------------------------

role_tuples = st.lists(roles, max_size=3).map(tuple)
offer_id_tuples = st.lists(offer_ids, max_size=3).map(tuple)
refusals_s = st.floats(0, REFUSE_MAX_S)
offer_constraints = st.sampled_from(
    [any_of([["zone=a", "!gpu"], ["@hostname~box[0-9]+"]]), any_of([["@@at!=x"]]), any_of([["@zone!~a|b", "rack"]])]
)


def _constrained(some: tuple[str, ...]) -> st.SearchStrategy[dict[str, Constraints]]:
    """Constraints for some of these roles."""
    return st.dictionaries(st.sampled_from(some), offer_constraints, max_size=2) if some else st.just({})


messages = st.builds(Message, agent_ids, ids.map(ExecutorId), st.binary(min_size=1, max_size=9))
calls: st.SearchStrategy[Call] = st.one_of(
    st.builds(Accept, offer_id_tuples, st.lists(inline_tasks, max_size=2).map(tuple), refusals_s),
    st.builds(Decline, offer_id_tuples, refusals_s),
    st.builds(AnswerInverse, offer_id_tuples, st.booleans()),
    st.builds(Revive, role_tuples),
    st.builds(Suppress, role_tuples),
    st.builds(Kill, task_ids, st.none() | agent_ids, st.none() | spans_s),
    st.builds(Acknowledge, agent_ids, task_ids, st.binary(min_size=16, max_size=16)),
    messages,
    st.builds(Reconcile, st.lists(st.tuples(task_ids, st.none() | agent_ids), max_size=3).map(tuple)),
    st.just(Teardown()),
    st.just(Request()),  # what it asks for is not read
    frameworks().flatmap(
        lambda spec: st.builds(
            UpdateFramework,
            st.just(spec),
            role_tuples,
            _constrained(spec.roles),
        )
    ),
)
inverse_offers = st.builds(InverseOffer, offer_ids, framework_ids, agent_ids, spans_s, st.none() | spans_s)
events: st.SearchStrategy[Event] = st.one_of(
    st.builds(Subscribed, framework_ids, spans_s),
    st.builds(Rescind, offer_ids),
    st.builds(InverseOffers, st.lists(inverse_offers, max_size=2).map(tuple)),
    st.builds(RescindInverse, offer_ids),
    st.builds(Update, statuses),
    messages,
    st.builds(Failure, agent_ids),
    st.builds(Failure, agent_ids, ids.map(ExecutorId), st.integers(-(2**31), 2**31 - 1)),
    st.builds(Error, texts),
    st.just(Heartbeat()),
)


@st.composite
def offers(draw: st.DrawFn, framework: FrameworkSpec) -> Offer:
    """An offer that this framework can be told."""
    bag = draw(bags if Capability.RESERVATION_REFINEMENT in framework.capabilities else old_bags)
    one_role = framework.roles[0] if Capability.MULTI_ROLE not in framework.capabilities else draw(roles)
    agent = draw(agents())
    some = draw(st.lists(st.sampled_from(agent.inventory.devices), unique=True)) if agent.inventory.devices else ()
    bag = bag + Resources((device.key, frozenset([device.id])) for device in some)
    return Offer(draw(offer_ids), draw(framework_ids), one_role, draw(agent_ids), bag, agent)


def offer_events(framework: FrameworkSpec) -> st.SearchStrategy[Offers]:
    """OFFERS for this framework."""
    return st.lists(offers(framework), max_size=3).map(lambda listed: Offers(tuple(listed)))


# --- the agent link ---------------------------------------------------------------------------------------------


def _keyed(task: TaskSpec, key: TaskKey) -> TaskKey:
    return key._replace(task_id=task.task_id)


counters = st.integers(0, 2**63)
sessions = st.integers(0, 2**32 - 1)
reports = st.builds(
    lambda task, key, state, seq, role, owes: link.TaskReport(_keyed(task, key), state, seq, role, task, owes),
    launched_tasks,
    task_keys,
    st.sampled_from(TaskState),
    counters,
    roles,
    st.booleans(),
)
joins = st.builds(
    link.Join,
    agent_ids,
    counters,
    agents(),
    texts,
    st.lists(reports, max_size=2).map(tuple),
    st.integers(0, 5),
    st.booleans(),
    devices=st.booleans(),
)
join_answers: st.SearchStrategy[link.JoinAnswer] = st.one_of(
    st.builds(link.Welcome, sessions, st.integers(1, 10**6).map(lambda ms: ms / 1000)),
    st.just(link.NextPart()),
    st.just(link.WantsInventory()),
    st.just(link.Stale()),
    st.builds(link.Gone, st.text(st.characters(codec="utf-8"), min_size=1, max_size=9)),
)
request_ids = st.just("") | st.from_regex(r"[A-Za-z0-9._:/+=@~-]{1,64}", fullmatch=True)
launches = st.builds(
    lambda task, key, role, request: link.Launch(_keyed(task, key), role, task, request),
    launched_tasks,
    task_keys,
    roles,
    request_ids,
)
kills = st.builds(link.Kill, task_keys, st.none() | st.integers(0, 10**6).map(lambda ms: ms / 1000), request_ids)
orders = st.builds(link.Order, counters, st.one_of(launches, kills, st.builds(link.Forget, task_keys)))
updates = st.builds(
    lambda key, seq, status, number: link.Update(key, seq, replace(status, task_id=key.task_id), number),
    task_keys,
    counters,
    statuses,
    counters,
)
credits_bytes = st.integers(0, 2**32 - 1)
usages = st.builds(link.TaskUsage, task_keys, spans_s, st.integers(0, 2**20), st.integers(0, 2**50))
frames = st.builds(
    link.Frame,
    st.integers(0, 2**32 - 1),
    st.one_of(
        st.builds(link.OpenLog, task_keys, st.booleans(), st.integers(-(2**40), 2**40), st.booleans(), credits_bytes),
        st.builds(link.Data, counters, st.binary(max_size=9), st.booleans()),
        st.builds(link.Credit, credits_bytes),
        st.builds(link.Close, texts),
        st.builds(link.OpenInput, task_keys),
        st.builds(link.MessagePart, st.none() | task_keys, st.binary(max_size=9), st.booleans()),
        st.builds(link.OpenStats, spans_s.filter(lambda span_s: span_s < 4e6)),
        st.builds(link.Stats, st.lists(usages, max_size=2).map(tuple), st.booleans()),
    ),
)


@st.composite
def chunks(draw: st.DrawFn) -> link.Chunk:
    """One of the slices of some bytes."""
    content = draw(st.binary(min_size=1, max_size=40))
    chunk_bytes = draw(st.integers(1, 50))
    number = draw(st.integers(0, (len(content) - 1) // chunk_bytes))
    part = content[number * chunk_bytes :][:chunk_bytes]
    return link.Chunk(digest_of(content), len(content), chunk_bytes, number, part)


beats = st.builds(
    link.Beat,
    sessions,
    counters,
    st.lists(updates, max_size=2).map(tuple),
    st.lists(frames, max_size=2).map(tuple),
    st.booleans(),
    counters,
    counters,
)
beat_answers = st.just(link.REJOIN) | st.builds(
    link.BeatAnswer,
    st.just(False),
    counters,
    st.lists(orders, max_size=2).map(tuple),
    st.lists(frames, max_size=2).map(tuple),
    st.booleans(),
    counters,
)
