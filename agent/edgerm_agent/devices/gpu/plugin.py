"""The plugin of NVIDIA's GPUs: which there are, what a task gets of them, and that nobody is on one given back.

Nothing of a GPU is changed for a task, so there is nothing to revert: `release` only looks.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from edgerm import logs
from edgerm.core import metadata
from edgerm.core.devices import Device, Inventory
from edgerm.core.errors import Conflict, Unavailable
from edgerm.plugin.device import Grant, HostFiles, NotClean, Setup
from edgerm_agent.config import Gpu as Settings
from edgerm_agent.devices.gpu import parts
from edgerm_agent.devices.gpu.parts import CLASS, GPU_CLASS, Gpu

LOOK_S = 30.0
LEAVE_S = 5.0  # a process that was killed may be on the card for so long
LEAVE_LOOK_S = 0.25

log = logs.get("agent.devices.gpu")


class Driver(Protocol):
    """NVIDIA's driver, as far as it matters here. Raises `Unavailable` while there is none."""

    def gpus(self) -> tuple[Gpu, ...]:
        """All that can be given."""
        ...

    def users(self, uuid: str) -> tuple[int, ...]:
        """The processes that use a GPU."""
        ...


class NoDriver:
    """What stands for the driver of a box that has none."""

    def gpus(self) -> tuple[Gpu, ...]:
        """None."""
        return ()

    def users(self, uuid: str) -> tuple[int, ...]:
        """Nobody."""
        return ()


def create(settings: Settings, host: HostFiles) -> GpuPlugin:
    """The plugin, with the driver of this box; fakes need none."""
    if not any(host.exists(path) for path in parts.DRIVER):
        return GpuPlugin(settings, host, NoDriver())
    from edgerm_agent.devices.gpu.nvml import Nvml  # noqa: PLC0415 - 14 000 lines that most boxes have no use for

    return GpuPlugin(settings, host, Nvml())


class GpuPlugin:
    """Class `nvidia.com/gpu`: exclusive, without configuration."""

    name = "gpu"

    def __init__(self, settings: Settings, host: HostFiles, driver: Driver, look_s: float = LOOK_S) -> None:
        self._host = host
        self._driver = driver
        self._look_s = look_s
        self._fakes = tuple(
            Device(CLASS, fake.id, metadata=metadata.to_text(fake.metadata), fake=True) for fake in settings.fake
        )
        self._gpus: tuple[Gpu, ...] = ()

    async def watch(self) -> AsyncIterator[Inventory]:
        """At once, and whenever a look finds something else."""
        told: Inventory | None = None
        while True:
            self._gpus = await asyncio.to_thread(self._look)
            found = Inventory((GPU_CLASS,), (*map(parts.device_of, self._gpus), *self._fakes))
            if found != told:
                yield found
                told = found
            await asyncio.sleep(self._look_s)

    def _look(self) -> tuple[Gpu, ...]:
        try:
            found = self._driver.gpus()
        except Unavailable as error:
            log.debug("no GPU of NVIDIA", error=str(error))
            found = ()
        return parts.with_missing(found, self._gpus)

    async def prepare(self, grant: Grant) -> Setup:
        """By the engine's interface for devices if it knows these GPUs, else by NVIDIA's runtime, else node by node.

        Processes and modules see the box's own nodes: they get the variables.
        """
        uuids = tuple(device.id for device in grant.devices)
        real = [self._known(device.id) for device in grant.devices if not device.fake]
        if grant.executor in ("process", "wasm") or not real:
            return Setup(env=parts.variables(uuids))
        if await asyncio.to_thread(self._has_cdi):
            return Setup(env=parts.variables(uuids), cdi_names=tuple(f"{CLASS}={uuid}" for uuid in uuids))
        if any(self._host.exists(path) for path in parts.TOOLKIT):
            return Setup(env=parts.variables(uuids, toolkit=True), runtime="nvidia")
        return await self._by_hand(uuids, real)

    def _known(self, uuid: str) -> Gpu:
        found = next((gpu for gpu in self._gpus if gpu.uuid == uuid), None)
        if found is None or found.problem:
            raise Conflict(f"GPU {uuid} cannot be had: {found.problem if found else 'the driver does not name it'}")
        return found

    def _has_cdi(self) -> bool:
        for folder in parts.CDI_FOLDERS:
            try:
                names = self._host.names(folder)
                if any(parts.describes_gpus(self._host.read(f"{folder}/{name}")) for name in names):
                    return True
            except OSError:
                continue
        return False

    async def _by_hand(self, uuids: Sequence[str], gpus: Sequence[Gpu]) -> Setup:
        wanted = [parts.card_node(gpu) for gpu in gpus]
        wanted += [path for path in parts.CONTROL_NODES if self._host.exists(path)]
        for gpu in gpus:
            wanted += filter(None, (parts.parse_capability(self._host.read(f)) for f in parts.capability_files(gpu)))
        libraries = parts.parse_libraries(await self._host.run("ldconfig", "-p"))
        nodes = parts.nodes_of(dict.fromkeys(wanted))
        return Setup(env=parts.variables(uuids), nodes=nodes, mounts=libraries)

    async def release(self, grant: Grant) -> None:
        """Verify that no process is on the GPUs; one that was killed may take some seconds to leave."""
        uuids = [device.id for device in grant.devices if not device.fake]
        until = asyncio.get_running_loop().time() + LEAVE_S
        while users := await asyncio.to_thread(self._users, uuids):
            if asyncio.get_running_loop().time() >= until:
                raise NotClean(users)
            await asyncio.sleep(LEAVE_LOOK_S)

    def _users(self, uuids: Sequence[str]) -> str:
        """Who is on them, in words; empty: nobody."""
        try:
            found = {uuid: self._driver.users(uuid) for uuid in uuids}
        except Unavailable as error:
            return f"the driver does not say who uses it: {error}"
        return "; ".join(f"{uuid} is used by pid {', '.join(map(str, pids))}" for uuid, pids in found.items() if pids)
