"""What is done, in which order, as data: names inside a task, the steps in and home, the variables. Pure.

What does not live here: doing it (`links`), IRQs and threads (`tuning`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

NAME_MAX = 15  # IFNAMSIZ less its end


@dataclass(frozen=True, slots=True)
class Link:
    """An interface as netlink shows it (rtnetlink(7))."""

    name: str
    index: int
    mac: str = ""
    permanent: str = ""  # the card's own address; of virtual ones none
    kind: str = ""  # "veth", "vlan", "dummy"; empty: a card
    bus: str = ""  # where the card is: "0000:00:03.0"
    parent: int = 0  # index of the interface that a VLAN is on
    master: int = 0  # index of the bridge or bond that it is part of
    mtu: int = 0
    up: bool = False
    addresses: int = 0  # how many it has


@dataclass(frozen=True, slots=True)
class Identity:
    """How an interface is known again, whatever its name and number are now."""

    bus: str
    permanent: str
    kind: str
    mac: str

    def fits(self, link: Link) -> bool:
        """Whether this is it. Ports of one card differ by their own addresses; what is no card has only its address,
        which a task may have changed."""
        if self.bus or self.permanent:
            return (self.bus, self.permanent) == (link.bus, link.permanent)
        return (self.kind, self.mac) == (link.kind, link.mac)


def identity_of(link: Link) -> Identity:
    """Of an interface that nobody has changed yet."""
    return Identity(link.bus, link.permanent, link.kind, link.mac)


# --- names ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Names:
    """What an interface is called inside. With a VLAN tag the task's is the VLAN, and `card` is below it."""

    task: str
    card: str


def names_inside(wanted: Sequence[tuple[str, str, int]]) -> tuple[Names, ...]:
    """For (prefix, name on the box, VLAN tag) each: prefix and a counter per prefix. Names never clash.

    A card below a VLAN keeps its name, unless a task's interface has that.
    """
    counters: dict[str, int] = {}
    taken: dict[str, None] = {}
    for prefix, _, _ in wanted:
        count = counters.get(prefix, 0)
        while f"{prefix}{count}" in taken:
            count += 1
        taken[f"{prefix}{count}"] = None
        counters[prefix] = count + 1
    found = []
    used = {*taken, "lo"}
    for name, (_, host, tag) in zip(tuple(taken), wanted, strict=True):
        card = name
        if tag:
            card = next(each for each in _spare(host) if each not in used)
            used.add(card)
        found.append(Names(name, card))
    return tuple(found)


def _spare(host: str) -> Iterable[str]:
    yield host
    for number in range(10_000):
        mark = f"card{number}-"
        yield f"{mark}{host}"[:NAME_MAX]


# --- steps ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Down:
    """No packets, nothing that a task set for it to listen."""

    link: str


@dataclass(frozen=True, slots=True)
class Up:
    """Packets, but no address that the kernel would give it by itself."""

    link: str


@dataclass(frozen=True, slots=True)
class Move:
    """Into the namespace at this path (empty: the box's), under this name there. It loses its addresses and routes."""

    link: str
    path: str
    name: str


@dataclass(frozen=True, slots=True)
class Rename:
    """Where it is; it is down."""

    link: str
    name: str


@dataclass(frozen=True, slots=True)
class AddVlan:
    """802.1Q on `link`."""

    link: str
    name: str
    tag: int


@dataclass(frozen=True, slots=True)
class Delete:
    """A VLAN."""

    link: str


@dataclass(frozen=True, slots=True)
class Flush:
    """No addresses."""

    link: str


@dataclass(frozen=True, slots=True)
class Reset:
    """As it was: its address and the size of its packets."""

    link: str
    mac: str
    mtu: int


Step: TypeAlias = Down | Up | Move | Rename | AddVlan | Delete | Flush | Reset


def way_in(link: Link, path: str, names: Names) -> tuple[Step, ...]:
    """Done in the box's namespace."""
    return Flush(link.name), Down(link.name), Move(link.name, path, names.card)


def set_up(names: Names, tag: int) -> tuple[Step, ...]:
    """Done inside, after that."""
    if not tag:
        return (Up(names.card),)
    return Up(names.card), AddVlan(names.card, names.task, tag), Up(names.task)


def way_home(found: Link, others: Iterable[Link], home: str, mac: str, mtu: int) -> tuple[Step, ...]:
    """Done in the namespace where it was found, among others; `home`: its name on the box."""
    vlans = (Delete(each.name) for each in others if each.kind == "vlan" and each.parent == found.index)
    return *vlans, Flush(found.name), Down(found.name), *_reset(found, mac, mtu), Move(found.name, "", home)


def settled(found: Link, home: str, mac: str, mtu: int) -> tuple[Step, ...]:
    """Done in the box's namespace, where the kernel has put it back; nothing to do: it is at home."""
    steps: list[Step] = []
    if found.addresses:
        steps.append(Flush(found.name))
    if found.up or found.name != home or _reset(found, mac, mtu):
        steps += [Down(found.name), *_reset(found, mac, mtu)]
    if found.name != home:
        steps.append(Rename(found.name, home))
    return tuple(steps)


def _reset(found: Link, mac: str, mtu: int) -> tuple[Step, ...]:
    return () if (found.mac, found.mtu) == (mac, mtu) else (Reset(found.name, mac, mtu),)


# --- what the task is told ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Column:
    """One network of a task."""

    prefix: str
    label: str
    clock: str  # path of its PTP device; empty: it has none
    host: str  # its interface's name on the box
    labels: Mapping[str, int]


def variables(columns: Sequence[Column]) -> tuple[tuple[str, str], ...]:
    """The five; position i means the same network in each. None at all without a network."""
    if not columns:
        return ()
    annotations = json.dumps([dict(each.labels) for each in columns], separators=(",", ":"), ensure_ascii=False)
    return (
        ("IEDGE_NETWORKS_PREFIXES", ",".join(each.prefix for each in columns)),
        ("IEDGE_NETWORKS_LABELS", ",".join(each.label for each in columns)),
        ("IEDGE_NETWORKS_PTP_DEVICES", ",".join(each.clock for each in columns)),
        ("IEDGE_NETWORKS_ISOLATED", ",".join(each.host for each in columns)),
        ("IEDGE_NETWORKS_ANNOTATIONS", annotations),
    )
