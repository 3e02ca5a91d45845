"""`Scheduler`: what a framework subclasses. Its callbacks are plain functions, so it runs in the simulator as it is.

What does not live here: who calls the callbacks (`edgerm.sdk.driver` over HTTP, `edgerm.testing.sim` on virtual time).
"""

from __future__ import annotations

from edgerm.core.ids import AgentId, ExecutorId, FrameworkId
from edgerm.core.scheduler import Offer, Status
from edgerm.sdk.core.session import Session


class Scheduler:
    """Override what you care about. Every callback gets the `driver`, whose verbs only queue calls and return at once:
    `accept(offers, tasks)`, `decline(offers)`, `kill(task_id)`, `message(agent_id, executor_id, data)`, `revive()`,
    `suppress()`, `accept_inverse(agent_id)`, `decline_inverse(agent_id)`, `leave()`, `teardown()`.
    `driver.held` are the offers held now, `driver.tasks` the tasks that have not ended, `driver.now` is the time.

    A callback must not block. One that raises ends the driver with that error; the update it was called for is not
    acknowledged, and will be seen again.
    """

    def subscribed(self, driver: Session, framework_id: FrameworkId) -> None:
        """The master knows us, now or again. Offers of before are void."""

    def offers(self, driver: Session, offers: tuple[Offer, ...]) -> None:
        """New offers. Use or decline them: whoever sits on offers starves others."""
        driver.decline(offers)

    def rescinded(self, driver: Session, offer: Offer) -> None:
        """An offer that we hold is void."""

    def update(self, driver: Session, status: Status) -> None:
        """A task's state. It is acknowledged when this returns, and seen once unless this process starts anew."""

    def message(self, driver: Session, agent_id: AgentId, executor_id: ExecutorId, data: bytes) -> None:
        """A task says something, best effort; `driver.message` answers. A built-in task's executor id is the task's."""

    def agent_lost(self, driver: Session, agent_id: AgentId) -> None:
        """An agent is away or gone. What its tasks do is told by updates."""

    def draining(self, driver: Session, agent_id: AgentId, in_s: float | None) -> None:
        """An operator takes the agent out of service: no more offers of it, and our tasks there are killed in `in_s`.

        Whoever cares launches them elsewhere before; `driver.accept_inverse(agent_id)` tells operators that all will be
        off it in time, `decline_inverse` that it will not. None: the master does not say when. Told again when the
        deadline changes, and after each subscription.
        """

    def disconnected(self, driver: Session, why: str) -> None:
        """The master is away. Tasks run on, offers are void; the driver subscribes again by itself."""

    def error(self, driver: Session, message: str) -> None:
        """The master ended the subscription for good; the driver stops."""
