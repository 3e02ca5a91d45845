"""What is plugged in, read from /sys as the kernel shows it: udev need not run, its by-path names are made here too.

What does not live here: which of it the operator means (`identity`).
"""

from __future__ import annotations

import posixpath
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from edgerm.plugin.device import HostFiles
from edgerm_agent.devices.hotplug.identity import Found

ROOT = "/sys/devices"
PLACES = {"serial": "/sys/class/tty", "usb": "/sys/bus/usb/devices", "camera": "/sys/class/video4linux"}
# How a bus names its part of a path, as udev's path_id has it; "pnp" is ours: there udev names no path at all.
BUSES = {"pci": "pci-", "platform": "platform-", "acpi": "acpi-", "amba": "amba-", "pnp": "pnp-"}
NO_UART = "0"  # `type` of a serial port for which the kernel has a name and no chip


@dataclass(frozen=True, slots=True)
class Part:
    """A device on the way from a thing to the root of all devices."""

    path: str
    subsystem: str

    @property
    def name(self) -> str:
        """What the kernel calls it."""
        return posixpath.basename(self.path)


def here(host: HostFiles, kinds: Collection[str]) -> tuple[Found, ...]:
    """All of these kinds that are plugged in now. What goes away during the look is not there."""
    return tuple(found for kind in PLACES if kind in kinds for found in _of_kind(host, kind))


def _of_kind(host: HostFiles, kind: str) -> Iterator[Found]:
    try:
        names = host.names(PLACES[kind])
    except OSError:  # the kernel has no such things
        return
    for name in names:
        with suppress(OSError):
            if (found := _look(host, kind, host.link(f"{PLACES[kind]}/{name}"))) is not None:
                yield found


def _look(host: HostFiles, kind: str, path: str) -> Found | None:
    """What lies at this path of /sys, if it is hardware of this kind."""
    name = posixpath.basename(path)
    suffix = ""
    if kind == "usb":
        if ":" in name or "-" not in name:  # an interface of a device, or a root hub
            return None
    elif not host.exists(f"{path}/device"):  # a console, a pseudo-terminal: nothing that is plugged in
        return None
    elif kind == "serial":
        if _text(host, f"{path}/type") == NO_UART:
            return None
        port = _text(host, f"{path}/device/port_number")
        suffix = f"-port{port}" if port else ""
    else:
        index = _text(host, f"{path}/index")
        if index not in ("", "0"):  # other streams of the same camera
            return None
        suffix = "-video-index0"
    event = parse_uevent(host.read(f"{path}/uevent"))
    if "DEVNAME" not in event:
        return None
    parts = tuple(_parts(host, path))
    usb = next((part.path for part in parts if part.subsystem == "usb" and ":" not in part.name), "")
    return Found(kind, f"/dev/{event['DEVNAME']}", paths_of(parts, suffix), **_usb_words(host, usb))


def _usb_words(host: HostFiles, path: str) -> Mapping[str, str]:
    """What a USB device says of itself; nothing for what is on no USB."""
    if not path:
        return {}
    maker, product = (_text(host, f"{path}/{key}") for key in ("manufacturer", "product"))
    return {
        "vendor": _text(host, f"{path}/idVendor").lower(),
        "product": _text(host, f"{path}/idProduct").lower(),
        "serial": _text(host, f"{path}/serial"),
        "model": " ".join(filter(None, (maker, product))),
    }


def _parts(host: HostFiles, path: str) -> Iterator[Part]:
    """From the thing upwards, what is a device of some bus or class."""
    while path.startswith(f"{ROOT}/"):
        with suppress(OSError):
            yield Part(path, posixpath.basename(host.link(f"{path}/subsystem")))
        path = posixpath.dirname(path)


def _text(host: HostFiles, path: str) -> str:
    """Empty where there is no such file: most of them are not everywhere."""
    try:
        return host.read(path).strip()
    except OSError:
        return ""


# --- pure -------------------------------------------------------------------------------------------------------


def parse_uevent(text: str) -> Mapping[str, str]:
    """`KEY=value` lines."""
    return dict(line.partition("=")[::2] for line in text.splitlines() if "=" in line)


def paths_of(parts: Sequence[Part], suffix: str) -> tuple[str, ...]:
    """The names of its place, the most exact one first: as in /dev/serial/by-path, of the interface, of the device."""
    exact = bus_path(parts)
    if not exact:
        return ()
    usb = next((n for n, part in enumerate(parts) if part.subsystem == "usb" and ":" not in part.name), None)
    whole = bus_path(parts[usb:]) if usb is not None else exact
    return tuple(dict.fromkeys([exact + suffix, exact, whole]))


def bus_path(parts: Sequence[Part]) -> str:
    """udev's ID_PATH: for each bus on the way up the lowest device on it, the uppermost bus first."""
    words: list[str] = []
    last = ""
    for part in parts:
        if part.subsystem == last and last in (*BUSES, "usb"):
            continue
        last = part.subsystem
        if part.subsystem == "usb":
            _, dash, port = part.name.partition("-")
            words += [f"usb-0:{port}"] if dash else []
        elif part.subsystem in BUSES:
            words.append(BUSES[part.subsystem] + part.name)
    return "-".join(reversed(words))
