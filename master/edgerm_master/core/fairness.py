"""Dominant-resource fairness (Ghodsi et al., NSDI 2011) between roles, and between the frameworks of a role.

A client's dominant share is the largest part that it holds of any one resource. Shares are integers (billionths), so
that they compare the same everywhere. What is offered counts as held. The order is kept while it changes: a charge
moves one client, a change of the total sorts anew.
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


def _scalars(resources: Resources) -> dict[str, int]:
    sums: dict[str, int] = {}
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


class _Ranking:
    """Names in the order of their shares; equal shares: who was served less often goes first."""

    def __init__(self) -> None:
        self._used: dict[str, dict[str, int]] = {}
        self._served: dict[str, int] = {}
        self._ranks: dict[str, tuple[int, int, str]] = {}
        self._order: list[tuple[int, int, str]] = []

    def add(self, name: str) -> None:
        self._used[name] = {}
        self._served[name] = 0
        self._ranks[name] = (0, 0, name)
        insort(self._order, self._ranks[name])

    def remove(self, name: str) -> None:
        self._unrank(name)
        del self._used[name], self._served[name], self._ranks[name]

    def change(self, name: str, amounts: dict[str, int], sign: int, total: dict[str, int]) -> None:
        used = self._used[name]
        for resource, amount in amounts.items():
            used[resource] = used.get(resource, 0) + sign * amount
        self._served[name] += sign > 0
        self._unrank(name)
        self._ranks[name] = (dominant_share(used, total), self._served[name], name)
        insort(self._order, self._ranks[name])

    def _unrank(self, name: str) -> None:
        del self._order[bisect_left(self._order, self._ranks[name])]

    def rank_anew(self, total: dict[str, int]) -> None:
        for name, used in self._used.items():
            self._ranks[name] = (dominant_share(used, total), self._served[name], name)
        self._order = sorted(self._ranks.values())

    def used(self, name: str) -> dict[str, int]:
        return {resource: amount for resource, amount in self._used[name].items() if amount}

    def __contains__(self, name: str) -> bool:
        return name in self._used

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[str]:
        return (name for _, _, name in self._order)


class Shares:
    """Who holds how much, and who is next."""

    def __init__(self) -> None:
        self._total: dict[str, int] = {}
        self._roles = _Ranking()
        self._frameworks: dict[str, _Ranking] = {}

    def grow(self, resources: Resources, sign: int = 1) -> None:
        """There is more to share (`sign` -1: less)."""
        for name, amount in _scalars(resources).items():
            self._total[name] = self._total.get(name, 0) + sign * amount
        self._roles.rank_anew(self._total)
        for ranking in self._frameworks.values():
            ranking.rank_anew(self._total)

    def enter(self, client: Client) -> None:
        """The client competes from now on; twice is once."""
        if client.role not in self._roles:
            self._roles.add(client.role)
            self._frameworks[client.role] = _Ranking()
        if client.framework_id not in self._frameworks[client.role]:
            self._frameworks[client.role].add(client.framework_id)

    def leave(self, framework_id: FrameworkId) -> None:
        """The framework is gone from all roles, and with it all that was charged to it."""
        for role in [role for role, ranking in self._frameworks.items() if framework_id in ranking]:
            ranking = self._frameworks[role]
            self._roles.change(role, ranking.used(framework_id), -1, self._total)
            ranking.remove(framework_id)
            if not len(ranking):
                del self._frameworks[role]
                self._roles.remove(role)

    def charge(self, client: Client, resources: Resources) -> None:
        """The client holds this much more."""
        self._change(client, resources, 1)

    def refund(self, client: Client, resources: Resources) -> None:
        """The client holds this much less."""
        self._change(client, resources, -1)

    def _change(self, client: Client, resources: Resources, sign: int) -> None:
        amounts = _scalars(resources)
        self._frameworks[client.role].change(client.framework_id, amounts, sign, self._total)
        self._roles.change(client.role, amounts, sign, self._total)

    def order(self) -> Iterator[Client]:
        """All clients, who is to be served first in front. Charge only after the iteration was left."""
        for role in self._roles:
            for framework_id in self._frameworks[role]:
                yield Client(role, FrameworkId(framework_id))

    def used(self, client: Client) -> dict[str, int]:
        """What the client holds: thousandths by name of scalar."""
        ranking = self._frameworks.get(client.role)
        return ranking.used(client.framework_id) if ranking and client.framework_id in ranking else {}
