"""The scheduler API as values: what a framework may ask, and what it is told (Mesos v1 scheduler API).

The SDK's core makes calls and takes events; the master's core takes calls and makes events; the simulator passes them
from one to the other as they are. Messages that nobody here decides on travel as canonical protobuf bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import NamedTuple, TypeAlias

from edgerm.core.attributes import Attribute
from edgerm.core.blobs import Digest
from edgerm.core.claims import Claim, Granted
from edgerm.core.constraints import Constraints
from edgerm.core.devices import NO_INVENTORY, Inventory
from edgerm.core.ids import AgentId, ExecutorId, FrameworkId, LaunchId, OfferId, TaskId
from edgerm.core.resources import NOTHING, Resources
from edgerm.core.tasks import Reason, Source, TaskState

REFUSE_DEFAULT_S = 5.0
REFUSE_MAX_S = 365 * 86400.0
KILL_GRACE_S = 3.0  # from the polite signal to the last one, of a task that does not say (mesos-v1 6.5)
WAITING_MAX = 16  # tasks that one framework tells of
MESSAGE_BYTES_MAX = 64 * 1024  # of a message between a framework and a task


class BlobRef(NamedTuple):
    """A blob by its name, and how big it is."""

    digest: Digest
    size_bytes: int


class Capability(IntEnum):
    """`FrameworkInfo.Capability.Type`."""

    REVOCABLE_RESOURCES = 1
    TASK_KILLING_STATE = 2
    GPU_RESOURCES = 3
    SHARED_RESOURCES = 4
    PARTITION_AWARE = 5
    MULTI_ROLE = 6
    RESERVATION_REFINEMENT = 7
    REGION_AWARE = 8


class Minimum(NamedTuple):
    """For this role an offer must hold all of one of these amounts (`OfferFilters.min_allocatable_resources`).

    An amount: thousandths by name; of ranges and sets, thousandths of how many they hold.
    """

    role: str
    any_of: tuple[tuple[tuple[str, int], ...], ...]


@dataclass(frozen=True, slots=True)
class FrameworkSpec:
    """What a framework says of itself."""

    name: str
    user: str = ""
    roles: tuple[str, ...] = ("*",)
    failover_timeout_s: float = 0.0
    capabilities: frozenset[Capability] = frozenset()
    principal: str = ""
    info: bytes = b""  # canonical FrameworkInfo, without its id
    checkpoint: bool = False
    minimums: tuple[Minimum, ...] = ()  # below them no offer is made (`offer_filters`)

    @property
    def partition_aware(self) -> bool:
        return Capability.PARTITION_AWARE in self.capabilities


@dataclass(frozen=True, slots=True)
class AgentSpec:
    """What an agent says of itself."""

    hostname: str
    name: str = ""
    port: int = 5051
    resources: Resources = NOTHING
    info: bytes = b""  # canonical AgentInfo: attributes and what else; no names, port and resources
    attributes: tuple[Attribute, ...] = ()  # those in `info`, for whoever chooses by them
    region: str | None = None  # of its fault domain
    zone: str | None = None
    inventory: Inventory = NO_INVENTORY  # its devices; what is free to be offered of them is among `resources`


def with_devices(agent: AgentSpec, inventory: Inventory) -> AgentSpec:
    """The agent with the devices of this inventory, of the generation that it says itself."""
    return replace(agent, inventory=replace(inventory, generation=agent.inventory.generation))


def without_devices(agent: AgentSpec) -> AgentSpec:
    """The agent without its devices, of which it says the generation alone."""
    generation = agent.inventory.generation
    return replace(agent, inventory=Inventory(generation=generation) if generation else NO_INVENTORY)


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """One task as a framework asks for it."""

    task_id: TaskId
    agent_id: AgentId
    resources: Resources
    name: str = ""
    executor: str = ""  # the kind that runs it: "wasm", "process", …
    grace_s: float | None = None  # of its kill policy
    completion_s: float | None = None  # it may take that long
    info: bytes = b""  # canonical TaskInfo; empty when it is so big that it travels as `info_blob`
    info_blob: BlobRef | None = None
    blobs: tuple[BlobRef, ...] = ()  # modules and inputs that the agent must have before it starts the task
    fault: str = ""  # what the face found wrong with this task alone; such a task is answered TASK_ERROR
    alternative: str = ""  # the name of its build that was taken
    claims: tuple[Claim, ...] = ()  # what it asks for of devices
    granted: tuple[Granted, ...] = ()  # what it was given, in the order of its claims; it is among `resources`
    generation: int = 0  # of the inventory that the grants were decided on
    app: str = ""  # whose task it is, for plugins: the framework's name; empty without grants

    @property
    def needs(self) -> tuple[BlobRef, ...]:
        """Every blob that must be kept while the task lives."""
        return self.blobs if self.info_blob is None else (self.info_blob, *self.blobs)


@dataclass(frozen=True, slots=True)
class Offer:
    """Resources of one agent, held out to one framework for one of its roles. May be used once."""

    offer_id: OfferId
    framework_id: FrameworkId
    role: str
    agent_id: AgentId
    resources: Resources
    agent: AgentSpec


@dataclass(frozen=True, slots=True)
class Status:
    """One status update (`TaskStatus`). With a `uuid` it is sent until acknowledged; without, once."""

    task_id: TaskId
    state: TaskState
    agent_id: AgentId | None = None
    source: Source = Source.AGENT
    reason: Reason | None = None
    message: str = ""
    uuid: bytes = b""  # 16 bytes or none
    wall_s: float = 0.0  # `timestamp`
    launch_id: LaunchId | None = None
    exit_code: int | None = None
    signal: int | None = None
    trap: str = ""
    output_tail: str = ""  # at most 4 KiB
    detail: str = ""  # a finer state, in words of ours
    granted: tuple[Granted, ...] = ()  # the devices that the agent took, where their plugin chooses
    unreachable_wall_s: float | None = None
    extra: bytes = b""  # canonical TaskStatus with all that has no field here (an executor's data, labels …)


@dataclass(frozen=True, slots=True)
class InverseOffer:
    """Resources are asked back: the agent is drained, and from `starts_in_s` on its tasks are killed (Mesos' word)."""

    offer_id: OfferId
    framework_id: FrameworkId
    agent_id: AgentId
    start_wall_s: float  # by the master's wall clock
    starts_in_s: float | None = None  # the same without any clock; None: the master does not say it


@dataclass(frozen=True, slots=True)
class Message:
    """Bytes from a framework to one of its executors (a call), or the other way (an event): at most once, in order.

    A built-in task's executor has the task's id.
    """

    agent_id: AgentId
    executor_id: ExecutorId
    data: bytes  # 1 to MESSAGE_BYTES_MAX


# --- calls ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Accept:
    """Use offers of one agent; what the tasks leave is declined with the filter."""

    offer_ids: tuple[OfferId, ...]
    tasks: tuple[TaskSpec, ...] = ()
    refuse_s: float = REFUSE_DEFAULT_S


@dataclass(frozen=True, slots=True)
class Decline:
    """Give offers back; the same or less of that agent is withheld for `refuse_s`."""

    offer_ids: tuple[OfferId, ...]
    refuse_s: float = REFUSE_DEFAULT_S


@dataclass(frozen=True, slots=True)
class AnswerInverse:
    """ACCEPT_INVERSE_OFFERS (`agreed`: it will be off these agents in time) or DECLINE_INVERSE_OFFERS."""

    offer_ids: tuple[OfferId, ...]
    agreed: bool


@dataclass(frozen=True, slots=True)
class Revive:
    """Clear filters and suppression for these roles; none named: for all."""

    roles: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Suppress:
    """No more offers for these roles; none named: for all."""

    roles: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Kill:
    """End a task; an agent id that is not the task's makes the call void."""

    task_id: TaskId
    agent_id: AgentId | None = None
    grace_s: float | None = None  # None: the task's own, else 3 s


@dataclass(frozen=True, slots=True)
class Acknowledge:
    """The framework has taken a status update over."""

    agent_id: AgentId
    task_id: TaskId
    uuid: bytes


@dataclass(frozen=True, slots=True)
class Reconcile:
    """Ask for the latest state of these tasks; none named: of all."""

    tasks: tuple[tuple[TaskId, AgentId | None], ...] = ()


@dataclass(frozen=True, slots=True)
class Teardown:
    """End the framework and all its tasks; its id can never subscribe again."""

    why: str = ""  # what an operator gives for a reason; the framework is told. Empty: its own will


@dataclass(frozen=True, slots=True)
class Waiting:
    """A task of which the master knows nothing yet: it waits for an offer that meets its claims."""

    task_id: TaskId
    name: str
    claims: tuple[Claim, ...]


@dataclass(frozen=True, slots=True)
class Request:
    """Say what would be welcome. The master keeps who waits, for `explain`; offers come as they come, as in Mesos."""

    resources: Resources = NOTHING
    waiting: tuple[Waiting, ...] = ()  # all that wait for claims, at most WAITING_MAX; in place of those told before


@dataclass(frozen=True, slots=True)
class UpdateFramework:
    """Change what the framework says of itself, which roles are silent, and which agents may be offered."""

    spec: FrameworkSpec
    suppressed_roles: tuple[str, ...] = ()
    constraints: Mapping[str, Constraints] = field(default_factory=dict)  # by role; a role without any takes all


Call: TypeAlias = (
    Accept
    | Decline
    | AnswerInverse
    | Revive
    | Suppress
    | Kill
    | Message
    | Acknowledge
    | Reconcile
    | Request
    | UpdateFramework
    | Teardown
)

# --- events -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Subscribed:
    """First event of every stream."""

    framework_id: FrameworkId
    heartbeat_interval_s: float


@dataclass(frozen=True, slots=True)
class Offers:
    """New offers, at most 100 at once."""

    offers: tuple[Offer, ...]


@dataclass(frozen=True, slots=True)
class Rescind:
    """An offer that was not used yet is void."""

    offer_id: OfferId


@dataclass(frozen=True, slots=True)
class Update:
    """A task's state."""

    status: Status


@dataclass(frozen=True, slots=True)
class InverseOffers:
    """Agents with tasks of the framework are drained."""

    offers: tuple[InverseOffer, ...]


@dataclass(frozen=True, slots=True)
class RescindInverse:
    """The agent is not drained any more, or by another deadline, which follows."""

    offer_id: OfferId


@dataclass(frozen=True, slots=True)
class Failure:
    """An agent is lost, or (with `executor_id`) an executor has ended."""

    agent_id: AgentId
    executor_id: ExecutorId | None = None
    exit_status: int | None = None


@dataclass(frozen=True, slots=True)
class Error:
    """The subscription is over; the stream closes after it."""

    message: str


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The stream lives."""


Event: TypeAlias = (
    Subscribed | Offers | Rescind | InverseOffers | RescindInverse | Update | Message | Failure | Error | Heartbeat
)
