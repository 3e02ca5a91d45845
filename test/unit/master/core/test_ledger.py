"""Nothing is lost and nothing is given twice, whatever frameworks do with their offers.

Two frameworks and a role each share one agent; they split offers into tasks, put offers together, decline, revive, and
let tasks end. After each step (beside the stage's invariants) every single port and item has exactly one holder.
"""

from __future__ import annotations

from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from support.stage import Stage, task

from edgerm.core.constraints import any_of
from edgerm.core.ids import OfferId
from edgerm.core.resources import MILLI, NOTHING, Amount, ResourceKey, Resources, coalesce, parse, to_text
from edgerm.core.scheduler import Accept, Decline, Offer, Revive, Suppress, UpdateFramework
from edgerm.core.tasks import TaskState

TOTAL = "cpus:4;mem:1024;disk:100;ports:[31000-31009];names:{a,b,c,d}"
NAMES = ("f1", "f2")


def pieces(resources: Resources) -> Counter[tuple[str, object]]:
    """Every thousandth of a scalar (counted), port and item."""
    found: Counter[tuple[str, object]] = Counter()
    for key, amount in resources.items():
        if isinstance(amount, int):
            found[key.name, None] += amount
        elif isinstance(amount, tuple):
            found.update((key.name, port) for begin, end in amount for port in range(begin, end + 1))
        else:
            found.update((key.name, item) for item in amount)
    return found


@st.composite
def parts(draw: st.DrawFn, whole: Resources) -> Resources:
    """Some of it: an amount of each scalar, some ports, some items."""
    taken: dict[ResourceKey, Amount] = {}
    for key, amount in whole.items():
        if isinstance(amount, int):
            some = draw(st.integers(0, amount // MILLI)) * MILLI
            if some:
                taken[key] = some
            continue
        listed = [port for begin, end in amount for port in range(begin, end + 1)] if isinstance(amount, tuple) else []
        if listed and (ports := draw(st.sets(st.sampled_from(listed), max_size=4))):
            taken[key] = coalesce((port, port) for port in ports)
        if isinstance(amount, frozenset) and (
            items := draw(st.frozensets(st.sampled_from(sorted(amount)), max_size=2))
        ):
            taken[key] = items
    return Resources(taken)


class Ledger(RuleBasedStateMachine):
    """Two frameworks on one agent."""

    @initialize()
    def begin(self) -> None:
        self.stage = Stage()
        self.count = 0
        self.stage.join("a1", TOTAL, zone="a")
        for name in NAMES:
            self.stage.subscribe(name)
        self.stage.settle()

    def held(self, name: str) -> list[Offer]:
        return [self.stage.master.offers[offer_id] for offer_id in self.stage.offers(name)]

    def running(self) -> list[str]:
        return [key.task_id for key, one in self.stage.master.tasks.items() if one.live]

    @rule(data=st.data(), name=st.sampled_from(NAMES), refuse_s=st.sampled_from([0.0, 1.0, 30.0]))
    def split(self, data: st.DataObject, name: str, refuse_s: float) -> None:
        """Some of its offers, together, become tasks; one of them may ask for more than is left."""
        offers = self.held(name)
        if not offers:
            return
        used = offers if data.draw(st.booleans()) else [data.draw(st.sampled_from(offers))]
        left = sum((offer.resources for offer in used), NOTHING)
        tasks = []
        for _ in range(data.draw(st.integers(0, 3))):
            asked = data.draw(parts(left)) if data.draw(st.booleans()) else parse("cpus:1;ports:[31000-31002]")
            self.count += 1
            tasks.append(task(f"t{self.count}", "a1", to_text(asked) or "cpus:1"))
            if left.covers(asked):
                left = left - asked
        self.stage.call(name, Accept(tuple(offer.offer_id for offer in used), tuple(tasks), refuse_s))
        self.stage.beats("a1")

    @rule(name=st.sampled_from(NAMES))
    def misuse(self, name: str) -> None:
        """An offer of nobody, or of the other framework, beside its own."""
        other = NAMES[name == NAMES[0]]
        stolen = [*self.stage.offers(name), *self.stage.offers(other), OfferId("never")]
        self.count += 1
        self.stage.call(name, Accept(tuple(stolen), (task(f"t{self.count}", "a1"),)))
        self.stage.call(name, Decline(tuple(self.stage.offers(other))))

    @rule(name=st.sampled_from(NAMES), refuse_s=st.sampled_from([0.0, 5.0, 60.0]))
    def decline(self, name: str, refuse_s: float) -> None:
        self.stage.decline(name, refuse_s)

    @rule(name=st.sampled_from(NAMES), quiet=st.booleans())
    def ask(self, name: str, quiet: bool) -> None:
        self.stage.call(name, Suppress() if quiet else Revive())

    @rule(name=st.sampled_from(NAMES), zone=st.sampled_from(["a", "b", None]))
    def constrain(self, name: str, zone: str | None) -> None:
        """Its constraints change: it may be left with no agent, or get it back."""
        spec = self.stage.schedulers[name].spec
        constraints = {"*": any_of([[f"zone={zone}"]])} if zone else {}
        self.stage.call(name, UpdateFramework(spec, (), constraints))

    @precondition(lambda self: self.running())
    @rule(data=st.data(), name=st.sampled_from(NAMES))
    def end(self, data: st.DataObject, name: str) -> None:
        """A task ends; what it had goes to this framework, beside what it holds already."""
        task_id = data.draw(st.sampled_from(self.running()))
        self.stage.call(name, Revive())
        self.stage.report("a1", task_id, TaskState.FINISHED)

    @rule(seconds=st.sampled_from([1.0, 6.0, 40.0]))
    def wait(self, seconds: float) -> None:
        self.stage.live(seconds)

    @invariant()
    def every_piece_has_one_holder(self) -> None:
        """Tasks, offers and what is free add up to what the agent has: no more, no less."""
        if not hasattr(self, "stage"):
            return
        world = self.stage.master.world
        total: Counter[tuple[str, object]] = Counter()
        for one in world.tasks.values():
            if one.live:
                total += pieces(one.record.task.resources)
        for offer in world.offers.values():
            total += pieces(offer.resources)
        total += pieces(world.agents[self.stage.boxes["a1"].agent_id].free)
        assert total == pieces(parse(TOTAL))

    def teardown(self) -> None:
        """When all tasks have ended and nobody refuses any more, one of the two is offered all of it."""
        if not hasattr(self, "stage"):
            return
        for task_id in self.running():
            self.stage.report("a1", task_id, TaskState.FINISHED)
        for name in NAMES:
            self.stage.call(name, UpdateFramework(self.stage.schedulers[name].spec))
            self.stage.decline(name, 0.0)
            self.stage.call(name, Revive())
        self.stage.live(90.0)
        self.stage.settle()
        offered = sum((offer.resources for offer in self.stage.master.offers.values()), NOTHING)
        assert pieces(offered) == pieces(parse(TOTAL))


TestLedger = Ledger.TestCase
TestLedger.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)
