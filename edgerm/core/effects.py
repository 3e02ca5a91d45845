"""What a core may ask of its shell: to store and to speak; and the one place that orders the two.

The rule (etcd's raft states it as duties of the caller): what a core says leaves only after everything that it stored
before saying it is durable. An effect that depends on nothing durable says so by its type, `Volatile`, and may
overtake; only within its own lane (one stream, one agent) the order always stays.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

BATCH_OPERATIONS_MAX = 128


@dataclass(frozen=True, slots=True)
class Put:
    """Store `record` under (kind, key), in place of what was there."""

    kind: str
    key: str
    record: object


@dataclass(frozen=True, slots=True)
class Drop:
    """Delete what is stored under (kind, key)."""

    kind: str
    key: str


class Spoken:
    """An effect that others can see: it waits for everything stored before it."""

    __slots__ = ()
    volatile: ClassVar[bool] = False

    @property
    def lane(self) -> Hashable:
        """Whom it is for; effects of one lane never overtake each other."""
        return None


class Volatile(Spoken):
    """An effect that promises nothing durable: it may overtake other lanes."""

    __slots__ = ()
    volatile: ClassVar[bool] = True


Change = Put | Drop
S = TypeVar("S", bound=Spoken)


class Outbox(Generic[S]):
    """Holds spoken effects until what they depend on is durable.

    The shell's duties: give every event's effects to `add`, carry out what it returns; whenever no batch is being
    written, `take_batch`, write it, then `committed` and carry out what that returns. A write that fails ends the
    process.
    """

    def __init__(self) -> None:
        self._changes: deque[Change] = deque()
        self._added = 0  # changes ever added
        self._writing = 0  # size of the batch under way
        self._durable = 0  # changes known to be on disk
        self._held: deque[tuple[int, S]] = deque()  # (durable count needed, effect)
        self._held_lanes: dict[Hashable, int] = {}

    def add(self, effects: Iterable[Change | S]) -> list[S]:
        """Take over all effects of one event; answers those that may be carried out at once.

        What an event stores counts as stored before all that it says, in whatever order the core listed them.
        """
        spoken: list[S] = []
        for effect in effects:
            if isinstance(effect, (Put, Drop)):
                self._changes.append(effect)
                self._added += 1
            else:
                spoken.append(effect)
        ready: list[S] = []
        for effect in spoken:
            if self._may_go(effect):
                ready.append(effect)
            else:
                self._held.append((self._added, effect))
                self._held_lanes[effect.lane] = self._held_lanes.get(effect.lane, 0) + 1
        return ready

    def _may_go(self, effect: S) -> bool:
        if self._added == self._durable:
            return True
        return effect.volatile and effect.lane not in self._held_lanes

    def take_batch(self) -> list[Change]:
        """The changes to write next, in order, at most 128; empty when there are none or a batch is under way."""
        if self._writing:
            return []
        size = min(len(self._changes), BATCH_OPERATIONS_MAX)
        self._writing = size
        return [self._changes.popleft() for _ in range(size)]

    def committed(self) -> list[S]:
        """The batch is durable; answers the effects that waited for it, in order."""
        self._durable += self._writing
        self._writing = 0
        ready: list[S] = []
        while self._held and self._held[0][0] <= self._durable:
            effect = self._held.popleft()[1]
            left = self._held_lanes[effect.lane] - 1
            if left:
                self._held_lanes[effect.lane] = left
            else:
                del self._held_lanes[effect.lane]
            ready.append(effect)
        return ready

    @property
    def idle(self) -> bool:
        """Whether everything is durable and said."""
        return self._added == self._durable
