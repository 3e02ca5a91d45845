"""The grant machine: what was given to which task, until it is verified clean. Pure.

The theory: devices are somebody's from the launch, which journals them before anything else, to the moment when their
plugin has said that they are clean. Between the two the journal always knows of them, so whatever a crash cuts short
can be undone: a grant whose task is over is given back, whether or not its devices were ever prepared, as prepare and
release may each be repeated. What a release finds is kept as evidence, the devices stay out of the offer, and the
release is tried again, less and less often, until it finds nothing.

All grants of a task move together; only what is clean leaves early. What does not live here: which devices there are
(`inventory`), who may have which (`refusing`), when a task ends (`agent`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from types import MappingProxyType

from edgerm.core.claims import Granted
from edgerm.core.effects import Change, Drop, Put
from edgerm.core.errors import IllegalMove
from edgerm.core.ids import TaskKey
from edgerm.core.scheduler import TaskSpec
from edgerm.core.timers import Timers
from edgerm_agent.core.inventory import DeviceKey
from edgerm_agent.core.records import GrantRecord

RETRY_FIRST_S = 1.0
RETRY_MAX_S = 60.0


class GrantState(Enum):
    """How far the devices of a task have come."""

    FREE = "free"  # nobody's: no record
    GIVEN = "given"  # the task's; nothing was done to them, or all of it was undone
    IN_USE = "in use"  # their plugins were, or are about to be, asked to prepare them
    RETURNING = "returning"  # nothing of the task is left; their plugins take them back and look
    QUARANTINED = "quarantined"  # something was found; not offered, and taken back again now and then


class GrantSignal(Enum):
    """What can happen to them."""

    GIVE = "give"  # a task is launched with them
    START = "start"  # the task is about to start, or to start anew after a crash of the agent
    WITHDRAW = "withdraw"  # the task ends before its start
    END = "end"  # the task has ended
    CLEAN = "clean"  # nothing is left on them
    KEEP = "keep"  # likewise, and the task will start again with them
    UNCLEAN = "unclean"  # something is


_S, _T = GrantState, GrantSignal
GRANT_MOVES: Mapping[GrantState, Mapping[GrantSignal, GrantState]] = MappingProxyType(
    {
        _S.FREE: {_T.GIVE: _S.GIVEN},
        _S.GIVEN: {_T.START: _S.IN_USE, _T.WITHDRAW: _S.FREE},
        _S.IN_USE: {_T.START: _S.IN_USE, _T.END: _S.RETURNING},
        _S.RETURNING: {_T.CLEAN: _S.FREE, _T.KEEP: _S.GIVEN, _T.UNCLEAN: _S.QUARANTINED},
        _S.QUARANTINED: {_T.CLEAN: _S.FREE, _T.KEEP: _S.GIVEN, _T.UNCLEAN: _S.QUARANTINED},
    }
)
"""State → signal → next state; a pair without an entry is a bug."""


@dataclass(slots=True)
class Holding:
    """All that one task was given."""

    records: tuple[GrantRecord, ...]
    state: GrantState = GrantState.FREE
    over: bool = False  # the task is, and does not need them any more
    wait_s: float = RETRY_FIRST_S  # until they are taken back again

    def move(self, signal: GrantSignal) -> None:
        try:
            self.state = GRANT_MOVES[self.state][signal]
        except KeyError:
            raise IllegalMove("grant", self.state.name, signal.name, self.records) from None

    @property
    def returning(self) -> bool:
        """Whether a plugin is, or will be, asked to take them back."""
        return self.state in (GrantState.RETURNING, GrantState.QUARANTINED)

    def devices(self) -> Iterator[DeviceKey]:
        """Every device of it."""
        return devices_of(self.records)


class Grants:
    """Every grant of this agent. What changes is answered as changes of records."""

    def __init__(self) -> None:
        self._holdings: dict[TaskKey, Holding] = {}
        self._timers: Timers[TaskKey] = Timers()  # when devices in quarantine are taken back again

    def of(self, key: TaskKey) -> Holding | None:
        """What the task was given and is not known to be clean; None: nothing."""
        return self._holdings.get(key)

    def records(self, key: TaskKey) -> tuple[GrantRecord, ...]:
        """The same as records."""
        holding = self._holdings.get(key)
        return holding.records if holding else ()

    @property
    def all(self) -> Mapping[TaskKey, Holding]:
        """For reading."""
        return self._holdings

    def load(self, key: TaskKey, records: tuple[GrantRecord, ...], state: GrantState, *, over: bool) -> None:
        """What the journal has of a task."""
        self._holdings[key] = Holding(records, state, over)

    def give(self, key: TaskKey, records: tuple[GrantRecord, ...]) -> list[Change]:
        """These devices are the task's now; likewise when others were chosen before its start."""
        if not records:
            return []
        if key not in self._holdings:
            self._holdings[key] = Holding(())
            self._holdings[key].move(GrantSignal.GIVE)
        self._holdings[key].records = records
        return [_put(record) for record in records]

    def use(self, key: TaskKey) -> tuple[GrantRecord, ...]:
        """The task starts."""
        holding = self._holdings.get(key)
        if holding is None:
            return ()
        holding.move(GrantSignal.START)
        return holding.records

    def end(self, key: TaskKey) -> tuple[GrantRecord, ...]:
        """Nothing of the task is left: what is to be taken back now, before anybody is told."""
        holding = self._holdings.get(key)
        if holding is None or holding.state is not GrantState.IN_USE:
            return ()
        holding.move(GrantSignal.END)
        return holding.records

    def leave(self, key: TaskKey) -> list[Change]:
        """The task is over. What was never prepared is nobody's; what was found on the rest is kept."""
        holding = self._holdings.get(key)
        if holding is None:
            return []
        holding.over = True
        if holding.state is not GrantState.GIVEN:
            return []
        holding.move(GrantSignal.WITHDRAW)
        return self._drop(key)

    def given_back(self, key: TaskKey, evidence: Mapping[str, str], keep: bool, now_s: float) -> list[Change]:
        """What the plugins found, by class. `keep`: the task will start again with its devices."""
        holding = self._holdings.get(key)
        if holding is None or not holding.returning:
            return []
        known = {record.name: record.evidence for record in holding.records}
        found = {record.name: evidence.get(record.name, "") for record in holding.records}
        left = tuple(replace(record, evidence=found[record.name]) for record in holding.records)
        if not any(found.values()):
            self._timers.cancel(key)
            holding.wait_s = RETRY_FIRST_S
            holding.move(GrantSignal.KEEP if keep else GrantSignal.CLEAN)
            holding.records = left
            return [_put(one) for one in left if known[one.name]] if keep else self._drop(key)
        holding.move(GrantSignal.UNCLEAN)
        self._timers.set(key, now_s + holding.wait_s)
        holding.wait_s = min(2 * holding.wait_s, RETRY_MAX_S)
        holding.records = left if keep else tuple(one for one in left if one.evidence)
        changes: list[Change] = [] if keep else [_drop(one) for one in left if not one.evidence]
        return changes + [_put(one) for one in holding.records if known[one.name] != one.evidence]

    def _drop(self, key: TaskKey) -> list[Change]:
        return [_drop(record) for record in self._holdings.pop(key).records]

    # --- trying again ---

    def next_s(self) -> float | None:
        """When to `pop`, or None."""
        return self._timers.next_s()

    def pop(self, now_s: float) -> TaskKey | None:
        """A task whose devices are to be taken back again now."""
        return self._timers.pop(now_s)

    def hasten(self, names: Collection[str], now_s: float) -> None:
        """The plugins of these classes are back: do not wait any longer to try again."""
        for key, holding in self._holdings.items():
            if self._timers.due_s(key) is not None and any(record.name in names for record in holding.records):
                self._timers.set(key, now_s)

    # --- who has what ---

    def quarantine(self) -> dict[DeviceKey, str]:
        """The devices that are held back: something was found on them, or their task is over and nobody has looked."""
        return {
            device: record.evidence or f"it is taken back from task {key.task_id!r}, which is over"
            for key, holding in self._holdings.items()
            if holding.over or holding.state is GrantState.QUARANTINED
            for record in holding.records
            if holding.over or record.evidence
            for device in devices_of([record])
        }

    def holder(self, device: DeviceKey, *, shared: bool) -> TaskKey | None:
        """The task that keeps others from the device: nobody, if all who have it and the asker share it."""
        for key, holding in self._holdings.items():
            for record in holding.records:
                for one in record.granted:
                    if record.name == device[0] and device[1] in one.ids and not (shared and one.shared):
                        return key
        return None


def devices_of(records: Iterable[GrantRecord]) -> Iterator[DeviceKey]:
    """Every device of these grants."""
    return ((record.name, device_id) for record in records for one in record.granted for device_id in one.ids)


def grants_of(key: TaskKey, task: TaskSpec, classes: Collection[str]) -> tuple[GrantRecord, ...]:
    """What a launch gives: what its claims were granted, and what it names itself of these classes."""
    by_class: dict[str, list[Granted]] = {}
    for one in (*task.granted, *_named(task, classes)):
        if one.ids:
            by_class.setdefault(one.type, []).append(one)
    return tuple(
        GrantRecord(key, name, tuple(granted), task.executor, task.app) for name, granted in sorted(by_class.items())
    )


def _named(task: TaskSpec, classes: Collection[str]) -> Iterator[Granted]:
    """Items of devices' classes among the task's resources that no claim of it was given."""
    claimed = {(one.type, device_id) for one in task.granted for device_id in one.ids}
    for key in sorted(task.resources):
        amount = task.resources[key]
        if isinstance(amount, frozenset) and key.name in classes:
            ids = tuple(sorted(item for item in amount if (key.name, item) not in claimed))
            yield Granted(key.name, key.name, ids, key.shared)


def _put(record: GrantRecord) -> Put:
    return Put("grant", record.grant_key, record)


def _drop(record: GrantRecord) -> Drop:
    return Drop("grant", record.grant_key)
