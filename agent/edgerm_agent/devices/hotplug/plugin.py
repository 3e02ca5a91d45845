"""The plugin: which of the operator's devices are there, what a task gets of one, and whether it is free again."""

from __future__ import annotations

import asyncio
import json
import posixpath
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractContextManager, suppress

from edgerm.core.devices import Device, DeviceClass, Inventory
from edgerm.core.errors import Conflict, Invalid
from edgerm.core.metadata import to_text
from edgerm.plugin.device import DeviceNode, Given, Grant, HostFiles, NotClean, Setup, join
from edgerm_agent import config
from edgerm_agent.devices.hotplug import kernel
from edgerm_agent.devices.hotplug.identity import Found, check, name_fits, resolve, variable_of
from edgerm_agent.devices.hotplug.sysfs import here

INSIDE = "/dev/edgerm"  # where a container finds its devices
ON_LOSS = ("wait", "stop", "restart")
LOOK_S = 30.0  # a net below the events
LOOK_ALONE_S = 3.0  # where there are none
CLASSES = {kind: f"edgerm.io/{kind}" for kind in ("serial", "usb", "camera")}
TEXT = {"type": "string"}
SCHEMA = json.dumps(
    {
        "type": "object",
        "properties": {
            "labels": {"type": "array", "items": TEXT},
            **dict.fromkeys(("path", "serial", "vendor", "product", "model"), TEXT),
        },
        "required": ["labels"],
        "additionalProperties": False,
    }
)

Events = Callable[[asyncio.Event], AbstractContextManager[bool]]


def create(settings: config.Hotplug, host: HostFiles) -> Hotplug:
    """The plugin. Raises `Invalid` for a wrong setting."""
    return Hotplug(settings, host)


class Hotplug:
    """Classes edgerm.io/serial, edgerm.io/usb, edgerm.io/camera, as far as the operator has devices of them.

    `events`: who says that it is time to look (`kernel.events`).
    """

    name = "hotplug"

    def __init__(self, settings: config.Hotplug, host: HostFiles, events: Events = kernel.events) -> None:
        check(settings.devices)
        self._wanted = settings.devices
        self._host = host
        self._events = events
        self._kinds = {each.kind for each in settings.devices}
        keys = ("id", "on_loss")
        names = [CLASSES[kind] for kind in CLASSES if kind in self._kinds]
        self._classes = tuple(DeviceClass(name, config_keys=keys, schema=SCHEMA) for name in names)

    async def watch(self) -> AsyncIterator[Inventory]:
        """At once, and when something is plugged in or out."""
        changed = asyncio.Event()
        told: Inventory | None = None
        with self._events(changed) as heard:
            while True:
                changed.clear()
                found = Inventory(self._classes, await asyncio.to_thread(self._devices))
                if found != told:
                    yield found
                    told = found
                with suppress(TimeoutError):
                    await asyncio.wait_for(changed.wait(), LOOK_S if heard else LOOK_ALONE_S)

    async def prepare(self, grant: Grant) -> Setup:
        """Where each device is now. Raises `Invalid` for a wrong config, `Conflict` for one that is not there."""
        for given in grant.given:
            check_config(given)
        now = await asyncio.to_thread(self._now)
        return join(self._setup(grant, given, device, now) for given in grant.given for device in given.devices)

    async def release(self, grant: Grant) -> None:
        """Raises `NotClean` while a process still has one of them open. What is not plugged in is clean."""
        now = await asyncio.to_thread(self._now)
        answers = (now.get((device.name, device.id)) for device in grant.devices)
        nodes = {found.node for found in answers if isinstance(found, Found)}
        if nodes and (holders := await asyncio.to_thread(self._holders, nodes)):
            raise NotClean(f"still open: {', '.join(holders[:8])}")

    def _now(self) -> dict[tuple[str, str], Found | str]:
        """What each is, or why it cannot be had, by class and id."""
        answers = resolve(self._wanted, here(self._host, self._kinds))
        return {(CLASSES[each.kind], each.name): answer for each, answer in zip(self._wanted, answers, strict=True)}

    def _devices(self) -> tuple[Device, ...]:
        answers = resolve(self._wanted, here(self._host, self._kinds))
        return tuple(_device(each, answer) for each, answer in zip(self._wanted, answers, strict=True))

    def _setup(self, grant: Grant, given: Given, device: Device, now: Mapping[tuple[str, str], Found | str]) -> Setup:
        answer = now.get((device.name, device.id), "the operator's settings have no such device any more")
        if isinstance(answer, str):
            raise Conflict(f"device {device.id!r} of {device.name} cannot be had: {answer}")
        name = str(given.config.get("id") or device.id)
        inside = f"{INSIDE}/{name}" if grant.executor == "docker" else answer.node  # others see the box's own
        return Setup(env=((variable_of(name), inside),), nodes=(DeviceNode(answer.node, inside),))

    def _holders(self, nodes: set[str]) -> list[str]:
        """Processes that have a node open, as far as they see the box's own /dev."""
        found = []
        for pid in filter(str.isdigit, self._names("/proc")):
            for number in self._names(f"/proc/{pid}/fd"):
                with suppress(OSError):
                    node = self._host.link(f"/proc/{pid}/fd/{number}")
                    if node in nodes:
                        found.append(f"{node} by {self._host.read(f'/proc/{pid}/comm').strip()} (pid {pid})")
        return found

    def _names(self, path: str) -> tuple[str, ...]:
        """Nothing, where a process has ended meanwhile."""
        try:
            return self._host.names(path)
        except OSError:
            return ()


def check_config(given: Given) -> None:
    """Raises `Invalid`, naming the key."""
    on_loss = given.config.get("on_loss", ON_LOSS[0])
    if on_loss not in ON_LOSS:
        raise Invalid(f"claim {given.claim!r}: on_loss = {str(on_loss)[:80]!r}: write one of {', '.join(ON_LOSS)}")
    name = given.config.get("id")
    if name is None:
        return
    if not isinstance(name, str) or not name_fits(name):
        raise Invalid(f"claim {given.claim!r}: id = {str(name)[:80]!r}: write 1 to 63 letters, digits, and any of _.-")
    if len(given.devices) > 1:
        raise Invalid(f"claim {given.claim!r}: id = {name!r} names one device, the claim has {len(given.devices)}")


def _device(wanted: config.Pluggable, answer: Found | str) -> Device:
    """As it is now; of one that is not there the settings tell what is known."""
    known = answer if isinstance(answer, Found) else None
    metadata: dict[str, object] = {"labels": list(wanted.labels)}
    words = {
        "path": known.paths[0] if known and known.paths else wanted.path,
        "serial": known.serial if known else wanted.serial,
        "vendor": known.vendor if known else wanted.vendor.lower(),
        "product": known.product if known else wanted.product.lower(),
        "model": known.model if known else "",
    }
    metadata |= {key: value for key, value in words.items() if value}
    return Device(
        CLASSES[wanted.kind],
        wanted.name,
        problem="" if known else str(answer),
        gives=(f"node {posixpath.join(INSIDE, wanted.name)}", f"variable {variable_of(wanted.name)}"),
        metadata=to_text(metadata),
    )
