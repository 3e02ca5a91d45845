"""The plugins that this agent listens to, and what they say is here, checked and told to the core.

Plugins may come and go while the agent runs. What does not live here: which plugins there are (`loader`), what an
inventory must be (`edgerm.plugin.checking`), a task's devices (`manager`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

from edgerm import logs
from edgerm.core.devices import NO_INVENTORY, Device, DeviceClass, Inventory
from edgerm.core.errors import Conflict, Invalid
from edgerm.plugin.checking import checked, gone, nameable
from edgerm.plugin.device import DevicePlugin
from edgerm_agent.core.events import Event, Inventoried
from edgerm_agent.devices.schemas import keeping_schemas

FIRST_S = 5.0  # how long the agent waits for first inventories
RETRY_FIRST_S = 1.0
RETRY_MAX_S = 60.0
EACH_S = 0.1  # a plugin is heard so often in the long run,
BURST_S = 2.0  # and so much ahead of that

log = logs.get("agent.devices")


@runtime_checkable
class KeepsCpus(Protocol):
    """What a plugin has beside `DevicePlugin` if tasks without its devices must keep off some CPUs."""

    def plain_cpus(self) -> tuple[int, ...]:
        """The CPUs for tasks that claim none, ascending; none: all of them. Never changes."""
        ...


@dataclass(slots=True)
class Carrier:
    """A plugin, and what is known of it. `inventory` is what others were told, `named` its classes in any case."""

    plugin: DevicePlugin
    inventory: Inventory = NO_INVENTORY
    named: Inventory = NO_INVENTORY
    busy: asyncio.Lock = field(default_factory=asyncio.Lock)  # held while it prepares or releases
    heard: asyncio.Event = field(default_factory=asyncio.Event)  # that it is there, or that it cannot be had
    watching: asyncio.Task[None] | None = None


class Inventories:
    """What the device plugins of an agent say. `taken`: names of resources that are no devices.

    Call from the event loop's thread.
    """

    def __init__(self, taken: Collection[str] = ()) -> None:
        self._taken = taken
        self._carriers: dict[str, Carrier] = {}
        self._away: dict[str, Inventory] = {}  # plugins that are not there, with the classes that they had
        self._post: Callable[[Event], None] | None = None

    # --- plugins ---

    def add(self, plugin: DevicePlugin, classes: Collection[str] = ()) -> None:
        """Listen to this plugin from now on, in place of one of the same name; in the running event loop.

        `classes`: what it carries, as far as that is known before it says so; no other plugin may.
        """
        self._away.pop(plugin.name, None)
        before = self._carriers.get(plugin.name)
        carrier = Carrier(plugin, named=Inventory(tuple(map(DeviceClass, classes))))
        if before is not None:
            _cancel(before)
            carrier.inventory, carrier.named = before.inventory, before.named
        self._carriers[plugin.name] = carrier
        carrier.watching = asyncio.create_task(self._watch(carrier))

    def remove(self, name: str, why: str) -> None:
        """The plugin is away: nothing of its classes can be claimed, and `why` is told. What tasks have they keep."""
        carrier = self._carriers.pop(name, None)
        if carrier is not None:
            _cancel(carrier)
            self.missing(name, gone(carrier.named, why))

    def missing(self, name: str, classes: Inventory) -> None:
        """A plugin that could not be made has these classes, each with its problem."""
        self._away[name] = classes
        self._tell(name, classes)

    def plugin(self, name: str) -> DevicePlugin | None:
        """The plugin of this name, if there is one."""
        carrier = self._carriers.get(name)
        return carrier.plugin if carrier is not None else None

    def carrier_of(self, class_name: str) -> str:
        """The name of the plugin that carries this class; empty: none does."""
        found = (
            name for name, each in self._carriers.items() if any(its.name == class_name for its in each.named.classes)
        )
        return next(found, "")

    async def first(self, within_s: float = FIRST_S) -> None:
        """Until every plugin has said what is here, or has failed to; at most so long."""
        waiting = {name: asyncio.create_task(each.heard.wait()) for name, each in self._carriers.items()}
        if not waiting:
            return
        _, late = await asyncio.wait(waiting.values(), timeout=within_s)
        for name, task in waiting.items():
            if task in late:
                task.cancel()
                log.warning("a device plugin has not said what is here yet", plugin=name, waited_s=within_s)

    def begin(self, post: Callable[[Event], None]) -> None:
        """Whom to tell, from now on; all that is known at first."""
        self._post = post
        for name, inventory in self._away.items():
            self._tell(name, inventory)
        for name, carrier in self._carriers.items():
            if carrier.heard.is_set():
                self._tell(name, carrier.inventory)

    async def close(self) -> None:
        """Listen no more; what tasks have they keep."""
        tasks = [carrier.watching for carrier in self._carriers.values() if carrier.watching is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def plain_cpus(self) -> tuple[int, ...]:
        """The CPUs for tasks that claim none, ascending; none: all of them."""
        keepers = [each.plugin.plain_cpus() for each in self._carriers.values() if isinstance(each.plugin, KeepsCpus)]
        return next(filter(None, keepers), ())

    # --- inventories ---

    async def _watch(self, carrier: Carrier) -> None:
        loop = asyncio.get_running_loop()
        wait_s = RETRY_FIRST_S
        due_s = loop.time() - BURST_S
        while True:
            began_s = loop.time()
            try:
                async with watching(carrier.plugin) as inventories:
                    async for inventory in inventories:
                        self._take(carrier, inventory)
                        due_s = max(due_s, loop.time() - BURST_S) + EACH_S
                        await asyncio.sleep(due_s - loop.time())  # also a plugin that never waits lets others go on
                why = "it watches no more"
            except Exception as error:
                why = str(error) or type(error).__name__
                log.warning("a device plugin failed", plugin=carrier.plugin.name, error=why, again_in_s=wait_s)
            self._know(carrier, gone(carrier.named, f"its plugin failed: {why}"))
            if loop.time() - began_s > RETRY_MAX_S:
                wait_s = RETRY_FIRST_S
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, RETRY_MAX_S)

    def _take(self, carrier: Carrier, inventory: Inventory) -> None:
        """A refused inventory is a fault of the plugin: its classes are there with that problem."""
        try:
            found = self._own(carrier, keeping_schemas(checked(inventory, self._taken)))
        except Invalid as error:
            log.error("what a device plugin says cannot be", plugin=carrier.plugin.name, error=str(error))
            if not carrier.named.classes:
                carrier.named = self._own(carrier, nameable(inventory, self._taken))
            found = gone(carrier.named, f"what its plugin says cannot be: {error}")
        else:
            carrier.named = found
            self._take_over({each.name for each in found.classes})
        self._know(carrier, found)

    def _own(self, carrier: Carrier, inventory: Inventory) -> Inventory:
        """Without the classes that another plugin carries."""
        others = {
            each.name: name
            for name, other in self._carriers.items()
            for each in other.named.classes
            if other is not carrier
        }
        doubled = {each.name for each in inventory.classes} & others.keys()
        for name in sorted(doubled):
            log.error("two plugins carry one class", name=name, kept=others[name], left_out=carrier.plugin.name)
        return replace(
            inventory,
            classes=tuple(each for each in inventory.classes if each.name not in doubled),
            devices=tuple(device for device in inventory.devices if device.name not in doubled),
        )

    def _take_over(self, names: Collection[str]) -> None:
        """These classes have a plugin again: nobody who is away is asked for them."""
        for name, away in self._away.items():
            left = tuple(each for each in away.classes if each.name not in names)
            if len(left) < len(away.classes):
                self._away[name] = Inventory(left)
                self._tell(name, self._away[name])

    def _know(self, carrier: Carrier, inventory: Inventory) -> None:
        if carrier.heard.is_set() and inventory == carrier.inventory:
            return
        for device in _changed(carrier.inventory, inventory):
            _log_device(device)
        carrier.inventory = inventory
        carrier.heard.set()
        self._tell(carrier.plugin.name, inventory)

    def _tell(self, name: str, inventory: Inventory) -> None:
        if self._post is not None:
            self._post(Inventoried(name, inventory))

    def knows(self, name: str) -> bool:
        """Whether a plugin carries the class, be it away now; else nobody will ever take back what is of it."""
        named = (*(carrier.named for carrier in self._carriers.values()), *self._away.values())
        return any(each.name == name for inventory in named for each in inventory.classes)

    def find(self, name: str) -> tuple[Carrier, DeviceClass]:
        """Who carries the class. Raises `Conflict`, naming it."""
        for carrier in self._carriers.values():
            for each in carrier.named.classes:
                if each.name == name:
                    return carrier, each
        away = (each.problem for inventory in self._away.values() for each in inventory.classes if each.name == name)
        raise Conflict(f"{name} cannot be had: {next(away, 'no plugin of this agent carries it')}")


@asynccontextmanager
async def watching(plugin: DevicePlugin) -> AsyncIterator[AsyncIterator[Inventory]]:
    """What the plugin says; what it does at the end of its `watch` is done when the block is left."""
    inventories = plugin.watch()
    try:
        yield inventories
    finally:
        if isinstance(inventories, AsyncGenerator):
            await inventories.aclose()


def _cancel(carrier: Carrier) -> None:
    if carrier.watching is not None:
        carrier.watching.cancel()


def _changed(before: Inventory, now: Inventory) -> list[Device]:
    """What came, or has another problem than before."""
    known = {(device.name, device.id): device.problem for device in before.devices}
    return [device for device in now.devices if known.get((device.name, device.id)) != device.problem]


def _log_device(device: Device) -> None:
    if device.problem:
        log.warning("a device cannot be had", name=device.name, id=device.id, problem=device.problem)
    else:
        log.info("a device is there", name=device.name, id=device.id)
