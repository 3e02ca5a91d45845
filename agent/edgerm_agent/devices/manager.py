"""A task's devices, prepared before it starts and given back after its end, by the plugins of this agent.

What does not live here: what plugins say is here (`inventories`), who gets a device (the core), what a task gets of
its setup (`edgerm_agent.launch`).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Collection, Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from edgerm import logs
from edgerm.core.claims import Granted
from edgerm.core.devices import Device, Inventory
from edgerm.core.errors import Conflict, EdgermError, Invalid, Unavailable
from edgerm.core.ids import TaskKey
from edgerm.plugin.checking import check_config, check_setup, line
from edgerm.plugin.device import Chooses, DevicePlugin, Given, Grant, NotClean, Setup, join
from edgerm.plugin.executor import Networks
from edgerm_agent.core.effects import Choose, GiveBack
from edgerm_agent.core.events import Chosen, GivenBack
from edgerm_agent.core.records import GrantRecord
from edgerm_agent.devices.inventories import Inventories

CORES = "siemens.com/isolated_core"  # prepared first: others are told which CPUs the task has
NETWORKS = "siemens.com/network"  # prepared last, in the task's own network namespace
PREPARE_S = 60.0  # for each class
RELEASE_S = 10.0  # likewise

T = TypeVar("T")
log = logs.get("agent.devices")


class Devices(Inventories):
    """All device plugins of an agent. `executors`: who may have made a network namespace for a task, by name.

    Call from the event loop's thread.
    """

    def __init__(self, taken: Collection[str] = (), executors: Mapping[str, object] | None = None) -> None:
        super().__init__(taken)
        self._executors = executors or {}
        self._working: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Listen no more, and give up what is under way: the agent's next life does it again."""
        for task in self._working:
            task.cancel()
        await asyncio.gather(*self._working, return_exceptions=True)
        await super().close()

    async def prepare(self, key: TaskKey, grants: Sequence[GrantRecord], executor: object) -> Setup:
        """Make a task's devices ready; what it gets of all of them. `executor` is the one that will run it.

        Raises `Invalid`, `Conflict` or `Unavailable` with the plugin's words; nothing is left then.
        """
        begun: list[GrantRecord] = []
        try:
            return await self._prepare(key, grants, executor, begun)
        except Exception:  # what cancels it says by itself that they are to be given back, or the agent ends
            await self._take_back(key, begun, executor)
            raise

    async def setup(self, key: TaskKey, grants: Sequence[GrantRecord], executor: object) -> Setup:
        """What a task gets that has its devices already. Raises as `prepare` does; the task keeps what it has."""
        return await self._prepare(key, grants, executor, [])

    async def _prepare(
        self, key: TaskKey, grants: Sequence[GrantRecord], executor: object, begun: list[GrantRecord]
    ) -> Setup:
        """`begun`: gets each grant on which something may have been done."""
        found = [(self.find(grant.name), grant) for grant in sorted(grants, key=_rank)]
        for (carrier, its), grant in found:
            _grant(grant, carrier.inventory, strict=True)
            for granted in grant.granted:
                check_config(its, granted.claim, _config(granted))
        setups: list[Setup] = []
        for (carrier, _), grant in found:
            begun.append(grant)
            network = await _network(key, executor) if grant.name == NETWORKS else ""
            cpus = join(setups).cpus
            there = replace(_grant(grant, carrier.inventory, strict=False), cpus=cpus, network=network)
            async with carrier.busy:
                setups.append(await _prepared(carrier.plugin, there))
        return join(setups)

    def give_back(self, effect: GiveBack) -> None:
        """Take the task's devices back; answered by GivenBack, with what was found."""
        self._go(self._give_back(effect))

    async def _give_back(self, effect: GiveBack) -> None:
        evidence = await self.take_back(effect.key, effect.grants)
        if self._post is not None:
            self._post(GivenBack(effect.key, evidence))

    async def take_back(self, key: TaskKey, grants: Sequence[GrantRecord]) -> Mapping[str, str]:
        """Nothing of the task is left: what was found of the classes that are not clean, a line each. Idempotent."""
        executor = self._executors.get(grants[0].executor) if grants else None
        return await self._take_back(key, grants, executor)

    async def _take_back(self, key: TaskKey, grants: Sequence[GrantRecord], executor: object) -> Mapping[str, str]:
        evidence = await self._release(key, grants, executor)
        for name, found in evidence.items():
            log.warning("a device is not clean", task=str(key), name=name, evidence=found)
        return evidence

    async def _release(self, key: TaskKey, grants: Sequence[GrantRecord], executor: object) -> dict[str, str]:
        """What was found of the classes that are not clean: class → a line. In the reverse order of `prepare`."""
        evidence = {}
        for grant in sorted(grants, key=_rank, reverse=True):
            try:
                carrier, _ = self.find(grant.name)
                async with carrier.busy:
                    asked = carrier.plugin.release(_grant(grant, carrier.inventory, strict=False))
                    await _bounded(asked, RELEASE_S, f"releasing {grant.name}")
                if grant.name == NETWORKS and isinstance(executor, Networks):
                    await _bounded(executor.drop_network(key), RELEASE_S, "removing its network namespace")
            except (NotClean, Conflict) as error:
                evidence[grant.name] = line(str(error)) or "it is not clean"
            except Exception as error:
                log.warning("a device plugin failed", name=grant.name, task=str(key), exc_info=error)
                evidence[grant.name] = line(f"it could not be released: {error or type(error).__name__}")
        return evidence

    # --- plugins that state preferences ---

    def choose(self, effect: Choose) -> None:
        """Ask the plugin of a class which devices the task shall have; answered by Chosen."""
        self._go(self._choose(effect))

    async def _choose(self, effect: Choose) -> None:
        """An answer that is none is no reason to give nothing: what the core took stays."""
        ids: dict[str, tuple[str, ...]] = {}
        grant = effect.grant
        try:
            carrier, _ = self.find(grant.name)
            free = list(effect.free)
            for granted in grant.granted:
                if not isinstance(carrier.plugin, Chooses):
                    break
                asked = carrier.plugin.choose(grant.name, tuple(free), len(granted.ids))
                chosen = tuple(await _bounded(asked, RELEASE_S, f"asking for preferences of {grant.name}"))
                if len(chosen) != len(granted.ids) or not {*chosen} <= {*free} or len({*chosen}) != len(chosen):
                    raise Invalid(f"of {len(free)} free devices it chose {', '.join(chosen)[:200]!r}")
                free = [each for each in free if each not in chosen]
                ids[granted.claim] = chosen
        except Exception as error:
            ids = {}
            log.warning("a device plugin's preference is ignored", name=grant.name, error=str(error))
        if self._post is not None:
            self._post(Chosen(effect.key, grant.name, ids))

    def _go(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._working.add(task)
        task.add_done_callback(self._working.discard)


def _rank(grant: GrantRecord) -> tuple[int, str]:
    return (0 if grant.name == CORES else 2 if grant.name == NETWORKS else 1), grant.name


def _config(granted: Granted) -> Mapping[str, object]:
    config: Mapping[str, object] = json.loads(granted.config) if granted.config else {}
    return config


def _grant(record: GrantRecord, inventory: Inventory, strict: bool) -> Grant:
    """What the plugin is told. `strict`: raises `Conflict` for a device that is not there, or that nobody can have."""
    order = {device.id: number for number, device in enumerate(inventory.devices) if device.name == record.name}
    found = {device.id: device for device in inventory.devices if device.name == record.name}
    problem = next((each.problem for each in inventory.classes if each.name == record.name), "")
    if strict and problem:
        raise Conflict(f"{record.name} cannot be had: {problem}")
    given = []
    for granted in record.granted:
        ids = sorted(granted.ids, key=lambda each: order.get(each, len(order)))
        devices = tuple(found.get(each) or Device(record.name, each, granted.shared) for each in ids)
        for device in devices if strict else ():
            if device.id not in found:
                raise Conflict(f"device {device.id!r} of {record.name!r} is not there any more")
            if device.problem:
                raise Conflict(f"device {device.id!r} of {record.name!r} cannot be had: {device.problem}")
        given.append(Given(granted.claim, _config(granted), devices))
    return Grant(record.key, record.name, tuple(given), record.executor, record.app)


async def _prepared(plugin: DevicePlugin, grant: Grant) -> Setup:
    """A fault of the plugin is told as one, and as nothing else."""
    try:
        setup = await _bounded(plugin.prepare(grant), PREPARE_S, f"preparing {grant.name}")
    except EdgermError:
        raise
    except Exception as error:
        if not isinstance(error, OSError):
            log.error("a device plugin failed", plugin=plugin.name, task=str(grant.task), exc_info=error)
        raise Conflict(f"{grant.name} could not be prepared: {str(error) or type(error).__name__}") from error
    try:
        check_setup(setup)
    except Invalid as error:
        raise Conflict(f"{grant.name}: what its plugin {plugin.name} gives cannot be: {error}") from None
    return setup


async def _network(key: TaskKey, executor: object) -> str:
    """The task's network namespace. Raises `Invalid` for an executor whose tasks have none of their own."""
    if isinstance(executor, Networks):
        return await executor.network(key)
    kind = getattr(executor, "name", "this")
    raise Invalid(
        f"{NETWORKS}: a task of executor {kind} has no network of its own: run it in a container, or as a process"
    )


async def _bounded(work: Awaitable[T], within_s: float, what: str) -> T:
    """Raises `Unavailable` for what took longer."""
    try:
        async with asyncio.timeout(within_s):
            return await work
    except TimeoutError as error:
        raise Unavailable(f"{what} took longer than {within_s:g} s") from error
