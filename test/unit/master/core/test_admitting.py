"""What a framework lets through: offer constraints (mesos-v1 3.1) and its least amounts."""

from __future__ import annotations

import pytest
from support.stage import Stage, task

from edgerm.core.constraints import NO_CONSTRAINTS, Constraint, Constraints, Test, any_of
from edgerm.core.scheduler import Error, Minimum
from edgerm_master.core.effects import CloseStream
from edgerm_master.core.explain import Code, explain_framework
from edgerm_master.core.master import Master

IN_A = {"*": any_of([["zone=a"]])}


def reasons(stage: Stage, name: str) -> list[tuple[Code, str | None]]:
    """The codes that `explain` has for a framework, with the agents."""
    found = explain_framework(stage.master.world, stage.schedulers[name].framework_id)
    return [(why.code, why.agent_id) for why in found]


def test_only_agents_that_meet_the_constraints_are_offered(stage: Stage) -> None:
    """The others are not, whatever is free there, and `explain` says what they do not meet."""
    stage.join("a1", zone="a")
    stage.join("a2", zone="b")
    stage.subscribe("f1", constraints=IN_A)
    stage.settle()
    assert [offer.agent_id for offer in stage.hear_offers("f1")] == ["a1"]
    assert reasons(stage, "f1") == [(Code.OFFERED, "a1"), (Code.CONSTRAINED, "a2")]
    [_, why] = explain_framework(stage.master.world, stage.schedulers["f1"].framework_id)
    assert why.message == "a2 does not meet the framework's offer constraints for role '*': zone=a"


def test_constraints_are_of_one_role(stage: Stage) -> None:
    """A role without constraints takes offers of every agent."""
    stage.join("a1", zone="b")
    stage.subscribe("f1", "a", "b", constraints={"a": any_of([["zone=a"]])})
    assert [offer.role for offer in stage.hear_offers("f1")] == ["b"]


def test_what_one_does_not_take_goes_to_another(stage: Stage) -> None:
    """Constraints of one framework leave the agent to the others."""
    stage.subscribe("f1", constraints=IN_A)
    stage.subscribe("f2")
    stage.join("a1", zone="b")
    assert stage.hear_offers("f1") == []
    assert [offer.agent_id for offer in stage.hear_offers("f2")] == ["a1"]


def test_an_agent_that_comes_back_with_other_attributes_is_offered(stage: Stage) -> None:
    """A new inventory is looked at anew, also one that was refused for long."""
    stage.join("a1", zone="b")
    stage.subscribe("f1", constraints=IN_A)
    stage.subscribe("f2")
    stage.decline("f2", refuse_s=10_000.0)
    stage.join("a1", zone="a")
    assert [offer.agent_id for offer in stage.hear_offers("f1")] == ["a1"]
    stage.decline("f1", refuse_s=10_000.0)
    stage.settle()
    assert stage.hear_offers("f2")[-1].agent_id == "a1", "the refusal was of an agent in zone b"


def test_a_new_subscription_brings_its_own_constraints(stage: Stage) -> None:
    """Those of before do not outlive it."""
    stage.join("a1", zone="b")
    stage.subscribe("f1", constraints=IN_A)
    assert stage.hear_offers("f1") == []
    stage.subscribe("f1", constraints=NO_CONSTRAINTS)
    assert [offer.agent_id for offer in stage.hear_offers("f1")] == ["a1"]


def test_constraints_for_a_foreign_role_are_refused(stage: Stage) -> None:
    """The stream says ERROR and ends."""
    [error] = stage.subscribe("f1", "web", constraints={"db": any_of([["zone=a"]])})
    assert isinstance(error, Error)
    assert "'db' is not one of the framework's roles" in error.message
    assert [effect for effect in stage.log if isinstance(effect, CloseStream)]


def test_the_matcher_is_the_one_that_was_given(stage: Stage) -> None:
    """The core matches regular expressions with what its program gave it, and with nothing else."""
    asked: list[tuple[str, str]] = []

    def matcher(regex: str, text: str) -> bool:
        asked.append((regex, text))
        return True

    stage.master = Master("m0", bytes(16), stage.settings, matcher)
    stage.join("a1", zone="b")
    stage.subscribe("f1", constraints={"*": Constraints(((Constraint("zone", Test.MATCHES, "("),),))})
    assert [offer.agent_id for offer in stage.hear_offers("f1")] == ["a1"]
    assert set(asked) == {("(", "b")}


# --- least amounts ----------------------------------------------------------------------------------------------


def minimum(*amounts: dict[str, int], role: str = "*") -> tuple[Minimum, ...]:
    """One of these amounts must be there."""
    return (Minimum(role, tuple(tuple(amount.items()) for amount in amounts)),)


@pytest.mark.parametrize(
    ("resources", "amounts", "offered"),
    [
        ("cpus:2;mem:512", [{"cpus": 2000}], True),
        ("cpus:2;mem:512", [{"cpus": 2001}], False),
        ("cpus:2;mem:512", [{"cpus": 4000}, {"mem": 512_000}], True),
        ("cpus:2;mem:512", [{"cpus": 2000, "mem": 1024_000}], False),
        ("cpus:2;ports:[1-10]", [{"ports": 10_000}], True),
        ("cpus:2;ports:[1-10]", [{"ports": 11_000}], False),
        ("cpus:2;names:{a,b}", [{"names": 2000}], True),
        ("cpus:2;mem:512", [{"gpus": 1000}], False),
        ("cpus:0.001;mem:1", [{"cpus": 1}], True),
        ("disk:10", [{"disk": 1000}], True),
        ("cpus:0.001;mem:1", [], True),
    ],
)
def test_a_framework_says_what_is_too_little(
    stage: Stage, resources: str, amounts: list[dict[str, int]], offered: bool
) -> None:
    """One of its amounts must be there whole, ranges and sets by how many they hold; else nothing is offered."""
    stage.join("a1", resources)
    stage.subscribe("f1", minimums=minimum(*amounts))
    assert bool(stage.hear_offers("f1")) is offered


def test_least_amounts_are_of_one_role(stage: Stage) -> None:
    """Another role, and another framework, are offered as ever."""
    stage.join("a1", "cpus:2;mem:512")
    stage.subscribe("f1", "a", "b", minimums=minimum({"cpus": 4000}, role="a"))
    assert [offer.role for offer in stage.hear_offers("f1")] == ["b"]


def test_crumbs_go_only_to_who_wants_them(stage: Stage) -> None:
    """What is below the usual bound is offered to the framework that asked for less, once, and it can use it."""
    stage.join("a1", "cpus:0.005;mem:1")
    stage.subscribe("f1")
    stage.subscribe("f2", minimums=minimum({"cpus": 5}))
    assert stage.hear_offers("f1") == []
    [offer] = stage.hear_offers("f2")
    stage.accept("f2", task("t1", "a1", "cpus:0.005;mem:1"))
    stage.settle()
    assert stage.hear_offers("f2") == [] and offer.agent_id == "a1"


def test_explain_says_that_it_is_too_little(stage: Stage) -> None:
    """With a code of its own."""
    stage.join("a1", "cpus:2;mem:512")
    stage.subscribe("f1", minimums=minimum({"cpus": 4000}))
    assert reasons(stage, "f1") == [(Code.TOO_LITTLE, "a1")]
