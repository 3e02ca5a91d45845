"""What becomes of a task whose device is lost: it is unplugged, or ill. Pure.

The claim's config says it, key `on_loss`, where the class has that key: `wait` (nothing happens; the default), `stop`
(the task fails, and names the device) or `restart` (it is stopped, and starts anew when all its devices are back). A
plugin that is gone, or has not said yet what is here, has lost nothing. What does not live here: how a task is stopped
and started (`agent`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from enum import Enum
from typing import NamedTuple

from edgerm.core.claims import Granted
from edgerm_agent.core.inventory import Picture
from edgerm_agent.core.records import GrantRecord

ON_LOSS = "on_loss"  # the key of a claim's config


class Rule(Enum):
    """What a task does without its device; written exactly so. A later one goes before an earlier one."""

    WAIT = "wait"
    RESTART = "restart"
    STOP = "stop"


class Loss(NamedTuple):
    """A device is lost to its task."""

    rule: Rule
    words: str  # which one, and why


def loss(records: Iterable[GrantRecord], picture: Picture) -> Loss | None:
    """The loss that counts most; None: nothing is lost, or nothing follows from it."""
    found = [Loss(rule_of(one), words) for one, words in _lost(records, picture)]
    found = [one for one in found if one.rule is not Rule.WAIT]
    return max(found, key=lambda one: list(Rule).index(one.rule), default=None)


def lacking(records: Iterable[GrantRecord], picture: Picture) -> str:
    """What keeps a task from starting with its devices: the first that is not here and well; empty: nothing."""
    for record in records:
        known = picture.device_class(record.name)
        if known is None or known.problem:
            return f"class {record.name}: {known.problem if known else 'this agent does not have it now'}"
        if record.evidence:
            return f"{record.name}: {record.evidence}"
    return next((words for _, words in _missing(records, picture)), "")


def unseen(records: Iterable[GrantRecord], picture: Picture) -> str:
    """The class of these of which no plugin has spoken since the agent's start, in words; empty: there is none."""
    names = (record.name for record in records if picture.device_class(record.name) is None)
    return next((f"it waits for the plugin of class {name}" for name in names), "")


def rule_of(one: Granted) -> Rule:
    """What the claim's config says. Of what is no rule nothing follows: its plugin has refused it."""
    try:
        config = json.loads(one.config) if one.config else {}
        return Rule(config.get(ON_LOSS, Rule.WAIT.value))
    except (ValueError, AttributeError, RecursionError):
        return Rule.WAIT


def _lost(records: Iterable[GrantRecord], picture: Picture) -> Iterator[tuple[Granted, str]]:
    for record in records:
        known = picture.device_class(record.name)
        if known is not None and not known.problem and ON_LOSS in known.config_keys:
            yield from _missing([record], picture)


def _missing(records: Iterable[GrantRecord], picture: Picture) -> Iterator[tuple[Granted, str]]:
    for record in records:
        for one in record.granted:
            for device_id in one.ids:
                device = picture.device(record.name, device_id)
                if device is None:
                    yield one, f"{record.name} {device_id!r} is not here"
                elif device.problem:
                    yield one, f"{record.name} {device_id!r}: {device.problem}"
