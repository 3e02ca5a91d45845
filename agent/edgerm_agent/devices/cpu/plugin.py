"""The plugin of isolated cores: its inventory, and what a task gets that has some."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import replace

from edgerm import logs
from edgerm.core import cpulists, schedstrings
from edgerm.core.devices import Device, DeviceClass, Inventory
from edgerm.core.errors import Conflict, Invalid
from edgerm.core.metadata import to_text
from edgerm.plugin.device import DeviceNode, Given, Grant, HostFiles, NotClean, Setup
from edgerm_agent.config import Cpu, Fake
from edgerm_agent.devices.cpu import cores, metadata
from edgerm_agent.devices.cpu.box import Box, look
from edgerm_agent.devices.cpu.cores import Core
from edgerm_agent.devices.cpu.metadata import Fields
from edgerm_agent.devices.cpu.tuning import KINDS, Tuning, Wish, check
from edgerm_agent.devices.threads import SetScheduler, set_scheduler

CLASS = "siemens.com/isolated_core"
VARIABLE = "IEDGE_CPUSET_ISOLATED"
LATENCY = "/dev/cpu_dma_latency"
LOOK_S = 10.0  # the kernel has no event for a CPU that comes or goes
FAKES_MAX = 256

CORES = DeviceClass(CLASS, config_keys=tuple(f"{kind}_sched" for kind in KINDS), schema=metadata.SCHEMA)

_ID = re.compile(r"cpu[0-9]{1,5}", re.ASCII)

log = logs.get("agent.devices")


def create(settings: Cpu, host: HostFiles, dynamic_tuning: bool = True) -> Cpus:
    """Raises `Invalid` for settings that cannot be, naming the key, and where no CPU is left for others."""
    return Cpus(settings, host, dynamic_tuning)


class Cpus:
    """Isolated cores (`edgerm.plugin.device.DevicePlugin`). `change`: how a thread's scheduling is changed."""

    name = "cpu"

    def __init__(
        self,
        settings: Cpu,
        host: HostFiles,
        dynamic_tuning: bool = True,
        *,
        look_s: float = LOOK_S,
        change: SetScheduler = set_scheduler,
    ) -> None:
        self._settings = settings
        self._host = host
        self._dynamic_tuning = dynamic_tuning
        self._look_s = look_s
        self._tuning = Tuning(host, change)
        self._lock = threading.Lock()  # a thread goes on when whoever waits for it has given up
        self._rules = cores.rules_of(settings)
        self._siblings: dict[int, tuple[int, ...]] = {}
        self._box = Box()
        self._know(look(host))
        self._fakes = tuple(_fake(fake, number) for number, fake in enumerate(settings.fake))
        self._check()

    def _check(self) -> None:
        for number, override in enumerate(self._settings.override):
            _check_metadata(f"devices.cpu.override[{number}]", override.metadata)
        if len(self._fakes) > FAKES_MAX:
            raise Invalid(f"devices.cpu.fake: {len(self._fakes)} of them, at most {FAKES_MAX} are allowed")
        ids = [f"cpu{core.cpu}" for core in self._cores()] + [device.id for device in self._fakes]
        for each in ids:
            if ids.count(each) > 1:
                raise Invalid(f"devices.cpu.fake: id {each[3:]!r} is a core of this box, or stands twice")
        if not cores.plain(self._box, frozenset(self._apart)) and self._apart & self._box.online:
            raise Invalid(
                f"devices.cpu.isolated = {self._settings.isolated!r} leaves no CPU of this box "
                f"({cpulists.to_text(self._box.online)}) for anything else: name fewer"
            )

    def plain_cpus(self) -> tuple[int, ...]:
        """The CPUs for tasks that claim none, ascending; none: all of them."""
        return cores.plain(self._box, self._apart)

    async def watch(self) -> AsyncIterator[Inventory]:
        """At once, and when a CPU came or went, or the kernel isolates others."""
        told: Box | None = None
        while True:
            self._know(await asyncio.to_thread(look, self._host))
            if self._box != told:
                told = self._box
                yield await self._inventory()
            await asyncio.sleep(self._look_s)

    def _know(self, box: Box) -> None:
        self._box = box
        self._siblings = cores.remembered(self._siblings, box)
        self._apart = cores.apart(box, self._rules, self._siblings)

    def _cores(self) -> tuple[Core, ...]:
        return cores.cores(self._box, self._rules, self._siblings)

    async def _inventory(self) -> Inventory:
        """Metadata are read with it only, because some of it, such as the present MHz, changes all the time."""
        found = self._cores()
        told = await self._told() if found else {}
        return Inventory((CORES,), (*(self._device(core, told) for core in found), *self._fakes))

    def _device(self, core: Core, told: Mapping[int, Fields]) -> Device:
        fields: Fields = {"cpuset": list(core.cpus), **told.get(-1, {}), **told.get(core.cpu, {})}
        for override in self._settings.override:
            if core.cpu in cpulists.parse(override.cpus):
                fields = metadata.overlaid(fields, override.metadata)
        kind = f"{core.kind} core" if core.kind else "core"
        gives = (f"{kind}, CPU {core.cpu}", *(f"node {path}" for path in self._nodes()), f"variable {VARIABLE}")
        return Device(
            CLASS, f"cpu{core.cpu}", problem=core.problem, gives=gives, metadata=to_text(fields), numa_nodes=core.nodes
        )

    async def _told(self) -> dict[int, Fields]:
        """What programs and the kernel say by CPU, and for -1 of the box. What one of them does not say is missing."""
        found: dict[int, Fields] = {}
        try:
            cpuinfo = await asyncio.to_thread(self._host.read, "/proc/cpuinfo")
            for cpu, fields in metadata.parse_cpuinfo(cpuinfo).items():
                found.setdefault(cpu, {})["cpuinfo"] = fields
            found[-1] = {"lscpu": metadata.parse_lscpu(await self._host.run("lscpu", "-J"))}
            for cpu, fields in metadata.parse_lscpu_e(await self._host.run("lscpu", "-e", "-J")).items():
                found.setdefault(cpu, {})["lscpue"] = fields
        except (OSError, Invalid) as error:
            log.warning("the metadata of isolated cores are not complete", error=str(error))
        return found

    def _nodes(self) -> tuple[str, ...]:
        return (LATENCY,) if self._settings.cpu_dma_latency and self._host.exists(LATENCY) else ()

    async def prepare(self, grant: Grant) -> Setup:
        """The task runs on its CPUs alone; the kernel's threads there are scheduled as it asks."""
        self._check_there(grant)
        wishes = tuple(wish for given in grant.given for wish in _wishes(given))
        check(wishes)
        fakes = {device.id for device in self._fakes}
        everything = _cpus(grant.devices)
        real = _cpus(device for device in grant.devices if device.id not in fakes)
        wishes = tuple(wish for wish in wishes if wish.cpu in real)
        if wishes and not self._dynamic_tuning:
            raise Conflict(f"{wishes[0]}: this agent tunes nothing: devices.dynamic_tuning is false")
        await asyncio.to_thread(self._tune, real, wishes)
        return Setup(
            env=((VARIABLE, cpulists.to_text(everything)),),
            nodes=tuple(DeviceNode(path, path) for path in (self._nodes() if real else ())),
            cpus=real,
        )

    def _check_there(self, grant: Grant) -> None:
        known = {f"cpu{core.cpu}" for core in self._cores()} | {device.id for device in self._fakes}
        for given in grant.given:
            for device in given.devices:
                if device.id not in known:
                    raise Conflict(f"claim {given.claim!r}: this box has no isolated core {device.id!r}")

    def _tune(self, cpus: tuple[int, ...], wishes: tuple[Wish, ...]) -> None:
        """An earlier task of these CPUs may have left something to undo, if the agent's data were lost meanwhile."""
        with self._lock:
            try:
                self._tuning.revert(cpus, but=wishes)
            except NotClean as error:
                raise Conflict(str(error)) from error
            self._tuning.apply(wishes)

    def _revert(self, cpus: tuple[int, ...]) -> None:
        with self._lock:
            self._tuning.revert(cpus)

    async def release(self, grant: Grant) -> None:
        """The kernel's threads are as they were before the task."""
        await asyncio.to_thread(self._revert, _cpus(grant.devices))


def _cpus(devices: Iterable[Device]) -> tuple[int, ...]:
    """Ascending. Another name than a core's, of which a release may hear, stands for none."""
    return tuple(sorted(int(device.id[3:]) for device in devices if _ID.fullmatch(device.id)))


def _wishes(given: Given) -> Iterator[Wish]:
    for kind in KINDS:
        if f"{kind}_sched" in given.config:
            try:
                scheduling = schedstrings.parse(given.config[f"{kind}_sched"])
            except Invalid as error:
                raise Invalid(f"claim {given.claim!r}: {kind}_sched: {error}") from None
            yield from (Wish(given.claim, kind, cpu, scheduling) for cpu in _cpus(given.devices))


def _check_metadata(where: str, found: Mapping[str, object]) -> None:
    try:
        to_text(found)
    except Invalid as error:
        raise Invalid(f"{where}.metadata: {error}") from None


def _fake(fake: Fake, number: int) -> Device:
    """Something to develop with on a box without isolated cores."""
    where = f"devices.cpu.fake[{number}]"
    cpus = cores.parse_list(f"{where}.id", fake.id)
    if len(cpus) != 1:
        raise Invalid(f"{where}.id = {fake.id[:40]!r}: write the number of a CPU, such as 2")
    _check_metadata(where, fake.metadata)
    gives = ("nothing but variables: it is a fake", f"variable {VARIABLE}")
    device = Device(CLASS, f"cpu{cpus[0]}", gives=gives, fake=True)
    return replace(device, metadata=to_text(metadata.overlaid({"cpuset": list(cpus)}, fake.metadata)))
