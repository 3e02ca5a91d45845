"""What the master has done since it started, in numbers: counted where it happens, read by whoever shows metrics.

What does not live here: what there is now (that is counted when somebody asks), and names of metrics (`api/`).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from edgerm.core.tasks import Reason, TaskState


@dataclass(slots=True)
class Tally:
    """Counters; each only ever grows."""

    offers_made: int = 0
    offers_accepted: int = 0  # used, also by an ACCEPT that launched nothing
    offers_declined: int = 0
    offers_expired: int = 0
    offers_rescinded: int = 0  # also those whose framework went away
    slices: int = 0  # of allocation
    slice_agents: int = 0  # looked at in them
    tasks_launched: int = 0
    tasks_ended: Counter[tuple[TaskState, Reason | None]] = field(default_factory=Counter)
    agents_lost: int = 0
    joins: Counter[tuple[str, str]] = field(default_factory=Counter)  # by carrier and outcome
    beats: Counter[tuple[str, str]] = field(default_factory=Counter)
    updates: int = 0  # taken over from agents
    orders: Counter[str] = field(default_factory=Counter)  # journaled by agents, by kind
    frames_in: int = 0
    frames_dropped: int = 0
    messages_to_tasks: int = 0
    messages_to_frameworks: int = 0
    messages_dropped: int = 0  # either way
