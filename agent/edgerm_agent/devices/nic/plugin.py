"""The plugin: marked interfaces as devices, into a task's network namespace and home again.

Whatever is changed is noted before. What does not live here: making namespaces (the executors), what a step or a change
is (`plan`, `tuning`), how everything becomes as it was (`homing`).
"""

from __future__ import annotations

import asyncio
import os
import re
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

from edgerm import logs
from edgerm.core.devices import Device, DeviceClass, Inventory
from edgerm.core.errors import Conflict, EdgermError, Invalid
from edgerm.core.metadata import to_text
from edgerm.plugin.device import DeviceNode, Grant, HostFiles, NotClean, Setup
from edgerm_agent.config import Nic, NicInterface
from edgerm_agent.devices.nic import asking, card, links, memory, plan
from edgerm_agent.devices.nic.asking import Asked
from edgerm_agent.devices.nic.homing import WayHome
from edgerm_agent.devices.nic.links import Netlink
from edgerm_agent.devices.nic.memory import Note
from edgerm_agent.devices.nic.plan import Column, Link, Names
from edgerm_agent.devices.nic.tuning import Tuner, ready, tend

CLASS = "siemens.com/network"
INTERFACES_MAX = 256
LABELS_MAX = 64  # of one interface
LOOK_S = 10.0
CHECKS_S = (0.0, 0.1, 0.2)  # before the task starts: interrupts of an interface that came up move threads
TEND_S = (0.5, 2.0, 2.5, 5.0)  # after that: a link may be negotiated for seconds
NO_TUNING = "dynamic tuning is off on this agent (devices.dynamic_tuning)"
NO_ROOT = "the agent does not run as root, and so can move and tune no interface"
SCHEMA = """{"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Network Interface Metadata",
"type": "object", "required": ["labels", "ptp"], "additionalProperties": false, "properties": {
"labels": {"title": "VLAN tag by label, 0: none", "type": "object",
"additionalProperties": {"type": "integer", "minimum": 0, "maximum": 4094}},
"ptp": {"title": "Path of the PTP device, empty: none", "type": "string"},
"driver": {"type": "string"}, "mac": {"type": "string"}}}"""

_NAME = re.compile(r"[!#-&(-+\--.0-9<-z|~]{1,15}")  # neither / nor : as the kernel has it, nor what an id cannot hold
_LABEL = re.compile(r"[!-+\--~][ -+\--~]{0,63}")  # printable ASCII without the comma that parts columns

log = logs.get("agent.devices.nic")


@dataclass(frozen=True, slots=True)
class _Wish:
    """One interface that a task gets."""

    claim: str
    device: Device
    asked: Asked
    label: str
    tag: int


def create(settings: Nic, host: HostFiles, dynamic_tuning: bool = True) -> NicPlugin:
    """The plugin for `[devices.nic]`; raises `Invalid` for what cannot be."""
    check(settings.interfaces)
    links.check()
    is_root = os.geteuid() == 0
    refusal = "" if is_root and dynamic_tuning else NO_TUNING if is_root else NO_ROOT
    return NicPlugin(settings, host, links.Netlink(), Tuner(host), refusal, "" if is_root else NO_ROOT)


def check(interfaces: tuple[NicInterface, ...]) -> None:
    """Raises `Invalid`, naming the entry."""
    if len(interfaces) > INTERFACES_MAX:
        raise Invalid(f"devices.nic.interfaces: {len(interfaces)} of them, at most {INTERFACES_MAX} are allowed")
    names: set[str] = set()
    for number, interface in enumerate(interfaces):
        where = f"devices.nic.interfaces[{number}]"
        if not _NAME.fullmatch(interface.name) or interface.name in (".", "..", "lo"):
            raise Invalid(f"{where}.name = {interface.name!r:.40}: no interface that can be given away is called so")
        if interface.name in names:
            raise Invalid(f"{where}.name = {interface.name!r}: it stands twice")
        names.add(interface.name)
        if len(interface.labels) > LABELS_MAX:
            raise Invalid(f"{where}.labels: {len(interface.labels)} of them, at most {LABELS_MAX} are allowed")
        for label in interface.labels:
            if not _LABEL.fullmatch(label):
                raise Invalid(f"{where}.labels: {label!r:.80}: write 1 to 64 printable ASCII characters, no comma")


class NicPlugin:
    """Carries `siemens.com/network`. `no_tuning`, `no_moving`: why that cannot be done here; empty: it can."""

    name = "nic"

    def __init__(
        self,
        settings: Nic,
        host: HostFiles,
        kernel: Netlink,
        tuner: Tuner,
        no_tuning: str = "",
        no_moving: str = "",
    ) -> None:
        self._interfaces = {each.name: each for each in settings.interfaces}
        self._host, self._kernel, self._tuner = host, kernel, tuner
        self._way_home = WayHome(host, kernel, tuner)
        self._no_tuning, self._no_moving = no_tuning, no_moving
        self._lock = threading.Lock()  # a call that was given up may still be at work
        self._changed = asyncio.Event()

    # --- what is here ---

    async def watch(self) -> AsyncIterator[Inventory]:
        """As promised; what tasks have is looked after meanwhile."""
        while True:
            self._changed.clear()
            yield await asyncio.to_thread(self._inventory)
            for wait_s in (*TEND_S, LOOK_S) if await asyncio.to_thread(self._tends) else (LOOK_S,):
                try:
                    async with asyncio.timeout(wait_s):
                        await self._changed.wait()
                    break
                except TimeoutError:
                    await asyncio.to_thread(self._tend)

    def _inventory(self) -> Inventory:
        noted = {note.home: note for note in self._notes()}
        found = DeviceClass(CLASS, False, asking.KEYS, schema=SCHEMA, problem=self._no_moving)
        return Inventory(
            (found,), tuple(self._device(each, noted.get(each.name)) for each in self._interfaces.values())
        )

    def _device(self, interface: NicInterface, note: Note | None) -> Device:
        name = interface.name
        gives = (f"interface {name}",)
        if note is not None:
            lost = note.device and not self._host.exists(note.device)
            problem = f"the card of interface {name} is gone" if lost else ""
            return Device(CLASS, name, problem=problem, gives=gives, metadata=note.metadata)
        found = card.look(self._host, name, links.clock_number)
        metadata = {"labels": dict(interface.labels), "ptp": found.clock, "driver": found.driver, "mac": found.mac}
        return Device(
            CLASS,
            name,
            problem=card.problem_of(self._host, name),
            gives=(*gives, f"node {found.clock} rw") if found.clock else gives,
            metadata=to_text({key: value for key, value in metadata.items() if value or key in ("labels", "ptp")}),
            numa_nodes=found.numa_nodes,
        )

    def _notes(self) -> list[Note]:
        """A note that is none of ours raises `OSError`: what it was about cannot be given away."""
        found = []
        keys = self._host.notes.keys()
        for key in keys:
            if (text := self._host.notes.get(key)) is not None:
                try:
                    found.append(memory.from_json(text))
                except (LookupError, TypeError, ValueError) as error:
                    raise OSError(f"the note about interface {key} cannot be read: {error!r:.200}") from error
        return found

    def _put(self, note: Note) -> None:
        self._host.notes.put(note.home, memory.to_json(note))

    def _tends(self) -> bool:
        return any(note.ready and note.tuning.asked for note in self._notes())

    def _tend(self) -> None:
        with self._lock:
            for note in self._notes():
                try:
                    tend(self._tuner, note, self._put)
                except (EdgermError, OSError) as error:
                    log.warning("an interface is not tuned as its task asked", interface=note.home, error=str(error))

    # --- the way in ---

    async def prepare(self, grant: Grant) -> Setup:
        """As promised: begins anew each time, with everything at home."""
        wishes = self._wishes(grant)
        if not grant.network:
            raise Invalid(f"{CLASS}: a task of executor {grant.executor} has no network namespace of its own")
        try:
            columns = await asyncio.to_thread(self._prepare, grant, wishes)
        except (NotClean, OSError) as error:
            raise Conflict(f"{CLASS}: {error}") from error
        finally:
            self._changed.set()
        clocks = dict.fromkeys(column.clock for column in columns if column.clock)
        nodes = tuple(DeviceNode(clock, clock, "rw") for clock in clocks)
        return Setup(plan.variables(columns), nodes=nodes, network=grant.network)

    def _wishes(self, grant: Grant) -> list[_Wish]:
        """Raises `Invalid` and `Conflict` for what is asked, before anything is done."""
        if self._no_moving:
            raise Conflict(f"{CLASS}: {self._no_moving}")
        found = []
        for given in grant.given:
            asked = asking.read(given.claim, given.config, grant.cpus, self._no_tuning)
            for device in given.devices:
                if (interface := self._interfaces.get(device.id)) is None:
                    raise Conflict(f"claim {given.claim!r}: interface {device.id} is not marked here any more")
                label, tag = asking.choose_label(given.claim, asked.label, device.id, interface.labels)
                found.append(_Wish(given.claim, device, asked, label, tag))
        return found

    def _prepare(self, grant: Grant, wishes: list[_Wish]) -> tuple[Column, ...]:
        with self._lock:
            self._release(grant)
            names = plan.names_inside([(wish.asked.prefix, wish.device.id, wish.tag) for wish in wishes])
            return tuple(self._bring(grant, *each) for each in zip(wishes, names, strict=True))

    def _bring(self, grant: Grant, wish: _Wish, names: Names) -> Column:
        home = wish.device.id
        note, clock = self._note(grant, wish, names)
        self._put(note)
        if wish.asked.tuning.napi is not None:
            note = self._switch_napi(note, wish.asked.tuning.napi)
        note = replace(note, strangers=self._tuner.strangers({names.card} - {home}))
        self._put(note)
        self._kernel.apply("", plan.way_in(self._named(home), grant.network, names))
        self._kernel.apply(grant.network, plan.set_up(names, wish.tag))
        for pause_s in CHECKS_S if wish.asked.tuning.asked else ():
            time.sleep(pause_s)  # this is a thread
            note = self._tuner.tune(note, self._put)
        self._put(ready(note))
        log.info("an interface is in a task's network", interface=home, name=names.task, task=str(grant.task))
        return Column(wish.asked.prefix, wish.label, clock, home, self._interfaces[home].labels)

    def _named(self, name: str) -> Link:
        """Raises `Conflict` if the box has none."""
        for link in self._kernel.look(""):
            if link.name == name:
                return link
        raise Conflict(f"interface {name} is not in the box's network namespace")

    def _note(self, grant: Grant, wish: _Wish, names: Names) -> tuple[Note, str]:
        """What is to be remembered, and the interface's clock. Raises `Conflict` if nobody can have it."""
        home = wish.device.id
        if (text := self._host.notes.get(home)) is not None:
            holder = memory.from_json(text).task
            raise Conflict(f"claim {wish.claim!r}: interface {home} is not home yet from task {holder}")
        if problem := card.problem_of(self._host, home):
            raise Conflict(f"claim {wish.claim!r}: {problem}")
        link = self._named(home)
        device = self._device(self._interfaces[home], None)
        found = card.look(self._host, home, links.clock_number)
        note = Note(
            grant.task,
            home,
            plan.identity_of(link),
            link.mac,
            link.mtu,
            grant.network,
            self._kernel.number_of(grant.network),
            names.card,
            self._way_home.boot(),
            found.device,
            device.metadata,
            wish.asked.tuning,
        )
        return note, found.clock

    def _switch_napi(self, note: Note, on: bool) -> Note:
        """While it is still at home: what was set there stays on the way, and its threads keep the name from here."""
        path = f"{card.NET}/{note.home}/threaded"
        try:
            before = self._host.read(path).strip()
            note = replace(note, napi=before)
            self._put(note)
            self._host.write(path, str(int(on)))
            now = self._host.read(path).strip()
        except OSError as error:
            raise Conflict(
                f"interface {note.home}: this kernel does not switch threaded NAPI: {error.strerror}"
            ) from error
        if now != str(int(on)):
            raise Conflict(f"interface {note.home}: threaded NAPI stays {now or 'unknown'}, and {int(on)} was asked")
        return note

    # --- the way home ---

    async def release(self, grant: Grant) -> None:
        """As promised."""
        try:
            await asyncio.to_thread(self._release_alone, grant)
        finally:
            self._changed.set()

    def _release_alone(self, grant: Grant) -> None:
        with self._lock:
            self._release(grant)

    def _release(self, grant: Grant) -> None:
        self._way_home.undo([note for note in self._notes() if note.task == grant.task])
