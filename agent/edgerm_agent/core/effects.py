"""All that the agent's core may ask for, beside `Put` and `Drop` of records."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from edgerm.core.effects import Drop, Put, Spoken, Volatile
from edgerm.core.ids import TaskKey
from edgerm.core.link import Beat, Frame, Join, Letter
from edgerm.core.scheduler import BlobRef, Status, TaskSpec
from edgerm.plugin.executor import Handle
from edgerm_agent.core.records import GrantRecord


@dataclass(frozen=True, slots=True)
class Send(Spoken):
    """Send a request to the master; answered by JoinAnswered, BeatAnswered or RequestFailed."""

    request: int
    body: Join | Beat

    @property
    def lane(self) -> Hashable:
        return "link"


@dataclass(frozen=True, slots=True)
class SessionBegan(Volatile):
    """There is a session: listen to its doorbell, and to no other."""

    session: int


@dataclass(frozen=True, slots=True)
class Dismissed(Volatile):
    """An operator marked this agent gone: end all tasks, then the agent."""

    why: str


@dataclass(frozen=True, slots=True)
class Fetch(Spoken):
    """Get what the task needs; answered by Fetched or FetchFailed.

    `wakes`: the executor, if it sleeps; before Fetched InstanceChanged tells what is behind it then.
    """

    key: TaskKey
    needs: tuple[BlobRef, ...]
    wakes: str = ""


@dataclass(frozen=True, slots=True)
class Start(Spoken):
    """Start the task (idempotent by its key); answered by Started or StartFailed, later by Ended.

    Preparing may come before that, any number of times. `grants`: its devices, to be prepared first; all of them are
    journaled.
    """

    key: TaskKey
    task: TaskSpec
    grants: tuple[GrantRecord, ...] = ()


@dataclass(frozen=True, slots=True)
class GiveBack(Spoken):
    """Nothing of the task is left: take its devices back, each prepared or not; answered by GivenBack. Idempotent."""

    key: TaskKey
    grants: tuple[GrantRecord, ...]


@dataclass(frozen=True, slots=True)
class Choose(Spoken):
    """Ask the plugin of the grant's class which of the `free` devices it prefers; answered by Chosen.

    `grant` has the devices that are taken if the plugin has no better idea; they are among `free`.
    """

    key: TaskKey
    grant: GrantRecord
    free: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LocalRefused(Spoken):
    """A local grant was not made: refused, or its devices could not be prepared. Nothing of it is left."""

    key: TaskKey
    why: str


@dataclass(frozen=True, slots=True)
class LocalEnded(Spoken):
    """A local grant is over, its devices were given back; it is forgotten. `why` is empty if it ended as asked."""

    key: TaskKey
    why: str = ""


@dataclass(frozen=True, slots=True)
class Abandon(Spoken):
    """The start of the task is not wanted any more; answered by StartFailed, or by Started if it came too late."""

    key: TaskKey
    executor: str


@dataclass(frozen=True, slots=True)
class Watch(Spoken):
    """The task runs since before the agent's start: take it back; answered by Ended."""

    handle: Handle


@dataclass(frozen=True, slots=True)
class Stop(Spoken):
    """End the task; what is left after `grace_s` is killed."""

    handle: Handle
    grace_s: float


@dataclass(frozen=True, slots=True)
class Release(Spoken):
    """The task's end is journaled: keep its output, let the executor forget it; answered by Released."""

    key: TaskKey
    handle: Handle


@dataclass(frozen=True, slots=True)
class Discard(Spoken):
    """The task is forgotten: its sandbox goes when retention says so."""

    key: TaskKey


@dataclass(frozen=True, slots=True)
class Sleep(Spoken):
    """No task is on the executor: end what is behind it. InstanceChanged follows only if that is still there."""

    executor: str


class What(Enum):
    """What happened to a task, as logs say it."""

    LAUNCH = "task launch taken"
    RUNNING = "task runs"
    KILL = "task kill taken"
    ENDED = "task ended"


@dataclass(frozen=True, slots=True)
class Noted(Spoken):
    """Something for the log that is journaled now; `request` names what caused it at the master, if that is known."""

    what: What
    key: TaskKey
    executor: str
    request: str = ""
    status: Status | None = None


@dataclass(frozen=True, slots=True)
class FramesIn(Volatile):
    """Frames from the master."""

    frames: tuple[Frame, ...]


@dataclass(frozen=True, slots=True)
class MessageIn(Volatile):
    """A message for a live task."""

    letter: Letter


Speech: TypeAlias = (
    Send
    | SessionBegan
    | Dismissed
    | Fetch
    | Start
    | GiveBack
    | Choose
    | LocalRefused
    | LocalEnded
    | Abandon
    | Watch
    | Stop
    | Release
    | Discard
    | Sleep
    | FramesIn
    | MessageIn
    | Noted
)
Effect: TypeAlias = Put | Drop | Speech
