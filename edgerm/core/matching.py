"""Which devices a task's claims get: exact matching, so that a set of claims that can be met is never refused.

The devices of a class are gone through in their order of preference; each is taken if more claims are served with it
than without, by giving other claims other devices where that is needed (augmenting paths). So the devices that are
given are the first in order that can serve, mandatory claims come before optional ones, and the same input has the same
answer. What does not live here: what a filter means (`filters`), where free devices come from (`granting`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from edgerm.core.claims import Claim, Granted, check_all
from edgerm.core.devices import Device, DeviceClass, Inventory
from edgerm.core.errors import Invalid
from edgerm.core.filters import Table


@dataclass(frozen=True, slots=True)
class Match:
    """What the claims get, in their order; one that was skipped, or counts none, has no ids."""

    granted: tuple[Granted, ...]


@dataclass(frozen=True, slots=True)
class Mismatch:
    """Why the claims cannot all be met."""

    reason: str  # names the claim, its class, what was asked for and what there was
    type: str = ""  # the class; empty: the claims are malformed
    problem: bool = False  # no device that is freed helps: nothing of the class can be claimed, or never by this claim


def match(claims: Sequence[Claim], inventory: Inventory, free: Collection[tuple[str, str]]) -> Match | Mismatch:
    """The devices that a task's claims get of those `free`: pairs of a class and an id within it.

    Malformed claims, and filters that cannot be asked of a class (Contains of a text), are a mismatch as well. Within a
    claim ids stand in the inventory's order.
    """
    try:
        check_all(claims)
    except Invalid as error:
        return Mismatch(str(error))
    asked: dict[str, list[Claim]] = {}
    for claim in claims:
        if claim.count:
            asked.setdefault(claim.type, []).append(claim)
    devices = _by_class(inventory.devices, asked)
    classes = {known.name: known for known in inventory.classes}
    granted = {claim.name: _nothing(claim, classes.get(claim.type)) for claim in claims}
    for name, wanting in asked.items():
        found = _of_class(wanting, classes.get(name), devices.get(name, []), free)
        if isinstance(found, Mismatch):
            return found
        granted.update((one.claim, one) for one in found)
    return Match(tuple(granted[claim.name] for claim in claims))


def _by_class(devices: Iterable[Device], names: Collection[str]) -> dict[str, list[Device]]:
    found: dict[str, list[Device]] = {}
    for device in devices:
        if device.name in names:
            found.setdefault(device.name, []).append(device)
    return found


def _nothing(claim: Claim, known: DeviceClass | None) -> Granted:
    return Granted(claim.name, claim.type, (), _pool(claim, known), claim.config)


def _pool(claim: Claim, known: DeviceClass | None) -> bool:
    if claim.shared is None:
        return known is not None and known.shared
    return claim.shared


def _of_class(
    claims: Sequence[Claim], known: DeviceClass | None, devices: Sequence[Device], free: Collection[tuple[str, str]]
) -> list[Granted] | Mismatch:
    """All claims of one class; those that are optional get all that they ask for, or nothing."""
    mandatory = [claim for claim in claims if not claim.optional]
    if known is None or known.problem:
        return no_class(mandatory[0], known) or [] if mandatory else []
    try:
        market = _Market(known, devices, free, [*mandatory, *(claim for claim in claims if claim.optional)])
    except Invalid as error:
        return Mismatch(str(error), known.name, problem=True)
    short = market.serve(len(mandatory))
    if short is not None:
        return Mismatch(market.explain(short), known.name)
    served = market.granted(len(mandatory))
    if len(mandatory) < len(claims) and market.serve(len(claims)) is None:
        return market.granted(len(claims))
    return served


def no_class(claim: Claim, known: DeviceClass | None) -> Mismatch | None:
    """Why nothing of the claim's class can be had at all; None: it is there."""
    if known is not None and not known.problem:
        return None
    why = f"nothing of it can be claimed: {known.problem}" if known else "the agent has no such class of devices"
    return Mismatch(f"{_called(claim)}: {why}", claim.type, problem=known is not None)


def _called(claim: Claim) -> str:
    """With the class in every case: that is what people look for."""
    return f"claim {claim.name[:80]!r} of class {claim.type[:80]}"


class _Market:
    """The devices of one class, and the claims on it; who has which by now.

    Devices that the same claims accept are alike, so that a search goes over claims and kinds, not over devices.
    """

    def __init__(
        self,
        known: DeviceClass,
        devices: Sequence[Device],
        free: Collection[tuple[str, str]],
        claims: Sequence[Claim],
    ) -> None:
        """Raises `Invalid`, naming the claim, for filters that cannot be asked, and for one that is ambiguous."""
        self._class = known
        self._devices = devices
        self._claims = claims
        self._pools = [_pool(claim, known) for claim in claims]
        self._free = [(device.name, device.id) in free for device in devices]
        self._kinds = self._accepted()  # by device: the claims whose pool it is of and whose filters it passes, as bits
        if known.unambiguous:
            self._refuse_ambiguous()
        self._given: list[dict[int, list[int]]] = [{} for _ in claims]  # by claim and kind: devices, by their index
        self._lacks = [claim.count for claim in claims]
        self._wanting = (1 << len(claims)) - 1  # those that lack something, as bits
        self._taken = [False] * len(devices)

    def serve(self, count: int) -> int | None:
        """Give the first `count` claims what they ask for; some of them may have it from a call before.

        None: done; else the first claim that lacks something, and then what was given is not to be used.
        """
        mine = range(count)
        for number in mine:
            if self._pools[number] and self._lacks[number]:
                self._serve_shared(number)
        active = sum(1 << number for number in mine if not self._pools[number])
        lacking = sum(self._lacks[number] for number in mine if not self._pools[number])
        for index, kind in enumerate(self._kinds):
            if not lacking:
                break
            reach = kind & active
            if not (reach and self._free[index]) or self._taken[index]:
                continue
            direct = reach & self._wanting
            if direct:
                self._give(_lowest(direct), index)
                lacking -= 1
                continue
            in_vain = self._augment(index, reach, active)
            active &= ~in_vain  # no way leads from these to one that lacks something, nor will
            lacking -= not in_vain
        return next((number for number in mine if self._lacks[number]), None)

    def granted(self, count: int) -> list[Granted]:
        """What the first `count` claims have."""
        found = []
        for claim, pool, given in zip(self._claims[:count], self._pools, self._given, strict=False):
            indices = sorted(index for some in given.values() for index in some)
            ids = tuple(self._devices[index].id for index in indices)
            found.append(Granted(claim.name, claim.type, ids, pool, claim.config))
        return found

    def explain(self, number: int) -> str:
        """What the claim, which lacks something, asked for and what there was."""
        claim, pool = self._claims[number], "shared" if self._pools[number] else "exclusive"
        ours = [index for index, device in enumerate(self._devices) if device.shared == self._pools[number]]
        if not ours:
            return f"{_called(claim)}: {claim.count} {pool} asked for; there is no {pool} one to be had here"
        free = [index for index in ours if self._free[index]]
        fitting = sum(self._kinds[index] >> number & 1 for index in free)
        asked = f"{_called(claim)}: {claim.count} {pool} asked for"
        there = f"of {len(ours)} there {'is' if len(free) == 1 else 'are'} {len(free) or 'none'} free"
        if claim.expressions and free:
            there += f", of which {fitting or 'none'} pass{'es' if fitting == 1 else ''} its filters"
        ill = sum(not self._devices[index].offered for index in ours)
        there += f" ({ill} cannot be had: {self._troubles(ours)})" if ill else ""
        rivals = [] if fitting < claim.count else self._rivals(number)
        also = f"; these also serve {', '.join(repr(other.name[:80]) for other in rivals)}" if rivals else ""
        return f"{asked}; {there}{also}"

    def _accepted(self) -> list[int]:
        table = Table(device.metadata for device in self._devices)
        kinds: list[int] = [0] * len(set(table.rows))
        of_pool = [0, 0]
        for number, (claim, pool) in enumerate(zip(self._claims, self._pools, strict=True)):
            bit = 1 << number
            of_pool[pool] |= bit
            found = table.passing(_called(claim), claim.expressions)
            kinds = [kind | bit if passes else kind for kind, passes in zip(kinds, found, strict=True)]
        return [kinds[row] & of_pool[device.shared] for row, device in zip(table.rows, self._devices, strict=True)]

    def _refuse_ambiguous(self) -> None:
        for number, claim in enumerate(self._claims):
            ids = [device.id for device, kind in zip(self._devices, self._kinds, strict=True) if kind >> number & 1]
            if len(ids) > claim.count:
                shown = ", ".join(map(repr, ids[:8]))
                raise Invalid(f"{_called(claim)}: {claim.count} asked for, but {len(ids)} pass its filters: {shown}")

    def _serve_shared(self, number: int) -> None:
        """Shared devices are not used up: the first that fit do, whoever else has them."""
        fitting = (index for index, kind in enumerate(self._kinds) if kind >> number & 1 and self._free[index])
        for index in fitting:
            if not self._lacks[number]:
                return
            self._give(number, index)

    def _augment(self, index: int, reach: int, active: int) -> int:
        """Give the device to one of these claims, which has all that it asks for, if one of its own can go on to
        another, and so on to one that lacks something; else the claims that were asked, all in vain."""
        visited, last = reach, 0
        came: dict[int, tuple[int, int]] = {}  # by claim: whose device could go over to it, and of which kind
        queue = [*_bits(reach)]
        for number in queue:
            for kind in self._given[number]:
                others = kind & active & ~visited
                visited |= others
                last = others & self._wanting
                for other in _bits(last or others):
                    came[other] = (number, kind)
                    queue.append(other)
                if last:
                    break
            if last:
                break
        if not last:
            return visited
        self._shift(_lowest(last), came, index)
        return 0

    def _shift(self, number: int, came: Mapping[int, tuple[int, int]], index: int) -> None:
        """Along the way back: each claim hands a device on and gets one; the first gets the new one."""
        self._count_off(number)
        while number in came:
            giver, kind = came[number]
            moved = self._given[giver][kind].pop()
            if not self._given[giver][kind]:
                del self._given[giver][kind]
            self._given[number].setdefault(kind, []).append(moved)
            number = giver
        self._given[number].setdefault(self._kinds[index], []).append(index)
        self._taken[index] = True

    def _give(self, number: int, index: int) -> None:
        self._given[number].setdefault(self._kinds[index], []).append(index)
        self._taken[index] = not self._pools[number]
        self._count_off(number)

    def _count_off(self, number: int) -> None:
        self._lacks[number] -= 1
        if not self._lacks[number]:
            self._wanting &= ~(1 << number)

    def _rivals(self, number: int) -> list[Claim]:
        """The claims that have devices which this one would do with, directly or through others."""
        visited, queue = 1 << number, [number]
        for one in queue:
            for other, given in enumerate(self._given):
                if not visited >> other & 1 and not self._pools[other] and any(kind >> one & 1 for kind in given):
                    visited |= 1 << other
                    queue.append(other)
        return [self._claims[other] for other in sorted(queue) if other != number]

    def _troubles(self, indices: Iterable[int]) -> str:
        devices = [self._devices[index] for index in indices if not self._devices[index].offered]
        texts = [device.problem or device.quarantine or f"held by {device.held_by}" for device in devices]
        return "; ".join(dict.fromkeys(text[:200] for text in texts[:4]))


def _bits(mask: int) -> Iterator[int]:
    while mask:
        yield _lowest(mask)
        mask &= mask - 1


def _lowest(mask: int) -> int:
    return (mask & -mask).bit_length() - 1
