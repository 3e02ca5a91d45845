"""Devices as values, and the resources that they are offered as."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edgerm.core.devices import Device, items, resources_of
from edgerm.core.resources import ResourceKey, parse

device_lists = st.lists(
    st.builds(
        Device,
        st.sampled_from(["camera", "gpio", "lock"]),
        st.from_regex(r"/dev/[a-z]{1,4}[0-9]", fullmatch=True),
        st.booleans(),
        st.sampled_from(["", "missing"]),
    ),
    unique_by=lambda device: device.id,
    max_size=8,
)


@given(device_lists)
def test_what_is_offered_is_what_is_healthy(devices: list[Device]) -> None:
    """Each healthy device is one item of a set named as its class, shared as it is; no other item is there."""
    resources = resources_of(devices)
    assert sorted(items(resources)) == sorted((device.name, device.id) for device in devices if not device.problem)
    for device in devices:
        amount = resources.get(ResourceKey(device.name, shared=device.shared), frozenset())
        assert isinstance(amount, frozenset)
        assert (device.id in amount) == (not device.problem)


def test_items_are_those_of_sets() -> None:
    """Scalars and ranges have no items; sets are told in order."""
    resources = parse("cpus:4;ports:[1-2];b:{y,x};a<SHARED>:{z}")
    assert list(items(resources)) == [("a", "z"), ("b", "x"), ("b", "y")]
