"""The scheduler API as values: what a framework may ask, and what it is told (Mesos v1 scheduler API).

The SDK's core makes calls and takes events; the master's core takes calls and makes events; the simulator passes them
from one to the other as they are. Messages that nobody here decides on travel as canonical protobuf bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple, TypeAlias

from edgerm.core.blobs import Digest
from edgerm.core.ids import AgentId, ExecutorId, FrameworkId, LaunchId, OfferId, TaskId
from edgerm.core.resources import NOTHING, Resources
from edgerm.core.tasks import Reason, Source, TaskState

REFUSE_DEFAULT_S = 5.0
REFUSE_MAX_S = 365 * 86400.0


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
    info: bytes = b""  # canonical AgentInfo: attributes and whatever else, without id and resources


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
    unreachable_wall_s: float | None = None
    extra: bytes = b""  # canonical TaskStatus with all that has no field here (an executor's data, labels …)


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


Call: TypeAlias = Accept | Decline | Revive | Suppress | Kill | Acknowledge | Reconcile | Teardown

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


Event: TypeAlias = Subscribed | Offers | Rescind | Update | Failure | Error | Heartbeat
