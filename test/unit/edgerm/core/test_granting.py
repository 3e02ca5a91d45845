"""From claims and an offer to a task with devices."""

from __future__ import annotations

from dataclasses import replace

from edgerm.core.alternatives import Alternative, resolve, undecided
from edgerm.core.claims import Claim, Expression, Granted, Operator
from edgerm.core.devices import Device, DeviceClass, Inventory, resources_of
from edgerm.core.granting import Fit, fit, grant, unclaimable
from edgerm.core.ids import AgentId, TaskId
from edgerm.core.matching import Mismatch
from edgerm.core.resources import Reservation, ResourceKey, Resources, parse
from edgerm.core.scheduler import AgentSpec, TaskSpec

CORE, SHM = "siemens.com/isolated_core", "siemens.com/shared_memory"
DEVICES = (*(Device(CORE, f"cpu{number}") for number in (4, 2, 6)), Device(SHM, "frames", shared=True))
CLASSES = (DeviceClass(CORE), DeviceClass(SHM, shared=True))
AGENT = AgentSpec("host", inventory=Inventory(CLASSES, DEVICES, 7))
OFFER = parse("cpus:4") + resources_of(DEVICES)
TASK = TaskSpec(TaskId("t"), AgentId("a"), parse("cpus:1"), claims=(Claim("cores", CORE, 2), Claim("m", SHM)))


def test_a_task_gets_its_devices() -> None:
    """In `granted`, by claim, with the generation; and among its resources, as the offer has them."""
    found = grant(TASK, OFFER, AGENT)
    assert found.granted == (Granted("cores", CORE, ("cpu4", "cpu2")), Granted("m", SHM, ("frames",), shared=True))
    assert found.resources == parse(f"cpus:1;{CORE}:{{cpu2,cpu4}};{SHM}<SHARED>:{{frames}}")
    assert (found.generation, found.fault) == (7, "")
    assert OFFER.covers(found.resources)


def test_two_tasks_of_one_offer() -> None:
    """What the first has the second cannot, but for shared ones; it is told what there was."""
    left = OFFER - grant(TASK, OFFER, AGENT).resources
    second = grant(TASK, left, AGENT)
    assert second.resources == TASK.resources
    assert second.fault == f"claim 'cores' of class {CORE}: 2 exclusive asked for; of 3 there is 1 free"
    assert grant(replace(TASK, claims=(Claim("m", SHM),)), left, AGENT).granted[0].ids == ("frames",)


def test_tasks_that_stay_as_they_are() -> None:
    """Without claims, with a fault, or granted already."""
    granted = grant(TASK, OFFER, AGENT)
    for task in (replace(TASK, claims=()), replace(TASK, fault="no"), granted):
        assert grant(task, OFFER, AGENT) is task


def test_what_a_task_names_itself_is_not_given_twice() -> None:
    """Items that stand in its resources are its own beside those that it claims."""
    task = replace(TASK, resources=parse(f"cpus:1;{CORE}:{{cpu4}}"))
    assert grant(task, OFFER, AGENT).granted[0].ids == ("cpu2", "cpu6")


def test_reserved_devices_keep_their_reservation() -> None:
    """They are taken under the key that the offer has them by; revocable ones are not there."""
    key = ResourceKey(CORE, (Reservation("ops"),))
    left = Resources(
        {
            key: frozenset(["cpu2"]),
            ResourceKey(CORE): frozenset(["cpu6"]),
            ResourceKey(CORE, revocable=True): frozenset(["cpu4"]),
        }
    )
    found = fit((Claim("c", CORE, 2),), left, AGENT)
    assert isinstance(found, Fit)
    assert found.granted[0].ids == ("cpu2", "cpu6")
    assert found.resources == Resources({key: frozenset(["cpu2"]), ResourceKey(CORE): frozenset(["cpu6"])})
    assert isinstance(fit((Claim("c", CORE, 3),), left, AGENT), Mismatch)


def test_devices_that_cannot_be_had_by_now() -> None:
    """An offer of before may still name a device that is in quarantine since."""
    ill = replace(AGENT, inventory=Inventory(CLASSES, (replace(DEVICES[0], quarantine="busy"), *DEVICES[1:]), 8))
    assert grant(TASK, OFFER, ill).granted[0].ids == ("cpu2", "cpu6")


def test_an_alternative_whose_claims_do_not_fit_is_passed_over() -> None:
    """The first build that also gets its devices is taken, with them."""
    greedy = replace(TASK, claims=(Claim("cores", CORE, 4),))
    task = undecided(TASK, (Alternative("greedy", greedy), Alternative("modest", replace(TASK, alternative="modest"))))
    found = resolve(task, OFFER, AGENT, AgentId("a"))
    assert (found.alternative, found.granted[0].ids) == ("modest", ("cpu4", "cpu2"))
    assert grant(found, OFFER, AGENT) is found
    fault = resolve(undecided(TASK, (Alternative("greedy", greedy),)), OFFER, AGENT, AgentId("a")).fault
    assert fault.startswith(f"no alternative fits: greedy: claim 'cores' of class {CORE}: 4 exclusive asked for")


def test_classes_that_an_agent_has_not() -> None:
    """Only what is mandatory and counts something tells against the agent."""
    missing = unclaimable((Claim("x", "a/b"),), AGENT)
    assert missing is not None
    assert (missing.type, missing.problem) == ("a/b", False)
    for claim in (Claim("x", "a/b", 0), Claim("x", "a/b", optional=True), Claim("x", CORE, 1000)):
        assert unclaimable((claim,), AGENT) is None
    gone = replace(AGENT, inventory=Inventory((DeviceClass(CORE, problem="its plugin is gone"),)))
    missing = unclaimable((Claim("x", CORE),), gone)
    assert missing is not None
    assert missing.problem
    assert missing.reason.endswith("nothing of it can be claimed: its plugin is gone")


def test_a_claim_that_is_wrong_for_a_class() -> None:
    """A filter that cannot be asked of the metadata, and one that is ambiguous, is never met, whatever is free."""
    text = DeviceClass(CORE), Device(CORE, "cpu2", metadata='{"kind":"fast"}')
    agent = replace(AGENT, inventory=Inventory((text[0],), (text[1],)))
    wrong = unclaimable((Claim("x", CORE, expressions=(Expression("kind", Operator.CONTAINS, '["fast"]'),)),), agent)
    assert wrong is not None
    assert wrong.problem
    assert "'x'" in wrong.reason
    memories = tuple(Device(SHM, name, shared=True) for name in ("a", "b"))
    agent = replace(AGENT, inventory=Inventory((DeviceClass(SHM, shared=True, unambiguous=True),), memories))
    ambiguous = unclaimable((Claim("m", SHM),), agent)
    assert ambiguous is not None
    assert ambiguous.problem
