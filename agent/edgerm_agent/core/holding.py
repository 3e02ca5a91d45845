"""Why a task cannot have what it asks for on this agent: who holds it, or that it is not here. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from edgerm.core.ids import TaskKey
from edgerm.core.resources import NOTHING, Resources, to_text


def refusal(wanted: Resources, have: Resources, left: Resources, holders: Iterable[tuple[TaskKey, Resources]]) -> str:
    """The reason in one line; `have` is all of the agent, `left` what the holders leave of it."""
    lacking = "; ".join(_lacking(wanted, have, left, tuple(holders)))
    return lacking or f"it asks for {to_text(wanted)}, and {to_text(left) or 'nothing'} is left here"


def _lacking(
    wanted: Resources, have: Resources, left: Resources, holders: tuple[tuple[TaskKey, Resources], ...]
) -> Iterator[str]:
    for key, amount in wanted.items():
        if not isinstance(amount, frozenset):
            continue
        for item in sorted(amount - _items(left.get(key))):
            if item not in _items(have.get(key)):
                other = key._replace(shared=not key.shared)
                if item in _items(have.get(other)):
                    yield f"{key.name} {item!r} is {'shared' if other.shared else 'not shared'} here"
                else:
                    yield f"this agent has no {key.name} {item!r}"
                continue
            holder = next((task for task, held in holders if item in _items(held.get(key))), None)
            by = f" by task {holder.task_id!r} of framework {holder.framework_id}" if holder else ""
            yield f"{key.name} {item!r} is held{by}"


def gone(wanted: Resources, have: Resources) -> str:
    """Which devices of a task that has not started are not on this agent any more; empty: they all are."""
    sets = Resources({key: amount for key, amount in wanted.items() if isinstance(amount, frozenset)})
    return "" if have.covers(sets) else refusal(sets, have, NOTHING, ())


def _items(amount: object) -> frozenset[str]:
    return amount if isinstance(amount, frozenset) else frozenset()
