"""All that can happen to an agent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from edgerm.core.blobs import Digest
from edgerm.core.devices import Inventory
from edgerm.core.ids import TaskKey
from edgerm.core.link import BeatAnswer, Carrier, Frame, JoinAnswer, Letter
from edgerm.core.scheduler import AgentSpec, TaskSpec
from edgerm.plugin.executor import Exit, Handle


@dataclass(frozen=True, slots=True)
class Recovered:
    """The first event: which executors are ready, and what they hold from before."""

    instances: Mapping[str, str] = field(default_factory=dict)  # executor name → instance; empty: it sleeps
    held: Mapping[TaskKey, Handle] = field(default_factory=dict)
    awaited: Mapping[str, str] = field(default_factory=dict)  # executors that may hold tasks, but do not answer → why


@dataclass(frozen=True, slots=True)
class ExecutorFound:
    """An executor that was awaited, or was not there, answers now; `held`: what it holds from before.

    Without an instance it is off: what it holds is looked after, and it takes no new tasks.
    """

    executor: str
    instance: str | None
    held: Mapping[TaskKey, Handle] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Described:
    """What the agent says of itself, its devices apart, has changed: plain resources, attributes, names."""

    spec: AgentSpec


@dataclass(frozen=True, slots=True)
class Inventoried:
    """All that a plugin has; it replaces what the plugin had before.

    A plugin that is gone has its classes, each with a `problem`, and no devices: that says nothing about its devices.
    """

    plugin: str
    inventory: Inventory


@dataclass(frozen=True, slots=True)
class GivenBack:
    """Every plugin took back what it gave the task; `evidence`: what was found of a class that is not clean."""

    key: TaskKey
    evidence: Mapping[str, str] = field(default_factory=dict)  # class → why it is not clean


@dataclass(frozen=True, slots=True)
class Chosen:
    """The plugin of a class chose for the task; a claim that is not named keeps what it was given."""

    key: TaskKey
    name: str  # of the class
    ids: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # claim → devices


@dataclass(frozen=True, slots=True)
class LaunchLocal:
    """Somebody on this box asks for devices; answered by a start, or by LocalRefused. No master hears of it."""

    key: TaskKey
    task: TaskSpec


@dataclass(frozen=True, slots=True)
class KillLocal:
    """Who had a local grant does not need it any more; answered by LocalEnded. An unknown key is fine."""

    key: TaskKey


@dataclass(frozen=True, slots=True)
class InstanceChanged:
    """An executor has a new instance: tasks of an older one that did not start yet never will."""

    executor: str
    instance: str


@dataclass(frozen=True, slots=True)
class JoinAnswered:
    """The master answered a join."""

    request: int
    answer: JoinAnswer


@dataclass(frozen=True, slots=True)
class BeatAnswered:
    """The master answered a beat; `present`: the blobs that its launches need and that are here already."""

    request: int
    answer: BeatAnswer
    present: frozenset[Digest] = frozenset()


@dataclass(frozen=True, slots=True)
class RequestFailed:
    """A request had no answer in time, or none that could be read."""

    request: int


@dataclass(frozen=True, slots=True)
class CarrierChanged:
    """The next request goes to a master that is spoken to over something else."""

    carrier: Carrier


@dataclass(frozen=True, slots=True)
class Rang:
    """The doorbell rang, or was connected again and may have been missed."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """All blobs of the task are here."""

    key: TaskKey


@dataclass(frozen=True, slots=True)
class FetchFailed:
    """A blob of the task cannot be had; `why` names it."""

    key: TaskKey
    why: str


@dataclass(frozen=True, slots=True)
class Preparing:
    """The start of the task takes long; `message` says in one line what is done, or waited for."""

    key: TaskKey
    message: str


@dataclass(frozen=True, slots=True)
class Started:
    """The executor has started the task."""

    key: TaskKey
    handle: Handle


@dataclass(frozen=True, slots=True)
class StartFailed:
    """The task did not start and never will."""

    key: TaskKey
    why: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The task has ended, and nothing of it is left."""

    key: TaskKey
    exit: Exit


@dataclass(frozen=True, slots=True)
class Released:
    """The executor has forgotten the task that has ended: it would start it anew."""

    key: TaskKey


@dataclass(frozen=True, slots=True)
class SendFrame:
    """A frame for the master."""

    frame: Frame


@dataclass(frozen=True, slots=True)
class SendMessage:
    """A message of a task, for its framework."""

    letter: Letter


@dataclass(frozen=True, slots=True)
class Tick:
    """A deadline has come: see `Agent.due_s`."""


Event: TypeAlias = (
    Recovered
    | ExecutorFound
    | Described
    | Inventoried
    | GivenBack
    | Chosen
    | LaunchLocal
    | KillLocal
    | InstanceChanged
    | JoinAnswered
    | BeatAnswered
    | RequestFailed
    | CarrierChanged
    | Rang
    | Fetched
    | FetchFailed
    | Preparing
    | Started
    | StartFailed
    | Ended
    | Released
    | SendFrame
    | SendMessage
    | Tick
)
