"""`Placer`: the scheduler behind the short way. Whatever waits is placed, in order, on whatever is offered.

What does not live here: who waits for the tasks (`edgerm.sdk.cluster`), whether one task may run on one agent
(`edgerm.sdk.tasks`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field

from edgerm.core.alternatives import executors_of, misfit
from edgerm.core.claims import Claim
from edgerm.core.constraints import Constraint, fulfils
from edgerm.core.devices import items
from edgerm.core.errors import Conflict
from edgerm.core.granting import fit
from edgerm.core.ids import AgentId, ExecutorId, FrameworkId, TaskId
from edgerm.core.matching import Mismatch
from edgerm.core.resources import NOTHING, Resources
from edgerm.core.scheduler import AgentSpec, Offer, Status, TaskSpec
from edgerm.core.tasks import Reason, Source, TaskState
from edgerm.sdk.claiming import WaitingClaims
from edgerm.sdk.core.session import Session
from edgerm.sdk.needs import Needs
from edgerm.sdk.offered import agent_of
from edgerm.sdk.scheduler import Scheduler
from edgerm.sdk.tasks import Task

TASKS_PER_ACCEPT_MAX = 2000
TOO_SMALL_S = 1.0  # an offer on which nothing fits is not wanted again for so long, unless it grows
UNFIT_S = 3600.0  # an agent on which nothing that waits may run; a new task that may run there revives

Kind = tuple[str, tuple[Constraint, ...], tuple[Claim, ...]]
"""What of a build decides where it may run at all: its executor, its constraints, and the classes that it claims of."""


def _kind(build: Task) -> Kind:
    return build.executor, build.constraints, build.needs.claims


@dataclass(slots=True)
class _Place:
    """The offers of one agent, and what goes there."""

    agent_id: AgentId
    agent: AgentSpec
    left: Resources = NOTHING
    offers: list[Offer] = field(default_factory=list)
    tasks: list[TaskSpec] = field(default_factory=list)
    too_big: set[Needs] = field(default_factory=set)
    unmet: dict[Needs, Mismatch] = field(default_factory=dict)  # of these the claims do not fit here now
    fits: dict[Kind, bool] = field(default_factory=dict)  # what may run here, as far as it was asked for

    def may_run(self, build: Task) -> bool:
        """Whether the agent is one for such tasks, however much is free there."""
        kind = _kind(build)
        if kind not in self.fits:
            self.fits[kind] = not build.misfit(self.agent, self.agent_id)
        return self.fits[kind]

    def take(self, build: Task) -> bool:
        """Take the task as this build, if it may run here and has room."""
        if len(self.tasks) >= TASKS_PER_ACCEPT_MAX or build.needs in self.too_big or not self.may_run(build):
            return False
        taken = build.needs.take_from(self.left)
        if taken is None:
            self.too_big.add(build.needs)
            return False
        found = fit(build.needs.claims, self.left.less(taken), self.agent)
        if isinstance(found, Mismatch):
            self.too_big.add(build.needs)
            self.unmet[build.needs] = found
            return False
        self.left = self.left - taken - found.resources
        self.tasks.append(build.at(self.agent_id, taken))
        return True


class Placer(Scheduler):
    """Spreads waiting tasks over agents; asks for offers only while something waits."""

    def __init__(
        self, told: Callable[[Status], None], said: Callable[[TaskId, bytes], None] = lambda _task_id, _data: None
    ) -> None:
        self._told = told
        self._said = said
        self._waiting: dict[TaskId, Task] = {}
        self._quiet = False  # offers are suppressed
        self._seen: dict[AgentId, AgentSpec] = {}  # agents that made offers
        self._devices: set[tuple[str, str]] = set()  # that were offered, by name and id
        self._claims = WaitingClaims()
        self._unfit: set[AgentId] = set()  # agents of these that were refused for long

    def launch(self, driver: Session, task: Task) -> None:
        """Place the task as soon as there is room. Raises `Conflict` if one with this id has not ended."""
        if task.task_id in self._waiting or task.task_id in driver.tasks:
            raise Conflict(f"task {task.task_id!r} has not ended: give each task an id of its own")
        self._waiting[task.task_id] = task
        self._claims.add(task)
        if driver.held:
            self._place(driver)
        else:
            self._claims.tell(driver)
            if self._quiet or self._may_run_where_refused(task):
                self._revive(driver)

    def _may_run_where_refused(self, task: Task) -> bool:
        return any(
            not build.misfit(self._seen[agent_id], agent_id) for agent_id in self._unfit for build in task.choices
        )

    def withdraw(self, task_id: TaskId) -> bool:
        """Take back a task that has no place yet; False if it has one."""
        self._claims.drop(task_id)
        return self._waiting.pop(task_id, None) is not None

    def lacking(self, task_id: TaskId) -> str | None:
        """In words, what a waiting task needs that no agent has which made an offer so far; None: not that we know.

        For a task with claims it names the class that it waits for, also where an agent has it.
        """
        task = self._waiting.get(task_id)
        if task is None:
            return None
        reasons = [self._lacks(build) for build in task.choices] if self._seen else [""]
        return "; or ".join(dict.fromkeys(reasons)) if all(reasons) else self._claims.lacking(task)

    def _lacks(self, build: Task) -> str:
        """Why no agent that was seen may run this build; empty: one may."""
        agents = [(agent, agent_id) for agent_id, agent in self._seen.items()]
        if any(not misfit(build.executor, build.constraints, agent, agent_id) for agent, agent_id in agents):
            unseen = [text for some in build.needs.devices for text in some.missing(self._devices)]
            return f"no offer so far had a device {' or '.join(unseen)}" if unseen else ""
        told = [executors_of(agent) for agent, _ in agents]
        if all(executors is not None and build.executor not in executors for executors in told):
            return f"no agent here runs {build.executor} tasks yet"
        unmet = [one for one in build.constraints if not any(fulfils(one, agent, name) for agent, name in agents)]
        if unmet:
            return "no agent that made an offer meets " + " or ".join(map(str, unmet))
        every = " and ".join(map(str, (*build.constraints, f"runs {build.executor} tasks")))
        return f"no agent that made an offer meets all of: {every}"

    def subscribed(self, driver: Session, framework_id: FrameworkId) -> None:
        """A new stream remembers what was suppressed, and no refusals; make it fit."""
        self._unfit.clear()
        self._claims.forget_told()
        self._claims.tell(driver)
        if self._waiting and self._quiet:
            self._revive(driver)
        elif not self._waiting:
            self._hush(driver)

    def offers(self, driver: Session, offers: tuple[Offer, ...]) -> None:
        """Use them."""
        self._place(driver)

    def update(self, driver: Session, status: Status) -> None:
        """Tell whoever waits."""
        self._told(status)

    def message(self, driver: Session, agent_id: AgentId, executor_id: ExecutorId, data: bytes) -> None:
        """Hand on what a task says."""
        self._said(TaskId(executor_id), data)

    def _place(self, driver: Session) -> None:
        places = _places(driver.held.values())
        self._seen.update((place.agent_id, place.agent) for place in places)
        self._devices.update(item for place in places for item in items(place.left))
        turn = 0
        for task in list(self._waiting.values()):
            if _take(places, turn, task):
                turn += 1
                del self._waiting[task.task_id]
                self._claims.drop(task.task_id)
            elif all(len(place.too_big) > TASKS_PER_ACCEPT_MAX for place in places):
                break
        builds = (build for task in self._waiting.values() for build in task.choices)
        kinds = {_kind(build): build for build in builds}
        for place in places:
            if place.tasks:
                driver.accept(place.offers, place.tasks, refuse_s=0)
            else:
                self._decline(driver, place, kinds.values())
        self._look_at_claims(places)
        self._claims.tell(driver)
        if not self._waiting:
            self._hush(driver)

    def _look_at_claims(self, places: Sequence[_Place]) -> None:
        """What waits for devices, and ends if that is in vain."""
        agents = [place.agent for place in places]
        self._claims.look_at(agents, {needs: why for place in places for needs, why in place.unmet.items()})
        for task_id, why in self._claims.hopeless(self._seen.values()).items():
            self.withdraw(task_id)
            self._told(Status(task_id, TaskState.ERROR, None, Source.MASTER, Reason.TASK_INVALID, why))

    def _decline(self, driver: Session, place: _Place, waiting: Collection[Task]) -> None:
        """Give back what serves nobody: until room may have grown, or for long if the agent is none for our tasks."""
        fit = any(map(place.may_run, waiting))
        if waiting and not fit:
            self._unfit.add(place.agent_id)
        else:
            self._unfit.discard(place.agent_id)
        driver.decline(place.offers, refuse_s=TOO_SMALL_S if fit else UNFIT_S if waiting else 0)

    def _revive(self, driver: Session) -> None:
        self._quiet = False
        self._unfit.clear()
        driver.revive()

    def _hush(self, driver: Session) -> None:
        if not self._quiet:
            self._quiet = True
            driver.suppress()


def _places(offers: Iterable[Offer]) -> list[_Place]:
    places: dict[AgentId, _Place] = {}
    for offer in offers:
        place = places.get(offer.agent_id)
        if place is None:
            place = places[offer.agent_id] = _Place(offer.agent_id, offer.agent)
        place.left = place.left + offer.resources
        place.offers.append(offer)
    for place in places.values():
        place.agent = agent_of(place.offers)
    return list(places.values())


def _take(places: list[_Place], turn: int, task: Task) -> bool:
    """Whether an agent, from the one in turn on, has taken the task: as the first of its builds that any can take."""
    count = len(places)
    return any(places[(turn + number) % count].take(build) for build in task.choices for number in range(count))
