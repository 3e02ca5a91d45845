"""What a task asks of an offer, and which part of the offer it takes.

What does not live here: what the task does with it (`edgerm.sdk.tasks`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from edgerm.core.claims import Claim
from edgerm.core.errors import Invalid
from edgerm.core.resources import Amount, ResourceKey, Resources, coalesce, milli
from edgerm.sdk.claims import Claims, claims_from
from edgerm.sdk.containers import PORT_MAX
from edgerm.sdk.devices import Devices, Wanted, wanted

ALL_PORTS = ((1, PORT_MAX),)


@dataclass(frozen=True, slots=True)
class Needs:
    """What a task asks of an offer: scalars by name, ports, devices, and what it claims."""

    scalars: tuple[tuple[str, int], ...]  # in thousandths
    ports: int = 0  # so many, whichever they are
    these_ports: frozenset[int] = frozenset()  # and these
    devices: tuple[Wanted, ...] = ()
    claims: tuple[Claim, ...] = ()  # of devices that are chosen by what they are

    @classmethod
    def of(
        cls,
        cpus: float,
        mem: float,
        disk: float = 0.0,
        ports: int = 0,
        these_ports: Iterable[int] = (),
        devices: Devices = (),
        claims: Claims = (),
    ) -> Needs:
        """`mem` and `disk` in MiB. Raises `Invalid` for amounts that are none."""
        if ports < 0:
            raise Invalid(f"a task cannot need {ports} ports")
        amounts = {"cpus": milli(cpus), "mem": milli(mem), "disk": milli(disk)}
        scalars = tuple((name, amount) for name, amount in amounts.items() if amount)
        return cls(scalars, ports, frozenset(these_ports), wanted(devices), claims_from(claims))

    def take_from(self, resources: Resources) -> Resources | None:
        """The part of `resources` that serves, reserved ones first; None if they are too few.

        What the claims get is no part of it: see `edgerm.core.granting.fit`.
        """
        taken: dict[ResourceKey, Amount] = {}
        for name, amount in self.scalars:
            left = amount
            for key in _keys(resources, name):
                have = resources[key]
                if left and isinstance(have, int):
                    taken[key] = min(have, left)
                    left -= min(have, left)
            if left:
                return None
        for part in (self._take_ports(resources), *(some.take_from(resources) for some in self.devices)):
            if part is None:
                return None
            taken |= part
        return Resources(taken)

    def enough(self) -> Resources:
        """Resources on which the task would find a place."""
        amounts: dict[ResourceKey, Amount] = {ResourceKey("ports"): ALL_PORTS}
        amounts |= {ResourceKey(name): amount for name, amount in self.scalars}
        amounts |= {ResourceKey(some.name): some.some() for some in self.devices}
        return Resources(amounts)

    def _take_ports(self, resources: Resources) -> dict[ResourceKey, Amount] | None:
        taken: dict[ResourceKey, Amount] = {}
        left, wanted = self.ports, set(self.these_ports)
        for key in _keys(resources, "ports"):
            have = resources[key]
            if isinstance(have, tuple) and (left or wanted):
                found = {port for port in wanted if any(begin <= port <= end for begin, end in have)}
                ranges = _first(_without(have, sorted(self.these_ports)), left)
                wanted -= found
                left -= sum(end - begin + 1 for begin, end in ranges)
                taken[key] = coalesce([*ranges, *((port, port) for port in found)])
        return None if left or wanted else taken


def _keys(resources: Resources, name: str) -> list[ResourceKey]:
    """Plain ones last: what is reserved for us nobody else can use. Revocable ones are not asked for here."""
    found = [key for key in resources if key.name == name and not key.revocable and not key.disk]
    return sorted(found, key=lambda key: not key.reservations)


def _without(ranges: Iterable[tuple[int, int]], ports: Sequence[int]) -> Iterator[tuple[int, int]]:
    """The ranges without these ports, which are in order."""
    for begin, end in ranges:
        first = begin
        for port in ports:
            if first <= port <= end:
                if first < port:
                    yield first, port - 1
                first = port + 1
        if first <= end:
            yield first, end


def _first(ranges: Iterable[tuple[int, int]], count: int) -> list[tuple[int, int]]:
    taken = []
    for begin, end in ranges:
        if count <= 0:
            break
        last = min(end, begin + count - 1)
        taken.append((begin, last))
        count -= last - begin + 1
    return taken
