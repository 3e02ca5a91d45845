"""How a task asks for devices, and which it takes of an offer."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgerm.core.errors import Invalid
from edgerm.core.resources import Reservation, ResourceKey, Resources, parse
from edgerm.sdk.devices import Devices, Wanted, parse_device, wanted
from edgerm.sdk.needs import Needs

OFFER = parse("cpus:4;mem:1024;camera:{a,b,c};picam<SHARED>:{v};ports:[1-9]")


@pytest.mark.parametrize(
    ("devices", "meant"),
    [
        (["camera"], [Wanted("camera", 1, frozenset())]),
        (["camera", "camera"], [Wanted("camera", 2, frozenset())]),
        (["camera=a", "camera"], [Wanted("camera", 1, frozenset("a"))]),
        ({"camera": 2, "picam": 1}, [Wanted("camera", 2, frozenset()), Wanted("picam", 1, frozenset())]),
        ({"camera": ["a", "b"]}, [Wanted("camera", 0, frozenset("ab"))]),
        ({"camera": "front"}, [Wanted("camera", 0, frozenset(["front"]))]),
        ({"camera": 0}, []),
        ((), []),
    ],
)
def test_ways_to_ask(devices: Devices, meant: list[Wanted]) -> None:
    """By name, by number, by id."""
    assert list(wanted(devices)) == meant


WRONG = ["camera", ["="], ["camera="], [""], {"camera": -1}, {"camera": True}, {"": 1}]
WRONG_TYPES = [5, None, [3], [("bay", 1)], {3: 1}, {"bay": None}, {"bay": 1.5}, {"bay": [1]}, {"bay": [""]}]


@pytest.mark.parametrize("devices", [*WRONG, *WRONG_TYPES])
def test_what_is_no_device(devices: Any) -> None:
    """Anything else is refused."""
    with pytest.raises(Invalid):
        wanted(devices)


def test_a_device_as_text() -> None:
    """`NAME` or `NAME=ID`; an id may hold whatever follows."""
    assert parse_device("camera") == ("camera", 1)
    assert parse_device("camera=usb=1") == ("camera", ["usb=1"])


@pytest.mark.parametrize(
    ("devices", "taken"),
    [
        (["camera"], "camera:{a}"),
        (["camera=b"], "camera:{b}"),
        (["camera=a", "camera"], "camera:{a,b}"),
        ({"camera": 3}, "camera:{a,b,c}"),
        (["picam"], "picam<SHARED>:{v}"),
        (["picam=v", "camera"], "camera:{a};picam<SHARED>:{v}"),
        ({"camera": 4}, None),
        (["camera=d"], None),
        (["picam", "picam"], None),
        (["lidar"], None),
        (["cpus"], None),
    ],
)
def test_what_is_taken(devices: Devices, taken: str | None) -> None:
    """Exactly what was asked for, whatever of it is free; nothing if one is lacking."""
    found = Needs.of(1, 32, devices=devices).take_from(OFFER)
    assert found == (None if taken is None else parse(f"cpus:1;mem:32;{taken}"))


def test_reserved_ones_first() -> None:
    """What is reserved for us nobody else can use."""
    mine = ResourceKey("camera", (Reservation("ops"),))
    offer = OFFER + Resources({mine: frozenset("x")})
    assert Needs.of(0, 0, devices=["camera"]).take_from(offer) == Resources({mine: frozenset("x")})


items = st.frozensets(st.sampled_from("abcd"))


@given(items, items, st.integers(0, 4), items)
def test_taking_is_exact(free: frozenset[str], shared: frozenset[str], number: int, ids: frozenset[str]) -> None:
    """What is taken is part of the offer, holds the ids and so many others, and is refused only for want of them."""
    exclusive, common = ResourceKey("x"), ResourceKey("x", shared=True)
    offer = Resources({exclusive: free, common: shared - free})
    taken = Needs((), devices=(Wanted("x", number, ids),)).take_from(offer)
    there = free | shared
    if ids <= there and len(there - ids) >= number:
        assert taken is not None
        assert offer.covers(taken)
        chosen = {item for amount in taken.values() if isinstance(amount, frozenset) for item in amount}
        assert ids <= chosen
        assert len(chosen) == len(ids) + number
    else:
        assert taken is None
