"""Dominant-resource fairness (Ghodsi et al., NSDI 2011) between roles, and between the frameworks of a role.

A client's dominant share is the largest part that it holds of any one resource. Shares are integers (billionths), so
that they compare the same everywhere. What is offered counts as held. The order is kept while it changes: a charge
moves one client; after a change of the total, a role's clients are sorted anew when they are looked at next.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from typing import NamedTuple

from edgerm.core.ids import FrameworkId
from edgerm.core.resources import Resources

SHARE_ONE = 10**9


class Client(NamedTuple):
    """Who competes: a framework, within one of its roles."""

    role: str
    framework_id: FrameworkId


def _scalars(*bags: Resources) -> dict[str, int]:
    sums: dict[str, int] = {}
    for resources in bags:
        for key, amount in resources.items():
            if isinstance(amount, int):
                sums[key.name] = sums.get(key.name, 0) + amount
    return sums


def dominant_share(used: dict[str, int], total: dict[str, int]) -> int:
    """The largest part of any resource, in billionths; 0 where there is nothing to share."""
    share = 0
    for name, amount in used.items():
        whole = total.get(name, 0)
        if whole and amount:
            share = max(share, amount * SHARE_ONE // whole)
    return share


class _Held:
    """What one name holds, how often it was served, and where it stands; None: it takes no part now."""

    __slots__ = ("rank", "served", "used")

    def __init__(self) -> None:
        self.used: dict[str, int] = {}
        self.served = 0
        self.rank: tuple[int, int, str] | None = None


class _Ranking:
    """Names in the order of their shares; equal shares: who was served less often goes first.

    Only those that take part stand in the order. When the total has changed, the order is made anew the next time
    that somebody asks for it, not before.
    """

    def __init__(self) -> None:
        self._held: dict[str, _Held] = {}
        self._order: list[tuple[int, int, str]] = []
        self._total_number = 0  # of the total that all ranks are of

    def add(self, name: str, total: dict[str, int]) -> None:
        held = self._held[name] = _Held()
        self._rank(name, held, total)

    def remove(self, name: str) -> None:
        self._unrank(self._held.pop(name))

    def take_part(self, name: str, whether: bool, total: dict[str, int]) -> None:
        held = self._held[name]
        if whether and held.rank is None:
            self._rank(name, held, total)
        elif not whether:
            self._unrank(held)

    def change(self, name: str, amounts: dict[str, int], sign: int, total: dict[str, int]) -> None:
        held = self._held[name]
        used = held.used
        for resource, amount in amounts.items():
            used[resource] = used.get(resource, 0) + sign * amount
        held.served += sign > 0
        if held.rank is not None:
            self._unrank(held)
            self._rank(name, held, total)

    def _rank(self, name: str, held: _Held, total: dict[str, int]) -> None:
        held.rank = (dominant_share(held.used, total), held.served, name)
        insort(self._order, held.rank)

    def _unrank(self, held: _Held) -> None:
        if held.rank is not None:
            del self._order[bisect_left(self._order, held.rank)]
            held.rank = None

    def names(self, total: dict[str, int], number: int) -> Iterator[str]:
        """The names that take part, in order; `number` counts the changes of the total."""
        if self._total_number != number:
            self._total_number = number
            self._rank_anew(total)
        return (name for _, _, name in self._order)

    def _rank_anew(self, total: dict[str, int]) -> None:
        order = []
        for _, served, name in self._order:
            held = self._held[name]
            held.rank = (dominant_share(held.used, total), served, name)
            order.append(held.rank)
        order.sort()
        self._order = order

    def used(self, name: str) -> dict[str, int]:
        return {resource: amount for resource, amount in self._held[name].used.items() if amount}

    @property
    def competing(self) -> bool:
        """Whether anybody takes part."""
        return bool(self._order)

    def __contains__(self, name: str) -> bool:
        return name in self._held

    def __len__(self) -> int:
        return len(self._held)


class Shares:
    """Who holds how much, and who is next."""

    def __init__(self) -> None:
        self._total: dict[str, int] = {}
        self._total_number = 0  # counts its changes
        self._roles = _Ranking()
        self._frameworks: dict[str, _Ranking] = {}

    def grow(self, resources: Resources, sign: int = 1) -> None:
        """There is more to share (`sign` -1: less)."""
        for name, amount in _scalars(resources).items():
            self._total[name] = self._total.get(name, 0) + sign * amount
        self._total_number += 1

    def enter(self, client: Client) -> None:
        """The client competes from now on; twice is once."""
        if client.role not in self._roles:
            self._roles.add(client.role, self._total)
            self._frameworks[client.role] = _Ranking()
        if client.framework_id not in self._frameworks[client.role]:
            self._frameworks[client.role].add(client.framework_id, self._total)
            self._roles.take_part(client.role, True, self._total)

    def compete(self, client: Client, whether: bool) -> None:
        """From now on the client stands in the order, or is only charged; unknown clients are neither."""
        ranking = self._frameworks.get(client.role)
        if ranking is None or client.framework_id not in ranking:
            return
        ranking.take_part(client.framework_id, whether, self._total)
        self._roles.take_part(client.role, ranking.competing, self._total)

    def leave(self, framework_id: FrameworkId) -> None:
        """The framework is gone from all roles, and with it all that was charged to it."""
        for role in [role for role, ranking in self._frameworks.items() if framework_id in ranking]:
            ranking = self._frameworks[role]
            self._roles.change(role, ranking.used(framework_id), -1, self._total)
            ranking.remove(framework_id)
            self._roles.take_part(role, ranking.competing, self._total)
            if not len(ranking):
                del self._frameworks[role]
                self._roles.remove(role)

    def charge(self, client: Client, *resources: Resources) -> None:
        """The client holds this much more: served once."""
        self._change(client, _scalars(*resources), 1)

    def refund(self, client: Client, resources: Resources) -> None:
        """The client holds this much less."""
        self._change(client, _scalars(resources), -1)

    def _change(self, client: Client, amounts: dict[str, int], sign: int) -> None:
        self._frameworks[client.role].change(client.framework_id, amounts, sign, self._total)
        self._roles.change(client.role, amounts, sign, self._total)

    def order(self) -> Iterator[Client]:
        """Who competes, who is to be served first in front. Charge only after the iteration was left."""
        for role in self._roles.names(self._total, self._total_number):
            for framework_id in self._frameworks[role].names(self._total, self._total_number):
                yield Client(role, FrameworkId(framework_id))

    def used(self, client: Client) -> dict[str, int]:
        """What the client holds: thousandths by name of scalar."""
        ranking = self._frameworks.get(client.role)
        return ranking.used(client.framework_id) if ranking and client.framework_id in ranking else {}
