"""Dominant-resource fairness over roles and frameworks."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from support.stage import Stage, task

from edgerm.core.ids import FrameworkId
from edgerm.core.resources import NOTHING, Resources
from edgerm_master.core.fairness import SHARE_ONE, Client, Shares, dominant_share


def play(stage: Stage, wants: dict[str, str]) -> Counter[str]:
    """Each framework launches one task of its kind from every offer it gets, until nobody can."""
    done: Counter[str] = Counter()
    moved = True
    while moved:
        moved = False
        for name, resources in wants.items():
            for offer_id in stage.offers(name):
                offer = stage.master.offers[offer_id]
                wanted = task(f"{name}-{done[name]}", offer.agent_id, resources)
                if offer.resources.covers(wanted.resources):
                    stage.accept(name, wanted, refuse_s=0)
                    done[name] += 1
                else:
                    stage.decline(name, 1000)
                moved = True
    return done


def test_the_papers_example_comes_out(stage: Stage) -> None:
    """Ghodsi et al., section 4.1: of 9 CPUs and 18 GB, A with <1, 4 GB> gets 3 tasks, B with <3, 1 GB> gets 2."""
    stage.subscribe("A")
    stage.subscribe("B")
    stage.join("a1", "cpus:9;mem:18432")
    assert play(stage, {"A": "cpus:1;mem:4096", "B": "cpus:3;mem:1024"}) == {"A": 3, "B": 2}


def test_the_papers_example_comes_out_between_roles(stage: Stage) -> None:
    """The same between two roles, one framework each."""
    stage.subscribe("A", "a")
    stage.subscribe("B", "b")
    stage.join("a1", "cpus:9;mem:18432")
    assert play(stage, {"A": "cpus:1;mem:4096", "B": "cpus:3;mem:1024"}) == {"A": 3, "B": 2}


def test_roles_come_before_frameworks(stage: Stage) -> None:
    """Two frameworks of one role share what one framework of another role gets alone."""
    stage.subscribe("A1", "a")
    stage.subscribe("A2", "a")
    stage.subscribe("B", "b")
    stage.join("a1", "cpus:8;mem:8192")
    wants = dict.fromkeys(("A1", "A2", "B"), "cpus:1;mem:64")
    assert play(stage, wants) == {"A1": 2, "A2": 2, "B": 4}


def test_agents_are_spread_over_waiting_frameworks(stage: Stage) -> None:
    """What is offered counts as held: four equal agents go to two frameworks by two."""
    stage.subscribe("f1")
    stage.subscribe("f2")
    for index in range(4):
        stage.join(f"a{index}")
    assert (len(stage.offers("f1")), len(stage.offers("f2"))) == (2, 2)


def test_a_framework_that_holds_less_is_served_first(stage: Stage) -> None:
    """A late comer gets the next agent, because another one has tasks already."""
    stage.subscribe("f1")
    stage.join("a1")
    stage.run("f1", "a1", "t1", "cpus:4;mem:1024")
    stage.subscribe("f2")
    stage.join("a2")
    assert (stage.offers("f1"), len(stage.offers("f2"))) == ([], 1)


def test_who_refuses_is_passed_over(stage: Stage) -> None:
    """A refused agent goes to the next framework at once."""
    stage.join("a1")
    stage.subscribe("f1")
    stage.subscribe("f2")
    stage.decline("f1", 100)
    assert (stage.offers("f1"), len(stage.offers("f2"))) == ([], 1)


# --- the ledger of shares ---------------------------------------------------------------------------------------

clients = st.sampled_from([Client(role, FrameworkId(name)) for role in ("a", "b") for name in ("f1", "f2", "f3")])
amounts = st.builds(lambda cpus, mem: Resources.of(cpus=cpus, mem=mem), st.integers(0, 9), st.integers(0, 9))
steps = st.lists(st.tuples(clients, amounts), max_size=20)


def test_a_dominant_share_is_the_largest_part() -> None:
    """The share is the largest part of any resource in billionths; what does not exist counts nothing."""
    assert dominant_share({"cpus": 1, "mem": 4}, {"cpus": 9, "mem": 18}) == 4 * SHARE_ONE // 18
    assert dominant_share({"gpus": 1}, {"cpus": 9}) == 0
    assert dominant_share({}, {}) == 0


@given(steps)
def test_the_order_is_by_shares(charges: list[tuple[Client, Resources]]) -> None:
    """Roles stand in the order of their shares, and within each role so do its frameworks."""
    shares, total = Shares(), {"cpus": 100_000, "mem": 200_000}
    shares.grow(Resources.of(cpus=100, mem=200))
    held: dict[Client, Resources] = {}
    by_role: dict[str, Resources] = {}
    for client, resources in charges:
        shares.enter(client)
        shares.charge(client, resources)
        held[client] = held.get(client, NOTHING) + resources
        by_role[client.role] = by_role.get(client.role, NOTHING) + resources
    order = list(shares.order())

    def share(bag: Resources) -> int:
        return dominant_share({key.name: amount for key, amount in bag.items() if isinstance(amount, int)}, total)

    assert sorted(order) == sorted(held)
    ranks = [(share(by_role[client.role]), client.role) for client in order]
    assert [rank for rank, _ in ranks] == sorted(rank for rank, _ in ranks)
    for role in by_role:
        within = [share(held[client]) for client in order if client.role == role]
        assert within == sorted(within)
        positions = [index for index, client in enumerate(order) if client.role == role]
        assert positions == list(range(positions[0], positions[0] + len(positions)))


@given(steps)
def test_what_is_charged_can_be_refunded(charges: list[tuple[Client, Resources]]) -> None:
    """After as many refunds nobody holds anything, whatever the order."""
    shares = Shares()
    for client, resources in charges:
        shares.enter(client)
        shares.charge(client, resources)
    for client, resources in sorted(charges, key=lambda step: step[0]):
        shares.refund(client, resources)
    assert all(shares.used(client) == {} for client, _ in charges)


@given(steps, st.sampled_from(["f1", "f2", "f3"]))
def test_who_leaves_takes_its_charges_along(charges: list[tuple[Client, Resources]], name: str) -> None:
    """After a framework has left, the order is that of a ledger that never knew it."""
    left, fresh = Shares(), Shares()
    for client, resources in charges:
        for shares in (left, fresh) if client.framework_id != name else (left,):
            shares.grow(Resources.of(cpus=10))
            shares.enter(client)
            shares.charge(client, resources)
    left.leave(FrameworkId(name))
    assert {client: left.used(client) for client in left.order()} == {
        client: fresh.used(client) for client in fresh.order()
    }


def test_more_to_share_changes_the_order() -> None:
    """Shares are parts of what there is: when memory is added, who holds memory holds less of all."""
    shares = Shares()
    shares.grow(Resources.of(cpus=10, mem=10))
    by_cpu, by_mem = Client("*", FrameworkId("c")), Client("*", FrameworkId("m"))
    for client, resources in ((by_cpu, Resources.of(cpus=2)), (by_mem, Resources.of(mem=3))):
        shares.enter(client)
        shares.charge(client, resources)
    assert list(shares.order()) == [by_cpu, by_mem]
    shares.grow(Resources.of(mem=90))
    assert list(shares.order()) == [by_mem, by_cpu]
    shares.grow(Resources.of(mem=90), -1)
    assert list(shares.order()) == [by_cpu, by_mem]


class Recomputed:
    """The same ledger without any memory: the order is worked out from all that was ever done."""

    def __init__(self) -> None:
        self.total: dict[str, int] = {}
        self.used: dict[Client, dict[str, int]] = {}
        self.served: Counter[str | Client] = Counter()
        self.silent: set[Client] = set()

    def share(self, *clients: Client) -> int:
        sums: Counter[str] = Counter()
        for client in clients:
            sums.update(self.used[client])
        return dominant_share(dict(sums), self.total)

    def order(self) -> list[Client]:
        competing = [client for client in self.used if client not in self.silent]

        def rank(client: Client) -> tuple[tuple[int, int, str], tuple[int, int, str]]:
            of_role = [other for other in self.used if other.role == client.role]
            return (
                (self.share(*of_role), self.served[client.role], client.role),
                (self.share(client), self.served[client], client.framework_id),
            )

        return sorted(competing, key=rank)


moves = st.lists(
    st.one_of(
        st.tuples(st.just("grow"), amounts),
        st.tuples(st.just("charge"), st.tuples(clients, amounts)),
        st.tuples(st.just("refund"), st.integers(0, 30)),
        st.tuples(st.just("compete"), st.tuples(clients, st.booleans())),
        st.tuples(st.just("look"), st.none()),
    ),
    max_size=30,
)


@given(moves)
def test_the_order_that_is_kept_is_the_one_that_is_worked_out(told: list[tuple[str, Any]]) -> None:
    """Whatever grew, was charged, refunded or fell silent, and whenever one looked: the order is exact."""
    shares, model = Shares(), Recomputed()
    standing: list[tuple[Client, Resources]] = []
    for move, what in told:
        if move == "grow":
            shares.grow(what)
            _add(model.total, what, 1)
        elif move == "charge":
            client, resources = what
            shares.enter(client)
            shares.charge(client, resources)
            _add(model.used.setdefault(client, {}), resources, 1)
            model.served.update((client, client.role))
            standing.append(what)
        elif move == "refund" and standing:
            client, resources = standing.pop(what % len(standing))
            shares.refund(client, resources)
            _add(model.used[client], resources, -1)
        elif move == "compete":
            client, whether = what
            shares.compete(client, whether)
            if client in model.used:
                (model.silent.discard if whether else model.silent.add)(client)
        elif move == "look":
            assert list(shares.order()) == model.order()
    assert list(shares.order()) == model.order()


def _add(sums: dict[str, int], resources: Resources, sign: int) -> None:
    for key, amount in resources.items():
        assert isinstance(amount, int)
        sums[key.name] = sums.get(key.name, 0) + sign * amount
