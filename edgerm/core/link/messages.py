"""What agent and master say to each other, as values, and what carries it.

What does not live here: when it is said (the halves), how large it is (`sizes`), its encoding (`edgerm.wire.codec`).
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import TypeAlias

from edgerm.core.blobs import Digest
from edgerm.core.ids import AgentId, TaskKey
from edgerm.core.scheduler import AgentSpec, Status, TaskSpec
from edgerm.core.tasks import TaskState

BEAT_INTERVAL_S = 15.0
JOIN_BUDGET_BYTES = 256 * 1024  # of a part of a join, whatever carries it
LANE = 1  # which frames are known here; one side sends the other only what that knows
LANE_TALK = 1  # from which on there are standard input and messages; 0: only logs and stats
QUEUED_FRAMES_MAX = 256
QUEUED_PARTS_MAX = 128  # of these, parts of messages
QUEUED_MESSAGES_BYTES_MAX = 256 * 1024  # of messages that wait for the same agent, or in it
NAME_BYTES_MAX = 255  # of a task whose TaskInfo travels as a blob; the whole name is in there
REASON_BYTES_MAX = 255  # of why a stream was closed
RETRY_FIRST_S = 1.0


@dataclass(frozen=True, slots=True)
class Carrier:
    """What a face of the link carries at once."""

    name: str
    budget_bytes: int  # of a beat or an answer
    data_bytes: int  # of the output in one frame, at most


HTTP = Carrier("http", 256 * 1024, 32 * 1024)
COAP = Carrier("coap", 984, 800)  # a datagram of 1024 bytes, less OSCORE, header, token and path


@dataclass(frozen=True, slots=True)
class TaskReport:
    """One task as its agent knows it."""

    key: TaskKey
    state: TaskState
    seq: int  # of the latest update that the agent made of this task; 0: none
    role: str
    task: TaskSpec
    owes: bool = False  # updates of it follow in beats: no master has persisted them yet


@dataclass(frozen=True, slots=True)
class Join:
    """An agent introduces itself; `part` counts from 0, `more` on all parts but the last."""

    agent_id: AgentId
    incarnation: int
    agent: AgentSpec
    boot_id: str = ""
    tasks: tuple[TaskReport, ...] = ()
    part: int = 0
    more: bool = False
    lane: int = LANE
    devices: bool = False  # the agent's inventory goes along; else no more than its name does
    named: Digest | None = None  # its name, as the master hears it; None: the agent has none, or does not name it


@dataclass(frozen=True, slots=True)
class Welcome:
    """The join is complete."""

    session: int
    beat_interval_s: float
    lane: int = LANE


@dataclass(frozen=True, slots=True)
class NextPart:
    """This part is taken; the next one, please."""


@dataclass(frozen=True, slots=True)
class Stale:
    """A later incarnation of this agent has joined: the request is a late duplicate."""


@dataclass(frozen=True, slots=True)
class Gone:
    """An operator marked this agent gone: its tasks are to end, and it may never join again."""

    why: str


@dataclass(frozen=True, slots=True)
class WantsInventory:
    """The master lacks the inventory that this part names: the part again, with it."""


JoinAnswer: TypeAlias = Welcome | NextPart | WantsInventory | Stale | Gone


@dataclass(frozen=True, slots=True)
class Launch:
    """Run this task, once."""

    key: TaskKey
    role: str
    task: TaskSpec
    request: str = ""  # the id of the request that asked for it, for logs


@dataclass(frozen=True, slots=True)
class Kill:
    """End this task; None: with its own grace."""

    key: TaskKey
    grace_s: float | None = None
    request: str = ""  # the id of the request that asked for it, for logs


@dataclass(frozen=True, slots=True)
class Forget:
    """Its framework knows how this task ended."""

    key: TaskKey


OrderBody: TypeAlias = Launch | Kill | Forget


@dataclass(frozen=True, slots=True)
class Order:
    """What the master tells an agent, numbered within the session."""

    number: int
    body: OrderBody


@dataclass(frozen=True, slots=True)
class Update:
    """One status update on its way to the master. `seq` counts within the task and survives sessions."""

    key: TaskKey
    seq: int
    status: Status
    number: int = 0  # within the session; given when it is sent


@dataclass(frozen=True, slots=True)
class OpenLog:
    """Send this task's output from `offset` on (negative: from the end)."""

    key: TaskKey
    stderr: bool
    offset: int
    follow: bool
    credit_bytes: int


@dataclass(frozen=True, slots=True)
class OpenStats:
    """Say what the tasks use; CPU is measured over the interval."""

    interval_s: float


@dataclass(frozen=True, slots=True)
class TaskUsage:
    """What one task uses."""

    key: TaskKey
    cpu_s: float  # since its start
    cpus_milli: int  # over the interval
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class Stats:
    """What some tasks use; `end` with the last of them."""

    tasks: tuple[TaskUsage, ...] = ()
    end: bool = False


@dataclass(frozen=True, slots=True)
class Data:
    """Bytes of a stream."""

    offset: int
    data: bytes
    end: bool = False


@dataclass(frozen=True, slots=True)
class OpenInput:
    """Take bytes for this task's open standard input."""

    key: TaskKey


@dataclass(frozen=True, slots=True)
class MessagePart:
    """A message between a framework and its task, or a part of one; without a key it goes on with the one before."""

    key: TaskKey | None
    data: bytes
    more: bool = False


@dataclass(frozen=True, slots=True)
class Credit:
    """So many more bytes may be sent."""

    credit_bytes: int


@dataclass(frozen=True, slots=True)
class Close:
    """The stream is over, and why."""

    reason: str = ""


FrameBody: TypeAlias = OpenLog | OpenStats | OpenInput | MessagePart | Data | Stats | Credit | Close


@dataclass(frozen=True, slots=True)
class Frame:
    """One message of the ephemeral lane."""

    stream: int
    body: FrameBody


@dataclass(frozen=True, slots=True)
class Beat:
    """The agent is alive, and this is new."""

    session: int
    seen: int  # highest order that is journaled
    updates: tuple[Update, ...] = ()
    frames: tuple[Frame, ...] = ()
    more: bool = False  # there is more news than fitted
    heard: int = 0  # the master's frames up to this number have arrived; 0: nothing new to say of that
    frames_first: int = 0  # the number of the first frame; they count from 1 within the session; 0: not numbered


@dataclass(frozen=True, slots=True)
class BeatAnswer:
    """What the master has for the agent. `join`: the session is unknown, all else is void."""

    join: bool = False
    persisted: int = 0  # updates up to this number are on the master's disk; 0: the beat had none
    orders: tuple[Order, ...] = ()
    frames: tuple[Frame, ...] = ()
    more: bool = False
    frames_first: int = 0  # the number of the first frame; they count from 1 within the session


@dataclass(frozen=True, slots=True)
class Chunk:
    """A slice of a message that fits no datagram; all but the last are `chunk_bytes` long."""

    digest: Digest  # of the whole
    size_bytes: int  # of the whole
    chunk_bytes: int
    number: int  # from 0
    content: bytes


def common_begin(key: TaskKey) -> str:
    """What the launch id shares with the framework's id, which the same run of a master gave; empty: nothing."""
    begin = key.framework_id[: key.framework_id.rfind("-") + 1]
    return begin if key.launch_id.startswith(begin) and key.launch_id != begin else ""


def update_uuid(key: TaskKey, seq: int) -> bytes:
    """The uuid of a task's update: never two alike, for a key is used once; the same again after a crash."""
    return blake2b(f"{key}/{seq}".encode(), digest_size=16).digest()
