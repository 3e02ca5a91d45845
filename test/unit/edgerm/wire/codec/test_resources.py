"""Resource messages and the amounts of the ledger."""

from __future__ import annotations

import math

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from strategies import bags, old_bags, roles

from edgerm.core.errors import Invalid
from edgerm.core.resources import Reservation, ResourceKey, Resources, parse
from edgerm.wire.codec.resources import ENTRIES_MAX, resources_from_messages, resources_to_messages
from edgerm.wire.v1.resources_pb2 import Resource, Value


def scalar(value: float, name: str = "cpus", **more: object) -> Resource:
    return Resource(name=name, type=Value.SCALAR, scalar=Value.Scalar(value=value), **more)  # type: ignore[arg-type]


def reserved(role: str, *, dynamic: bool = False) -> Resource.ReservationInfo:
    kind = Resource.ReservationInfo.DYNAMIC if dynamic else Resource.ReservationInfo.STATIC
    return Resource.ReservationInfo(type=kind, role=role)


def items(*names: str) -> Resource:
    return Resource(name="gpus", type=Value.SET, set=Value.Set(item=names))


@given(bags, st.none() | roles)
def test_every_bag_survives_the_refined_form(bag: Resources, role: str | None) -> None:
    """Whatever the ledger holds is read back unchanged, allocated or not."""
    assert resources_from_messages(resources_to_messages(bag, role=role)) == bag


@given(old_bags)
def test_a_bag_without_refinement_survives_the_old_form(bag: Resources) -> None:
    """Clients without RESERVATION_REFINEMENT get role and reservation, and what they send back is the same bag."""
    messages = resources_to_messages(bag, refined=False)
    assert all(message.HasField("role") and not message.reservations for message in messages)
    assert resources_from_messages(messages) == bag


@given(st.binary(max_size=60))
def test_no_bytes_lead_to_another_error(data: bytes) -> None:
    """A message made of arbitrary bytes is a bag or Invalid."""
    try:
        message = Resource.FromString(data)
    except DecodeError:
        return
    if message.IsInitialized():
        try:
            assert isinstance(resources_from_messages([message]), Resources)
        except Invalid as error:
            assert str(error)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -0.001, 1e300])
def test_what_is_no_amount_is_refused(value: float) -> None:
    """NaN, infinite, negative and absurdly large scalars are Invalid."""
    with pytest.raises(Invalid, match="amount"):
        resources_from_messages([scalar(value)])


def test_scalars_are_exact_thousandths() -> None:
    """0.1 and 0.2 make 0.3 and nothing else."""
    (message,) = resources_to_messages(resources_from_messages([scalar(0.1), scalar(0.2)]))
    assert message.scalar.value == 0.3


def test_ranges_come_sorted_and_coalesced() -> None:
    """Ranges in any order, touching or overlapping, are merged."""
    ranges = [Value.Range(begin=7, end=9), Value.Range(begin=1, end=3), Value.Range(begin=4, end=5)]
    message = Resource(name="ports", type=Value.RANGES, ranges=Value.Ranges(range=ranges))
    assert resources_from_messages([message]) == parse("ports:[1-5,7-9]")


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (items("a", "a"), "twice"),
        (Resource(name="cpus", type=Value.SCALAR), "scalar"),
        (Resource(name="cpus", type=Value.RANGES, scalar=Value.Scalar(value=1)), "ranges"),
        (scalar(1, set=Value.Set(item=["a"])), "no other value"),
        (Resource(name="cpus", type=Value.TEXT), "TEXT"),
        (Resource(name="p", type=Value.RANGES, ranges=Value.Ranges(range=[Value.Range(begin=2, end=1)])), "before"),
        (scalar(1, name=""), "name"),
        (scalar(1, name="x" * 300), "name"),
        (scalar(1, role="a b"), "role"),
        (scalar(1, reservation=Resource.ReservationInfo()), "reservation"),
        (
            scalar(1, role="a", reservations=[reserved("a")]),
            "unset",
        ),
        (scalar(1, reservations=[Resource.ReservationInfo(role="a")]), "STATIC or DYNAMIC"),
        (
            scalar(1, reservations=[reserved("*", dynamic=True)]),
            "reserved",
        ),
    ],
)
def test_a_broken_resource_is_refused_with_the_reason(message: Resource, why: str) -> None:
    """What Mesos refuses is Invalid, and the text says why."""
    with pytest.raises(Invalid, match=why):
        resources_from_messages([message])


def test_one_name_with_two_types_is_refused() -> None:
    """A scalar and a set of the same name do not mix."""
    with pytest.raises(Invalid, match="two types"):
        resources_from_messages([scalar(1, name="gpus"), items("a")])


def test_too_many_entries_are_refused() -> None:
    """The number of entries is bounded."""
    with pytest.raises(Invalid, match="at most"):
        resources_from_messages([scalar(1)] * (ENTRIES_MAX + 1))


def test_a_missing_role_means_unreserved() -> None:
    """A client may leave the role out, and say what the resource is allocated to; both change nothing."""
    plain = Resource(name="cpus", type=Value.SCALAR, scalar=Value.Scalar(value=1))
    allocated = scalar(1, role="*", allocation_info=Resource.AllocationInfo(role="web"))
    assert resources_from_messages([plain]) == resources_from_messages([allocated]) == parse("cpus:1")


def test_both_forms_of_a_static_reservation_are_one_resource() -> None:
    """`role` alone and `reservations` with STATIC name the same amount."""
    new = scalar(1, reservations=[reserved("web")])
    bag = resources_from_messages([scalar(1, role="web"), new])
    assert bag == Resources({ResourceKey("cpus", (Reservation("web"),)): 2000})


def test_a_refined_reservation_has_no_old_form() -> None:
    """Rather than tell half of it, the writer refuses."""
    bag = Resources({ResourceKey("cpus", (Reservation("a"), Reservation("a/b"))): 1})
    with pytest.raises(Invalid, match="RESERVATION_REFINEMENT"):
        resources_to_messages(bag, refined=False)
