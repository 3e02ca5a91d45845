"""What /sys tells of an interface: whether it can be given away, its card, clock and interrupts.

Sources: Documentation/ABI/testing/sysfs-class-net, sysfs-bus-pci. What does not live here: netlink (`links`).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from edgerm.plugin.device import HostFiles

NET = "/sys/class/net"
ROLES = {"upper_": "is below {} on the box", "brport": "is part of a bridge on the box"}


@dataclass(frozen=True, slots=True)
class Card:
    """An interface that is in the box's namespace."""

    device: str = ""  # path of its card in /sys; empty: it has none
    driver: str = ""
    mac: str = ""
    clock: str = ""  # its PTP device, such as /dev/ptp0
    numa_nodes: tuple[int, ...] = ()


def look(host: HostFiles, name: str, clock_number: Callable[[str], int]) -> Card:
    """How it is now. `clock_number`: of an interface's PTP clock, for a card with several; negative: none."""
    device = device_of(host, name)
    if not device:
        return Card(mac=_text(host, f"{NET}/{name}/address"))
    node = _text(host, f"{device}/numa_node")
    return Card(
        device,
        _end(host, f"{device}/driver"),
        _text(host, f"{NET}/{name}/address"),
        _clock(host, device, lambda: clock_number(name)),
        (int(node),) if node.isascii() and node.isdigit() else (),
    )


def device_of(host: HostFiles, name: str) -> str:
    """The card's path in /sys; empty for an interface without one."""
    try:
        return host.link(f"{NET}/{name}/device")
    except OSError:
        return ""


def problem_of(host: HostFiles, name: str) -> str:
    """Why no task can have it; empty: one can."""
    if not host.exists(f"{NET}/{name}"):
        return f"interface {name} is missing"
    for entry in host.names(f"{NET}/{name}"):
        for start, words in ROLES.items():
            if entry.startswith(start):
                return f"interface {name} {words.format(entry.removeprefix(start))}"
    return ""


def irqs(host: HostFiles, device: str) -> tuple[int, ...]:
    """All IRQs of the card: message-signalled ones, else the legacy one, which others may share. Ascending."""
    if not device:
        return ()
    places = [device]
    if device.rpartition("/")[2].startswith("virtio"):
        places.append(device.rpartition("/")[0])  # the card is the PCI function that carries it
    for place in places:
        with suppress(OSError):
            if found := sorted(int(name) for name in host.names(f"{place}/msi_irqs") if name.isdecimal()):
                return tuple(found)
    for place in places:
        text = _text(host, f"{place}/irq")
        if text.isascii() and text.isdigit() and int(text) > 0:
            return (int(text),)
    return ()


def _clock(host: HostFiles, device: str, ask: Callable[[], int]) -> str:
    """Ports of one card list the clocks of all, so that only the driver knows."""
    try:
        names = [name for name in host.names(f"{device}/ptp") if name.startswith("ptp")]
    except OSError:
        return ""
    if len(names) > 1:
        number = ask()
        names = [f"ptp{number}"] if number >= 0 else []
    return f"/dev/{names[0]}" if names else ""


def _text(host: HostFiles, path: str) -> str:
    try:
        return host.read(path).strip()
    except OSError:
        return ""


def _end(host: HostFiles, path: str) -> str:
    try:
        return host.link(path).rpartition("/")[2]
    except OSError:
        return ""
