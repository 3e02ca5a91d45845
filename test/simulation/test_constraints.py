"""Attributes, constraints and updates in the simulator: what an author of a scheduler may rely on there."""

from __future__ import annotations

from edgerm.core.constraints import any_of
from edgerm.core.ids import AgentId
from edgerm.core.scheduler import FrameworkSpec, Offer, Status
from edgerm.sdk import Scheduler, Session, attributes, process_task
from edgerm.testing.sim.simulation import Plan, Simulation

SPEC = FrameworkSpec("zoned", failover_timeout_s=7 * 86400.0)


class Zoned(Scheduler):
    """One task in each zone, one zone after the other; the master offers only agents of the zone that is next."""

    def __init__(self, *zones: str) -> None:
        self.todo = list(zones)
        self.launched: dict[str, AgentId] = {}
        self.asked = ""

    def subscribed(self, driver: Session, framework_id: object) -> None:
        self._ask(driver)

    def offers(self, driver: Session, offers: tuple[Offer, ...]) -> None:
        for offer in offers:
            if self.todo and self.todo[0] == attributes(offer)["zone"]:
                zone = self.todo.pop(0)
                task = process_task(f"in-{zone}", ["true"])
                driver.accept([offer], [task.on(offer)])
                self.launched[zone] = offer.agent_id
                self._ask(driver)
        driver.decline(offers, refuse_s=1.0)

    def update(self, driver: Session, status: Status) -> None:
        """Its end is all that the simulation asks for."""

    def _ask(self, driver: Session) -> None:
        if self.todo and self.asked != self.todo[0]:
            self.asked = self.todo[0]
            driver.update_framework(SPEC, {"*": any_of([[f"zone={self.asked}"]])})


def run(seed: int) -> tuple[Zoned, Simulation]:
    """Three boxes in two zones."""
    simulation = Simulation(seed, Plan(agents=3, attributes=({"zone": "a", "line": 1.0}, {"zone": "b"})))
    scheduler = Zoned("b", "a")
    simulation.add(scheduler, lambda: not scheduler.todo)
    simulation.run()
    return scheduler, simulation


def test_tasks_go_where_the_attributes_say() -> None:
    """Over faults and crashes each zone gets its task, on an agent of that zone."""
    for seed in range(5):
        scheduler, simulation = run(seed)
        names = {box.core.spec.hostname: box.core.spec for box in simulation.boxes}
        zones = {name: dict(spec.attributes)["zone"] for name, spec in names.items()}
        assert zones == {"box1": "a", "box2": "b", "box3": "a"}
        by_id = {AgentId(f"{number + 1:032x}"): zones[f"box{number + 1}"] for number in range(3)}
        assert {zone: by_id[agent_id] for zone, agent_id in scheduler.launched.items()} == {"a": "a", "b": "b"}
