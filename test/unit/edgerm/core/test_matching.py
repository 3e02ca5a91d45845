"""Who gets which device: against a reference that tries everything."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations, permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgerm.core import metadata
from edgerm.core.claims import Claim, Granted, expression
from edgerm.core.devices import Device, DeviceClass, Inventory
from edgerm.core.filters import evaluate
from edgerm.core.matching import Match, Mismatch, match

CORE = "siemens.com/isolated_core"
SHM = "siemens.com/shared_memory"


def device(device_id: str, name: str = CORE, *, shared: bool = False, **known: object) -> Device:
    """One with this metadata."""
    return Device(name, device_id, shared, metadata=metadata.to_text(known))


def claim(name: str = CORE, count: int = 1, *, of: str = CORE, optional: bool = False, **wanted: object) -> Claim:
    """One whose filters ask for these values of these keys."""
    filters = tuple(expression(key, "In", values) for key, values in wanted.items())
    return Claim(name, of, count, filters, optional=optional)


def solve(claims: Sequence[Claim], devices: Sequence[Device], *classes: DeviceClass) -> Match | Mismatch:
    """With all devices free."""
    inventory = Inventory(classes or (DeviceClass(CORE),), tuple(devices))
    return match(claims, inventory, {(one.name, one.id) for one in devices})


def ids(found: Match | Mismatch) -> dict[str, tuple[str, ...]]:
    """What each claim has."""
    assert isinstance(found, Match), found
    return {granted.claim: granted.ids for granted in found.granted}


def reason(found: Match | Mismatch) -> str:
    """Why not."""
    assert isinstance(found, Mismatch), found
    return found.reason


# --- told cases -------------------------------------------------------------------------------------------------------


def test_the_preferred_ones_go_first() -> None:
    """Without filters a claim has the first devices of the inventory."""
    devices = [device("cpu4"), device("cpu2"), device("cpu6")]
    assert ids(solve([claim("a", 2)], devices)) == {"a": ("cpu4", "cpu2")}


def test_filters_never_make_a_set_fail_that_fits() -> None:
    """The claim that takes any core leaves the only fast one to the claim that needs it, wherever that stands."""
    devices = [device("p0", kind="fast"), device("e0", kind="slow")]
    for order in permutations([claim("any"), claim("fast", kind=["fast"])]):
        assert ids(solve(order, devices)) == {"any": ("e0",), "fast": ("p0",)}


def test_a_chain_of_claims_moves_on() -> None:
    """Claims hand devices on through one another, as far as it takes."""
    devices = [device(f"d{number}", k=number) for number in range(5)]
    claims = [claim(f"c{number}", k=[number, number + 1]) for number in range(4)]
    assert ids(solve([*claims, claim("first", k=[0])], devices)) == {
        **{f"c{number}": (f"d{number + 1}",) for number in range(4)},
        "first": ("d0",),
    }


def test_performance_cores_before_efficiency_cores_with_filters() -> None:
    """The devices that are given are the first in order that can serve, also where claims compete."""
    devices = [device("p0", a=1), device("p1", a=2), device("e0", a=1), device("e1", a=2)]
    assert ids(solve([claim("x", a=[2]), claim("y")], devices)) == {"x": ("p1",), "y": ("p0",)}


def test_a_claim_of_none() -> None:
    """Zero is a number: such a claim has nothing, and its class need not be there."""
    assert ids(solve([claim("none", 0, of="no.such/class"), claim("a")], [device("d")])) == {"none": (), "a": ("d",)}


@pytest.mark.parametrize(("there", "mandatory", "optional"), [(3, 2, 1), (2, 2, 0), (5, 2, 3), (4, 2, 0)])
def test_optional_claims_get_all_or_nothing(there: int, mandatory: int, optional: int) -> None:
    """With n devices for m and o: all, or m; never some of the optional ones."""
    count = optional or 3
    claims = [claim("o", count, optional=True), claim("m", mandatory)]
    found = ids(solve(claims, [device(f"d{number}") for number in range(there)]))
    assert (len(found["m"]), len(found["o"])) == (mandatory, optional)
    assert found["m"] == tuple(f"d{number}" for number in range(mandatory)), "mandatory ones come first"


def test_several_optional_claims_count_as_one() -> None:
    """Two optional claims of one each are skipped together where one device is left."""
    claims = [claim("o1", optional=True), claim("o2", optional=True), claim("m")]
    assert ids(solve(claims, [device("d0"), device("d1")])) == {"o1": (), "o2": (), "m": ("d0",)}
    assert ids(solve(claims, [device(f"d{number}") for number in range(3)]))["o2"]


def test_optional_claims_of_one_class_do_not_hang_on_another() -> None:
    """Each class has its own rule."""
    claims = [claim("gpu", of="nvidia.com/gpu", optional=True), claim("core", optional=True)]
    assert ids(solve(claims, [device("d0")])) == {"gpu": (), "core": ("d0",)}


def test_too_few() -> None:
    """The words name the claim, the class, what was asked for and what there was."""
    inventory = Inventory((DeviceClass(CORE),), tuple(device(f"d{number}", k=number) for number in range(4)))
    found = match([claim("x", 2, k=[1])], inventory, {(CORE, "d0"), (CORE, "d1")})
    assert reason(found) == (
        f"claim 'x' of class {CORE}: 2 exclusive asked for; of 4 there are 2 free, of which 1 passes its filters"
    )
    assert isinstance(found, Mismatch)
    assert found.type == CORE


def test_too_few_because_of_another_claim() -> None:
    """Where there would be enough for the claim alone the others are named."""
    claims = [claim("a", k=[1]), claim("b", k=[1]), claim("c", k=[2])]
    found = solve(claims, [device("d1", k=1), device("d2", k=2)])
    assert reason(found) == (
        f"claim 'b' of class {CORE}: 1 exclusive asked for; of 2 there are 2 free, of which 1 passes its filters;"
        " these also serve 'a'"
    )


def test_what_cannot_be_had_is_said() -> None:
    """Ill, quarantined and lent devices are counted with their reasons."""
    devices = (replace(device("d0"), problem="it is gone"), replace(device("d1"), quarantine="still mounted"))
    found = match([claim("x")], Inventory((DeviceClass(CORE),), devices), set())
    assert "of 2 there are none free (2 cannot be had: it is gone; still mounted)" in reason(found)


def test_a_class_that_nobody_knows() -> None:
    """A mandatory claim fails and names it, an optional one is skipped."""
    assert reason(solve([claim("x", of="a/b")], [])) == (
        "claim 'x' of class a/b: the agent has no such class of devices"
    )
    assert ids(solve([claim("x", of="a/b", optional=True)], [])) == {"x": ()}


def test_a_class_whose_plugin_is_gone() -> None:
    """As one that nobody knows, with the problem's words, whatever devices are listed."""
    gone = DeviceClass(CORE, problem="its plugin is gone")
    assert reason(solve([claim("x")], [device("d")], gone)) == (
        f"claim 'x' of class {CORE}: nothing of it can be claimed: its plugin is gone"
    )
    assert ids(solve([claim("x", optional=True)], [device("d")], gone)) == {"x": ()}


@pytest.mark.parametrize("pool", [True, False])
def test_an_empty_pool(pool: bool) -> None:
    """A claim on the pool that a class has not is refused in words."""
    found = solve([replace(claim("x"), shared=pool)], [device("d", shared=not pool)])
    word = "shared" if pool else "exclusive"
    assert reason(found) == f"claim 'x' of class {CORE}: 1 {word} asked for; there is no {word} one to be had here"


def test_the_pool_is_the_classes_unless_the_claim_says() -> None:
    """What a claim leaves open the class decides."""
    devices = [device("own"), device("ours", shared=True)]
    for default in (True, False):
        known = DeviceClass(CORE, shared=default)
        assert ids(solve([claim("x")], devices, known))["x"] == (("ours",) if default else ("own",))
        for said in (True, False):
            [granted] = solved(solve([replace(claim("x"), shared=said)], devices, known))
            assert (granted.ids, granted.shared) == ((("ours",) if said else ("own",)), said)


def solved(found: Match | Mismatch) -> tuple[Granted, ...]:
    """All that is granted."""
    assert isinstance(found, Match), found
    return found.granted


def test_a_shared_device_serves_several_claims() -> None:
    """It is not used up, but one claim does not have it twice."""
    known, devices = DeviceClass(SHM, shared=True), [device("m", SHM, shared=True)]
    assert ids(solve([claim("a", of=SHM), claim("b", of=SHM)], devices, known)) == {"a": ("m",), "b": ("m",)}
    assert "2 shared asked for; of 1 there is 1 free" in reason(solve([claim("a", 2, of=SHM)], devices, known))


def test_an_ambiguous_claim() -> None:
    """Where the class wants to be named exactly, a claim that fits more than it counts is refused, optional or not."""
    known = DeviceClass(SHM, shared=True, unambiguous=True)
    devices = [device("a", SHM, shared=True, labels=["x", "y"]), device("b", SHM, shared=True, labels=["x"])]
    wanted = Claim("m", SHM, 1, (expression("labels", "Contains", ["x"]),))
    for asked in (wanted, replace(wanted, optional=True)):
        assert reason(solve([asked], devices, known)) == (
            f"claim 'm' of class {SHM}: 1 asked for, but 2 pass its filters: 'a', 'b'"
        )
    assert ids(solve([replace(wanted, count=2)], devices, known)) == {"m": ("a", "b")}
    assert ids(solve([Claim("m", SHM, 1, (expression("labels", "Contains", ["y"]),))], devices, known)) == {"m": ("a",)}


def test_malformed_claims_are_refused_before_any_device() -> None:
    """Whether there are devices or not."""
    for devices in ([], [device("d")]):
        assert "claim 'x'" in reason(solve([claim("x"), claim("x")], devices))
        assert "-1 is no number of devices" in reason(solve([claim("x", -1)], devices))


def test_a_filter_that_cannot_be_asked_names_its_claim() -> None:
    """The table's errors are the claim's, optional or not, and also of devices that others have."""
    wrong = Claim("x", CORE, 1, (expression("k", "Contains", ["a"]),), optional=True)
    inventory = Inventory((DeviceClass(CORE),), (device("d", k="a"),))
    assert reason(match([wrong], inventory, set())).startswith(f"claim 'x' of class {CORE}: Contains cannot be asked")


# --- against brute force ---------------------------------------------------------------------------------------------

CLASS = "c"
FILTERS = [(), (expression("k", "In", [0]),), (expression("k", "In", [0, 1]),), (expression("k", "NotIn", [0]),)]


@st.composite
def problems(draw: st.DrawFn) -> tuple[list[Claim], Inventory, set[tuple[str, str]]]:
    """A few claims of one class, and a few devices of which some are free."""
    count = draw(st.integers(0, 6))
    devices = tuple(
        device(f"d{number}", CLASS, shared=draw(st.integers(0, 5)) == 0, k=draw(st.integers(0, 3)))
        for number in range(count)
    )
    claims = [
        Claim(
            f"c{number}",
            CLASS,
            draw(st.integers(0, 3)),
            draw(st.sampled_from(FILTERS)),
            draw(st.sampled_from([None, None, None, False, True])),
            draw(st.booleans()),
        )
        for number in range(draw(st.integers(1, 4)))
    ]
    known = DeviceClass(CLASS, shared=draw(st.integers(0, 4)) == 0)
    free = {(CLASS, one.id) for one in devices if draw(st.integers(0, 5))}
    return claims, Inventory((known,), devices), free


def may_have(asked: Claim, inventory: Inventory, free: set[tuple[str, str]]) -> list[int]:
    """The devices, by number, that would do."""
    shared = inventory.classes[0].shared if asked.shared is None else asked.shared
    return [
        number
        for number, one in enumerate(inventory.devices)
        if (one.name, one.id) in free
        and one.shared == shared
        and all(evaluate(filter_, one.metadata) for filter_ in asked.expressions)
    ]


def ways(claims: Sequence[Claim], inventory: Inventory, free: set[tuple[str, str]]) -> Iterator[tuple[int, ...]]:
    """All that the exclusive claims could have together, and once for each way to serve the shared ones."""
    if not claims:
        yield ()
        return
    shared = {number for number, one in enumerate(inventory.devices) if one.shared}
    for rest in ways(claims[1:], inventory, free):
        for some in combinations(may_have(claims[0], inventory, free), claims[0].count):
            if not (set(some) - shared) & set(rest):
                yield tuple(sorted((set(some) - shared) | set(rest)))


@given(problems())
def test_matching_is_as_trying_everything(problem: tuple[list[Claim], Inventory, set[tuple[str, str]]]) -> None:
    """What can be met is met, what cannot is not; the devices given are the first in order; optional: all or none."""
    claims, inventory, free = problem
    mandatory = [one for one in claims if not one.optional]
    found = match(claims, inventory, free)
    best = min(ways(claims, inventory, free), default=None)
    served = claims if best is not None else mandatory
    if best is None:
        best = min(ways(mandatory, inventory, free), default=None)
    assert isinstance(found, Match) == (best is not None)
    if isinstance(found, Match):
        numbers = {one.id: number for number, one in enumerate(inventory.devices)}
        shared = {one.id for one in inventory.devices if one.shared}
        given_away = []
        for one, granted in zip(claims, found.granted, strict=True):
            had = [numbers[device_id] for device_id in granted.ids]
            assert granted.claim == one.name
            assert len(had) == (one.count if one in served else 0)
            assert had == sorted(set(had) & set(may_have(one, inventory, free)))
            given_away += [device_id for device_id in granted.ids if device_id not in shared]
        assert sorted(numbers[device_id] for device_id in given_away) == list(best or ())


@given(problems())
def test_the_order_of_claims_decides_nothing(problem: tuple[list[Claim], Inventory, set[tuple[str, str]]]) -> None:
    """The same claims in another order are met or not as before, with the same devices in all."""
    claims, inventory, free = problem
    before, after = match(claims, inventory, free), match(claims[::-1], inventory, free)
    assert isinstance(before, Match) == isinstance(after, Match)
    if isinstance(before, Match) and isinstance(after, Match):
        assert sorted(device_id for one in before.granted for device_id in one.ids) == sorted(
            device_id for one in after.granted for device_id in one.ids
        )
    assert match(claims, inventory, free) == before
