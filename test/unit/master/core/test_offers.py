"""Offers: used once, refused, rescinded, expired; filters and what wakes them (mesos-v1 6.4)."""

from __future__ import annotations

import pytest
from support.stage import Stage, task

from edgerm.core.ids import AgentId, OfferId
from edgerm.core.link import Join
from edgerm.core.resources import Reservation, ResourceKey, Resources, parse
from edgerm.core.scheduler import Accept, AgentSpec, Decline, Offers, Rescind, Revive, Suppress
from edgerm.core.tasks import Reason, TaskState
from edgerm_master.core.allocating import OFFERS_PER_EVENT, SLICE_AGENTS
from edgerm_master.core.effects import Tell, TellSoon
from edgerm_master.core.events import Tick
from edgerm_master.core.offers import refusal_s
from edgerm_master.core.world import Settings

ALL = Resources.of(cpus=4, mem=1024)
NAN = float("nan")


def decline(stage: Stage, refuse_s: float = 5.0, name: str = "f1") -> None:
    """Give back all that the framework holds."""
    stage.call(name, Decline(tuple(stage.offers(name)), refuse_s))


def test_an_offer_is_one_agent_one_role_one_framework(stage: Stage) -> None:
    """What is free on an agent is offered whole to one framework, with the agent's description."""
    stage.join("a1")
    stage.subscribe("f1", "web")
    [offer] = stage.hear_offers("f1")
    assert (offer.agent_id, offer.role, offer.resources) == ("a1", "web", ALL)
    assert offer.framework_id == stage.schedulers["f1"].framework_id
    assert offer.agent.hostname == "a1.local"


def test_an_outstanding_offer_is_exclusive(pair: Stage) -> None:
    """While one framework holds an agent's resources, no other is offered them."""
    pair.subscribe("f2")
    assert pair.hear_offers("f2") == []


def test_an_offer_is_used_once(pair: Stage) -> None:
    """A second ACCEPT with the same offer is TASK_DROPPED, whatever the first one left."""
    [offer_id] = pair.offers("f1")
    for name in ("t1", "t2"):
        pair.call("f1", Accept((offer_id,), (task(name, "a1"),)))
    [status] = pair.hear_updates("f1")
    assert (status.task_id, status.state, status.reason) == ("t2", TaskState.DROPPED, Reason.INVALID_OFFERS)
    assert [key.task_id for key in pair.master.tasks] == ["t1"]


def test_an_offer_of_another_framework_is_none_of_ours(pair: Stage) -> None:
    """A framework can neither use nor decline what another holds."""
    pair.subscribe("f2")
    pair.hear("f2")
    [offer_id] = pair.offers("f1")
    pair.call("f2", Decline((offer_id,)))
    pair.call("f2", Accept((offer_id,), (task("t1", "a1"),)))
    assert [status.state for status in pair.hear_updates("f2")] == [TaskState.DROPPED]
    assert pair.offers("f1") == [offer_id]


def test_unknown_and_repeated_declines_do_nothing(pair: Stage) -> None:
    """Ids that are not outstanding, or named twice, are ignored."""
    [offer_id] = pair.offers("f1")
    pair.call("f1", Decline((OfferId("x"), offer_id, offer_id), 10))
    pair.call("f1", Decline((offer_id,), 0))
    assert pair.offers("f1") == []
    pair.pass_time(9)
    assert pair.hear("f1") == []


# --- filters ----------------------------------------------------------------------------------------------------


def test_the_same_or_less_is_withheld_until_the_filter_ends(pair: Stage) -> None:
    """After a decline the agent is offered again when `refuse_seconds` have passed, not before."""
    decline(pair, 10)
    pair.pass_time(9.9)
    assert pair.hear_offers("f1") == []
    pair.pass_time(0.2)
    assert [offer.resources for offer in pair.hear_offers("f1")] == [ALL]


def test_less_than_what_was_refused_is_withheld(pair: Stage) -> None:
    """Another framework takes a part: what is left is still withheld from the one that refused all."""
    decline(pair, 100)
    pair.subscribe("f2")
    pair.accept("f2", task("t1", "a1"), refuse_s=200)
    assert pair.hear_offers("f1") == []


def test_more_than_what_was_refused_is_offered(pair: Stage) -> None:
    """A filter on a part does not withhold more: when a task ends, the larger whole is offered."""
    pair.run("f1", "a1", "t1", "cpus:1;mem:64")
    pair.pass_time(6)
    [offer] = pair.hear_offers("f1")
    assert offer.resources == parse("cpus:3;mem:960")
    decline(pair, 1000)
    pair.report("a1", "t1", TaskState.FINISHED)
    assert [offer.resources for offer in pair.hear_offers("f1")] == [ALL]


def test_a_filter_is_for_one_framework_role_and_agent(stage: Stage) -> None:
    """Refusing a1 for role x leaves a1 for role y, other agents, and other frameworks."""
    stage.join("a1")
    stage.subscribe("f1", "x", "y")
    [offer] = stage.hear_offers("f1")
    decline(stage, 1000)
    [other] = stage.hear_offers("f1")
    assert {offer.role, other.role} == {"x", "y"}
    decline(stage, 1000)
    assert stage.hear_offers("f1") == []
    stage.join("a2")
    assert [offer.agent_id for offer in stage.hear_offers("f1")] == ["a2"]
    stage.subscribe("f2")
    assert [offer.agent_id for offer in stage.hear_offers("f2")] == ["a1"]


@pytest.mark.parametrize(
    ("asked_s", "given_s"),
    [
        (5.0, 5.0),
        (0.0, 0.0),
        (-1.0, 5.0),
        (NAN, 5.0),
        (float("-inf"), 5.0),
        (1e9, 31536000.0),
        (float("inf"), 31536000.0),
    ],
)
def test_odd_refusals_have_a_meaning(asked_s: float, given_s: float) -> None:
    """Negative and not-a-number mean the default of 5 s, more than a year a year, 0 no filter."""
    assert refusal_s(asked_s) == given_s


def test_a_decline_lasts_at_least_one_allocation_interval(pair: Stage) -> None:
    """A decline with 0 s is not answered with the same offer at once, or both would spin."""
    decline(pair, 0)
    assert pair.hear("f1") == []
    pair.pass_time(1)
    assert len(pair.hear_offers("f1")) == 1


def test_leftovers_of_a_launch_are_declined_with_the_filter(pair: Stage) -> None:
    """What the tasks leave comes back after `refuse_seconds`."""
    pair.accept("f1", task("t1", "a1", "cpus:1;mem:24"), refuse_s=20)
    pair.pass_time(19)
    assert pair.hear_offers("f1") == []
    pair.pass_time(2)
    assert [offer.resources for offer in pair.hear_offers("f1")] == [parse("cpus:3;mem:1000")]


def test_leftovers_without_a_filter_are_offered_at_once(pair: Stage) -> None:
    """With 0 s the rest of the offer is offered again in the same turn."""
    pair.accept("f1", task("t1", "a1", "cpus:1;mem:24"), refuse_s=0)
    assert [offer.resources for offer in pair.hear_offers("f1")] == [parse("cpus:3;mem:1000")]


def test_an_accept_without_tasks_is_a_decline(pair: Stage) -> None:
    """ACCEPT with nothing to launch gives the offers back with the filter."""
    pair.call("f1", Accept(tuple(pair.offers("f1")), (), 30))
    pair.pass_time(29)
    assert pair.hear("f1") == []
    pair.pass_time(2)
    assert len(pair.hear_offers("f1")) == 1


def test_revive_clears_filters_and_suppression(pair: Stage) -> None:
    """After REVIVE everything is offered again, also for roles that were suppressed."""
    decline(pair, 1000)
    pair.call("f1", Suppress())
    pair.call("f1", Revive())
    assert len(pair.hear_offers("f1")) == 1


def test_revive_of_one_role_leaves_the_others(stage: Stage) -> None:
    """REVIVE with roles clears the filters of these roles only."""
    stage.join("a1")
    stage.subscribe("f1", "x", "y")
    for _ in range(2):
        decline(stage, 1000)
    stage.hear("f1")
    stage.call("f1", Revive(("y",)))
    assert [offer.role for offer in stage.hear_offers("f1")] == ["y"]


def test_a_suppressed_role_gets_no_offers(pair: Stage) -> None:
    """SUPPRESS keeps outstanding offers and brings no new ones until REVIVE."""
    pair.call("f1", Suppress())
    assert len(pair.offers("f1")) == 1
    decline(pair, 1)
    pair.live(100)
    assert pair.hear("f1") == []
    pair.call("f1", Revive(("*",)))
    assert len(pair.hear_offers("f1")) == 1


def test_a_lost_agent_takes_its_filters_along(pair: Stage) -> None:
    """An agent that was away is offered again although it had been refused for long."""
    decline(pair, 10_000)
    pair.pass_time(76)
    pair.hear("f1")
    pair.join("a1")
    assert len(pair.hear_offers("f1")) == 1


# --- several offers, and their end ------------------------------------------------------------------------------


def test_several_offers_of_one_agent_are_used_together(pair: Stage) -> None:
    """A task may take more than any single offer has, as long as their sum covers it."""
    pair.run("f1", "a1", "t1", "cpus:3;mem:900")
    pair.pass_time(6)
    pair.report("a1", "t1", TaskState.FINISHED)
    assert len(pair.offers("f1", "a1")) == 2
    pair.accept("f1", task("t2", "a1", "cpus:4;mem:1024"))
    pair.beats()
    assert pair.state("f1", "t2") is TaskState.STAGING
    assert pair.offers("f1") == []


def test_an_unanswered_offer_is_rescinded(pair: Stage) -> None:
    """After the offer timeout the offer is void, its framework is told, and another is served first."""
    pair.subscribe("f2")
    pair.hear("f2")
    [offer_id] = pair.offers("f1")
    for _ in range(30):
        pair.beat("a1")
        pair.pass_time(10)
    assert pair.hear("f1") == [Rescind(offer_id)]
    assert len(pair.hear_offers("f2")) == 1


def test_the_offer_timeout_is_the_operators(stage: Stage) -> None:
    """The setting says how long an offer may be sat on."""
    stage = Stage(Settings(offer_timeout_s=20))
    stage.join("a1")
    stage.subscribe("f1")
    stage.pass_time(19)
    assert not [event for event in stage.hear("f1") if isinstance(event, Rescind)]
    stage.pass_time(2)
    assert [event for event in stage.hear("f1") if isinstance(event, Rescind)]


def test_offers_of_a_lost_agent_are_rescinded(pair: Stage) -> None:
    """An agent that falls silent takes its offers along."""
    [offer_id] = pair.offers("f1")
    pair.pass_time(76)
    assert Rescind(offer_id) in pair.hear("f1")
    assert pair.offers("f1") == []


def test_offers_of_an_agent_that_joins_anew_are_rescinded(pair: Stage) -> None:
    """A new incarnation may have another inventory: old offers are void, new ones are made from it."""
    [offer_id] = pair.offers("f1")
    pair.join("a1", "cpus:2;mem:512")
    events = pair.hear("f1")
    assert events[0] == Rescind(offer_id)
    assert [offer.resources for event in events if isinstance(event, Offers) for offer in event.offers] == [
        parse("cpus:2;mem:512")
    ]


def test_used_offers_are_not_rescinded(pair: Stage) -> None:
    """A framework hears no RESCIND for what it accepted or declined."""
    used = pair.offers("f1")
    pair.accept("f1", task("t1", "a1"))
    pair.live(10)
    used += pair.offers("f1")
    decline(pair, 1000)
    pair.live(700)
    pair.pass_time(100)
    assert len(used) == 2
    assert not [event for event in pair.hear("f1") if isinstance(event, Rescind) and event.offer_id in used]


# --- how many, how small ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("resources", "made"),
    [("cpus:0.009;mem:31.999", 0), ("cpus:0.01;mem:1", 1), ("cpus:0.001;mem:32", 1), ("disk:1000", 0)],
)
def test_crumbs_are_not_offered(stage: Stage, resources: str, made: int) -> None:
    """An offer below 0.01 cpus and 32 MB of memory is not made."""
    stage.join("a1", resources)
    stage.subscribe("f1")
    assert len(stage.hear_offers("f1")) == made


def test_a_sweep_is_done_in_slices(stage: Stage) -> None:
    """One turn looks at a few agents, and the call itself at none; the turns follow each other without waiting."""
    for index in range(2 * SLICE_AGENTS + 7):
        stage.join(f"a{index}")
    stage.subscribe("f1")
    sizes = [len(stage.hear_offers("f1"))]
    while stage.master.due_s() == stage.now_s:
        stage.happen(Tick())
        sizes.append(len(stage.hear_offers("f1")))
    assert sizes == [0, SLICE_AGENTS, SLICE_AGENTS, 7]


def test_an_offers_event_is_bounded(stage: Stage) -> None:
    """More than 100 offers at once come in several events: here of agents with parts reserved for eight roles."""
    roles = tuple("stuvwxyz")
    amounts = {ResourceKey("cpus", (Reservation(role),)): 2000 for role in roles}
    for index in range(SLICE_AGENTS):
        spec = AgentSpec("host", resources=Resources(amounts))
        stage.send_join(Join(AgentId(f"a{index}"), 1, spec))
    stage.subscribe("f1", *roles)
    sizes = [len(event.offers) for event in stage.hear("f1") if isinstance(event, Offers)]
    assert sizes == [OFFERS_PER_EVENT, 8 * SLICE_AGENTS - OFFERS_PER_EVENT]


def test_offers_promise_nothing_and_may_overtake(pair: Stage) -> None:
    """OFFERS and RESCIND leave without waiting for the disk: their effect is volatile."""
    decline(pair, 1)
    pair.pass_time(400)
    told = [effect for effect in pair.log if isinstance(effect, (Tell, TellSoon))]
    volatile = [effect for effect in told if isinstance(effect.event, (Offers, Rescind))]
    assert len(volatile) > 2
    assert all(isinstance(effect, TellSoon) and effect.volatile for effect in volatile)
