"""What of the core becomes a metric: its name, its meaning, its labels, and how it is read.

What does not live here: Prometheus (`metrics.py`) and Mesos' own names (`mesos_metrics.py`). Names are stable, and no
label has a value that grows with use: no ids, no names that people give.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeAlias

from edgerm.core.tasks import TaskState
from edgerm_master.core.frameworks import FrameworkState
from edgerm_master.core.master import Master

Sample: TypeAlias = tuple[tuple[str, ...], float]


class Measure(NamedTuple):
    """One family of metrics. `counts`: it only grows, and its name is shown with `_total`."""

    name: str
    meaning: str
    labels: tuple[str, ...]
    counts: bool
    read: Callable[[Master], Iterable[Sample]]


def _agents(core: Master) -> Iterable[Sample]:
    found = Counter(
        (agent.state.value, agent.half.carrier.name if agent.half is not None else "none")
        for agent in core.agents.values()
    )
    return list(found.items())


def _frameworks(core: Master) -> Iterable[Sample]:
    found = Counter(framework.state.value for framework in core.frameworks.values())
    return [((state.value,), found[state.value]) for state in FrameworkState if state is not FrameworkState.COMPLETED]


def _tasks(core: Master) -> Iterable[Sample]:
    found = Counter(task.run.state for task in core.tasks.values() if not task.run.settled)
    return [((f"TASK_{state.name}",), found[state]) for state in TaskState]


def _offers(core: Master) -> Iterable[Sample]:
    tally = core.world.tally
    return [
        (("made",), tally.offers_made),
        (("accepted",), tally.offers_accepted),
        (("declined",), tally.offers_declined),
        (("expired",), tally.offers_expired),
        (("rescinded",), tally.offers_rescinded),
    ]


def _ends(core: Master) -> Iterable[Sample]:
    ends = core.world.tally.tasks_ended
    return [((f"TASK_{state.name}", reason.name if reason else "none"), n) for (state, reason), n in ends.items()]


def _total(read: Callable[[Master], float]) -> Callable[[Master], Iterable[Sample]]:
    return lambda core: [((), read(core))]


MEASURES: tuple[Measure, ...] = (
    Measure("edgerm_agents", "Agents that are known", ("state", "carrier"), False, _agents),
    Measure("edgerm_frameworks", "Frameworks that have not ended", ("state",), False, _frameworks),
    Measure("edgerm_tasks", "Tasks that are not settled", ("state",), False, _tasks),
    Measure("edgerm_offers_outstanding", "Offers not answered", (), False, _total(lambda core: len(core.offers))),
    Measure("edgerm_offers", "What became of offers", ("event",), True, _offers),
    Measure("edgerm_tasks_launched", "Tasks launched", (), True, _total(lambda core: core.world.tally.tasks_launched)),
    Measure("edgerm_tasks_ended", "Tasks ended", ("state", "reason"), True, _ends),
    Measure(
        "edgerm_status_updates", "Updates taken from agents", (), True, _total(lambda core: core.world.tally.updates)
    ),
    Measure(
        "edgerm_agents_lost", "Agents silent for too long", (), True, _total(lambda core: core.world.tally.agents_lost)
    ),
    Measure(
        "edgerm_link_joins",
        "Joins of agents",
        ("carrier", "outcome"),
        True,
        lambda core: list(core.world.tally.joins.items()),
    ),
    Measure(
        "edgerm_link_beats",
        "Beats of agents",
        ("carrier", "outcome"),
        True,
        lambda core: list(core.world.tally.beats.items()),
    ),
    Measure(
        "edgerm_link_orders",
        "Orders that agents have journaled",
        ("kind",),
        True,
        lambda core: [((kind,), times) for kind, times in core.world.tally.orders.items()],
    ),
    Measure(
        "edgerm_link_frames", "Frames taken from agents", (), True, _total(lambda core: core.world.tally.frames_in)
    ),
    Measure(
        "edgerm_link_frames_dropped",
        "Frames for agents that had no room",
        (),
        True,
        _total(lambda core: core.world.tally.frames_dropped),
    ),
    Measure(
        "edgerm_messages",
        "Messages between frameworks and tasks passed on",
        ("to",),
        True,
        lambda core: [
            (("task",), core.world.tally.messages_to_tasks),
            (("framework",), core.world.tally.messages_to_frameworks),
        ],
    ),
    Measure(
        "edgerm_messages_dropped",
        "Messages that had nobody to go to, or no room",
        (),
        True,
        _total(lambda core: core.world.tally.messages_dropped),
    ),
    Measure("edgerm_allocation_slices", "Slices of allocation", (), True, _total(lambda core: core.world.tally.slices)),
    Measure(
        "edgerm_allocation_agents",
        "Agents looked at in slices",
        (),
        True,
        _total(lambda core: core.world.tally.slice_agents),
    ),
)
