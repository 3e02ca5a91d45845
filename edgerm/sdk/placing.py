"""`Placer`: the scheduler behind the short way. Whatever waits is placed, in order, on whatever is offered.

What does not live here: who waits for the tasks (`edgerm.sdk.cluster`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from edgerm.core.errors import Conflict
from edgerm.core.ids import AgentId, FrameworkId, TaskId
from edgerm.core.resources import NOTHING, Resources
from edgerm.core.scheduler import Offer, Status, TaskSpec
from edgerm.sdk.core.session import Session
from edgerm.sdk.scheduler import Scheduler
from edgerm.sdk.tasks import Needs, Task
from edgerm.wire.codec.infos import executors_told

TASKS_PER_ACCEPT_MAX = 2000
TOO_SMALL_S = 1.0  # an offer on which nothing fits is not wanted again for so long, unless it grows


@dataclass(slots=True)
class _Place:
    """The offers of one agent, and what goes there."""

    agent_id: AgentId
    executors: frozenset[str] | None  # what it runs; None: it does not tell
    left: Resources = NOTHING
    offers: list[Offer] = field(default_factory=list)
    tasks: list[TaskSpec] = field(default_factory=list)
    too_big: set[Needs] = field(default_factory=set)

    def takes(self, task: Task) -> bool:
        """Whether it has room for the task, and runs such tasks as far as it tells."""
        if task.needs in self.too_big or len(self.tasks) >= TASKS_PER_ACCEPT_MAX:
            return False
        if self.executors is not None and task.executor not in self.executors:
            return False
        if task.needs.take_from(self.left) is not None:
            return True
        self.too_big.add(task.needs)
        return False


class Placer(Scheduler):
    """Spreads waiting tasks over agents; asks for offers only while something waits."""

    def __init__(self, told: Callable[[Status], None]) -> None:
        self._told = told
        self._waiting: dict[TaskId, Task] = {}
        self._quiet = False  # offers are suppressed
        self._offered: set[str] | None = set()  # executors of agents that made offers; None: of one that does not tell

    def launch(self, driver: Session, task: Task) -> None:
        """Place the task as soon as there is room. Raises `Conflict` if one with this id has not ended."""
        if task.task_id in self._waiting or task.task_id in driver.tasks:
            raise Conflict(f"task {task.task_id!r} has not ended: give each task an id of its own")
        self._waiting[task.task_id] = task
        if driver.held:
            self._place(driver)
        elif self._quiet:
            self._quiet = False
            driver.revive()

    def withdraw(self, task_id: TaskId) -> bool:
        """Take back a task that has no place yet; False if it has one."""
        return self._waiting.pop(task_id, None) is not None

    def lacking(self, task_id: TaskId) -> str | None:
        """The executor that a waiting task needs and that no agent had which made an offer so far, if so."""
        task = self._waiting.get(task_id)
        return task.executor if task and self._offered and task.executor not in self._offered else None

    def subscribed(self, driver: Session, framework_id: FrameworkId) -> None:
        """A new stream remembers what was suppressed; make it fit."""
        if self._waiting and self._quiet:
            self._quiet = False
            driver.revive()
        elif not self._waiting:
            self._hush(driver)

    def offers(self, driver: Session, offers: tuple[Offer, ...]) -> None:
        """Use them."""
        self._place(driver)

    def update(self, driver: Session, status: Status) -> None:
        """Tell whoever waits."""
        self._told(status)

    def _place(self, driver: Session) -> None:
        places = _places(driver.held.values())
        self._note(places)
        turn = 0
        for task in list(self._waiting.values()):
            place = _fitting(places, turn, task)
            if place is not None:
                turn += 1
                taken = task.needs.take_from(place.left)
                assert taken is not None
                place.left = place.left - taken
                place.tasks.append(task.at(place.agent_id, taken))
                del self._waiting[task.task_id]
            elif all(len(place.too_big) > TASKS_PER_ACCEPT_MAX for place in places):
                break
        for place in places:
            if place.tasks:
                driver.accept(place.offers, place.tasks, refuse_s=0)
            else:
                driver.decline(place.offers, refuse_s=TOO_SMALL_S if self._waiting else 0)
        if not self._waiting:
            self._hush(driver)

    def _note(self, places: list[_Place]) -> None:
        for place in places:
            if self._offered is not None:
                self._offered = None if place.executors is None else self._offered | place.executors

    def _hush(self, driver: Session) -> None:
        if not self._quiet:
            self._quiet = True
            driver.suppress()


def _places(offers: Iterable[Offer]) -> list[_Place]:
    places: dict[AgentId, _Place] = {}
    for offer in offers:
        place = places.get(offer.agent_id)
        if place is None:
            place = places[offer.agent_id] = _Place(offer.agent_id, executors_told(offer.agent.info))
        place.left = place.left + offer.resources
        place.offers.append(offer)
    return list(places.values())


def _fitting(places: list[_Place], turn: int, task: Task) -> _Place | None:
    """The next agent in turn that takes the task."""
    for number in range(len(places)):
        place = places[(turn + number) % len(places)]
        if place.takes(task):
            return place
    return None
