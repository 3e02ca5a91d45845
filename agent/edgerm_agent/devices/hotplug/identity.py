"""What the operator calls a device, and which of those that are here it is. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from edgerm.core.errors import Invalid
from edgerm_agent.config import Pluggable

DEVICES_MAX = 256
WORDS = {"serial": "serial port", "usb": "USB device", "camera": "camera"}
# What an entry may say of a device: its key, and how that is told.
KEYS = {"path": "path", "serial": "serial number", "vendor": "vendor", "product": "product"}

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_HEX = re.compile(r"[0-9a-fA-F]{4}")


@dataclass(frozen=True, slots=True)
class Found:
    """Something that is plugged in."""

    kind: str  # as in `Pluggable`
    node: str  # its device node now
    paths: tuple[str, ...]  # where it is plugged in, the most exact one first
    serial: str = ""
    vendor: str = ""  # four hexadecimal digits in lower case
    product: str = ""
    model: str = ""  # what it says that it is

    def __str__(self) -> str:
        return f"{self.node} ({self.paths[0] if self.paths else 'no path'})"


def check(wanted: Sequence[Pluggable]) -> None:
    """Raises `Invalid`, naming the entry, for what the operator cannot have meant."""
    if len(wanted) > DEVICES_MAX:
        raise Invalid(f"devices.hotplug: {len(wanted)} devices, at most {DEVICES_MAX} are allowed")
    seen: dict[str, str] = {}
    for number, each in enumerate(wanted):
        where = f"devices.hotplug.devices[{number}]"
        if not name_fits(each.name):
            raise Invalid(f"{where}.name = {each.name[:80]!r}: write 1 to 63 letters, digits, and any of _.-")
        if other := seen.get(variable_of(each.name)):
            raise Invalid(f"{where}.name = {each.name!r}: too much like {other!r}, tasks could not tell them apart")
        seen[variable_of(each.name)] = each.name
        _check_identity(where, each)


def _check_identity(where: str, each: Pluggable) -> None:
    for key in ("vendor", "product"):
        value = getattr(each, key)
        if value and not _HEX.fullmatch(value):
            raise Invalid(f"{where}.{key} = {value[:80]!r}: write four hexadecimal digits, as lsusb shows them")
    if each.product and not each.vendor:
        raise Invalid(f"{where}.product = {each.product!r}: a product is a vendor's, so write vendor too")
    if not any(getattr(each, key) for key in KEYS):
        raise Invalid(f"{where}: {each.name!r} is known by nothing: write path, serial, or vendor and product")


def name_fits(text: str) -> bool:
    """Whether a device may be called so: it becomes part of a path and of a variable."""
    return _NAME.fullmatch(text) is not None


def variable_of(name: str) -> str:
    """The variable that tells a task where the device is."""
    return "DEVICE_" + re.sub(r"[^A-Z0-9]", "_", name.upper())


def matches(wanted: Pluggable, found: Found) -> bool:
    """Whether all that the operator said of it holds."""
    return (
        wanted.kind == found.kind
        and (not wanted.path or wanted.path in found.paths)
        and (not wanted.serial or wanted.serial == found.serial)
        and (not wanted.vendor or wanted.vendor.lower() == found.vendor)
        and (not wanted.product or wanted.product.lower() == found.product)
    )


def resolve(wanted: Sequence[Pluggable], here: Sequence[Found]) -> tuple[Found | str, ...]:
    """For each, what it is now, or why it cannot be had. Nothing is two devices at once: the first keeps it."""
    taken: dict[str, str] = {}
    answers: list[Found | str] = []
    for each in wanted:
        fitting = [found for found in here if matches(each, found)]
        if not fitting:
            answers.append(f"not plugged in: no {WORDS[each.kind]} has {_said(each)}")
        elif len(fitting) > 1:
            nodes = ", ".join(map(str, fitting[:4])) + (" and more" if len(fitting) > 4 else "")
            answers.append(f"ambiguous: {len(fitting)} have {_said(each)}: {nodes}")
        elif (other := taken.setdefault(fitting[0].node, each.name)) != each.name:
            answers.append(f"{fitting[0]} is the device {other!r} already")
        else:
            answers.append(fitting[0])
    return tuple(answers)


def _said(each: Pluggable) -> str:
    return ", ".join(f"{words} {getattr(each, key)}" for key, words in KEYS.items() if getattr(each, key))
