"""Devices in a few words: `["camera"]`, `{"camera": 2}`, `{"camera": ["/dev/video0"]}`, `camera=/dev/video0`.

What does not live here: which of them an agent has, and what a task gets of one (docs/how-to/devices.md).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple, TypeAlias

from edgerm.core.errors import Invalid
from edgerm.core.resources import Amount, ResourceKey, Resources

COUNT_MAX = 1000
FORMS = "write NAME or NAME=ID, such as camera or camera=front"

Devices: TypeAlias = "Mapping[str, int | Iterable[str]] | Iterable[str]"
"""Names, each for one of that name; or how many of each, or which. As texts also `NAME=ID`."""


class Wanted(NamedTuple):
    """Devices of one name."""

    name: str
    number: int  # so many, whichever they are
    ids: frozenset[str]  # and these

    def take_from(self, resources: Resources) -> dict[ResourceKey, Amount] | None:
        """The items of the sets of this name that serve, reserved ones first; None if they are too few."""
        taken: dict[ResourceKey, Amount] = {}
        number, ids = self.number, self.ids
        for key in _sets(resources, self.name):
            have = resources[key]
            assert isinstance(have, frozenset)
            named = ids & have
            others = sorted(have - self.ids)[:number]
            number, ids = number - len(others), ids - named
            if items := named.union(others):
                taken[key] = items
        return None if number or ids else taken

    def missing(self, known: Collection[tuple[str, str]]) -> list[str]:
        """Of the devices `known`, by name and id, these are none: `NAME` if there is no such name, else `NAME=ID`."""
        if not any(name == self.name for name, _ in known):
            return [self.name]
        return [f"{self.name}={one}" for one in sorted(self.ids) if (self.name, one) not in known]

    def some(self) -> frozenset[str]:
        """Items that would serve."""
        return self.ids.union(f"any-{index}" for index in range(self.number))


def _sets(resources: Resources, name: str) -> list[ResourceKey]:
    """Plain ones last: what is reserved for us nobody else can use."""
    found = (key for key in resources if key.name == name and not key.revocable)
    return sorted((key for key in found if isinstance(resources[key], frozenset)), key=lambda key: not key.reservations)


def wanted(devices: Devices) -> tuple[Wanted, ...]:
    """All of them, by name; raises `Invalid` for what is no device."""
    if isinstance(devices, str | bytes) or not isinstance(devices, Iterable):
        raise Invalid(f"devices are a list or {{name: count}}, not {devices!r:.40}")
    counts: dict[str, int] = {}
    ids: dict[str, set[str]] = {}
    for name, which in _pairs(devices):
        if isinstance(which, int) and not isinstance(which, bool):
            counts[name] = counts.get(name, 0) + which
        else:
            ids.setdefault(name, set()).update(_ids(name, which))
    for name, count in counts.items():
        if not 0 <= count <= COUNT_MAX:
            raise Invalid(f"a task cannot need {count} devices {name!r}; at most {COUNT_MAX} go")
    found = (Wanted(name, counts.get(name, 0), frozenset(ids.get(name, ()))) for name in sorted({*counts, *ids}))
    return tuple(some for some in found if some.number or some.ids)


def _pairs(devices: Devices) -> Iterable[tuple[str, int | Iterable[str]]]:
    if isinstance(devices, Mapping):
        return [(_name(name), [which] if isinstance(which, str) else which) for name, which in devices.items()]
    return [parse_device(_name(text)) for text in devices]


def _ids(name: str, which: object) -> list[str]:
    given = list(which) if isinstance(which, Iterable) else [which]
    ids = [device_id for device_id in given if isinstance(device_id, str) and device_id]
    if len(ids) < len(given):
        raise Invalid(f"{name[:40]!r}: {which!r:.40} is neither how many devices nor a list of their ids")
    return ids


def _name(text: object) -> str:
    if not isinstance(text, str) or not text:
        raise Invalid(f"{text!r:.80} is no device: {FORMS}")
    return text


def parse_device(text: str) -> tuple[str, int | list[str]]:
    """`NAME` for one of that name, `NAME=ID` for this one. Raises `Invalid`."""
    name, equals, device_id = text.partition("=")
    if not name or (equals and not device_id):
        raise Invalid(f"{text[:80]!r} is no device: {FORMS}")
    return name, [device_id] if equals else 1
